"""What is wrong with the values of a scan; those of a CT must be Hounsfield units."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from crossvox.data.checks.intensities import Intensities, intensity_problems
from crossvox.data.formats.nifti.reader import NiftiFile
from crossvox.data.odd_fill import odd_fill_value, split_odd_fill
from crossvox.data.problems import Problem, has_errors
from crossvox.data.values import Values, measure_values

MIN_FILL = 0.02
"""Share of a scan's voxels from which NaN at its border is taken for fill."""
DARK = -500.0
"""Values below this are as dark as air in a CT."""
UNITS = "Hounsfield units, as air −1000 and water 0"
AGAIN = (
    "convert the DICOM series again with its rescale slope and intercept, or train with another "
    "kind than ct"
)


def value_problems(file: NiftiFile, kind: str, seen: Intensities | None = None) -> list[Problem]:
    """List what is wrong with the intensities of a scan.

    Args:
        file: the scan, read with its voxels.
        kind: of its modality; a `ct` must hold Hounsfield units.
        seen: intensities of the training scans of its modality; None = unknown.
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
    elif not values.bad:
        problems += _odd_fill_problems(file, stored, kind)
    problems += _plain_slice_problems(stored, file.header.grid.spacing)
    if max(abs(values.low), abs(values.high)) > float(np.finfo(np.float32).max):
        found = f"intensities from {values.low:g} to {values.high:g}"
        problems.append(Problem.error(found, "numbers of single precision", "divide them"))
    if kind == "ct" and values.low < values.high:
        problems += hounsfield_problems(values)
    if seen is not None and values.low < values.high:
        problems += intensity_problems(values, seen)
    return problems


def _odd_fill_problems(file: NiftiFile, stored: np.ndarray, kind: str) -> list[Problem]:
    """Tell of fill whose value is no air's; dark fill does not matter to a CT."""
    assert file.header is not None
    value = odd_fill_value(stored, file.header.scale)
    if value is None or (kind == "ct" and value < DARK) or has_errors(file.problems):
        return []
    found = split_odd_fill(file.values(), value)
    if found is None:
        return []
    fix = f"nothing if they mark where there is no data: they count as {found[2]:g}"
    return [Problem.warning(f"voxels of {value:g} round the scan", "air or zeros there", fix)]


def _plain_slice_problems(stored: np.ndarray, spacing: np.ndarray) -> list[Problem]:
    """Tell of slices of one value between others, as a copy leaves that was interrupted."""
    axis = max(range(3), key=lambda k: (spacing[k], k))
    others = tuple(k for k in range(3) if k != axis)
    shown = np.flatnonzero(stored.min(axis=others) != stored.max(axis=others))
    plain = int(shown[-1] - shown[0] + 1 - len(shown)) if len(shown) else 0
    if not plain:
        return []
    found = f"{plain} slices of one value between others"
    fix = "look at them, and export the scan again if they are not blank"
    return [Problem.warning(found, "slices that show something", fix)]


def hounsfield_problems(values: Values) -> list[Problem]:
    """List why the intensities of a CT cannot be Hounsfield units, or may be none.

    Air is near −1000, fat near −100, water 0, soft tissue 20 to 80, bone above 200. A scan may be
    clipped or cropped to a part of this. Values below −1100 are padding, so only the others are
    judged. What a crop may hold is a warning.
    """
    sample = values.sample
    body = sample[sample > -1100]
    # The air of scaled values may have been taken for no data.
    if not body.size or (values.no_data and _share(body[body > -500], -200, 200) < 0.05):
        found = "few near 0 as soft tissue" if body.size else "none above −1100"
        return [_not_hounsfield(values, found, certain=True)]
    low, high = float(body[0]), float(body[-1])
    if high - low < 30:
        is_scaled = low > -15 and high < 25
        return [_not_hounsfield(values, "as if scaled", certain=is_scaled)]
    if (values.low, values.high) in [(0, 255), (-128, 127)]:
        return [_not_hounsfield(values, "as in a picture of 8 bits", certain=low == 0)]
    if (share := float(np.mean(sample > 3100))) > 0.2:
        return [_not_hounsfield(values, f"{share:.0%} of them above 3100", certain=True)]
    if (share := float(np.mean(sample < -1100))) > 0.2 and not _is_spiky(sample[sample < -1100]):
        has_tissue = _share(body, -200, 200) > 0.05
        found = f"{share:.0%} of them below −1100"
        return [_not_hounsfield(values, found, certain=not has_tissue)]
    # The lowest value may be that of padding.
    has_air = _share(body[body > low], -1100, -500) * len(body) / len(sample) >= 0.005
    dense = float(np.mean(sample > 850))
    if not has_air and dense > (0.05 if low >= 0 else 0.25):
        found = f"{dense:.0%} of them above 850 and none like air"
        if _is_raised(body):
            fix = "subtract 1024 if that was added (soft tissue near 1064)"
            return [_not_hounsfield(values, found, certain=True, fix=f"{fix}, or {AGAIN}")]
        fix = "nothing if the scan is a crop of bone or metal (air near 1000: it was negated)"
        return [_not_hounsfield(values, found, fix=f"{fix}, else {AGAIN}")]
    found = _lacking(body, has_air)
    return [_not_hounsfield(values, found)] if found else []


def _lacking(body: np.ndarray, has_air: bool) -> str:
    """Return what sorted intensities lack of a CT's, or how else they differ from them."""
    if body[0] >= 0:
        return "none below 0 as fat and air"
    if body[-1] < 100:
        return "none above 100 as bone"
    if _is_negated(body):
        return "as if negated, with many near 1000"
    return "none like air" if not has_air and body[-1] < 850 and not _is_clipped(body) else ""


def _not_hounsfield(values: Values, found: str, certain: bool = False, fix: str = "") -> Problem:
    """Return the problem of a CT; an error only if its values are certainly no Hounsfield units."""
    found = f"CT values from {values.low:g} to {values.high:g}, {found}"
    if certain:
        return Problem.error(found, UNITS, fix or AGAIN)
    fix = fix or f"nothing if the scan was clipped or cropped to these, else {AGAIN}"
    return Problem.warning(found, UNITS, fix)


def _share(sample: np.ndarray, least: float, most: float) -> float:
    return float(np.mean((sample > least) & (sample < most))) if sample.size else 0.0


def _is_spiky(sample: np.ndarray) -> bool:
    """Return whether most values lie in at most three narrow spikes, as padding does."""
    numbers = np.unique(np.round(sample / 20), return_counts=True)[1]
    return bool(np.sort(numbers)[-3:].sum() > 0.6 * len(sample)) and sample[0] > -4200


def _is_negated(body: np.ndarray) -> bool:
    """Return whether air lies near +1000: many voxels there, few right below and none above."""
    air = _share(body, 850, 1150)
    beside = max(_share(body, 300, 850), 5 * _share(body, 1150, np.inf))
    return air > max(0.02, beside, 10 * _share(body, -1150, -850))


def _is_raised(body: np.ndarray) -> bool:
    """Return whether soft tissue lies near 1064 and air, if any, near 0; in bone neither does."""
    dense, dark = body[body > 850], body[(body > -100) & (body < 120)]
    has_air_at_0 = len(dark) < 0.01 * len(body) or _share(dark, -30, 40) > 0.7
    return has_air_at_0 and _share(dense, 850, 1150) > 0.7


def _is_clipped(body: np.ndarray) -> bool:
    """Return whether the lowest value stands for all that was below it."""
    near = np.count_nonzero(body < body[0] + 20)
    return bool(np.count_nonzero(body == body[0]) > 0.5 * near)


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
