"""Predict the scans to label next, as drafts to correct in a viewer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from crossvox.batch import FUSED
from crossvox.data.checks import check
from crossvox.data.formats.nifti import read_image, read_label
from crossvox.data.manifest import Case, Manifest
from crossvox.data.prepare.body import body_mask
from crossvox.errors import UsageError, require
from crossvox.figures.uncertainty import uncertainty_figure
from crossvox.inference.ranking import RankedCandidate
from crossvox.utils.csv_tables import csv_text
from crossvox.utils.files import (
    atomic_path,
    atomic_write,
    real_path,
    require_folder,
    sha256_once,
)
from crossvox.workflows.labelling.drafts import AS_DRAFTED, DRAFTS, Draft, DraftFolder
from crossvox.workflows.labelling.rank import rank_scans, read_ranking
from crossvox.workflows.messages import report_problems
from crossvox.workflows.prediction.options import Options, Outputs
from crossvox.workflows.prediction.outputs import (
    UNCERTAINTY,
    Target,
    predict_to_files,
    require_free_names,
    warnings,
)
from crossvox.workflows.prediction.predict import load_split
from crossvox.workflows.prediction.predictor import Predictor
from crossvox.workflows.prediction.scans import InputScan
from crossvox.workflows.run import Run

WORK_LIST = "work_list.csv"
COLUMNS = ("rank", "case", "modality", "uncertainty", "distance", "scan", "label")


def draft(
    path: Path,
    data: Manifest | Path,
    out: Path,
    options: Options,
    *,
    top: int = 5,
    ranking: Path | None = None,
) -> tuple[DraftFolder, dict[str, Figure]]:
    """Segment the unlabelled train scans that `rank-cases` puts first, for somebody to correct.

    The folder holds, for each of them, a link to the scan, the label map, the map of its
    uncertainty; names and colours of the classes for viewers, the table `work_list.csv`, and
    `drafts.json`, which `adopt` reads. No label is opened. A subject whose scans are registered
    gets one label map, on the grid of its first scan.

    Args:
        path: the run directory.
        data: a data set, or its dataset.json, with unlabelled train scans.
        out: the folder, without drafts.
        options: checkpoint, overlap and device.
        top: number of label maps at most.
        ranking: a table of `rank-cases`; None = rank now.

    Returns:
        What is in the folder, and for each draft a figure of where it is least certain, by name.

    Raises:
        UsageError: nothing is unlabelled, the folder holds drafts or other results, or classes or
            modalities do not fit the run.
        DataError: scans have errors; nothing is written then.
    """
    require("--top", top, 1)
    require_folder(out)
    if (out / DRAFTS).exists():
        raise UsageError(f"{out} holds drafts already; adopt them, or give another --out")
    run = Run.load(path)
    manifest, _ = load_split(data, "train")
    ids = _ids(run, manifest)
    if ranking is None:
        ranked = rank_scans(run, manifest, options, unlabelled=True)
    else:
        ranked = read_ranking(ranking, manifest)
    chosen = _choose(ranked, manifest)[:top]
    if not chosen:
        raise UsageError(f"{ranking or manifest.location}: all of its train scans have a label")
    subjects = [manifest.case(entry.candidate.case) for entry in chosen]
    if ranking is not None:
        shown = replace(manifest, cases=tuple({case.id: case for case in subjects}.values()))
        report_problems(check(shown, (), ("train",), seen=run.plan.seen))
    predictor = Predictor(path, options=options)
    targets = [_target(e, case, out, predictor) for e, case in zip(chosen, subjects, strict=True)]
    require_free_names(targets, ids)
    _require_free_links(targets)
    predictor.require_memory([case.images for case in subjects], print)
    drafts, figures = [], {}
    for number, (entry, case, target) in enumerate(zip(chosen, subjects, targets, strict=True), 1):
        made, odd = _draft(entry, case, target, predictor, ids)
        figures[made.name] = _figure(target, manifest)
        drafts.append(made)
        print(f"{out / made.label}: draft {number} of {len(targets)}, {made.name}")
        for warning in odd:
            print(warning)
    atomic_write(out / WORK_LIST, _to_csv(chosen, drafts))
    folder = DraftFolder(out, path.absolute(), run.task.classes, tuple(drafts))
    folder.save()
    return folder, figures


def _ids(run: Run, manifest: Manifest) -> dict[str, int]:
    """Return class name → id in the data set, the run's classes first, in its order."""
    for name in run.task.classes:
        if name not in manifest.labels:
            raise UsageError(
                f"{manifest.location}: has no class '{name}', which the run draws; its classes are "
                f"{', '.join(manifest.labels)}"
            )
    return {**{name: manifest.labels[name] for name in run.task.classes}, **manifest.labels}


