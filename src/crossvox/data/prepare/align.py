"""Alignment of a subject's scans by a shift, since headers give the position only roughly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name in its own documentation

from crossvox.data.geometry import Grid, coverage
from crossvox.data.prepare.preprocess import PreparedScan

MAX_VOXELS = 50_000
"""Scans are averaged down to this number of voxels, which is enough to find a shift."""
BINS = 24
"""Bins per axis of the joint histogram of grey values."""
MIN_GAIN = 1.1
"""The header is kept unless a shift raises the mutual information at least by this factor."""
FIRST_STEP, LAST_STEP = 4.0, 0.2
"""Step lengths of the search in mm, for bodies of human size."""
MIN_OVERLAP = 0.5
"""Share of one field of view that must lie in the other after a shift."""


class _Scan(Protocol):
    """A prepared scan, in memory or in a store."""

    @property
    def array(self) -> Any:
        """Its voxels, (X, Y, Z) once sliced."""

    @property
    def grid(self) -> Grid:
        """The grid that its header gives."""


def align_scans(scans: Mapping[str, PreparedScan], order: Sequence[str]) -> dict[str, PreparedScan]:
    """Return a subject's scans with their `aligned_grid`; for the arguments see `align_grids`."""
    grids = align_grids(scans, order)
    return {m: replace(scan, aligned_grid=grids[m]) for m, scan in scans.items()}


def align_grids(scans: Mapping[str, _Scan], order: Sequence[str]) -> dict[str, Grid]:
    """Return the grids on which a subject's scans lie over each other.

    Args:
        scans: modality → scan.
        order: of the modalities; the first one that the subject has stays where it is.

    Returns:
        Modality → the scan's own grid, shifted as `find_shift` says.

    >>> align_grids({"ct": ct, "mr": mr}, ("ct", "mr"))["ct"] is ct.grid
    True
    """
    first, *others = sorted(scans, key=list(order).index)
    fixed = scans[first]
    grids = {first: fixed.grid}
    for m in others:
        moving = scans[m]
        shift = find_shift(fixed.array[:], fixed.grid, moving.array[:], moving.grid)
        grids[m] = shift_grid(moving.grid, shift) if shift.any() else moving.grid
    return grids


def find_shift(
    fixed: np.ndarray, fixed_grid: Grid, moving: np.ndarray, moving_grid: Grid
) -> np.ndarray:
    """Find the shift that brings a scan over another scan of the same subject.

    Patients move between two sequences, and headers may be off by centimetres. The shift
    maximises the mutual information of the grey values (Mattes et al., Medical Imaging 2001), so
    the scans may be of different modalities.

    Args:
        fixed: (X, Y, Z) scan that stays.
        fixed_grid: its grid.
        moving: (X', Y', Z') scan to be shifted.
        moving_grid: its grid.

    Returns:
        (3,) mm in world space (RAS+), to be added to the position of `moving`. It is 0 if no
        shift is clearly better than the header, and if the headers put the scans entirely apart,
        as for scans of different parts of the body.
    """
    best = np.zeros(3)
    if not _overlap(fixed_grid, moving_grid):
        return best
    first = _itk_image(*_reduce(fixed, fixed_grid))
    second = _itk_image(*_reduce(moving, moving_grid))
    # Chance alone gives unrelated scans about half of this information.
    chance = BINS**2 / min(first.GetNumberOfPixels(), second.GetNumberOfPixels())
    information = max(_information(first, second), 0)
    required = max(MIN_GAIN * information, information + chance)
    for start in _starts(fixed_grid, moving_grid):
        information, shift = _climb(first, second, start)
        overlaps = _overlap(fixed_grid, shift_grid(moving_grid, shift)) >= MIN_OVERLAP
        if overlaps and information > required:
            best, required = shift, information
    return best


Reduced = tuple[sitk.Image, Grid]
"""A scan of few voxels, and the grid of the whole."""


def reduce_scan(array: np.ndarray, grid: Grid, voxels: int = MAX_VOXELS) -> Reduced:
    """Average a scan down to a number of voxels, for `most_information`."""
    return _itk_image(*_reduce(array, grid, voxels)), grid


