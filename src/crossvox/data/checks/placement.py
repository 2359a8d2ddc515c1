"""Does a label map lie where its image does?"""

from __future__ import annotations

import numpy as np

from crossvox.data.checks.files import Finding, Header, times
from crossvox.data.geometry.overlap import MAX_SHIFT, agree, corner_shift, coverage


def agreement_findings(label: Header, image: Header) -> list[Finding]:
    """Where a label map does not lie on its image's grid."""
    if label.shape[:3] != image.shape[:3]:
        fix = "resample the label onto the image: nibabel.processing.resample_from_to, order=0"
        wanted = f"{times(image.shape[:3])}, as the image"
        return [Finding("error", f"shape {times(label.shape[:3])}", wanted, fix)]
    shift = corner_shift(label.grid, image.grid)
    limit = MAX_SHIFT * image.grid.spacing.min()
    if shift <= limit or not np.isfinite(shift - limit):  # the latter is told of the file itself
        return []
    found = f"corners up to {shift:.4g} mm from the image's"
    fix = (
        "if it was drawn on this image, copy the image's geometry (fslcpgeom IMAGE LABEL), else "
        "resample it onto the image"
    )
    return [Finding("error", found, f"at most {limit:.2g} mm, {MAX_SHIFT} voxel", fix)]


def registered_findings(label: Header, images: list[Header]) -> list[Finding]:
    """Where a label map is of no use to a scan that is registered to the case's others.

    Args:
        label: of the label map.
        images: of the scan, and then of the case's other scans as far as they can be read.
    """
    if not (np.isfinite(label.affine).all() and np.isfinite(images[0].affine).all()):
        return []  # told of the files themselves
    if coverage(images[0].grid, label.grid) == 0:
        found = "a label that lies wholly outside its image"
        fix = "correct the geometry of one of the two, or name the label of this case"
        return [Finding("error", found, "a label of what the image shows", fix)]
    if any(agree(label.grid, image.grid) for image in images):
        return []
    found = f"shape {times(label.shape[:3])}, the grid of none of the case's images"
    fix = "nothing if it was drawn in the same space: it is resampled by nearest neighbour"
    return [Finding("warning", found, "the grid of one of them", fix)]
