"""The shipped presets, and how one set of values is put over another."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from crossvox.errors import UsageError

PLUGINS = ("method", "backbone")
"""The parts of a configuration that name a class (`name`) and hold that class's own options."""

MOST_VALUES = 100_000
"""In a YAML file, its aliases written out."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises `UsageError` if there is none to read."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read this configuration ({error.strerror})") from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply; write it flat") from None
    except (yaml.YAMLError, ValueError) as error:
        where = " ".join(str(error).split())
        raise UsageError(f"{path}: not a YAML file ({where})") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    if _spelt_out(values) > MOST_VALUES:
        raise UsageError(
            f"{path}: its aliases (*name) stand for more than {MOST_VALUES} values; write them out"
        )
    return values


def _spelt_out(value: Any, known: dict[int, int] | None = None) -> int:
    """How many values a YAML document has with each alias written out; endless if it holds itself.

    A file of a few lines can stand for billions of them, which whoever walks through it pays for.
    """
    known = {} if known is None else known
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_VALUES + 1  # what it is until its end is reached: itself within
        parts = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_spelt_out(part, known) for part in parts)
    return known[id(value)]


def presets() -> dict[str, str]:
    """Name → one-line summary (the file's first comment) of every shipped preset."""
    folder = resources.files("crossvox") / "presets"
    files = {f.name.removesuffix(".yaml"): f for f in folder.iterdir() if f.name.endswith(".yaml")}
    return {
        name: file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        for name, file in sorted(files.items())
    }


def load_preset(name: str) -> dict[str, Any]:
    """The values of a shipped preset; raises `UsageError` with the valid names."""
    if name not in presets():
        raise UsageError(f"unknown preset '{name}'; choose from {', '.join(presets())}")
    text = (resources.files("crossvox") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    return {"preset": name, **yaml.safe_load(text)}


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` overridden by `over`, section by section.

    Where `over` names another method or backbone, the options of the old one are dropped: options
    that happen to share a name mean something else there.
    """
    merged = dict(base)
    for key, value in over.items():
        before = merged.get(key)
        if not (isinstance(value, dict) and isinstance(before, dict)):
            merged[key] = value
        elif key in PLUGINS and value.get("name", before.get("name")) != before.get("name"):
            merged[key] = dict(value)
        else:
            merged[key] = {**before, **value}
    return merged
