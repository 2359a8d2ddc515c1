"""Segment the scans in folders, those that are there or as they arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossvox.data.formats.dicom.rules import Rule
from crossvox.data.formats.dicom.seg import require_dicom
from crossvox.errors import UsageError
from crossvox.inference.ensemble import require_known_modalities
from crossvox.utils.files import require_folder
from crossvox.workflows.messages import Echo
from crossvox.workflows.prediction.folders.match import FoundSubject, describe_matching, join
from crossvox.workflows.prediction.folders.search import Search
from crossvox.workflows.prediction.folders.status import Status, signature
from crossvox.workflows.prediction.folders.watch import arrivals, until_stopped
from crossvox.workflows.prediction.job import Job, Tell
from crossvox.workflows.prediction.options import DEFAULTS, LABELS_ONLY, Options, Outputs
from crossvox.workflows.prediction.predict import distinct_runs
from crossvox.workflows.prediction.predictor import Predictor
from crossvox.workflows.prediction.scans import Subject
from crossvox.workflows.run import Run


@dataclass(frozen=True)
class Folders:
    """Which scans to look for, and how to go about them.

    Attributes:
        places: modality → folders, files or patterns.
        rules: which DICOM series of a study to take.
        skip_bad: go on where a scan cannot be predicted.
        watch: seconds without a change after which a scan that arrives is taken; None = take
            those that are there, and end.
    """

    places: Mapping[str, Sequence[Path]]
    rules: Sequence[Rule] = ()
    skip_bad: bool = False
    watch: float | None = None


def predict_folders(
    paths: Path | Sequence[Path],
    folders: Folders,
    out: Path,
    options: Options = DEFAULTS,
    outputs: Outputs = LABELS_ONLY,
    echo: Echo = print,
    tell: Tell | None = None,
) -> bool:
    """Segment all scans in folders, and write `status.csv` beside the label maps.

    Scans that the table has as done are passed over, if files, runs and options are the same.

    Args:
        paths: the run directory, or several to average.
        folders: where to look, for what, and for how long.
        out: folder for the results.
        options: checkpoint, overlap, mirroring and device.
        outputs: what to write beside the label maps.
        echo: takes the lines for the user.
        tell: takes what became of each subject; None = `echo` takes it as a line.

    Returns:
        Whether every scan could be predicted.

    Raises:
        UsageError: no scan is there, or as `predict_images`.
        DataError: a scan cannot be used, and `folders` says neither to skip it nor to watch;
            nothing is written then.
    """
    require_folder(out)
    if outputs.dicom_seg:
        require_dicom()
    paths = distinct_runs(paths)
    run = Run.load(paths[0])
    require_known_modalities(run.task, folders.places)
    kinds = {m: run.preprocessing.kinds[m] for m in folders.places}
    search = Search(folders.places, {} if options.insist else kinds, folders.rules, out)
    predictor = Predictor(*paths, options=options)
    predictor.tell_checkpoints(echo)
    status = Status(out, _describe_work(predictor, options, outputs))
    job = Job(predictor, out, outputs, echo)
    tell_line: Tell = tell or (lambda outcome: echo(str(outcome)))
    counts = Counter[str]()

    def find() -> list[FoundSubject]:
        return join(search.find(), kinds, together=run.task.paired)

    def work(subjects: Sequence[Subject]) -> None:
        stamps = {subject.place: status.stamp(subject) for subject in subjects}
        new = [subject for subject in subjects if not status.is_done(stamps[subject.place])]
        counts["done before"] += len(subjects) - len(new)
        is_strict = not folders.skip_bad and folders.watch is None
        for outcome in job.run(new) if is_strict else map(job.attempt, new):
            status.add(outcome, stamps[outcome.subject.place])
            counts[outcome.state] += 1
            tell_line(outcome)

    if folders.watch is None:
        work(_all_there(find(), search, echo))
    else:
        echo(f"watching; a scan is taken once it has not changed for {folders.watch:g} s")
        with until_stopped():
            for subjects in arrivals(
                lambda: _complete(find(), run, len(folders.places)), folders.watch
            ):
                work(subjects)
    told = [f"{n} {state}" for state, n in counts.items() if n]
    echo(f"{', '.join(told) or 'nothing done'}; {status.path}")
    return not counts["failed"]


def _all_there(found: Sequence[FoundSubject], search: Search, echo: Echo) -> list[Subject]:
    """Return the subjects, and say how they were matched and what is not used."""
    for line in [*search.unused, *describe_matching(found)]:
        echo(line)
    if not found:
        places = ", ".join(str(path) for paths in search.places.values() for path in paths)
        raise UsageError(f"{places}: no NIfTI file and no DICOM series to predict")
    return [one.subject for one in found]


def _complete(found: Sequence[FoundSubject], run: Run, given: int) -> list[FoundSubject]:
    """Return the subjects that wait for no other scan, of the modalities that were given."""
    if not run.task.paired:
        return list(found)
    return [one for one in found if one.subject.problem or len(one.scans) == given]


def _describe_work(predictor: Predictor, options: Options, outputs: Outputs) -> str:
    """Return text that differs if other results are to be expected of the same scans."""
    checkpoints = [run.checkpoint(options.checkpoint) for run in predictor.runs]
    marks = [run.mark for run in predictor.runs]
    asked = replace(options, accelerator="auto", threads=None, memory_limit=None)
    return f"{marks} {signature(checkpoints)} {asked} {outputs}"