def _choose(ranked: Sequence[RankedCandidate], manifest: Manifest) -> list[RankedCandidate]:
    """Return the ranked scans without label, of a registered subject the first one only."""
    found: dict[tuple[str, str], RankedCandidate] = {}
    for entry in ranked:
        case, modality = entry.candidate.case, entry.candidate.modality
        if modality in manifest.case(case).labels:
            continue
        found.setdefault((case, FUSED if manifest.registered else modality), entry)
    return list(found.values())


def _target(entry: RankedCandidate, case: Case, out: Path, predictor: Predictor) -> Target:
    """Return one label map of a subject: that of the ranked scan, or that of all its scans."""
    scan_of = predictor.scan_of(case.images)
    name = FUSED if FUSED in scan_of else entry.candidate.modality
    scans = {m: InputScan.from_path(file, case.form(m)) for m, file in case.images.items()}
    file = out / f"{case.id}_{name}_label.nii.gz"
    return Target(case.id, scans, {name: file}, {name: scan_of[name]})


def _draft(
    entry: RankedCandidate,
    case: Case,
    target: Target,
    predictor: Predictor,
    ids: Mapping[str, int],
) -> tuple[Draft, list[str]]:
    """Write one label map, its uncertainty, a link to its scan; return warnings as well."""
    prediction = predict_to_files(predictor, target, ids, Outputs(uncertainty=True))
    ((name, file),) = target.files.items()
    with atomic_path(file.parent / AS_DRAFTED / file.name) as temporary:
        shutil.copyfile(file, temporary)
    link, scan = _scan_link(target)
    _link(link, scan)
    unlabelled = tuple(m for m in case.images if m not in case.labels)
    certain = entry.candidate.uncertainty
    made = Draft(
        case=case.id,
        modalities=unlabelled if name == FUSED else (name,),
        scan=link.name,
        mark=target.scan(name).mark,
        label=file.name,
        uncertainty=certain if certain == certain else None,
    )
    return made, list(warnings(prediction, target))


def _scan_link(target: Target) -> tuple[Path, Path]:
    """Return the file in the folder that leads to a target's scan, and the scan's own."""
    ((name, file),) = target.files.items()
    scan, modality = target.scan(name).path, target.scan_of[name]
    ending = ".nii.gz" if scan.name.lower().endswith(".gz") else ".nii"
    return file.with_name(f"{target.case}_{modality}_scan{ending}"), scan


def _leads_to(link: Path, scan: Path) -> bool:
    return link.exists() and (link.samefile(scan) or sha256_once(link) == sha256_once(scan))


def _require_free_links(targets: Sequence[Target]) -> None:
    """Raise `UsageError` if another file has the name of a scan's link."""
    for link, scan in map(_scan_link, targets):
        if os.path.lexists(link) and not _leads_to(link, scan):
            raise UsageError(f"{link}: is there already and not {scan}; give another --out")


def _link(link: Path, scan: Path) -> None:
    """Let `link` lead to a scan by a relative path, or copy the scan where links cannot be made."""
    if _leads_to(link, scan):
        return
    try:
        link.symlink_to(os.path.relpath(real_path(scan), real_path(link.parent)))
    except (OSError, ValueError):  # as on Windows without the right, on FAT, on another drive
        with atomic_path(link) as temporary:
            shutil.copyfile(scan, temporary)


def _figure(target: Target, manifest: Manifest) -> Figure:
    ((name, file),) = target.files.items()
    scan = manifest.case(target.case).read_image(target.scan_of[name])
    label = read_label(file, manifest.labels, grid=scan.grid)
    uncertainty = read_image(target.beside(name, UNCERTAINTY)).data
    # Networks are unsure of the air around a body, to no harm.
    shown = np.where(body_mask(scan.data) | (label > 0), uncertainty, 0)
    return uncertainty_figure(
        scan.data,
        scan.grid.spacing.tolist(),
        label,
        shown,
        manifest.classes,
        orientation=scan.grid.orientation,
    )


def _to_csv(chosen: Sequence[RankedCandidate], drafts: Sequence[Draft]) -> str:
    rows = []
    for rank, (entry, made) in enumerate(zip(chosen, drafts, strict=True), start=1):
        modality = "+".join(made.modalities)
        rows.append([rank, made.case, modality, *entry.numbers(), made.scan, made.label])
    return csv_text(COLUMNS, *rows)
