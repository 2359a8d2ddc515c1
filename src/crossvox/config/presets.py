"""Read the shipped presets, and merge settings."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml

from crossvox.errors import UsageError

COMPONENTS = ("method", "backbone")
"""Parts of a configuration that name a class (`name`) and hold that class's own options."""


def presets() -> dict[str, str]:
    """Return the shipped presets: name → one-line summary, the first comment of its file."""
    folder = resources.files("crossvox.config") / "presets"
    files = {f.name.removesuffix(".yaml"): f for f in folder.iterdir() if f.name.endswith(".yaml")}
    return {
        name: file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        for name, file in sorted(files.items())
    }


def load_preset(name: str) -> dict[str, Any]:
    """Return the values of a shipped preset; raise `UsageError` with the valid names.

    `with_method_options` completes them once the method is known.
    """
    if str(name) not in presets():
        raise UsageError(f"unknown preset '{name}'; choose from {', '.join(presets())}")
    text = (resources.files("crossvox.config") / "presets" / f"{name}.yaml").read_text(
        encoding="utf-8"
    )
    return {"preset": name, **yaml.safe_load(text)}


def with_method_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings over a preset, in which the method has what the preset says of it.

    A preset may hold `methods`, options by name of a method. Those of the method in use go below
    its own; the key itself is left out.

    >>> with_method_options({"method": {"name": "sup"}, "methods": {"sup": {"balance": 0}}})
    {'method': {'name': 'sup', 'balance': 0}}
    """
    own = values.get("methods", {}).get(values["method"].get("name"), {})
    rest = {key: value for key, value in values.items() if key != "methods"}
    return {**rest, "method": {**own, **values["method"]}}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` overridden by `over`, section by section.

    Where `over` names another method or backbone, the options of the former one are dropped, since
    an option of the same name may mean something else there.

    >>> merge({"fit": {"lr": 1, "steps": 5}}, {"fit": {"lr": 2}})
    {'fit': {'lr': 2, 'steps': 5}}
    """
    merged = dict(base)
    for key, value in over.items():
        before = merged.get(key)
        if not (isinstance(value, dict) and isinstance(before, dict)):
            merged[key] = value
        elif key in COMPONENTS and value.get("name", before.get("name")) != before.get("name"):
            merged[key] = dict(value)
        else:
            merged[key] = {**before, **value}
    return merged
