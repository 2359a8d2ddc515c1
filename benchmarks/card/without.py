"""Import crossvox where only torch and NumPy are installed."""

from __future__ import annotations

import importlib
import sys
import types

NEEDS = {
    "monai": ("crossvox.networks.universal.swinunetr", "UniversalSwinUNETRBackbone"),
    "scipy": ("crossvox.utils.connected_components", "keep_largest_components"),
}
"""Package → the module of networks and losses that needs it, and what others import of that."""


def spare_packages() -> None:
    """Stand in for modules whose package is missing; what they hold raises when it is called."""
    for package, (name, public) in NEEDS.items():
        try:
            importlib.import_module(package)
        except ModuleNotFoundError:
            stand_in = types.ModuleType(name)
            setattr(stand_in, public, _absent(public, package))
            sys.modules.setdefault(name, stand_in)


def _absent(public: str, package: str) -> type:
    def refuse(self: object, *arguments: object, **options: object) -> None:
        raise ModuleNotFoundError(f"{public} needs {package}, which is not installed here")

    return type(public, (), {"__init__": refuse})
