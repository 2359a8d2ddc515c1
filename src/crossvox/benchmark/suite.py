"""The suite of a benchmark: data sets, label counts, methods and seeds to compare, from YAML."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crossvox.config.presets import load_preset, merge
from crossvox.config.registry import declared
from crossvox.config.settings import Settings
from crossvox.data.manifest import SPLITS
from crossvox.errors import UsageError
from crossvox.inference.settings import Largest
from crossvox.utils.documents import read_yaml

GRID = ("data", "root", "out", "store", "method", "labelled", "label_draw", "seed", "preset",
        "start_from")  # fmt: skip
"""Settings of a run that the grid decides on; `set` must not name them."""

RULES: tuple[Largest, ...] = ("always", "never")
"""Rules for label maps that a test can ask for."""


@dataclass(frozen=True)
class MethodRow:
    """A row of the tables: a method with its options.

    Attributes:
        label: name of the row in the tables.
        method: name of the method.
        options: options of the method.
        set: further settings of the run; they replace the suite's.
        only: modality whose scans alone are used in training and test; "first" and "last" mean
            the data set's first and last modality. Empty uses all.
        labelled: label count of this row in every table, such as "all" for an upper bound; empty
            takes the table's.
    """

    label: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    only: str = ""
    labelled: str = ""


@dataclass(frozen=True)
class Variants:
    """Tests of a trained run in addition to the plain one.

    Attributes:
        subsets: give the method every subset of the modalities that leaves a scan of a subject out.
        shift_mm: shifts to impose on one modality's scans.
        rotate_deg: rotations to impose on one modality's scans.
        modality: the modality to move; empty means the data set's last.
        largest: rules for label maps that are the same for all methods, whose own weights of
            classes do not count: "always" keeps one component of each class that is one piece in
            the labelled scans, "never" keeps all.
    """

    subsets: bool = False
    shift_mm: tuple[float, ...] = ()
    rotate_deg: tuple[float, ...] = ()
    modality: str = ""
    largest: tuple[Largest, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """Pictures to draw of the trained runs of the first seed.

    Attributes:
        cases: ids of cases whose predictions are drawn side by side.
        attention: also draw feature maps and Grad-CAM, of these cases or, if there are none, of
            each modality's first case.
    """

    cases: tuple[str, ...] = ()
    attention: bool = False


@dataclass(frozen=True)
class Start:
    """A short training from whose weights the rows begin.

    A row begins from as many steps of its own method, or of `Method.starts_as`, if it cannot take
    the networks or they would mislead it (`Method.own_start`), and on registered sets: encoders
    that were one network before see too much alike for a fusion.

    Attributes:
        method: name of the method.
        steps: number of its steps.
        options: options of the method.
    """

    method: str
    steps: int
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """A grid of runs: data sets × label counts × steps × methods × seeds.

    Attributes:
        name: name of the suite.
        methods: the rows of the tables.
        title: one line for the report.
        data: name → dataset.json; empty takes those that the command names.
        root: folder below which the files of all data sets must lie; None takes each manifest's
            folder.
        labels: label counts, as `crossvox train --labelled` takes them.
        steps: lengths of a training, those of the start not counted; empty takes `fit.steps` of
            the settings.
        seeds: seeds of the runs.
        fewer_seeds: length of a training → those of `seeds` that it has, where it has not all.
        label_draw: "first" takes the first labelled cases, "seed" draws others with each seed.
        preset: starting values of every run.
        set: settings of every run; they replace the preset's.
        split: the split to score.
        checkpoint: the checkpoint to score, "last" or "best".
        variants: further tests of every run.
        pictures: what to draw.
        reference: label of the row that the others are compared with.
        start: what every row begins from; None begins from random or published weights.
    """

    name: str
    methods: tuple[MethodRow, ...]
    title: str = ""
    data: dict[str, Path] = field(default_factory=dict)
    root: Path | None = None
    labels: tuple[str, ...] = ("all",)
    steps: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0,)
    fewer_seeds: dict[int, list[int]] = field(default_factory=dict)
    label_draw: str = "first"
    preset: str = "cpu"
    set: dict[str, Any] = field(default_factory=dict)
    split: str = "test"
    checkpoint: str = "last"
    variants: Variants = Variants()
    pictures: Pictures = Pictures()
    reference: str = "cmc"
    start: Start | None = None

    def __post_init__(self) -> None:
        named: tuple[tuple[str, list[Any]], ...] = (
            ("data set", [slug(name) for name in self.data]),
            ("label of a method", [slug(row.label) for row in self.methods]),
            ("label count", list(self.labels)),
            ("number of steps", list(self.steps)),
            ("seed", list(self.seeds)),
        )
        for what, names in named:
            if twice := [name for name in names if names.count(name) > 1]:
                raise UsageError(f"{self.name}: {what} '{twice[0]}' is named twice; name it once")
        if not (self.methods and self.labels and self.seeds):
            raise UsageError(f"{self.name}: needs a method, a label count and a seed at least")
        own = (self.set, *(row.set for row in self.methods))
        if self.steps and any("steps" in values.get("fit", {}) for values in own):
            raise UsageError(
                f"{self.name}: 'set' holds fit.steps beside the suite's 'steps'; give one of them"
            )
        _choice(self.name, "label_draw", self.label_draw, ("first", "seed"))
        _choice(self.name, "split", self.split, SPLITS)
        _choice(self.name, "checkpoint", self.checkpoint, ("last", "best"))
        load_preset(self.preset)

    def with_data(self, given: Mapping[str, Path]) -> Suite:
        """Return the suite on these data sets, or with these paths instead of its own.

        Raises:
            UsageError: the suite does not know a name, or there is no data set.
        """
        for name in given:
            if self.data and name not in self.data:
                raise UsageError(
                    f"--data {name}: no such data set in {self.name}; "
                    f"choose from {', '.join(self.data)}"
                )
        data = {**self.data, **given}
        if not data:
            raise UsageError(f"{self.name} names no data set; give --data NAME=DATASET.json")
        return replace(self, data=data)


def load_suite(path: Path, over: Mapping[str, Any] | None = None) -> Suite:
    """Read the YAML file of a suite.

    Args:
        path: the file; paths of data sets in it are relative to its folder.
        over: values that replace those of the file, as from the command line; `set`, `variants` and
            `pictures` change what they name.

    Raises:
        UsageError: a key, method or preset is unknown, or a value has the wrong type.

    Example:
        suite = load_suite(Path("benchmarks/quick.yaml")).with_data({"heart": Path("dataset.json")})
    """
    own, over, where = read_yaml(path), dict(over or {}), str(path)
    changed = over.pop("set", {})
    values = merge({"name": path.stem, **own}, over)
    _keys(where, values, Suite)
    _fewer_seeds(where, own)
    for key in ("labels", "steps", "seeds", "methods"):
        if key in values and not isinstance(values[key], list):
            values[key] = [values[key]]
    _kinds(where, values, dict, "set", "data", "variants", "pictures")
    _kinds(where, values, str, "name", "title", "preset", "split", "checkpoint", "reference")
    if not values.get("methods"):
        raise UsageError(f"{where}: no 'methods'; list those to compare")
    _whole(where, "seed", values.get("seeds", [0]), 0)
    _whole(where, "steps", values.get("steps", []), 1)
    values["set"] = merge(
        _settings(f"{where}, 'set'", values.get("set", {})), _settings("--set", changed)
    )
    values["methods"] = tuple(_row(where, entry) for entry in values["methods"])
    labels = [row.label for row in values["methods"]]
    if values.get("reference", labels[0]) not in labels:
        raise UsageError(
            f"{where}: reference '{values['reference']}' is no row; choose from {', '.join(labels)}"
        )
    values["labels"] = tuple(_count(where, label) for label in values.get("labels", ["all"]))
    values["seeds"] = tuple(values.get("seeds", [0]))
    values["steps"] = tuple(values.get("steps", []))
    values["variants"] = _variants(where, values.get("variants", {}))
    values["pictures"] = _pictures(where, values.get("pictures", {}))
    values["start"] = _start(where, values.get("start"))
    if odd := [name for name, file in values.get("data", {}).items() if not isinstance(file, str)]:
        raise UsageError(f"{where}: data set '{odd[0]}' names no file; give the path of one")
    values["data"] = {
        str(name): path.parent / Path(str(file)).expanduser()
        for name, file in values.get("data", {}).items()
    }
    if values.get("root") is not None:
        values["root"] = path.parent.absolute() / Path(str(values["root"])).expanduser()
    return Suite(**values)


def slug(label: str) -> str:
    """Return a label in a form that suits a folder's name."""
    return re.sub(r"[^\w.+-]+", "-", label).strip("-")


