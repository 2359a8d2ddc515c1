"""Segment scans with trained runs: one subject's, or a split of a data set."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from crossvox.data.checks import check, check_images
from crossvox.data.formats.dicom.seg import require_dicom, require_dicom_seg
from crossvox.data.formats.nifti import Volume
from crossvox.data.manifest import Case, Manifest, as_manifest
from crossvox.errors import UsageError
from crossvox.inference.ensemble import require_known_modalities
from crossvox.utils.files import real_path, require_file_name, require_folder
from crossvox.workflows.messages import Echo, report_problems
from crossvox.workflows.prediction.memory import require_memory
from crossvox.workflows.prediction.options import DEFAULTS, LABELS_ONLY, Options, Outputs
from crossvox.workflows.prediction.outputs import (
    Target,
    predict_to_files,
    require_free_names,
)
from crossvox.workflows.prediction.predictor import Predictor
from crossvox.workflows.prediction.scans import InputScan
from crossvox.workflows.run import Run, run_folders


def predict_images(
    paths: Path | Sequence[Path],
    images: Mapping[str, Path],
    out: Path,
    options: Options = DEFAULTS,
    outputs: Outputs = LABELS_ONLY,
    echo: Echo = print,
    name: str | None = None,
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
    run = Run.load(paths[0])
    require_known_modalities(run.task, images)
    scans = {m: InputScan.from_path(path, options.header) for m, path in images.items()}
    if outputs.dicom_seg and not any(scan.series for scan in scans.values()):
        raise UsageError("--dicom-seg: no scan is a DICOM series; give --image ct=FOLDER")
    for note in (note for scan in scans.values() for note in scan.notes):
        echo(note)
    subject = {m: scan.image for m, scan in scans.items()}
    volumes = {m: image for m, image in subject.items() if isinstance(image, Volume)}
    named = {m: scan.path for m, scan in scans.items()}
    kinds, seen = run.preprocessing.kinds, run.plan.seen
    problems = check_images(named, volumes, kinds, seen, options.header, options.insist)
    report_problems(problems, echo)
    predictor = Predictor(*paths, options=options)
    scan_of = predictor.scan_of(scans)
    files = {key: out / f"{name or scans[m].name}_{key}.nii.gz" for key, m in scan_of.items()}
    inputs = {real_path(scan.path) for scan in scans.values()}
    for file in files.values():
        if real_path(file) in inputs:
            raise UsageError(f"{file}: would overwrite the scan of that name; give another --out")
    target = Target(name or next(iter(scans.values())).name, scans, files, scan_of)
    require_free_names([target], predictor.ids)
    for scan in scans.values() if outputs.dicom_seg else ():
        if scan.series and isinstance(scan.image, Volume):
            grid = scan.image.grid
            require_dicom_seg(grid.shape, grid.affine, list(predictor.ids), scan.series)
    tell_checkpoints(predictor.runs, options, echo)
    require_memory(predictor, [subject], options.memory_limit, echo)
    return _predict(predictor, target, outputs, echo)


def predict_split(
    paths: Path | Sequence[Path],
    data: Manifest | Path,
    split: str,
    out: Path,
    options: Options = DEFAULTS,
    outputs: Outputs = LABELS_ONLY,
    echo: Echo = print,
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
    targets = []
    for case in cases:
        scan_of = predictor.scan_of(case.images)
        files = {name: out / f"{case.id}_{name}.nii.gz" for name in scan_of}
        scans = {
            m: InputScan.from_path(p, case.form(m) if options.header == "auto" else options.header)
            for m, p in case.images.items()
        }
        targets.append(Target(case.id, scans, files, scan_of))
    require_free_names(targets, predictor.ids)
    tell_checkpoints(predictor.runs, options, echo)
    require_memory(predictor, [case.images for case in cases], options.memory_limit, echo)
    return [file for target in targets for file in _predict(predictor, target, outputs, echo)]


def tell_checkpoints(runs: Sequence[Run], options: Options, echo: Echo) -> None:
    """Say of each run whose last weights are taken that no validation chose others."""
    for run in runs if options.checkpoint is None else ():
        if run.checkpoint().stem == "last":
            echo(f"{run.path}: checkpoint last, as no validation scan chose another")


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


def _predict(predictor: Predictor, target: Target, outputs: Outputs, echo: Echo) -> list[Path]:
    """Predict one subject, and print its files and how long each stage took."""
    start = time.perf_counter()
    prediction = predict_to_files(predictor, target, predictor.ids, outputs)
    prediction.add_time("write", start + sum(prediction.seconds.values()))
    echo(f"{', '.join(str(file) for file in target.files.values())}: {prediction.timing}")
    for name, problems in prediction.problems.items():
        for problem in problems:
            echo(str(dataclasses.replace(problem, case="", file=str(target.files[name]))))
    return list(target.files.values())
