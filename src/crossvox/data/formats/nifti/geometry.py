"""The geometry of a NIfTI header: one rule for unit, qform, sform and pixdim that may differ.

A header places the voxels up to three times: by the sform, by the qform and, for their size alone,
by pixdim, all in the unit of xyzt_units. The rule is that of ITK 5.4, two cases apart:

1. Lengths are converted to mm. An unknown unit is taken for mm.
2. A form counts if its code is not 0. The sform must also turn and scale only.
3. If both count and agree up to rounding, the sform is used.
4. If both count and differ, the sform is used if its code is 1 (scanner) and its voxel sizes are
   those of pixdim. Otherwise the qform is used. ITK does not compare the voxel sizes.
5. If only the sform counts, its voxel sizes are used. If its code says that it leads into a
   template (3, 4 or 5), pixdim's are used, as they are the patient's; ITK always takes these.
   A pixdim of 1, 1, 1 was never set and is not used.
6. If none counts, left and right are unknown. The axes are taken as DICOM has them, from right to
   left, from front to back and upwards.

Whatever differs is told in a warning.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import nibabel as nib
import numpy as np
from nibabel.quaternions import quat2mat

from crossvox.data.form import Form
from crossvox.data.geometry import Grid
from crossvox.data.geometry.grid import MAX_SHIFT, corner_shift
from crossvox.data.problems import Problem

FORMS: tuple[Form, ...] = ("sform", "qform")
MAX_SHEAR = 2e-3
"""Largest cosine between two voxel axes: 0.11°, 0.8 mm at the end of a 400 mm axis."""
MAX_STRETCH = 0.01
"""Largest relative difference of voxel sizes that count as equal."""
MAX_LENGTH = 1e-3
"""Largest excess of a quaternion's squared length that counts as rounding."""
MM = {1: 1000.0, 2: 1.0, 3: 0.001}
"""Code of a unit of length → mm."""
SCANNER, TEMPLATES = 1, (3, 4, 5)
"""Codes of a form: where the scanner put the scan, and places in a template."""


@dataclass(frozen=True)
class Geometry:
    """Where a header puts the voxels.

    Attributes:
        affine: (4, 4) voxel index → world position in mm (RAS+).
        code: of the form that was used; 0 if none counts.
        problems: contradictions in the header, and an error if the form asked for is unusable.
    """

    affine: np.ndarray
    code: int
    problems: list[Problem] = field(default_factory=list)


def read_geometry(fields: nib.Nifti1Header, form: Form = "auto") -> Geometry:
    """Return where a header puts the voxels, in mm; see the module for the rule.

    Args:
        fields: of the header; pixdim holds no negative number.
        form: the part to use where it is not for the rule to choose.
    """
    return _Header(fields).geometry(form)


def is_rigid(affine: np.ndarray) -> bool:
    """Return whether a (4, 4) affine turns, mirrors, scales and shifts, and does nothing else."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (sizes > 0).all():
        return False
    return max_cosine(affine) <= MAX_SHEAR


def max_cosine(affine: np.ndarray) -> float:
    """Return the largest cosine between two voxel axes, 0 where they are at right angles."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


