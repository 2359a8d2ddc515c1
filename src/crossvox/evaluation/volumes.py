"""Volumes of segmented structures, as a CSV table that grows with each prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossvox.utils.csv_tables import csv_text, read_own_table
from crossvox.utils.files import atomic_write
from crossvox.utils.locks import folder_lock

COLUMNS = ("file", "case", "modality", "class", "voxels", "mL", "scan")


def measure_volumes(
    labels: np.ndarray, affine: np.ndarray, classes: Sequence[str], **facts: str
) -> list[dict[str, Any]]:
    """Measure every class in voxels and millilitres, including those that were not found.

    >>> rows = measure_volumes(labels, affine, ("liver",), file="a.nii.gz", case="a", modality="ct")
    >>> rows[0]["mL"]  # of the liver, as text with three decimals

    Args:
        labels: (X, Y, Z) class indices, 0 background.
        affine: (4, 4) voxel → world mm; its determinant is the volume of a voxel.
        classes: names of class 1, 2, …
        facts: further columns: file, case, modality and the scan's mark.

    Returns:
        One row per class.
    """
    # Plane by plane, since bincount takes eight bytes per voxel.
    counts = np.zeros(len(classes) + 1, dtype=np.int64)
    for plane in labels:
        counts += np.bincount(plane[plane > 0], minlength=len(counts))
    voxel = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    return [
        {**facts, "class": name, "voxels": int(count), "mL": f"{count * voxel:.3f}"}
        for name, count in zip(classes, counts[1:], strict=True)
    ]


def append_volumes(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a table. They replace its earlier rows of the same files.

    Raises:
        DataError: `path` is another table; it stays as it is.
    """
    new = list(rows)
    files = {row["file"] for row in new}
    # Several predictions may fill one folder at a time.
    with folder_lock(path.parent):
        kept = [row for row in read_volumes(path) if row["file"] not in files]
        cells = ([row.get(column) for column in COLUMNS] for row in (*kept, *new))
        atomic_write(path, csv_text(COLUMNS, *cells))


def read_volumes(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table of volumes, if it is there; raise `DataError` for another file."""
    return read_own_table(path, COLUMNS, "volumes")
