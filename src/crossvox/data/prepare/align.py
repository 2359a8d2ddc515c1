"""How far the headers of a subject's scans are from laying them over each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import SimpleITK as sitk  # noqa: N813 - as its own documentation has it

from crossvox.data.geometry import Grid, coverage
from crossvox.data.prepare.preprocess import Prepared

COARSE = 50_000
"""Voxels of a scan that are compared, at most; a shift needs no more."""
BINS = 24
"""Grey values that are told apart."""
GAIN = 1.1
"""Headers are believed unless the scans tell this many times as much about each other elsewhere."""
STEPS = (4.0, 0.2)
"""First and last step of the search in mm: for bodies of human size."""
SHARED = 0.5
"""Part of the smaller field of view that lies in the other after a shift, at least."""


class Scan(Protocol):
    """A prepared scan, in memory or stored."""

    @property
    def array(self) -> Any:
        """Its voxels, (X, Y, Z) once sliced."""

    @property
    def grid(self) -> Grid:
        """Where its header puts them."""


def laid_over(scans: Mapping[str, Prepared], order: Sequence[str]) -> dict[str, Prepared]:
    """The scans of a subject with their `place`; arguments as of `aligned`."""
    places = aligned(scans, order)
    return {m: replace(scan, place=places[m]) for m, scan in scans.items()}


def aligned(scans: Mapping[str, Scan], order: Sequence[str]) -> dict[str, Grid]:
    """Where a subject's scans lie once they are brought over each other.

    Args:
        scans: modality → scan.
        order: of the modalities; the first that the subject has stays where it is.

    Returns:
        Modality → grid, the scan's own but for a shift; see `find_shift`.
    """
    first, *others = sorted(scans, key=list(order).index)
    at = scans[first]
    places = {first: at.grid}
    for m in others:
        of = scans[m].grid
        shift = find_shift(at.array[:], at.grid, scans[m].array[:], of)
        places[m] = shifted(of, shift) if shift.any() else of
    return places


def find_shift(fixed: np.ndarray, at: Grid, moving: np.ndarray, of: Grid) -> np.ndarray:
    """How far a scan must be moved so that it shows the body where another scan shows it.

    Patients move between two sequences, and headers may be off by centimetres. The shift is where
    the grey values of one scan tell most about those of the other (Mattes et al., Medical Imaging
    2001); neither needs to be of the other's modality.

    Args:
        fixed: (X, Y, Z), a scan of a subject.
        at: its grid.
        moving: (X', Y', Z'), another scan of the subject.
        of: its grid.

    Returns:
        (3,) mm in world space (RAS+) to be added to where `moving` lies; 0 where nothing clearly
        better than the header is found, and where headers put the two entirely apart, as scans
        of different parts of the body are.
    """
    best = np.zeros(3)
    if not _share(at, of):
        return best
    first, second = _image(*_coarse(fixed, at)), _image(*_coarse(moving, of))
    # Scans that have nothing in common seem to tell half of this about each other.
    chance = BINS**2 / min(first.GetNumberOfPixels(), second.GetNumberOfPixels())
    told = max(_information(first, second), 0)
    least = max(GAIN * told, told + chance)
    for start in _starts(at, of):
        told, shift = _climb(first, second, start)
        if told > least and _share(at, shifted(of, shift)) >= SHARED:
            best, least = shift, told
    return best


def shifted(grid: Grid, shift: np.ndarray) -> Grid:
    """The same grid, `shift` (3,) mm further in world space."""
    affine = grid.affine.copy()
    affine[:3, 3] += shift
    return Grid(grid.shape, affine)


def _starts(at: Grid, of: Grid) -> Iterator[np.ndarray]:
    """Shifts to begin with: none, and centre over centre, without and with the slices' axis."""
    yield np.zeros(3)
    apart = at.centre - of.centre
    normal = at.directions[:, int(np.argmax(at.spacing))]
    yield apart - normal * (normal @ apart)
    yield apart


def _climb(first: sitk.Image, second: sitk.Image, start: np.ndarray) -> tuple[float, np.ndarray]:
    """The mutual information at the best shift of `second` near `start`, and that shift."""
    search, shift = _comparison(second, start)
    search.SetOptimizerAsRegularStepGradientDescent(*STEPS, 50, relaxationFactor=0.6)
    search.SetOptimizerScales([1.0, 1.0, 1.0])
    try:
        search.Execute(first, second)
    except RuntimeError:  # the scans hardly overlap there
        return -np.inf, start
    return -search.GetMetricValue(), -np.array(shift.GetParameters())


def _information(first: sitk.Image, second: sitk.Image) -> float:
    """What the scans tell about each other where they are."""
    try:
        return -_comparison(second, np.zeros(3))[0].MetricEvaluate(first, second)
    except RuntimeError:  # as in `_climb`
        return -np.inf


def _comparison(
    second: sitk.Image, start: np.ndarray
) -> tuple[sitk.ImageRegistrationMethod, sitk.Transform]:
    """What compares scans with `second`, and the transform that it compares them under."""
    search = sitk.ImageRegistrationMethod()
    search.SetNumberOfWorkUnits(1)  # sums in another order would end elsewhere
    search.SetMetricAsMattesMutualInformation(BINS)
    search.SetInterpolator(sitk.sitkLinear)
    # Smoothed gradients need four voxels along each axis; without, differences are taken.
    search.SetMetricUseMovingImageGradientFilter(min(second.GetSize()) >= 4)
    # It maps positions in the fixed scan to those in the moving one: the other way round.
    transform = sitk.TranslationTransform(3, (-start).tolist())
    search.SetInitialTransform(transform, inPlace=True)
    return search, transform


def _coarse(array: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """Means of blocks, `COARSE` at most; blocks are as near to cubes as whole voxels allow."""
    size, edge = np.ones(3, dtype=int), float(grid.spacing.min())
    while np.prod(np.array(grid.shape) // size) > COARSE:
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


def _image(array: np.ndarray, grid: Grid) -> sitk.Image:
    """With RAS+ called ITK's LPS+: all that is asked for is where scans lie to each other."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T, dtype=np.float32))
    image.SetSpacing(grid.spacing.tolist())
    image.SetDirection(grid.directions.ravel().tolist())
    image.SetOrigin(grid.affine[:3, 3].tolist())
    return image


def _share(first: Grid, second: Grid) -> float:
    """Part of one field of view that lies in the other, of the two that of which more does."""
    return max(coverage(first, second), coverage(second, first))
