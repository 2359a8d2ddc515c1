"""Run directories: what lies in them, and how a trained method comes out again."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossvox.batch import CropRule, Task
from crossvox.config.run_config import RunConfig
from crossvox.data.manifest.selection import Selection
from crossvox.data.prepare.plan import Plan
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.errors import DataError, UsageError
from crossvox.methods import METHODS
from crossvox.methods.base import Method
from crossvox.networks.backbone import BACKBONES
from crossvox.training.record import read_config
from crossvox.utils.documents import parse_json

PLAN = "plan.json"
TRIPLE = re.compile(r"\[\n\s*([^\s,]+),\n\s*([^\s,]+),\n\s*([^\s,]+)\n\s*\]")
"""Three values, each on a line of its own, which no string of a JSON document can hold."""

REGISTRIES: dict[str, Mapping[str, type]] = {"method": METHODS, "backbone": BACKBONES}
"""Part of a configuration → the classes that it may name."""

NO_OPTIONS = frozenset({"task", "backbone", "pretrained"})
"""What these are made from that the rest of the configuration decides on."""


@dataclass(frozen=True)
class Run:
    """A run directory's description, everything but the weights.

    Attributes:
        path: the directory.
        config: what was asked for.
        plan: grid, crop and preprocessing.
        selection: the labelled and the unlabelled images.
        labels: class name → id in label files.
    """

    path: Path
    config: RunConfig
    plan: Plan
    selection: Selection
    labels: dict[str, int]

    @property
    def task(self) -> Task:
        """What the run's method segments."""
        return self.plan.task

    @property
    def preprocessing(self) -> Preprocessing:
        """How its scans are prepared."""
        return self.plan.preprocessing

    def checkpoint(self, name: str) -> Path:
        """The file of the checkpoint `best` or `last`; raises `UsageError` if there is none."""
        path = self.path / "checkpoints" / f"{name}.safetensors"
        if not path.exists():
            found = sorted(file.stem for file in path.parent.glob("*.safetensors"))
            raise UsageError(
                f"{self.path}: no checkpoint '{name}' yet; "
                + (f"choose from {', '.join(found)}" if found else "train the run first")
            )
        return path

    def document(self) -> str:
        """The text of `plan.json`; the configuration is the engine's to keep."""
        plan = {
            "task": self.task.to_dict(),
            "preprocessing": self.plan.preprocessing.to_dict(),
            "selection": {
                "labelled": self.selection.labelled,
                "unlabelled": self.selection.unlabelled,
            },
            "labels": self.labels,
        }
        # Three values on one line: there are as many of these as pairs of classes.
        return TRIPLE.sub(r"[\1, \2, \3]", json.dumps(plan, indent=1, ensure_ascii=False)) + "\n"

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read a run directory.

        Raises:
            UsageError: there is none.
            DataError: its files are damaged.
        """
        path = Path(path)
        config = complete(RunConfig.from_dict(read_config(path)), made=True)
        if not (path / PLAN).exists():
            raise UsageError(f"{path}: its training ended before it began; train it again")
        try:
            plan = parse_json((path / PLAN).read_text(encoding="utf-8"))
            return cls(
                path,
                config,
                Plan(Task.from_dict(plan["task"]), Preprocessing.from_dict(plan["preprocessing"])),
                Selection(**{name: _tuples(pool) for name, pool in plan["selection"].items()}),
                plan["labels"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path / PLAN}: damaged ({error}); train the run again") from error


def plugin(part: str, name: Any) -> type:
    """The class that a `method` or `backbone` names; raises `UsageError` with the choices."""
    choices = REGISTRIES[part]
    if not isinstance(name, str) or name not in choices:
        raise UsageError(f"unknown {part} '{name}'; choose from {', '.join(choices)}")
    return choices[name]


def with_defaults(part: str, given: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """A `method` or `backbone` that a run was made with, with the options that only `asked` names.

    So is what a version wrote that knew fewer options compared with what is asked for. These take
    what was done before they were there: their defaults, unless their class says otherwise
    (`Method.formerly`).

    Raises:
        UsageError: `given`, as a file has it, names nothing that there is.
    """
    given = given if isinstance(given, Mapping) else {}
    kind = plugin(part, given.get("name"))
    known, formerly = inspect.signature(kind).parameters, getattr(kind, "formerly", {})
    new = [name for name in asked if name in known and name not in given]
    return {**given, **{name: formerly.get(name, known[name].default) for name in new}}


def complete(config: RunConfig, *, made: bool = False) -> RunConfig:
    """The configuration with all options of its method and backbone, to be written with a run.

    A method or backbone that there is not stays as it is: who builds it refuses it.

    Args:
        config: with some options, or all.
        made: whether a run was made with it, maybe by a version that knew fewer options; what is
            missing then is as `with_defaults` says.
    """
    return replace(
        config,
        method=_filled("method", config.method, made),
        backbone=_filled("backbone", config.backbone, made),
    )


def _filled(part: str, given: dict[str, Any], made: bool) -> dict[str, Any]:
    kind = REGISTRIES[part].get(str(given.get("name")))
    known = {} if kind is None else inspect.signature(kind).parameters
    options = {key: p.default for key, p in known.items() if p.default is not p.empty}
    options = {key: value for key, value in options.items() if key not in NO_OPTIONS}
    return (
        with_defaults(part, given, options) if made and options else {**given, **options, **given}
    )


def crop_rule(backbone: dict[str, Any]) -> CropRule | None:
    """The crops that a backbone takes, by its `name` and options; None = the plan's strides.

    Raises:
        UsageError: with these options it takes none.
    """
    rule = getattr(plugin("backbone", backbone["name"]), "crop", None)
    try:
        return None if rule is None else rule(**_options("backbone", backbone))
    except ValueError as error:
        raise UsageError(str(error)) from error


def is_aligned(task: Task, config: RunConfig) -> bool:
    """Whether a run brings the scans of a subject over each other before it looks at them."""
    needs = getattr(plugin("method", config.method["name"]), "needs", ())
    return config.sampling.align and bool(needs) and task.paired and not task.registered


def build_method(task: Task, config: RunConfig) -> Method:
    """The configured method over the configured backbone, with fresh weights.

    Published weights are not looked at, only whether there are any: a run's own checkpoint has
    all that came of them.

    Raises:
        UsageError: an option is not known, its value out of range, or does not fit the plan.
    """
    try:
        options = _options("backbone", config.backbone)
        kind = plugin("backbone", config.backbone["name"])
        if hasattr(kind, "published"):
            options["pretrained"] = config.weights is not None
        backbone = kind(task, **options)
        options = _options("method", config.method)
        return plugin("method", config.method["name"])(task, backbone, **options)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _options(part: str, given: dict[str, Any]) -> dict[str, Any]:
    """What a `method` or `backbone` is made with; all of it must be known."""
    name, options = given["name"], {key: value for key, value in given.items() if key != "name"}
    parameters = inspect.signature(plugin(part, name)).parameters
    known = [key for key in parameters if key not in NO_OPTIONS]
    unknown = [key for key in options if key not in known]
    if unknown:
        raise UsageError(
            f"{part} '{name}' has no option '{unknown[0]}' (only {', '.join(known) or 'none'}); "
            "a run with it is of another version of crossvox: use the one that its run.json names"
        )
    return options


def _tuples(pool: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {modality: tuple(cases) for modality, cases in pool.items()}
