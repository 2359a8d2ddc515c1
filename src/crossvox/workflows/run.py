"""The run directory: its configuration, its plan and its checkpoints."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from crossvox.batch import Task
from crossvox.config.run_config import RunConfig
from crossvox.data.checks.extent import Sizes
from crossvox.data.manifest.selection import Selection
from crossvox.data.prepare.plan import Plan
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.errors import DataError, UsageError
from crossvox.training.record import read_config, read_facts
from crossvox.utils.documents import parse_json
from crossvox.version import __version__

PLAN = "plan.json"
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

    def checkpoint(self, name: str) -> Path:
        """Return the file of the checkpoint `best` or `last`; raise `UsageError` without one."""
        path = self.path / "checkpoints" / f"{name}.safetensors"
        if not path.exists():
            found = sorted(file.stem for file in path.parent.glob("*.safetensors"))
            raise UsageError(
                f"{self.path}: no checkpoint '{name}' yet; "
                + (f"choose from {', '.join(found)}" if found else "train the run first")
            )
        return path

    def document(self) -> str:
        """Return the text of `plan.json`."""
        plan = {
            "task": self.task.to_dict(),
            "preprocessing": self.plan.preprocessing.to_dict(),
            "sizes": {m: sizes.to_dict() for m, sizes in self.plan.sizes.items()},
            "selection": {
                "labelled": self.selection.labelled,
                "unlabelled": self.selection.unlabelled,
            },
            "labels": self.labels,
        }
        # One line per triple: the offsets hold one for each pair of classes.
        return TRIPLE.sub(r"[\1, \2, \3]", json.dumps(plan, indent=1, ensure_ascii=False)) + "\n"

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read a run directory.

        Raises:
            UsageError: `path` holds no run, or one of another crossvox version.
            DataError: its files are damaged.
        """
        path = Path(path)
        values = read_config(path)
        require_version(path)
        config = RunConfig.from_dict(values)
        if not (path / PLAN).exists():
            raise UsageError(f"{path}: its training ended before it began; train it again")
        try:
            plan = parse_json((path / PLAN).read_text(encoding="utf-8"))
            return cls(
                path,
                config,
                Plan(
                    Task.from_dict(plan["task"]),
                    Preprocessing.from_dict(plan["preprocessing"]),
                    {m: Sizes.from_dict(sizes) for m, sizes in plan["sizes"].items()},
                ),
                Selection(**{name: _tuples(pool) for name, pool in plan["selection"].items()}),
                plan["labels"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path / PLAN}: damaged ({error}); train the run again") from error


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


def _tuples(pool: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {modality: tuple(cases) for modality, cases in pool.items()}
