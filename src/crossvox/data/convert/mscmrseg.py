"""MS-CMRSeg 2019 (Zhuang, TPAMI 2019): cardiac MR of 45 patients in three sequences."""

from __future__ import annotations

import re
from pathlib import Path

from crossvox.data.convert.raw import RawDataset, all_volumes, nothing_found, require_source
from crossvox.data.manifest import Case

SEQUENCES = {"C0": "bssfp", "LGE": "lge", "T2": "t2"}
LABELS = {"myocardium": 200, "left ventricle": 500, "right ventricle": 600}
_NAME = re.compile(r"patient(\d+)_(C0|LGE|T2)(_manual)?\.nii(\.gz)?", re.IGNORECASE)


def find_mscmrseg(source: Path) -> RawDataset:
    """Find scans `patient1_LGE.nii.gz` and labels `patient1_LGE_manual.nii.gz` in any folders.

    The archives hold them in `c0t2lge`, `c0gt`, `t2gt`, `lgegt`, `LGE_manual_35_TestData` …; of two
    files of one name the first is taken. The headers of a patient's sequences agree only roughly,
    so the set counts as not registered.
    """
    source = require_source(source)
    images: dict[int, dict[str, Path]] = {}
    labels: dict[int, dict[str, Path]] = {}
    for file in all_volumes(source):
        if (match := _NAME.fullmatch(file.name)) is None:
            continue
        number, modality = int(match[1]), SEQUENCES[match[2].upper()]
        (labels if match[3] else images).setdefault(number, {}).setdefault(modality, file)
    if not images:
        raise nothing_found(source, "patient1_C0.nii.gz, patient1_LGE.nii.gz and the like")
    cases = tuple(
        Case(
            f"patient{number:02d}",
            "",
            {m: images[number][m] for m in SEQUENCES.values() if m in images[number]},
            {m: file for m, file in labels.get(number, {}).items() if m in images[number]},
        )
        for number in sorted(images)
    )
    return RawDataset(
        "MS-CMRSeg 2019",
        dict.fromkeys(SEQUENCES.values(), "mr"),
        LABELS,
        cases,
        sizes={("bssfp", "lge"): {"train": 40, "val": 5}},
        usual=("bssfp", "lge"),
        folder=source,
    )
