"""Describe data sets in public layouts, or in any tree of files, by a manifest."""

from collections.abc import Callable
from pathlib import Path

from crossvox.data.convert.amos import find_amos
from crossvox.data.convert.brats import find_brats
from crossvox.data.convert.chaos import find_chaos
from crossvox.data.convert.mscmrseg import find_mscmrseg
from crossvox.data.convert.nnunet import find_nnunet
from crossvox.data.convert.raw import RawDataset

LAYOUTS: dict[str, tuple[Callable[[Path], RawDataset], str]] = {
    "amos": (find_amos, "AMOS 2022: imagesTr/amos_0001.nii.gz …"),
    "mscmrseg": (find_mscmrseg, "MS-CMRSeg 2019: patient1_LGE.nii.gz …"),
    "chaos": (find_chaos, "CHAOS: Train_Sets/MR/1/T2SPIR/DICOM_anon …; writes NIfTI files"),
    "brats": (find_brats, "BraTS: CASE_t1.nii.gz or CASE-t1n.nii.gz …"),
    "nnunet": (find_nnunet, "nnU-Net raw data: dataset.json, imagesTr/CASE_0000.nii.gz …"),
}
"""Name → (function that finds the scans in a folder of this layout, one-line help)."""
