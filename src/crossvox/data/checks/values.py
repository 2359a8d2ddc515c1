"""What is wrong with the values of a scan; those of a CT must be Hounsfield units."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from crossvox.data.formats.nifti.reader import NiftiFile
from crossvox.data.problems import Problem
from crossvox.data.values import Values, measure_values

MIN_FILL = 0.02
"""Share of a scan's voxels from which NaN at its border is taken for fill."""


def value_problems(file: NiftiFile, kind: str) -> list[Problem]:
    """List what is wrong with the intensities of a scan.

    Args:
        file: the scan, read with its voxels.
        kind: of its modality; a `ct` must hold Hounsfield units.
    """
    assert file.header is not None and file.stored is not None
    stored = file.stored.reshape(file.header.shape[:3], order="F")
    values = measure_values(stored, file.header.scale)
    problems = []
    if values.bad:
        problems.append(_bad_problem(file, values.bad))
    if values.low == values.high:
        found = f"a constant image, every voxel {values.low:g}"
        fix = "export the scan again, or take the case out"
        problems.append(Problem.error(found, "intensities that differ", fix))
    if values.no_data:
        listed = " and ".join(f"{value:g}" for value in values.no_data)
        found = f"voxels of {listed}, far beyond the others ({values.low:g} to {values.high:g})"
        fix = f"nothing if they mark where there is no data: they count as {values.low:g}"
        problems.append(Problem.warning(found, "intensities only", fix))
    if max(abs(values.low), abs(values.high)) > float(np.finfo(np.float32).max):
        found = f"intensities from {values.low:g} to {values.high:g}"
        problems.append(Problem.error(found, "numbers of single precision", "divide them"))
    if kind == "ct" and values.low < values.high:
        problems += hounsfield_problems(values)
    return problems


def hounsfield_problems(values: Values) -> list[Problem]:
    """List why the intensities of a CT cannot be Hounsfield units, or may be none.

    Air is near −1000, fat near −100, water 0, soft tissue 20 to 80, bone above 200. A scan may be
    clipped to a part of this.
    """
    low, high, sample = values.low, values.high, values.sample
    # The lowest value may be that of padding.
    inner = sample[sample > low]
    air = np.count_nonzero((inner > -1100) & (inner < -500)) / len(sample)
    dense = np.count_nonzero(sample > 850) / len(sample)
    beyond = np.count_nonzero((inner < -1100) | (inner > 3100)) / len(sample)
    units = "Hounsfield units, as air −1000 and water 0"
    span = f"CT values from {low:g} to {high:g}"
    again = (
        "convert the DICOM series again with its rescale slope and intercept, or train with "
        "another kind than ct"
    )
    if high - low < 30:
        return [Problem.error(f"{span}, as if scaled", units, again)]
    if (low, high) == (0, 255):
        return [Problem.error(f"{span}, as in a picture of 8 bits", units, again)]
    if beyond > 0.2:
        found = f"{span}, {beyond:.0%} of them below −1100 or above 3100"
        return [Problem.error(found, units, again)]
    if air < 0.005 and dense > (0.05 if low >= 0 else 0.25):
        found = f"{span}, {dense:.0%} of them above 850 and none like air"
        fix = f"subtract 1024 if that was added (soft tissue near 1064), or {again}"
        return [Problem.error(found, units, fix)]
    if low >= 0 or high < 100:
        found = f"{span}, {'none below 0 as fat and air' if low >= 0 else 'none above 100 as bone'}"
        fix = f"nothing if the scan was clipped to these, else {again}"
        return [Problem.warning(found, units, fix)]
    return []


def _bad_problem(file: NiftiFile, bad: int) -> Problem:
    """Say that NaN and Inf are fill, if all of them reach the border, or refuse them."""
    assert file.header is not None and file.stored is not None
    found = f"{bad} of {file.stored.size} voxels NaN or Inf"
    is_bad = ~np.isfinite(file.stored.reshape(file.header.shape[:3], order="F"))
    border = is_bad.copy()
    border[1:-1, 1:-1, 1:-1] = False
    reached = ndimage.binary_propagation(border, mask=is_bad)
    if MIN_FILL * is_bad.size <= bad < is_bad.size and (reached == is_bad).all():
        fix = "nothing if they mark where there is no data: they count as the smallest value"
        return Problem.warning(f"{found}, at its border", "finite intensities", fix)
    fix = "replace them by the scan's background value, or export it again"
    return Problem.error(found, "finite intensities", fix)
