"""One run of a benchmark's grid: where its files lie, what is done, and what is still to do."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from crossvox.benchmark.suite import MethodRow, slug
from crossvox.config.run_config import RunConfig
from crossvox.data.manifest import Manifest
from crossvox.utils.documents import parse_json
from crossvox.utils.files import sha256_once
from crossvox.workflows.evaluate import Given

PLAIN = ""
"""The variant in which everything is as it is."""


@dataclass(frozen=True)
class Facts:
    """What the tables say of a row's method, known before it is run."""

    parameters: int
    uses_unlabelled: bool
    adaptation: str


@dataclass(frozen=True)
class Cell:
    """One run of the grid, and the tests made of it.

    Attributes:
        name: unique in the grid; also its folder's.
        folder: of all its files.
        row, dataset, labels, seed, backbone: its place in the grid.
        config: every setting of the run.
        tests: variant → what the method is given.
        scored: split and checkpoint.
        facts: for the tables.
        files: what the tests look at, name → file.
        derived: the manifest of the row's own that is to be written first, if it has one.
    """

    name: str
    folder: Path
    row: MethodRow
    dataset: str
    labels: str
    seed: int
    backbone: str
    config: RunConfig
    tests: Mapping[str, Given]
    scored: Mapping[str, str]
    facts: Facts
    files: Mapping[str, Path]
    derived: Manifest | None = None

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / "run"

    @property
    def log(self) -> Path:
        """What its commands said."""
        return self.folder / "log.txt"

    @property
    def failure(self) -> Path:
        """There if its last attempt failed."""
        return self.folder / "failed.json"

    @property
    def trained(self) -> Path:
        """There when it is trained: what that took."""
        return self.folder / "trained.json"

    def scores(self, variant: str) -> Path:
        """The folder of a test's scores."""
        return self.folder / "scores" / (slug(variant) or "plain")

    def spent(self, variant: str) -> Path:
        """There when a test was made: what it took, and of which files it was."""
        return self.scores(variant) / "spent.json"

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of the files that the tests look at, as they are now."""
        return {name: sha256_once(path) for name, path in self.files.items()}

    @property
    def is_trained(self) -> bool:
        """Whether its run is there and finished."""
        return self.trained.exists() and self.begun

    @property
    def begun(self) -> bool:
        """Whether its run is there."""
        return (self.run / "config.yaml").exists()

    def done(self, variant: str) -> bool:
        """Whether a test was made, and was the one that is asked for now."""
        folder = self.scores(variant)
        if not self.is_trained:
            return False
        try:
            made = parse_json((folder / "summary.json").read_text(encoding="utf-8"))["run"]
            spent = parse_json(self.spent(variant).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # or damaged: made again
            return False
        if "files" in spent and spent["files"] != self.hashes():
            return False
        asked = {"given": None, "misalign": None, **self.scored, **self.tests[variant].facts()}
        return all(made.get(key) == value for key, value in asked.items())

    def forget_tests(self) -> None:
        """Remove what was found out about an earlier training."""
        self.trained.unlink(missing_ok=True)
        for name in ("scores", "pictures"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    @property
    def state(self) -> str:
        """ "done", "failed" or "open"."""
        if all(self.done(variant) for variant in self.tests):
            return "done"
        return "failed" if self.failure.exists() else "open"

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """What is still to do: ("trained" or a variant, arguments of `crossvox`)."""
        root = ["--root", str(self.config.root)] if self.config.root else []
        if not self.is_trained:
            fresh = ["--config", str(self.folder / "settings.yaml")]
            yield (
                "trained",
                ["train", *(["--resume", str(self.run), *root] if self.begun else fresh)],
            )
        for variant, given in self.tests.items():
            if not self.done(variant):
                yield variant, [
                    "evaluate", str(self.run), "--data", str(self.config.data),
                    "--split", self.scored["split"], "--checkpoint", self.scored["checkpoint"],
                    "--out", str(self.scores(variant)), *root, *_options(given),
                ]  # fmt: skip


def _options(given: Given) -> list[str]:
    """The options of `crossvox evaluate` that say so."""
    options = [] if given.modalities is None else ["--modalities", ",".join(given.modalities)]
    if given.misalign:
        for name, value in dataclasses.asdict(given.misalign).items():
            options += [f"--misalign.{name}", str(value)]
    return options
