"""AMOS 2022 (Ji et al., NeurIPS 2022): abdominal CT and MR of different patients, 15 organs."""

from __future__ import annotations

import re
from pathlib import Path

from crossvox.data.convert.raw import RawDataset, nifti_files, nothing_found, require_source
from crossvox.data.manifest import Case

LABELS = {
    "spleen": 1,
    "right kidney": 2,
    "left kidney": 3,
    "gall bladder": 4,
    "esophagus": 5,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "postcava": 9,
    "pancreas": 10,
    "right adrenal gland": 11,
    "left adrenal gland": 12,
    "duodenum": 13,
    "bladder": 14,
    "prostate or uterus": 15,
}
FOLDERS = {"train": "Tr", "val": "Va", "test": "Ts"}
LAST_CT = 500
"""Scans up to this number are CT, the others MR (the data set's readme)."""


def find_amos(source: Path) -> RawDataset:
    """Find scans `images{Tr,Va,Ts}/amos_0001.nii.gz` and labels of the same name in `labels…`."""
    source = require_source(source)
    cases = []
    for split, part in FOLDERS.items():
        labels = nifti_files(source / f"labels{part}")
        for name, image in nifti_files(source / f"images{part}").items():
            number = re.fullmatch(r"amos_(\d+)", name)
            if number is None:
                continue
            modality = "ct" if int(number[1]) <= LAST_CT else "mr"
            label = {modality: labels[name]} if name in labels else {}
            cases.append(Case(name, split, {modality: image}, label))
    if not cases:
        raise nothing_found(source, "imagesTr/amos_0001.nii.gz and the like")
    return RawDataset(
        "AMOS 2022",
        {"ct": "ct", "mr": "mr"},
        LABELS,
        tuple(cases),
        sizes={(modality,): {"train": 40, "val": 20} for modality in ("ct", "mr")},
        folder=source,
    )
