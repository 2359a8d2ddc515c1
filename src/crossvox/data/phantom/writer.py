"""Write a synthetic data set: CT and MR scans of phantoms, labels and a manifest.

It is for trying things out: it shows no patient, and no score on it says anything about patients.
Each subject has its own size, pose, organs and smooth deformation (`anatomy`), each scan its own
grid, orientation, contrast and noise (`physics`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from crossvox.data.manifest import Case, Manifest
from crossvox.data.phantom.anatomy import Abdomen, Tissue, rotation
from crossvox.data.phantom.physics import ct_image, mr_image
from crossvox.errors import UsageError
from crossvox.utils.files import atomic_path

LABELS = {"liver": 6, "spleen": 1, "left kidney": 3, "right kidney": 2}
"""Class name → id in the label files."""

_ORGANS = {
    Tissue.LIVER: "liver",
    Tissue.LIVER_VEIN: "liver",
    Tissue.SPLEEN: "spleen",
    Tissue.LEFT_KIDNEY: "left kidney",
    Tissue.RIGHT_KIDNEY: "right kidney",
}


@dataclass(frozen=True)
class Scanner:
    """Sampling of a subject by one modality.

    Attributes:
        render: (tissue (X, Y, Z, S), world (3, X, Y, Z), rng) → image (X, Y, Z).
        view: mean extent of the field of view in mm, left-right × front-back × head-feet.
        slices: number of slices, relative to the last axis of the shape asked for.
        samples: points per voxel through the slice (odd: the middle one gives the label).
        tilt: standard deviation of the scan plane's rotation, in degrees.
        codes: axis codes of this scanner's files.
    """

    render: Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
    view: tuple[float, float, float]
    slices: float
    samples: int
    tilt: float
    codes: tuple[str, ...]


SCANNERS = {
    "ct": Scanner(ct_image, (336.0, 256.0, 180.0), 1.0, 1, 0.0, ("LPS", "RAS", "LAS")),
    "mr": Scanner(mr_image, (294.0, 224.0, 176.0), 0.7, 3, 2.0, ("LPS", "RAS", "RPS")),
}


def write_phantom(
    out: Path | str,
    *,
    train: int = 12,
    val: int = 2,
    test: int = 2,
    paired: bool = False,
    registered: bool = False,
    seed: int = 0,
    shape: tuple[int, int, int] = (72, 56, 30),
) -> Path:
    """Write images, labels and `dataset.json` below a folder; return the manifest's path.

    Subject number i looks the same whatever the counts are. Existing files are replaced.

    Args:
        out: folder, made if missing.
        train: subjects of the train split; per modality, unless `paired`.
        val: subjects of the val split.
        test: subjects of the test split.
        paired: every subject has both modalities, each on its own grid. The subject moves between
            the scans by some millimetres and degrees.
        registered: the subject does not move; only with `paired`.
        seed: other seeds give other subjects.
        shape: voxels of a CT (left-right, front-back, slices). The field of view is fixed, so
            fewer voxels are larger ones.

    Raises:
        UsageError: `registered` without `paired`.

    >>> write_phantom("phantom", train=4, val=1, test=1, paired=True)
    PosixPath('/…/phantom/dataset.json')
    """
    if registered and not paired:
        raise UsageError("a phantom can only be registered if it is paired; add paired")
    out = Path(out).absolute()
    cases = []
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    for group in [("ct", "mr")] if paired else [("ct",), ("mr",)]:
        for number, split in enumerate(splits):
            name = f"{'s' if paired else group[0]}{number:03d}"
            images, labels = {}, {}
            for modality in group:
                moved = paired and not registered and modality == "mr"
                key = (seed, number, 0 if paired else 1 + list(SCANNERS).index(modality))
                image, label = _scan(modality, key, moved, shape)
                images[modality] = _write(out / modality / "images" / f"{name}.nii.gz", image)
                labels[modality] = _write(out / modality / "labels" / f"{name}.nii.gz", label)
            cases.append(Case(name, split, images, labels, None))
    path = out / "dataset.json"
    kinds = {modality: modality for modality in SCANNERS}
    Manifest("phantom", kinds, dict(LABELS), tuple(cases), registered=registered).save(path)
    return path


def _scan(
    modality: str, key: tuple[int, int, int], moved: bool, shape: tuple[int, int, int]
) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Return image and label of one subject.

    Args:
        modality: of the scanner.
        key: seed, number of the subject, and population (0 for paired subjects).
        moved: the subject has moved since its first scan.
        shape: see `write_phantom`.
    """
    person = np.random.default_rng(key)
    subject = Abdomen(person)
    table = np.array([*person.uniform(-30, 30, 2), person.uniform(-500, 500)])
    rng = np.random.default_rng((*key, 1 + list(SCANNERS).index(modality)))
    displacement = rotation(rng.normal(0, 3, 3)), rng.choice([-1, 1], 3) * rng.uniform(2, 8, 3)
    scanner = SCANNERS[modality]
    size, affine = _grid(scanner, table, shape, rng)
    tissue = np.empty((*size, scanner.samples), np.uint8)
    for sample in range(scanner.samples):
        offset = (sample + 0.5) / scanner.samples - 0.5
        points = _points(size, affine, offset) - table.astype(np.float32)[:, None]
        if moved:
            turn, shift = (part.astype(np.float32) for part in displacement)
            points = turn @ points + shift[:, None]
        tissue[..., sample] = subject.tissues(points).reshape(size)
    image = scanner.render(tissue, _points(size, affine).reshape(3, *size), rng)
    ids = np.zeros(len(Tissue), np.uint8)
    for tissue_code, name in _ORGANS.items():
        ids[tissue_code] = LABELS[name]
    label = ids[tissue[..., scanner.samples // 2]]
    return _nifti(np.rint(image).astype(np.int16), affine), _nifti(label, affine)


def _grid(
    scanner: Scanner,
    table: np.ndarray,
    shape: tuple[int, int, int],
    rng: np.random.Generator,
) -> tuple[tuple[int, int, int], np.ndarray]:
    """Return shape and affine of a scan: random field of view, offset, tilt and orientation."""
    size = (shape[0], shape[1], round(shape[2] * scanner.slices))
    zoom = np.exp(rng.normal(0, 0.03))
    spacing = np.array(scanner.view) * [zoom, zoom, 1] / size
    codes = str(rng.choice(scanner.codes))
    tilt = rotation(scanner.tilt * rng.standard_normal(3))
    signs = [1 if ours == theirs else -1 for ours, theirs in zip(codes, "RAS", strict=True)]
    affine = np.eye(4)
    affine[:3, :3] = tilt @ np.diag(spacing * signs)
    middle = table + [0, 0, 3] + rng.normal(0, [4, 4, 4])
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(size) - 1) / 2)
    return size, affine


def _points(size: tuple[int, int, int], affine: np.ndarray, offset: float = 0.0) -> np.ndarray:
    """Return world coordinates (3, N) of voxels moved by `offset` along the last axis."""
    voxels = np.indices(size, np.float32).reshape(3, -1)
    voxels[2] += offset
    matrix = affine.astype(np.float32)
    return matrix[:3, :3] @ voxels + matrix[:3, 3:]


def _nifti(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    return image


def _write(path: Path, image: nib.Nifti1Image) -> Path:
    with atomic_path(path) as temporary:
        nib.save(image, temporary)
    return path
