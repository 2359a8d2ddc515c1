"""The weights that a run begins with: random, published, of an earlier run, or a checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossvox.config.run_config import RunConfig
from crossvox.errors import DataError
from crossvox.methods.base import Method
from crossvox.training.record import read_facts
from crossvox.utils.files import sha256
from crossvox.workflows.messages import Echo
from crossvox.workflows.run import Run
from crossvox.workflows.training.start import (
    START,
    Start,
    describe_start,
    load_start,
    read_start,
    summarise_start,
)
from crossvox.workflows.training.weights import (
    InitialWeights,
    describe_weights,
    load_initial_weights,
    loaded_parameters,
    read_initial_weights,
)
from crossvox.workflows.validation.learnt import LearntScan


@dataclass(frozen=True)
class FirstWeights:
    """The weights that a run begins with; what neither of the two fills stays random.

    Attributes:
        published: of files; None if a checkpoint is to be loaded instead.
        start: an earlier run with its own.
    """

    published: InitialWeights | None = None
    start: Start | None = None

    @classmethod
    def read(cls, config: RunConfig, modalities: Mapping[str, object]) -> FirstWeights:
        """Read what the configuration names; see `read_initial_weights` and `read_start`."""
        return cls(read_initial_weights(config, modalities), read_start(config))

    @property
    def learnt(self) -> tuple[LearntScan, ...]:
        """The scans whose labels these weights were trained on."""
        return () if self.start is None else self.start.learnt

    def refuse_changed(self, run: Run) -> None:
        """Raise `DataError` if a file is not the one that the run began with."""
        began = read_facts(run.path)
        changed = [
            weights.path
            for place, weights in (self.published or {}).items()
            if sha256(weights.path) != began.get("weights", {}).get(place, {}).get("sha256")
        ]
        start = self.start
        if start is not None and start.digest != (began.get("start") or {}).get("sha256"):
            changed.append(start.file)
        if changed:
            raise DataError(
                f"{changed[0]}: not the weights that {run.path} began with; restore them, or train "
                "anew with another --out"
            )

    def load(self, method: Method, run: Run, echo: Echo) -> dict[str, str]:
        """Fill a new method; return the files that tell what became of each tensor, name → text."""
        if self.published is None:
            files = read_facts(run.path).get("weights", {})
            missing = {place: facts.get("missing", ()) for place, facts in files.items()}
            method.loaded = loaded_parameters(method, missing)
        else:
            load_initial_weights(method, self.published, echo)
        if self.start is None:
            return {}
        report = load_start(method, self.start, run)
        for line in summarise_start(self.start, report):
            echo(line)
        return {START: report.document(self.start)}

    def facts(self, method: Method) -> dict[str, Any]:
        """Return what `run.json` records of them."""
        return {
            "weights": describe_weights(self.published or {}, method),
            "start": None if self.start is None else describe_start(self.start),
        }