def most_information(fixed: Reduced, moving: Reduced) -> float:
    """Return the largest mutual information that two scans have under some shift, 0 at least."""
    starts = _starts(fixed[1], moving[1])
    return max(0.0, *(_climb(fixed[0], moving[0], start)[0] for start in starts))


def shift_grid(grid: Grid, shift: np.ndarray) -> Grid:
    """Return a grid moved by `shift`, (3,) mm in world space."""
    affine = grid.affine.copy()
    affine[:3, 3] += shift
    return Grid(grid.shape, affine)


def _starts(fixed: Grid, moving: Grid) -> Iterator[np.ndarray]:
    """Yield the shifts to start from: none, then centre on centre, within the slices and fully."""
    yield np.zeros(3)
    apart = fixed.centre - moving.centre
    normal = fixed.directions[:, int(np.argmax(fixed.spacing))]
    yield apart - normal * (normal @ apart)
    yield apart


def _climb(fixed: sitk.Image, moving: sitk.Image, start: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the largest mutual information near the shift `start`, and the shift that gives it."""
    registration, transform = _registration(moving, start)
    registration.SetOptimizerAsRegularStepGradientDescent(
        FIRST_STEP, LAST_STEP, 50, relaxationFactor=0.6
    )
    registration.SetOptimizerScales([1.0, 1.0, 1.0])
    try:
        registration.Execute(fixed, moving)
    except RuntimeError:  # the scans hardly overlap there
        return -np.inf, start
    return -registration.GetMetricValue(), -np.array(transform.GetParameters())


def _information(fixed: sitk.Image, moving: sitk.Image) -> float:
    """Return the mutual information of two scans where their headers put them."""
    try:
        return -_registration(moving, np.zeros(3))[0].MetricEvaluate(fixed, moving)
    except RuntimeError:  # as in `_climb`
        return -np.inf


def _registration(
    moving: sitk.Image, shift: np.ndarray
) -> tuple[sitk.ImageRegistrationMethod, sitk.Transform]:
    """Return a registration that compares scans under a shift of `moving`, and its transform."""
    registration = sitk.ImageRegistrationMethod()
    # The order of sums depends on the number of threads, and so would the result.
    registration.SetNumberOfWorkUnits(1)
    registration.SetMetricAsMattesMutualInformation(BINS)
    registration.SetInterpolator(sitk.sitkLinear)
    # Smoothed gradients need four voxels along each axis. Otherwise ITK takes differences.
    registration.SetMetricUseMovingImageGradientFilter(min(moving.GetSize()) >= 4)
    # ITK maps positions in the fixed scan to positions in the moving one, hence the sign.
    transform = sitk.TranslationTransform(3, (-shift).tolist())
    registration.SetInitialTransform(transform, inPlace=True)
    return registration, transform


def _reduce(array: np.ndarray, grid: Grid, voxels: int = MAX_VOXELS) -> tuple[np.ndarray, Grid]:
    """Average blocks of voxels, nearly cubic in mm, until at most `voxels` are left."""
    size, edge = np.ones(3, dtype=int), float(grid.spacing.min())
    while np.prod(np.array(grid.shape) // size) > voxels:
        edge *= 1.05
        size = np.clip((edge / grid.spacing).astype(int), 1, grid.shape)
    for axis, n in enumerate(size):
        if n == 1:
            continue
        whole = np.moveaxis(array, axis, 0)[: array.shape[axis] // n * n]
        blocks = whole.reshape(-1, n, *whole.shape[1:]).mean(axis=1, dtype=np.float32)
        array = np.moveaxis(blocks, 0, axis)
    inner = np.diag([*size.astype(float), 1.0])
    inner[:3, 3] = (size - 1) / 2
    return array, Grid(array.shape, grid.affine @ inner)


def _itk_image(array: np.ndarray, grid: Grid) -> sitk.Image:
    """Return an ITK image. RAS+ is passed as ITK's LPS+, as only the scans' relation matters."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T, dtype=np.float32))
    image.SetSpacing(grid.spacing.tolist())
    image.SetDirection(grid.directions.ravel().tolist())
    image.SetOrigin(grid.affine[:3, 3].tolist())
    return image


def _overlap(first: Grid, second: Grid) -> float:
    """Return the larger of the two overlap fractions of the fields of view."""
    return max(coverage(first, second), coverage(second, first))
