"""The runs of a benchmark's grid: their files, their state and the commands still to run."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossvox.benchmark.suite import MethodRow, slug
from crossvox.config.run_config import RunConfig
from crossvox.data.manifest import Manifest
from crossvox.inference.settings import Largest
from crossvox.utils.documents import parse_json
from crossvox.utils.files import sha256_once
from crossvox.workflows.prediction.evaluate import Scenario

PLAIN = ""
"""Name of the test without any change."""

OWN_NETWORK = "own"
"""In place of a backbone's name: the method has networks of its own."""


@dataclass(frozen=True)
class MethodInfo:
    """Properties of a row's method that are known before it is trained.

    Attributes:
        parameters: number of trainable values.
        uses_unlabelled: whether it learns from unlabelled scans.
        adaptation: how it deviates from its publication, for the tables.
    """

    parameters: int
    uses_unlabelled: bool
    adaptation: str


@dataclass(frozen=True)
class Variant:
    """How a trained run is tested.

    Attributes:
        scenario: what the method is given.
        largest: rule for the components in label maps, of the most probable class of each voxel;
            None makes label maps as the run does.
    """

    scenario: Scenario = field(default_factory=Scenario)
    largest: Largest | None = None

    def facts(self) -> dict[str, Any]:
        """Return what `crossvox evaluate` records of it; None stands for nothing."""
        weigh = None if self.largest is None else False
        plain = {"given": None, "misalign": None, "largest": self.largest, "weigh": weigh}
        return {**plain, **self.scenario.facts()}

    def options(self) -> list[str]:
        """Return the options of `crossvox evaluate` for it."""
        given, moved = self.scenario.modalities, self.scenario.misalign
        options = [] if given is None else ["--modalities", ",".join(given)]
        if moved:
            for name, value in dataclasses.asdict(moved).items():
                options += [f"--misalign.{name}", str(value)]
        rule = [] if self.largest is None else ["--largest", self.largest, "--weigh", "false"]
        return options + rule


@dataclass(frozen=True, kw_only=True)
class Training:
    """A run that is trained in a folder of its own.

    Attributes:
        name: the folder's name; runs of equal names are one run.
        folder: holds all files.
        config: every setting of the run.
        derived: manifest that must be written first, if any.
    """

    name: str
    folder: Path
    config: RunConfig
    derived: Manifest | None = None

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / "run"

    @property
    def log(self) -> Path:
        """Output of its commands."""
        return self.folder / "log.txt"

    @property
    def failure(self) -> Path:
        """File that exists if the last attempt failed."""
        return self.folder / "failed.json"

    @property
    def training_cost(self) -> Path:
        """File that exists when the run is trained; holds its cost."""
        return self.folder / "trained.json"

    @property
    def unfinished_cost(self) -> Path:
        """File that holds the cost of attempts that were stopped or failed, if there are any."""
        return self.folder / "unfinished.json"

    @property
    def is_trained(self) -> bool:
        """True if the run is finished."""
        return self.training_cost.exists() and self.is_begun

    @property
    def is_begun(self) -> bool:
        """True if the run has been started."""
        return (self.run / "config.yaml").exists()

    def forget(self) -> None:
        """Remove the results of an earlier training."""
        self.training_cost.unlink(missing_ok=True)

    def training(self) -> list[str]:
        """Return the arguments of `crossvox` that begin the training, or go on with it."""
        resumed = ["--resume", str(self.run), *self._root]
        fresh = ["--config", str(self.folder / "settings.yaml")]
        return ["train", *(resumed if self.is_begun else fresh)]

    @property
    def _root(self) -> list[str]:
        return ["--root", str(self.config.root)] if self.config.root else []


@dataclass(frozen=True, kw_only=True)
class Cell(Training):
    """One run of the grid, and its tests.

    Attributes:
        row, dataset, labels, seed: place in the grid.
        steps: of its training and of the run that it begins from, if the suite varies them; or 0.
        backbone: that the row runs on, also where other rows have another, or `OWN_NETWORK`.
        tests: name → how the run is tested.
        scored: split and checkpoint.
        info: properties of the method.
        files: name → file, the scans and labels that the tests read.
        start: the run that this one begins from; None without.
    """

    row: MethodRow
    dataset: str
    labels: str
    steps: int = 0
    seed: int
    backbone: str
    tests: Mapping[str, Variant]
    scored: Mapping[str, str]
    info: MethodInfo
    files: Mapping[str, Path]
    start: Training | None = None

    @property
    def steps_text(self) -> str:
        """`steps` as text; empty if the suite does not vary them."""
        return str(self.steps or "")

    def scores(self, variant: str) -> Path:
        """Return the folder of a test's scores."""
        return self.folder / "scores" / (slug(variant) or "plain")

    def test_cost(self, variant: str) -> Path:
        """Return the file that exists when a test was made; holds its cost and hashes."""
        return self.scores(variant) / "spent.json"

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of the files that the tests read, as they are now."""
        return {name: sha256_once(path) for name, path in self.files.items()}

    def is_done(self, variant: str) -> bool:
        """Return whether a test was made with the settings and files of now."""
        folder = self.scores(variant)
        if not self.is_trained:
            return False
        try:
            made = parse_json((folder / "summary.json").read_text(encoding="utf-8"))["run"]
            cost = parse_json(self.test_cost(variant).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # damaged: test again
            return False
        if "files" in cost and cost["files"] != self.hashes():
            return False
        asked = {**self.scored, **self.tests[variant].facts()}
        return all(made.get(key) == value for key, value in asked.items())

    def forget(self) -> None:
        """Remove the results of an earlier training, and of its tests."""
        super().forget()
        for name in ("scores", "pictures"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def forget_test(self, variant: str) -> None:
        """Remove the scores of a test that was made with other settings or of other files."""
        shutil.rmtree(self.scores(variant), ignore_errors=True)

    @property
    def state(self) -> str:
        """ "done", "failed" or "open"."""
        if all(self.is_done(variant) for variant in self.tests):
            return "done"
        return "failed" if self.failure.exists() else "open"

    def missing_tests(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the tests of the trained run that are still to make: (variant, arguments)."""
        for name, variant in self.tests.items():
            if not self.is_done(name):
                yield name, [
                    "evaluate", str(self.run), "--data", str(self.config.data),
                    "--split", self.scored["split"], "--checkpoint", self.scored["checkpoint"],
                    "--out", str(self.scores(name)), *self._root, *variant.options(),
                ]  # fmt: skip
