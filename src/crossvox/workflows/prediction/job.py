"""Predict subjects one after the other into one folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from crossvox.batch import FUSED
from crossvox.data.formats.dicom.seg import require_dicom_seg
from crossvox.data.formats.nifti import Volume
from crossvox.data.geometry import Grid
from crossvox.data.problems import Problem, ProblemsError, format_problems
from crossvox.errors import CrossvoxError, DataError, UsageError, failed_file
from crossvox.inference.ensemble import Prediction
from crossvox.workflows.messages import Echo, say_nothing
from crossvox.workflows.prediction.options import LABELS_ONLY, Outputs
from crossvox.workflows.prediction.outputs import (
    ELSEWHERE,
    Target,
    predict_to_files,
    warnings,
)
from crossvox.workflows.prediction.predictor import Predictor
from crossvox.workflows.prediction.scans import Subject, grid_of


@dataclass(frozen=True)
class Outcome:
    """The end of one subject's prediction.

    Attributes:
        subject: its scans.
        state: whether its label maps were written.
        message: why not, or what is doubtful.
        seconds: that it took.
        timing: the stages and their seconds, as text.
        files: modality → label maps that show the scan.
    """

    subject: Subject
    state: Literal["done", "failed"]
    message: str = ""
    seconds: float = 0.0
    timing: str = ""
    files: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    @property
    def written(self) -> list[Path]:
        """All label maps."""
        return list(dict.fromkeys(file for files in self.files.values() for file in files))

    def __str__(self) -> str:
        if self.state == "failed":
            named = any(str(s.path) in self.message for s in self.subject.sources.values())
            return f"failed   {'' if named else f'{self.subject.place}: '}{self.message}"
        return f"{', '.join(map(str, self.written))}: {self.timing}"


Tell = Callable[[Outcome], None]
"""Takes what became of a subject."""


@dataclass
class Job:
    """The prediction of any number of subjects into one folder.

    One subject at a time is in memory.

    Attributes:
        predictor: predicts them.
        out: folder for the results.
        outputs: what to write beside the label maps.
        echo: takes the lines for the user.
        checked: the scans were judged before.
    """

    predictor: Predictor
    out: Path
    outputs: Outputs = LABELS_ONLY
    echo: Echo = print
    checked: bool = False
    _owners: dict[Path, str] = field(default_factory=dict)

    def run(self, subjects: Sequence[Subject]) -> Iterator[Outcome]:
        """Predict subjects, all of which are checked before the work begins.

        Raises:
            CrossvoxError: a scan, a name or memory does not allow it. If it is more than one
                subject that is refused, the error names them all.
        """
        if not subjects:
            return
        if len(subjects) == 1:
            target = self._open(subjects[0], self.echo, self.checked)
            self.predictor.require_memory([_grids(target)], self.echo)
            yield self._outcome(subjects[0], target)
            return
        self._check(subjects)
        for subject in subjects:
            yield self._outcome(subject, self._open(subject, say_nothing, checked=True))

    def attempt(self, subject: Subject) -> Outcome:
        """Predict a subject, whose outcome says why if it cannot be."""
        start, notes = time.perf_counter(), list[str]()
        try:
            target = self._open(subject, notes.append, self.checked)
            self.predictor.require_memory([_grids(target)], say_nothing)
            return self._outcome(subject, target, notes)
        except CrossvoxError as error:
            lines = [p.line for p in _problems_of(error, subject) if p.severity == "error"]
            return Outcome(subject, "failed", "; ".join(lines), time.perf_counter() - start)

    def _check(self, subjects: Sequence[Subject]) -> None:
        errors: list[CrossvoxError] = []
        problems: list[Problem] = []
        grids: list[dict[str, Grid]] = []
        for subject in subjects:
            try:
                target = self._open(subject, self.echo, self.checked)
                grids.append(_grids(target))
            except CrossvoxError as error:
                errors.append(error)
                problems += _problems_of(error, subject)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            is_usage = all(isinstance(error, UsageError) for error in errors)
            raise (UsageError if is_usage else DataError)(format_problems(problems))
        self.predictor.require_memory(grids, self.echo)

    def _open(self, subject: Subject, tell: Echo, checked: bool) -> Target:
        """Read and judge a subject, and see that its results can be written."""
        if subject.problem:
            raise DataError(subject.problem)
        try:
            target = self.predictor.open(subject, self.out, tell, checked)
        except OSError as error:
            raise DataError(failed_file(error)) from error
        for file in target.files.values():
            owner = self._owners.setdefault(file, subject.place)
            if owner != subject.place:
                raise UsageError(f"{file}: would also be the result of {owner}; {ELSEWHERE}")
        for scan in target.scans.values() if self.outputs.dicom_seg else ():
            if scan.series and isinstance(scan.image, Volume):
                grid = scan.image.grid
                ids = list(self.predictor.ids)
                require_dicom_seg(grid.shape, grid.affine, ids, scan.series)
        return target

    def _outcome(self, subject: Subject, target: Target, notes: Sequence[str] = ()) -> Outcome:
        start = time.perf_counter()
        prediction = predict_to_files(self.predictor, target, self.predictor.ids, self.outputs)
        prediction.add_time("write", start + sum(prediction.seconds.values()))
        doubts = list(warnings(prediction, target))
        for line in [*notes, *doubts]:
            self.echo(line)
        return Outcome(
            subject,
            "done",
            "; ".join(" ".join(line.split()) for line in [*notes, *doubts]),
            time.perf_counter() - start,
            prediction.timing,
            {m: _files_of(m, prediction) for m in subject.sources},
        )


def _files_of(modality: str, prediction: Prediction) -> tuple[Path, ...]:
    """Return the label maps of a scan: its own, and that of all the subject's scans."""
    return tuple(file for name, file in prediction.files.items() if name in (modality, FUSED))


def _grids(target: Target) -> dict[str, Grid]:
    return {m: grid_of(scan.image) for m, scan in target.scans.items()}


def _problems_of(error: CrossvoxError, subject: Subject) -> list[Problem]:
    if isinstance(error, ProblemsError):
        return list(error.problems)
    text = str(error)
    if subject.place not in text:
        text = f"{subject.place}: {text}"
    return [Problem.error(text)]
