"""The run directory: its configuration, its plan and its checkpoints."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossvox.batch import Task
from crossvox.config.registry import require_plug_ins
from crossvox.config.run_config import RunConfig
from crossvox.data.checks.seen import Seen
from crossvox.data.manifest.selection import Selection
from crossvox.data.prepare import preprocess
from crossvox.data.prepare.plan import Ceiling, Plan
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.errors import DataError, UsageError
from crossvox.training.checkpoint import read_state
from crossvox.training.record import FOLDS, holds_run, read_config, read_facts
from crossvox.utils.documents import parse_json, read_yaml
from crossvox.version import __version__

PLAN = "plan.json"
FORMAT = 1
"""Format of `plan.json`; a file of another one is refused."""
TRIPLE = re.compile(r"\[\n\s*([^\s,]+),\n\s*([^\s,]+),\n\s*([^\s,]+)\n\s*\]")
"""Three values, each on a line of its own, as no string of a JSON document can be."""


@dataclass(frozen=True)
class Run:
    """The description of a run directory: everything but the weights.

    >>> run = Run.load(Path("runs/cmc"))
    >>> run.task.classes, run.checkpoint("best")
    (('liver', 'spleen'), PosixPath('runs/cmc/checkpoints/best.safetensors'))

    Attributes:
        path: the directory.
        config: the configuration it was trained with.
        plan: grid, crop size and preprocessing.
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
        """Modalities, classes and grid of the run."""
        return self.plan.task

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the run's scans."""
        return self.plan.preprocessing

    @property
    def mark(self) -> str:
        """Sixteen hexadecimal digits that tell this run from others, wherever it lies."""
        content = [read_facts(self.path).get("started"), self.config.to_dict(), self.document()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def checkpoint(self, name: str | None = None) -> Path:
        """Return the file of a checkpoint.

        Args:
            name: `best` or `last`; None = `best`, or the `last` one of a finished run that no
                validation chose a `best` one for.

        Raises:
            UsageError: there is no such checkpoint, or the run is not finished.
        """
        folder = self.path / "checkpoints"
        path = folder / f"{name or 'best'}.safetensors"
        if path.exists():
            return path
        last = folder / "last.safetensors"
        if not last.exists():
            raise UsageError(f"{self.path}: no checkpoint yet; train the run first")
        if name is not None:
            raise UsageError(f"{self.path}: no validation chose '{name}'; take --checkpoint last")
        state, steps = read_state(last), self.config.fit.steps
        # An exported run holds no state of the optimiser, so it is not to go on.
        if (done := state.get("step")) != steps and "param_groups" in state:
            raise UsageError(
                f"{self.path}: stopped after step {done} of {steps}; go on with crossvox train "
                f"--resume {self.path}, or take --checkpoint last"
            )
        return last

    def document(self) -> str:
        """Return the text of `plan.json`."""
        plan: dict[str, Any] = {
            "format": FORMAT,
            "task": self.task.to_dict(),
            "preprocessing": self.plan.preprocessing.to_dict(),
            "seen": {m: seen.to_dict() for m, seen in self.plan.seen.items()},
            "selection": {
                "labelled": self.selection.labelled,
                "unlabelled": self.selection.unlabelled,
            },
            "labels": self.labels,
        }
        if self.plan.ceiling:
            plan["ceiling"] = {m: asdict(own) for m, own in self.plan.ceiling.items()}
        # One line per triple: the offsets hold one for each pair of classes.
        return TRIPLE.sub(r"[\1, \2, \3]", json.dumps(plan, indent=1, ensure_ascii=False)) + "\n"

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read a run directory.

        Raises:
            UsageError: `path` holds no run, or one of another crossvox version or of a plug-in that
            is not here.
            DataError: its files are damaged.
        """
        path = Path(path)
        if (path / FOLDS).exists():
            raise UsageError(
                f"{path} holds the folds of a cross-validation; name one, such as {path / 'fold_0'}"
            )
        values = read_config(path)
        require_version(path)
        require_plug_ins(read_facts(path).get("plug_ins", {}), path)
        config = RunConfig.from_dict(values)
        if not (path / PLAN).exists():
            raise UsageError(f"{path}: its training ended before it began; train it again")
        try:
            plan = parse_json((path / PLAN).read_text(encoding="utf-8"))
            _require_format(path / PLAN, plan)
            return cls(
                path,
                config,
                Plan(
                    Task.from_dict(plan["task"]),
                    Preprocessing.from_dict(plan["preprocessing"]),
                    {m: Seen.from_dict(seen) for m, seen in plan["seen"].items()},
                    {m: Ceiling(**own) for m, own in plan.get("ceiling", {}).items()},
                ),
                Selection(**{name: _tuples(pool) for name, pool in plan["selection"].items()}),
                plan["labels"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path / PLAN}: damaged ({error}); train the run again") from error


def started_from(run: Run) -> str:
    """Return what a run began from, in a few words that name no folder; "" without a start."""
    facts = read_facts(run.path).get("start")
    return f"{facts['method']} after {facts['step']} steps" if facts else ""


def fold_folders(path: Path) -> list[Path]:
    """Return the run directories of a cross-validation, trained or not."""
    number = read_yaml(path / FOLDS).get("folds")
    if not isinstance(number, int):
        raise DataError(f"{path / FOLDS}: damaged (folds: {number}); restore the file")
    return [path / f"fold_{k}" for k in range(number)]


def run_folders(paths: Iterable[Path | str]) -> list[Path]:
    """Return run directories, with the folds in place of the folder of a cross-validation.

    Raises:
        UsageError: a fold is not trained yet.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        folds = fold_folders(path) if (path / FOLDS).exists() else []
        for fold in folds:
            if not holds_run(fold):
                raise UsageError(
                    f"{fold}: not trained yet; go on with crossvox train --resume {path}"
                )
        found += folds or [path]
    return found


def require_version(path: Path) -> None:
    """Raise `UsageError` unless the run in `path` was made by this version of crossvox.

    Versions are the same if their major and minor numbers are. `run.json` holds the run's.
    """
    versions = read_facts(path).get("versions")
    made = versions.get("crossvox") if isinstance(versions, dict) else None
    if str(made).split(".")[:2] != __version__.split(".")[:2]:
        raise UsageError(
            f"{path}: made by {f'crossvox {made}' if made else 'an unknown version of crossvox'}, "
            f"this is crossvox {__version__}; "
            f"{f'install crossvox=={made}' if made else 'install the version that made it'}, "
            "or train the run again"
        )


def _require_format(file: Path, plan: dict[str, Any]) -> None:
    """Raise `DataError` unless the file, and what it says of the scans, can be read as they are."""
    for found, known, what in (
        (plan.get("format"), FORMAT, "format"),
        (plan["preprocessing"].get("format"), preprocess.FORMAT, "format of its preprocessing"),
    ):
        if found != known:
            raise DataError(
                f"{file}: {what} {found}, this crossvox reads {known}; use the crossvox that wrote "
                "it, or train the run again"
            )


def _tuples(pool: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {modality: tuple(cases) for modality, cases in pool.items()}
