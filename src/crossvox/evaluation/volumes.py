"""Volumes of segmented structures, as a table that grows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossvox.errors import DataError
from crossvox.utils.files import atomic_write

COLUMNS = ("file", "case", "modality", "class", "voxels", "mL")


def volumes(
    labels: np.ndarray, affine: np.ndarray, classes: Sequence[str], **facts: str
) -> list[dict[str, Any]]:
    """Voxels and millilitres of every class, those that were not found included.

    Args:
        labels: (X, Y, Z) class indices, 0 background.
        affine: (4, 4) voxel → world mm; the volume of a voxel is its determinant.
        classes: names of class 1, 2, …
        facts: what to put in front of each row (file, case, modality).
    """
    # Plane by plane: bincount takes eight bytes a voxel.
    counts = np.zeros(len(classes) + 1, dtype=np.int64)
    for plane in labels:
        counts += np.bincount(plane[plane > 0], minlength=len(counts))
    voxel = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    return [
        {**facts, "class": name, "voxels": int(count), "mL": f"{count * voxel:.3f}"}
        for name, count in zip(classes, counts[1:], strict=True)
    ]


def append_volumes(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a table, in place of those that it has of the same files.

    Raises:
        DataError: `path` is another table; it stays as it is.
    """
    new = list(rows)
    files = {row["file"] for row in new}
    kept = [row for row in read_volumes(path) if row["file"] not in files] if path.exists() else []
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*kept, *new])
    atomic_write(path, text.getvalue())


def read_volumes(path: Path) -> list[dict[str, str]]:
    """Rows of a table that `append_volumes` wrote; raises `DataError` for any other file."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DataError(f"{path}: not a table of volumes; move it away or give another --out")
        return list(reader)
