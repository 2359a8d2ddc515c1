"""Positions of single slices, and the regular grid that they form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossvox.data.geometry import Grid
from crossvox.errors import DataError

MAX_TURN = 1e-3
"""Largest difference between the direction cosines of parallel slices."""
MAX_LENGTH = 1e-2
"""Largest difference of a direction's length from 1, which rounding causes."""
MAX_TILT = 2e-3
"""Largest tangent of the angle between the slices' normal and the step from slice to slice."""
MAX_DRIFT = 0.1
"""Largest distance of a slice from its place on the grid, in slice distances."""


@dataclass(frozen=True)
class Slice:
    """Where one slice lies, as DICOM states it (LPS+, mm).

    Attributes:
        position: (3,) centre of the first pixel.
        along_row: (3,) direction in which the column index grows.
        down_column: (3,) direction in which the row index grows.
        spacing: mm between columns and between rows.
        shape: number of columns and of rows.
    """

    position: np.ndarray
    along_row: np.ndarray
    down_column: np.ndarray
    spacing: tuple[float, float]
    shape: tuple[int, int]


def stack_grid(slices: Iterable[Slice], folder: Path) -> tuple[list[int], Grid]:
    """Return the order of the slices along their normal, and the RAS+ grid that they form.

    Raises:
        DataError: they form no regular grid; the message says why and what to do.
    """
    slices = list(slices)
    if len(slices) < 2:
        raise DataError(f"{folder}: one slice only; expected a series of parallel slices")
    first = slices[0]
    _refuse_mixed_slices(slices, folder)
    lengths = np.linalg.norm([first.along_row, first.down_column], axis=1)
    if not (np.abs(lengths - 1) < MAX_LENGTH).all():
        raise DataError(
            f"{folder}: ImageOrientationPatient holds no directions: lengths {lengths[0]:.4g} and "
            f"{lengths[1]:.4g} instead of 1; export the series again"
        )
    normal = np.cross(first.along_row, first.down_column)
    if abs(first.along_row @ first.down_column) > MAX_TILT:
        raise DataError(
            f"{folder}: rows and columns are not at right angles; export the series again"
        )
    normal /= np.linalg.norm(normal)
    depth = np.array([one.position @ normal for one in slices])
    order = [int(k) for k in np.argsort(depth, kind="stable")]
    positions = np.array([slices[k].position for k in order])
    _refuse_gaps(depth[order], folder)
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    _refuse_tilt(step, normal, folder)
    _refuse_drift(positions, step, folder)
    affine = np.eye(4)
    affine[:3, 0] = first.along_row * first.spacing[0]
    affine[:3, 1] = first.down_column * first.spacing[1]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    # In DICOM x points to the left and y to the back, in NIfTI to the right and to the front.
    return order, Grid((*first.shape, len(slices)), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def _refuse_mixed_slices(slices: Sequence[Slice], folder: Path) -> None:
    first = slices[0]
    for other in slices[1:]:
        turned = np.abs(
            [other.along_row - first.along_row, other.down_column - first.down_column]
        ).max()
        if turned > MAX_TURN:
            raise DataError(
                f"{folder}: slices of different orientations in one series, as with a localizer; "
                "export the stack of parallel slices alone"
            )
        if other.shape != first.shape or not np.allclose(other.spacing, first.spacing, rtol=1e-3):
            raise DataError(
                f"{folder}: slices of different size, {_size(first)} and {_size(other)}; export "
                "the stack of equal slices alone"
            )


def _refuse_gaps(depth: np.ndarray, folder: Path) -> None:
    gaps = np.diff(depth)
    usual = float(np.median(gaps))
    doubled = int((gaps < 0.01 * max(usual, 1e-3)).sum())
    if doubled:
        raise DataError(
            f"{folder}: {doubled} of {len(depth)} slices lie where another one does, as in a "
            "series of several phases or echoes, or copied twice; export one volume"
        )
    # If half of the slices are missing, the median distance is not the true one, but the smallest
    # distance is.
    ratios = gaps / (gaps.min() if gaps.min() > 0.4 * usual else usual)
    whole = np.rint(ratios)
    if (whole > 1).any() and (np.abs(ratios - whole) < MAX_DRIFT * whole).all():
        place, number = int(np.argmax(whole > 1)), int((whole - 1).sum())
        raise DataError(
            f"{folder}: {number} slice{'s' * (number > 1)} missing, first after slice {place + 1} "
            f"({gaps[place]:.4g} mm to the next instead of {usual:.4g}); export the whole series"
        )
    if (np.abs(gaps - usual) > 2 * MAX_DRIFT * usual).any():
        raise DataError(
            f"{folder}: slices {gaps.min():.4g} to {gaps.max():.4g} mm apart, at no regular "
            "distance; resample the series first (dcm2niix, 3D Slicer)"
        )


def _refuse_tilt(step: np.ndarray, normal: np.ndarray, folder: Path) -> None:
    along = float(step @ normal)
    tilt = float(np.linalg.norm(step - along * normal)) / along
    if tilt > MAX_TILT:
        raise DataError(
            f"{folder}: gantry tilt or shear, slices shifted by {np.degrees(np.arctan(tilt)):.1f}° "
            "against their normal; resample the series first (dcm2niix corrects gantry tilt)"
        )


def _refuse_drift(positions: np.ndarray, step: np.ndarray, folder: Path) -> None:
    wanted = positions[0] + np.arange(len(positions))[:, None] * step
    drift = np.linalg.norm(positions - wanted, axis=1).max()
    limit = MAX_DRIFT * np.linalg.norm(step)
    if drift > limit:
        raise DataError(
            f"{folder}: a slice lies {drift:.3g} mm from its place on a regular grid, more than "
            f"{limit:.2g} mm; resample the series first (dcm2niix, 3D Slicer)"
        )


def _size(one: Slice) -> str:
    (columns, rows), (x, y) = one.shape, one.spacing
    return f"{columns}×{rows} at {x:.3g}×{y:.3g} mm"
