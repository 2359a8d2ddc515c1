"""Segment scans with trained runs: one subject's, or a split of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from crossvox.data.checks import check
from crossvox.data.formats.dicom.seg import require_dicom
from crossvox.data.manifest import Case, Manifest, as_manifest
from crossvox.errors import UsageError
from crossvox.inference.ensemble import require_known_modalities
from crossvox.utils.files import require_file_name, require_folder
from crossvox.workflows.messages import Echo, report_problems
from crossvox.workflows.prediction.job import Job, Outcome, Tell
from crossvox.workflows.prediction.options import DEFAULTS, LABELS_ONLY, Options, Outputs
from crossvox.workflows.prediction.predictor import Predictor
from crossvox.workflows.prediction.scans import Source, Subject
from crossvox.workflows.run import Run, run_folders


def predict_images(
    paths: Path | Sequence[Path],
    images: Mapping[str, Path],
    out: Path,
    options: Options = DEFAULTS,
    outputs: Outputs = LABELS_ONLY,
    echo: Echo = print,
    name: str | None = None,
    tell: Tell | None = None,
) -> list[Path]:
    """Segment the scans of one subject, and write `<scan's name>_<modality>.nii.gz` for each.

    Results of the same scans in `out` are replaced, results of other scans never.

    >>> predict_images(Path("runs/first"), {"ct": Path("scan.nii.gz")}, Path("segmented"))
    [PosixPath('segmented/scan_ct.nii.gz')]

    If the run's scans are registered, there is one map of all scans instead, on the grid of the
    first: `<first scan's name>_fused.nii.gz`. `Options.maps` changes that.

    Args:
        paths: the run directory, or several to average.
        images: modality → NIfTI file, folder with one DICOM series, or `FOLDER#UID`; a run on
            unpaired data sees each of them alone.
        out: folder for the label maps, on the scans' own grids and with the data set's ids.
        options: checkpoint, overlap, mirroring and device.
        outputs: what to write beside the label maps.
        echo: takes the lines for the user.
        name: of the results, in place of the scans' names.
        tell: takes what became of each subject; None = `echo` takes it as a line.

    Returns:
        The label maps written.

    Raises:
        UsageError: a modality that the run does not know, no checkpoint, an extra is missing, a
            result would replace another scan's, or more memory would be needed than there is.
        DataError: a scan has errors; nothing is written then.
    """
    require_folder(out)
    if name is not None:
        require_file_name("--name", name)
    if outputs.dicom_seg:
        require_dicom()
    paths = distinct_runs(paths)
    require_known_modalities(Run.load(paths[0]).task, images)
    subject = Subject.from_images(images, name)
    if outputs.dicom_seg and not any(source.series for source in subject.sources.values()):
        raise UsageError("--dicom-seg: no scan is a DICOM series; give --image ct=FOLDER")
    predictor = Predictor(*paths, options=options)
    predictor.tell_checkpoints(echo)
    job = Job(predictor, out, outputs, echo)
    return _written(job.run([subject]), tell or (lambda outcome: echo(str(outcome))))


def predict_split(
    paths: Path | Sequence[Path],
    data: Manifest | Path,
    split: str,
    out: Path,
    options: Options = DEFAULTS,
    outputs: Outputs = LABELS_ONLY,
    echo: Echo = print,
    tell: Tell | None = None,
) -> list[Path]:
    """Segment all cases of a split, and write `<case>_<modality>.nii.gz`, or `<case>_fused.nii.gz`.

    No label is opened.

    Arguments, result and errors are those of `predict_images`. A split without cases is a
    `UsageError`, too.
    """
    require_folder(out)
    paths = distinct_runs(paths)
    run = Run.load(paths[0])
    manifest, cases = load_split(data, split)
    for case in cases:
        require_known_modalities(run.task, case.images)
    report_problems(check(manifest, (), (split,), seen=run.plan.seen, header=options.header), echo)
    predictor = Predictor(*paths, options=options)
    predictor.tell_checkpoints(echo)
    job = Job(predictor, out, outputs, echo, checked=True)
    subjects = [Subject(case.id, _sources(case)) for case in cases]
    return _written(job.run(subjects), tell or (lambda outcome: echo(str(outcome))))


def distinct_runs(paths: Path | Sequence[Path]) -> tuple[Path, ...]:
    """Return the run directories, those of folds one by one; refuse one that is given twice."""
    given = run_folders((paths,) if isinstance(paths, Path | str) else paths)
    for path in given:
        if given.count(path) > 1:
            raise UsageError(f"{path} is given twice; an ensemble needs different runs")
    return tuple(given)


def load_split(data: Manifest | Path, split: str) -> tuple[Manifest, Sequence[Case]]:
    """Return a manifest and the cases of a split; raise `UsageError` if there are none."""
    manifest = as_manifest(data)
    cases = manifest.split(split)
    if not cases:
        found = {name: len(manifest.split(name)) for name in ("train", "val", "test")}
        held = ", ".join(f"{name} ({count})" for name, count in found.items() if count)
        raise UsageError(f"{manifest.location}: no case in split '{split}'; choose from {held}")
    return manifest, cases


def _sources(case: Case) -> dict[str, Source]:
    return {m: Source(p, case.id, header=case.form(m)) for m, p in case.images.items()}


def _written(outcomes: Iterable[Outcome], tell: Tell) -> list[Path]:
    """Predict, and tell of each subject; return the label maps."""
    files = []
    for outcome in outcomes:
        tell(outcome)
        files += outcome.written
    return files
