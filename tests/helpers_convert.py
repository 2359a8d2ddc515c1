"""Small trees in the layouts of public data sets."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from crossvox.cli.main import main
from crossvox.data.check import check
from crossvox.data.manifest import Manifest, load_manifest
from crossvox.data.manifest_root import common_folder
from helpers_data import AFFINE, label, scan, write_nifti

_seed = iter(range(10**6))


def image(path: Path) -> Path:
    """A scan that differs from every other."""
    return write_nifti(path, scan(next(_seed)))


def mask(path: Path, *ids: int) -> Path:
    values = label().astype(np.int16)
    values.flat[: len(ids)] = ids
    return write_nifti(path, values)


def converted(layout: str, source: Path, out: Path, *more: object) -> Manifest:
    """The manifest that the command writes; what it describes must be sound."""
    assert main(["convert", layout, str(source), "--out", str(out), *map(str, more)]) == 0
    manifest = load_manifest(out / "dataset.json", common_folder([source / "x", out / "x"]))
    assert [p for p in check(manifest) if p.severity == "error"] == []
    return manifest


def ids(manifest: Manifest, split: str, modality: str | None = None) -> set[str]:
    return {c.id for c in manifest.split(split) if modality is None or modality in c.images}


def amos(root: Path, train: dict[str, int], val: dict[str, int], test: int = 0) -> Path:
    """AMOS with so many scans per modality."""
    first = {"ct": 1, "mr": 501}
    for part, counts in (("Tr", train), ("Va", val), ("Ts", {"ct": test})):
        for modality, count in counts.items():
            for _ in range(count):
                name = f"amos_{first[modality]:04d}.nii.gz"
                first[modality] += 1
                image(root / f"images{part}" / name)
                if part != "Ts":
                    mask(root / f"labels{part}" / name, *range(1, 16))
    return root


def mscmrseg(root: Path, patients: int, labelled: int, lge_labelled: int) -> Path:
    for number in range(1, patients + 1):
        for sequence in ("C0", "LGE", "T2"):
            image(root / "c0t2lge" / f"patient{number}_{sequence}.nii.gz")
        if number <= labelled:
            mask(root / "c0gt" / f"patient{number}_C0_manual.nii.gz", 200, 500, 600)
            mask(root / "t2gt" / f"patient{number}_T2_manual.nii.gz", 200, 500, 600)
        if number <= lge_labelled:
            mask(root / "lgegt" / f"patient{number}_LGE_manual.nii.gz", 200, 500, 600)
    return root


def nnunet(root: Path, content: str, channels: int = 2, suffix: str = ".nii.gz") -> Path:
    for number in range(6):
        for channel in range(channels):
            image(root / "imagesTr" / f"Fall_{number}_{channel:04d}{suffix}")
        mask(root / "labelsTr" / f"Fall_{number}{suffix}", 1, 2)
    for channel in range(channels):
        image(root / "imagesTs" / f"Fall_9_{channel:04d}{suffix}")
    (root / "dataset.json").write_text(content)
    return root


def tiny(path: Path) -> None:
    """The smallest scan there can be, quickly written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), AFFINE), path)
