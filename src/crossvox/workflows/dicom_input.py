"""DICOM folders where NIfTI files are expected."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crossvox.data.formats.dicom.series import choose_series, read_series
from crossvox.data.formats.nifti import write_volume


@dataclass(frozen=True)
class Given:
    """The scans of one subject as they were given.

    Attributes:
        files: modality → NIfTI file.
        series: modality → the DICOM files that the scan came from, where it did.
    """

    files: dict[str, Path] = field(default_factory=dict)
    series: dict[str, tuple[Path, ...]] = field(default_factory=dict)


@contextlib.contextmanager
def nifti_images(images: Mapping[str, Path]) -> Iterator[Given]:
    """The same scans, each DICOM folder as a NIfTI file that lives as long as the block.

    A folder, or `FOLDER#UID` for one of several series in it, becomes `<folder's name>.nii` on
    the series' grid; files are passed on as they are.

    Args:
        images: modality → NIfTI file, folder, or folder with the UID of a series.

    Raises:
        UsageError: several series in a folder and none named, or pydicom is not installed.
        DataError: a series that forms no regular volume.
    """
    with tempfile.TemporaryDirectory(prefix="crossvox-") as temporary:
        given = Given()
        for modality, path in images.items():
            folder, uid = _folder(path)
            if folder is None:
                given.files[modality] = path
                continue
            stack = read_series(choose_series(folder, uid))
            file = Path(temporary) / modality / f"{folder.resolve().name}.nii"
            write_volume(file, stack.data, stack.grid)
            given.files[modality], given.series[modality] = file, stack.files
        yield given


def _folder(path: Path) -> tuple[Path | None, str | None]:
    """The DICOM folder that a path names, None if it names a file; and the series' UID."""
    if path.is_dir():
        return path, None
    if not path.exists() and (named := re.fullmatch(r"(.+)#([0-9.]+)", str(path))):
        folder = Path(named[1])
        return (folder, named[2]) if folder.is_dir() else (None, None)
    return None, None
