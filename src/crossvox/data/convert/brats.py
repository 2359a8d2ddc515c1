"""BraTS (Baid et al., 2021, and later years): brain MR in four registered sequences."""

from __future__ import annotations

import re
from pathlib import Path

from crossvox.data.convert.raw import RawDataset, all_volumes, nothing_found, require_source
from crossvox.data.manifest import Case
from crossvox.errors import UsageError

SEQUENCES = {
    # To 2021: BraTS2021_00000_t1ce.nii.gz; from 2023: BraTS-GLI-00000-000-t1c.nii.gz.
    "t1": "t1",
    "t1n": "t1",
    "t1ce": "t1c",
    "t1c": "t1c",
    "t2": "t2",
    "t2w": "t2",
    "flair": "flair",
    "t2f": "flair",
}
KINDS = dict.fromkeys(("t1", "t1c", "t2", "flair"), "mr")
_NAME = re.compile(rf"(.+)([_-])({'|'.join(SEQUENCES)}|seg)\.nii(\.gz)?", re.IGNORECASE)


def find_brats(source: Path) -> RawDataset:
    """Find scans `CASE_t1.nii.gz` (to 2021) or `CASE-t1n.nii.gz` (from 2023) in any folders.

    The one label map of a case, `…seg.nii.gz`, serves all of its sequences. The enhancing tumour
    has the label 4 in the older releases and 3 in the newer.
    """
    source = require_source(source)
    images: dict[str, dict[str, Path]] = {}
    labels: dict[str, Path] = {}
    separators = set()
    for file in all_volumes(source):
        if (match := _NAME.fullmatch(file.name)) is None:
            continue
        case, sequence = match[1], match[3].lower()
        separators.add(match[2])
        if sequence == "seg":
            labels.setdefault(case, file)
        else:
            images.setdefault(case, {}).setdefault(SEQUENCES[sequence], file)
    if not images:
        raise nothing_found(source, "BraTS2021_00000_t1.nii.gz, BraTS-GLI-00000-000-t1n.nii.gz …")
    if len(separators) > 1:
        raise UsageError(
            f"{source}: holds names of before and after 2023, whose label ids differ (the "
            "enhancing tumour is 4 or 3); convert one release at a time"
        )
    cases = tuple(
        Case(
            case,
            "",
            {m: images[case][m] for m in KINDS if m in images[case]},
            dict.fromkeys(images[case], labels[case]) if case in labels else {},
        )
        for case in sorted(images)
    )
    enhancing = 3 if separators == {"-"} else 4
    tissues = {"necrotic core": 1, "edema": 2, "enhancing tumor": enhancing}
    return RawDataset("BraTS", dict(KINDS), tissues, cases, registered=True, folder=source)
