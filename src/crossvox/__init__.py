"""Semi-supervised, multi-modality 3-D medical image segmentation.

Names are imported when they are first asked for, so that `import crossvox` does not wait for
torch. docs/library.md shows how they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from crossvox.version import __version__

if TYPE_CHECKING:
    from crossvox.batch import Batch, Task, View
    from crossvox.data.formats.nifti import Volume
    from crossvox.data.manifest import Case, Manifest, load_manifest
    from crossvox.errors import CrossvoxError, DataError, UsageError
    from crossvox.inference.ensemble import Prediction
    from crossvox.losses.supervised import supervised_loss
    from crossvox.methods.base import Method
    from crossvox.methods.cmc import CMC
    from crossvox.methods.cmc.cac import CACLoss
    from crossvox.methods.cmc.csc import CSCLoss
    from crossvox.methods.cmc.fusion import Fusion
    from crossvox.methods.cmc.mia import MIA
    from crossvox.networks.unet import UNetBackbone
    from crossvox.workflows.predict import Options, Predictor
    from crossvox.workflows.show import show

__all__ = [
    "CMC",
    "MIA",
    "Batch",
    "CACLoss",
    "CSCLoss",
    "Case",
    "CrossvoxError",
    "DataError",
    "Fusion",
    "Manifest",
    "Method",
    "Options",
    "Prediction",
    "Predictor",
    "Task",
    "UNetBackbone",
    "UsageError",
    "View",
    "Volume",
    "__version__",
    "load_manifest",
    "show",
    "supervised_loss",
]

_HOMES = {
    "batch": ("Batch", "Task", "View"),
    "data.manifest": ("Case", "Manifest", "load_manifest"),
    "data.formats.nifti": ("Volume",),
    "errors": ("CrossvoxError", "DataError", "UsageError"),
    "inference.ensemble": ("Prediction",),
    "methods.cmc.cac": ("CACLoss",),
    "methods.cmc.csc": ("CSCLoss",),
    "losses.supervised": ("supervised_loss",),
    "methods.base": ("Method",),
    "methods.cmc": ("CMC",),
    "methods.cmc.fusion": ("Fusion",),
    "methods.cmc.mia": ("MIA",),
    "networks.unet": ("UNetBackbone",),
    "workflows.predict": ("Options", "Predictor"),
    "workflows.show": ("show",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"crossvox.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'crossvox' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