def row_settings(suite: Suite, row: MethodRow, steps: int | None = None) -> dict[str, Any]:
    """Return a row's settings for `crossvox train`, without data, label count and seed."""
    given = merge(suite.set, row.set)
    given = given if steps is None else merge(given, {"fit": {"steps": steps}})
    return merge(given, {"method": {"name": row.method, **row.options}, "preset": suite.preset})


def takes_backbone(row: MethodRow) -> bool:
    """Return whether a backbone makes the networks of a row's method."""
    return declared("method", row.method).uses_backbone


def _row(where: str, entry: Any) -> MethodRow:
    if isinstance(entry, str):
        entry = {"method": entry}
    if not isinstance(entry, dict) or "method" not in entry:
        raise UsageError(f"{where}: method {entry!r}; expected a name, or `method: NAME` and more")
    entry = {"label": entry["method"], **entry}
    if not isinstance(entry["label"], str | int | float):
        raise UsageError(f"{where}: label {entry['label']!r} of a method; expected a text")
    label = entry["label"] = str(entry["label"])
    _keys(f"{where}, row '{label}'", entry, MethodRow)
    _kinds(f"{where}, row '{label}'", entry, dict, "options", "set")
    _kinds(f"{where}, row '{label}'", entry, str, "only")
    try:
        declared("method", entry["method"])
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    entry["set"] = _settings(f"{where}, row '{label}', 'set'", entry.get("set", {}))
    if "labelled" in entry:
        entry["labelled"] = _count(f"{where}, row '{label}'", entry["labelled"])
    return MethodRow(**entry)


