"""Starting a run from an earlier one: its settings and plan, and its weights matched by role."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crossvox.config.registry import build_method
from crossvox.config.run_config import RunConfig
from crossvox.config.settings import Settings
from crossvox.errors import UsageError
from crossvox.methods.base import Method
from crossvox.networks.pretrained.carrying import ClassMap, Fate, carry
from crossvox.training.checkpoint import load_weights
from crossvox.utils.files import sha256
from crossvox.workflows.run import Run
from crossvox.workflows.validation.learnt import LearntScan, read_learnt, unrecorded

START = "start.json"
"""File of a run that lists what became of each tensor at the start."""

BACKBONE = ("encoder", "decoder")
"""Roles that know nothing of other modalities."""


@dataclass(frozen=True)
class Start:
    """An earlier run to start from.

    Attributes:
        run: its description.
        method: its method with the weights of the checkpoint that it would predict with; the last
            ones of a run that was interrupted before any validation.
        file: that checkpoint.
        digest: the file's SHA-256.
        step: number of steps that these weights were trained.
        learnt: the scans whose labels it learnt from.
    """

    run: Run
    method: Method
    file: Path
    digest: str
    step: int
    learnt: tuple[LearntScan, ...] = ()

    @property
    def kinds(self) -> Mapping[str, str]:
        """Modality → kind of its scans."""
        return self.run.preprocessing.kinds

    def modality(self, name: str, kind: str) -> str:
        """Return the modality of the earlier run whose networks `name` starts from.

        It is the one of that name, else the first of the same kind, else the first of all.
        """
        alike = [m for m, other in self.kinds.items() if other == kind]
        return name if name in self.kinds else [*alike, *self.kinds][0]


@dataclass(frozen=True)
class StartReport:
    """What became of each tensor of a method that started from an earlier run.

    Attributes:
        fates: name of the tensor → its fate; sources have their full names.
        modalities: modality → the earlier run's modality that it started from.
    """

    fates: Mapping[str, Fate]
    modalities: Mapping[str, str]

    @property
    def counts(self) -> Counter[str]:
        """Outcome → number of tensors."""
        return Counter(fate.outcome for fate in self.fates.values())

    def document(self, start: Start) -> str:
        """Return the text of `start.json`."""
        tensors = {name: asdict(fate) for name, fate in self.fates.items()}
        content = {**describe_start(start), "modalities": self.modalities, "tensors": tensors}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


NOT_CARRIED = ("out", "store", "labelled", "label_draw", "start_from", "replan")
"""Settings that a run does not take over from the one that it starts from."""


def with_start_settings(sources: Sequence[Settings]) -> list[Settings]:
    """Put the settings of the run to start from below those that were given.

    So a run that goes on from an earlier one has its method, backbone and training, unless told
    otherwise. If a preset is given, only the data set is taken over.

    Args:
        sources: of files and of the command line; later ones override earlier ones.

    Raises:
        UsageError: they name a run to start from, and there is none.
        DataError: its files are damaged.
    """
    given: dict[str, Any] = {}
    for source in sources:
        given |= source.values
    if given.get("start_from") is None:
        return list(sources)
    if not isinstance(given["start_from"], str | Path):
        raise UsageError(f"start_from is {given['start_from']!r}; expected the path of a run")
    path = Path(given["start_from"])
    carried = Run.load(path).config.to_dict()
    for name in NOT_CARRIED:
        del carried[name]
    if given.get("preset"):
        carried = {name: carried[name] for name in ("data", "root")}
    if given.get("data"):
        del carried["data"], carried["root"]
    return [Settings(carried, str(path / "config.yaml")), *sources]


def read_start(config: RunConfig) -> Start | None:
    """Read the run that a new one starts from; None if there is none.

    Raises:
        UsageError: no run is there, it has no checkpoint, or one of the two runs alone has
            published weights or another backbone.
        DataError: its files are damaged.
    """
    if config.start_from is None:
        return None
    path = config.start_from
    run = Run.load(path)
    theirs, ours = run.config.backbone["name"], config.backbone["name"]
    if theirs != ours:
        raise UsageError(
            f"--start-from {path}: its backbone is '{theirs}' and not '{ours}'; "
            f"add --backbone {theirs}, or start from another run"
        )
    if (run.config.weights is None) != (config.weights is None):
        do = "leave --weights out" if run.config.weights is None else "add --weights FILE as there"
        began = "random numbers" if run.config.weights is None else "published weights"
        raise UsageError(
            f"--start-from {path}: began from {began} and this run does not, so that the two "
            f"networks would not be built alike; {do}"
        )
    file = _checkpoint(run)
    method = build_method(run.task, run.config)
    facts = load_weights(file, method)
    step = int(facts.get("step", 0))
    return Start(run, method, file, sha256(file), step, tuple(read_learnt(path)))


def _checkpoint(run: Run) -> Path:
    """Return the weights to start from: the best ones, or the last ones before any validation."""
    try:
        return run.checkpoint("best")
    except UsageError:
        return run.checkpoint("last")


def load_start(method: Method, start: Start, run: Run) -> StartReport:
    """Fill a new method from an earlier run, then let its moving averages begin as copies.

    Networks are matched by role (`Method.roles`), their tensors by name and shape, and classes by
    name. A modality that the earlier run does not know starts from another one's networks.
    Networks that several modalities share, other than encoder and decoder, are taken only if both
    runs have the same modalities.

    Args:
        method: with random weights, or published ones.
        start: the earlier run.
        run: the new run, which `method` was built for.

    Raises:
        UsageError: no tensor of weights matches.
    """
    task, before = method.task, start.method
    classes = ClassMap(task.classes, before.task.classes)
    larger = method if classes.same else _with_another_class(run)
    modalities = {m: start.modality(m, run.preprocessing.kinds[m]) for m in task.modalities}
    named, sources = _names(method), _names(before)
    same_modalities = task.modalities == before.task.modalities
    fates: dict[str, Fate] = {}
    for m, other in modalities.items():
        theirs = before.roles(other)
        for role, network in method.roles(m).items():
            prefix, source = named[network], theirs.get(role)
            shared = _is_shared(method, m, role) or _is_shared(before, other, role)
            if source is None or (shared and role not in BACKBONE and not same_modalities):
                found = dict.fromkeys(network.state_dict(), Fate("new"))
            elif any(prefix + name in fates for name in network.state_dict()):
                continue  # filled for an earlier modality
            else:
                found = carry(network, source, classes, larger.roles(m)[role])
                found = {n: _in_full(fate, sources[source]) for n, fate in found.items()}
            fates |= {prefix + name: fate for name, fate in found.items()}
    report = StartReport(fates, modalities)
    # Biases of the output layer have the same shape whatever the network.
    state = method.state_dict()
    taken = [name for name, fate in fates.items() if fate.outcome in ("taken", "in part")]
    if not any(state[name].ndim > 1 for name in taken):
        options = " ".join(f"{k}={v}" for k, v in start.run.config.backbone.items() if k != "name")
        raise UsageError(
            f"--start-from {start.run.path}: {before.name} on {start.run.config.backbone['name']} "
            f"({options}) has no weights that {method.name} could start from here"
            f"{_first_misshaped(fates)}; take its backbone's options, or another run"
        )
    method.after_start()
    return report


def describe_start(start: Start) -> dict[str, Any]:
    """Return what `run.json` records of the run that another one starts from."""
    return {
        "run": str(start.run.path),
        "checkpoint": start.file.name,
        "sha256": start.digest,
        "step": start.step,
        "method": start.method.name,
    }


def summarise_start(start: Start, report: StartReport) -> Iterator[str]:
    """Yield lines for the user: how much was taken, and what was not."""
    counts, fates = report.counts, report.fates
    yield (
        f"start        {start.run.path}, {start.method.name} after {start.step} steps: "
        f"{counts['taken']} of {len(fates)} tensors taken as they are"
    )
    if unrecorded([start.run]):
        yield "             no record of the scans it learnt from, so they are not kept from scores"
    for outcome, words in (
        ("in part", "taken for some classes"),
        ("other shape", "of another shape, begin anew"),
        ("new", "not in that run, begin anew"),
    ):
        names = [name for name, fate in fates.items() if fate.outcome == outcome]
        if names:
            note = fates[names[0]].note
            first = names[0] + (f": {note}" if note else "")
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            yield f"             {len(names)} {words} ({first}{more})"
    others = [f"{m} from {other}" for m, other in report.modalities.items() if m != other]
    if others:
        yield f"             modalities that it does not know: {', '.join(others)}"


def _with_another_class(run: Run) -> Method:
    """Return the method as it would be with one class more, without memory for its weights."""
    task = run.task
    names = (*task.classes, "another")
    with torch.device("meta"):
        return build_method(replace(task, classes=names, offsets=()), run.config)


def _is_shared(method: Method, modality: str, role: str) -> bool:
    """Return whether another modality's images pass through the network as well."""
    network = method.roles(modality).get(role)
    others = [m for m in method.task.modalities if m != modality]
    return network is not None and any(method.roles(m).get(role) is network for m in others)


def _names(method: Method) -> dict[nn.Module, str]:
    """Return network → what the names of its tensors begin with in the method's state."""
    return {module: f"{name}." if name else "" for name, module in method.named_modules()}


def _in_full(fate: Fate, prefix: str) -> Fate:
    return replace(fate, source=prefix + fate.source) if fate.source else fate


def _first_misshaped(fates: Mapping[str, Fate]) -> str:
    for name, fate in fates.items():
        if fate.outcome == "other shape":
            return f" (first {name}: {fate.note})"
    return ""