class _Header:
    """The three statements of a header, in mm."""

    def __init__(self, fields: nib.Nifti1Header) -> None:
        unit = int(fields["xyzt_units"]) & 7
        self.scale = MM.get(unit, 1.0)
        x, y, z = (*fields.get_data_shape()[:3], 1, 1, 1)[:3]
        self.shape = (int(x), int(y), int(z))
        self.sizes = np.array(fields["pixdim"][1:4], dtype=np.float64) * self.scale
        self.qcode, self.scode = int(fields["qform_code"]), int(fields["sform_code"])
        self.sform = self._in_mm(np.array(fields.get_sform(), dtype=np.float64))
        self.qform, self.excess = self._read_qform(fields)

    def geometry(self, form: Form) -> Geometry:
        """Apply the rule, or take the form that was asked for."""
        if form != "auto":
            return self._chosen(form)
        has_q = self.qcode > 0 and is_rigid(self.qform)
        has_s = self.scode > 0 and is_rigid(self.sform)
        if not (has_q or has_s):
            if self.qcode > 0 or self.scode > 0:
                # The reader refuses it and says what is wrong with it.
                affine = self.sform if self.scode > 0 else self.qform
                return Geometry(affine, max(self.scode, self.qcode))
            return Geometry(self._unoriented(), 0, [_unknown_sides()])
        if has_q and has_s:
            return self._of_both()
        if has_q:
            problems = [_unusable_sform()] if self.scode > 0 else []
            problems += [_in_template(self.qcode)] * (self.qcode in TEMPLATES)
            return Geometry(self.qform, self.qcode, problems + self._long_quaternion())
        return self._of_sform()

    def _chosen(self, form: Form) -> Geometry:
        affine, code = (self.qform, self.qcode) if form == "qform" else (self.sform, self.scode)
        if is_rigid(affine):
            return Geometry(affine, code or SCANNER)
        found = f"a {form} that places no voxels"
        fix = "let the header decide (leave the option out), or convert the scan again"
        return Geometry(affine, code, [Problem.error(found, "three axes at right angles", fix)])

    def _of_both(self) -> Geometry:
        first, second = Grid(self.shape, self.sform), Grid(self.shape, self.qform)
        shift = corner_shift(first, second)
        if shift <= MAX_SHIFT * second.spacing.min():
            is_template = self.scode in TEMPLATES and self.qcode in TEMPLATES
            return Geometry(self.sform, self.scode, [_in_template(self.scode)] * is_template)
        use_sform = self.scode == SCANNER and self._is_as_pixdim(first.spacing)
        used, code = (self.sform, self.scode) if use_sform else (self.qform, self.qcode)
        names = ("sform", "qform") if use_sform else ("qform", "sform")
        problem = _contradiction(first, second, shift, (self.scode, self.qcode), *names)
        return Geometry(used, code, [problem])

    def _of_sform(self) -> Geometry:
        sizes = np.linalg.norm(self.sform[:3, :3], axis=0)
        # A qform that cannot be used has told of itself.
        lost_qform = [_unusable_qform()] if self.qcode > 0 else []
        if self._is_as_pixdim(sizes):
            told = [_in_template(self.scode)] if self.scode in TEMPLATES else []
            return Geometry(self.sform, self.scode, [*lost_qform, *told])
        found = f"voxel size {numbers(self.sizes)} mm in pixdim, {numbers(sizes)} mm in the sform"
        affine, whose = self.sform, "the scan's"
        fix = (
            "nothing if the sform is right: its size is used; else correct it "
            "(docs/reference/dataset.md)"
        )
        if self.scode in TEMPLATES:
            found += f", which leads into a template (code {self.scode})"
            if (self.sizes == self.scale).all():
                whose = "the template's"
            else:
                affine = self.sform.copy()
                affine[:3, :3] *= self.sizes / sizes
                fix = f"nothing if pixdim is right: it is used; else {_choose('sform')}"
        fix += f". Volumes are {whose}"
        problem = Problem.warning(found, "the same size in both", fix)
        return Geometry(affine, self.scode, [*lost_qform, problem])

    def _is_as_pixdim(self, sizes: np.ndarray) -> bool:
        return bool((np.abs(sizes - self.sizes) <= MAX_STRETCH * sizes).all())

    def _long_quaternion(self) -> list[Problem]:
        if self.excess <= MAX_LENGTH:
            return []
        found = f"a quaternion of squared length {1 + self.excess:.4g} in the qform"
        fix = "compare the scan with its label in a viewer; it was shortened to 1, as ITK does"
        return [Problem.warning(found, "at most 1", fix)]

    def _read_qform(self, fields: nib.Nifti1Header) -> tuple[np.ndarray, float]:
        """Return the qform, and by how much its quaternion's squared length exceeds 1."""
        vector = np.array([fields[f"quatern_{name}"] for name in "bcd"], dtype=np.float64)
        length = float(vector @ vector)
        if not np.isfinite(length):
            return np.full((4, 4), np.nan), 0.0
        if length <= 1:
            return self._in_mm(np.array(fields.get_qform(), dtype=np.float64)), 0.0
        matrix = np.eye(4)
        mirror = -1.0 if float(fields["pixdim"][0]) < 0 else 1.0
        matrix[:3, :3] = quat2mat([0.0, *(vector / np.sqrt(length))])
        matrix[:3, :3] *= np.array(fields["pixdim"][1:4], dtype=np.float64) * (1, 1, mirror)
        matrix[:3, 3] = [float(fields[f"qoffset_{axis}"]) for axis in "xyz"]
        return self._in_mm(matrix), length - 1

    def _unoriented(self) -> np.ndarray:
        return np.diag([*(self.sizes * (-1, -1, 1)), 1.0])

    def _in_mm(self, affine: np.ndarray) -> np.ndarray:
        affine[:3] *= self.scale
        return affine


def numbers(values: np.ndarray) -> str:
    """Return numbers as text: 0.7, 0.7, 5."""
    return ", ".join(f"{value:.4g}" for value in values)


def _unknown_sides() -> Problem:
    return Problem.warning(
        "no orientation (qform_code and sform_code are 0), so left and right are unknown",
        "a header that says where the patient's right is",
        "nothing if the axes run as in DICOM, from right to left, front to back and upwards: they "
        "are taken so, as ITK does; else convert the DICOM series again (dcm2niix)",
    )


def _unusable_sform() -> Problem:
    return Problem.warning(
        "an sform that places no voxels (all 0, not finite or not at right angles)",
        "one that turns and scales",
        "nothing if the qform is right: it is used, as ITK does; else convert the scan again",
    )


def _unusable_qform() -> Problem:
    return Problem.warning(
        "a qform that places no voxels (not finite)",
        "one that turns and scales",
        "nothing if the sform is right: it is used; else convert the scan again",
    )


def _in_template(code: int) -> Problem:
    return Problem.warning(
        f"a scan in a template's space (code {code})",
        "the patient's own space",
        "nothing if it was brought there on purpose: places and volumes are the template's, not "
        "the patient's; else take the scan as it was before registration",
    )


def _contradiction(
    sform: Grid, qform: Grid, shift: float, codes: tuple[int, int], used: str, other: str
) -> Problem:
    """Say how the two forms differ and which one is used."""
    turn = qform.directions.T @ sform.directions
    what = [f"are up to {shift:.3g} mm apart"]
    if np.linalg.det(turn) < 0:
        what.append("mirror each other, so left and right depend on which one is read")
    elif np.trace(turn) < 3 * np.cos(np.radians(45)):
        what.append("turn the axes to different sides of the body")
    if (np.abs(sform.spacing / qform.spacing - 1) > MAX_STRETCH).any():
        what.append(
            f"have voxels of {numbers(sform.spacing)} and {numbers(qform.spacing)} mm, so volumes "
            "depend on which one is read"
        )
    return Problem.warning(
        f"sform (code {codes[0]}) and qform (code {codes[1]}) that {' and '.join(what)}",
        "the same geometry in both",
        f"nothing if the {used} is right: it is used, and volumes are in its space; else "
        f"{_choose(other)}",
    )


def _choose(form: Form | str) -> str:
    """Return what to do so that a part of the header is used, in every command."""
    return (
        f"write the {form} into both (docs/reference/dataset.md), or choose it: header {form} in "
        f"the manifest's case, --header {form} with predict --image"
    )