def _count(where: str, value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise UsageError(f"{where}: label count {value!r}; expected 2, all or ct=4,mr=2")
    return str(value)


def _variants(where: str, values: dict[str, Any]) -> Variants:
    _keys(f"{where}, 'variants'", values, Variants)
    _kinds(f"{where}, 'variants'", values, bool, "subsets")
    _kinds(f"{where}, 'variants'", values, str, "modality")
    for key in ("shift_mm", "rotate_deg"):
        numbers = values.get(key, [])
        if not isinstance(numbers, list) or not all(
            isinstance(n, int | float) and 0 <= n < math.inf for n in numbers
        ):
            raise UsageError(f"{where}: variants.{key} is {numbers!r}; expected numbers from 0")
        values = {**values, key: tuple(float(n) for n in numbers if n)}
    rules = values.get("largest", [])
    if not isinstance(rules, list) or any(rule not in RULES for rule in rules):
        raise UsageError(
            f"{where}: variants.largest is {rules!r}; expected a list of {', '.join(RULES)}"
        )
    return Variants(**{**values, "largest": tuple(dict.fromkeys(rules))})


def _pictures(where: str, values: dict[str, Any]) -> Pictures:
    _keys(f"{where}, 'pictures'", values, Pictures)
    _kinds(f"{where}, 'pictures'", values, bool, "attention")
    cases = values.get("cases", [])
    if not isinstance(cases, list | tuple):
        raise UsageError(f"{where}: pictures.cases is {cases!r}; expected a list of cases")
    return Pictures(tuple(str(case) for case in cases), values.get("attention", False))


def _start(where: str, values: Any) -> Start | None:
    if values is None:
        return None
    if not isinstance(values, dict) or not {"method", "steps"} <= values.keys():
        raise UsageError(f"{where}: start is {values!r}; expected `method: NAME` and `steps: N`")
    where = f"{where}, 'start'"
    _keys(where, values, Start)
    _kinds(where, values, dict, "options")
    if type(values["steps"]) is not int or values["steps"] < 1:
        raise UsageError(f"{where}: steps is {values['steps']!r}; expected a number from 1")
    try:
        declared("method", values["method"])
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return Start(**values)


def _keys(where: str, values: Mapping[str, Any], kind: type) -> None:
    known = list(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    for key in values:
        if key not in known:
            raise UsageError(f"{where}: unknown key '{key}'; choose from {', '.join(known)}")


def _settings(where: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a suite or a row, nested by section."""
    values = dict(Settings(given, where).values)
    for key in values:
        if key in GRID:
            raise UsageError(
                f"{where}: holds '{key}', which the suite's own keys decide on; "
                "give it there, or as `options` of a method"
            )
    return values


def _whole(where: str, what: str, values: Sequence[Any], least: int) -> None:
    if odd := [value for value in values if type(value) is not int or value < least]:
        raise UsageError(f"{where}: {what} {odd[0]!r}; expected whole numbers from {least}")


def _fewer_seeds(where: str, own: Mapping[str, Any]) -> None:
    """Refuse `fewer_seeds` of lengths or with seeds that the suite itself does not have."""
    _kinds(where, own, dict, "fewer_seeds")
    lengths, all_seeds = (
        given if isinstance(given, list) else [given]
        for given in (own.get("steps", []), own.get("seeds", [0]))
    )
    for steps, seeds in own.get("fewer_seeds", {}).items():
        if steps not in lengths:
            raise UsageError(f"{where}: fewer_seeds of {steps!r}, which is not one of its 'steps'")
        if not isinstance(seeds, list) or not seeds or any(s not in all_seeds for s in seeds):
            raise UsageError(
                f"{where}: fewer_seeds of {steps} steps is {seeds!r}; expected a list of its seeds"
            )


def _kinds(where: str, values: Mapping[str, Any], kind: type, *keys: str) -> None:
    words = {dict: "`key: value` lines", str: "a text", bool: "true or false"}[kind]
    for key in keys:
        if key in values and not isinstance(values[key], kind):
            raise UsageError(f"{where}: '{key}' is {values[key]!r}; expected {words}")


def _choice(where: str, key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{where}: {key} is {value!r}; choose from {', '.join(choices)}")
