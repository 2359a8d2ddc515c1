"""Read the pixels of a slice as the standard says: Modality LUT or rescale, and padding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossvox.data.formats.dicom.folder import pydicom_module, read_dicom
from crossvox.errors import DataError

MAX_NUMBER = 1e9
"""Larger lengths in mm, slopes and intercepts are not believed."""


def read_pixels(file: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read one slice.

    Returns:
        (rows, columns) float32 values, and where they are padding (bool; None = nowhere).

    Raises:
        DataError: the pixels or what they mean cannot be read.
    """
    try:
        slice_ = read_dicom(file)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: unreadable ({error}); export the series again") from error
    stored = _stored(file, slice_)
    return _meant(file, slice_, stored).astype(np.float32), _padding(file, slice_, stored)


def _stored(file: Path, slice_: Any) -> np.ndarray:
    try:
        return np.asarray(slice_.pixel_array)
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{file}: no usable pixels ({error}); export the series again") from error
    except (RuntimeError, NotImplementedError, ImportError, ValueError) as error:
        syntax = slice_.file_meta.TransferSyntaxUID
        if syntax.is_compressed:
            raise DataError(
                f"{file}: compressed as {syntax.name}, which nothing installed can decode; pip "
                "install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg, or export uncompressed"
            ) from error
        raise DataError(f"{file}: pixels unreadable ({error}); export the series again") from error


def _meant(file: Path, slice_: Any, stored: np.ndarray) -> np.ndarray:
    """Return the values in the unit of the Modality LUT, or of slope and intercept."""
    if slice_.get("ModalityLUTSequence"):
        return _looked_up(file, slice_, stored)
    # Per slice, because PET scales each slice by its own maximum.
    slope = read_number(file, slice_, "RescaleSlope", 1.0) or 1.0
    return stored * slope + read_number(file, slice_, "RescaleIntercept", 0.0)


def _looked_up(file: Path, slice_: Any, stored: np.ndarray) -> np.ndarray:
    apply_modality_lut = pydicom_module().pixels.apply_modality_lut

    try:
        values = np.asarray(apply_modality_lut(stored, slice_))
        kind = str(slice_.ModalityLUTSequence[0].get("ModalityLUTType", ""))
    except (AttributeError, KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{file}: its Modality LUT cannot be used ({error}); export the series again"
        ) from error
    # No tissue has 32768 Hounsfield units, so such entries are negative numbers.
    return values.view(np.int16) if kind == "HU" and values.dtype == np.uint16 else values


def _padding(file: Path, slice_: Any, stored: np.ndarray) -> np.ndarray | None:
    """Return where stored values are PixelPaddingValue, or up to PixelPaddingRangeLimit."""
    if stored.dtype.kind not in "iu":
        return None
    first = _whole(file, slice_, "PixelPaddingValue", stored.dtype)
    if first is None:
        return None
    last = _whole(file, slice_, "PixelPaddingRangeLimit", stored.dtype)
    low, high = sorted((first, first if last is None else last))
    found = (stored >= low) & (stored <= high)
    return found if found.any() else None


def _whole(file: Path, slice_: Any, tag: str, dtype: np.dtype) -> int | None:
    """Return an attribute as a stored value, whichever sign it was written with."""
    if slice_.get(tag) in (None, ""):
        return None
    number = int(read_number(file, slice_, tag, 0.0))
    bits = 8 * dtype.itemsize
    number &= 2**bits - 1
    return number - 2**bits if dtype.kind == "i" and number >> (bits - 1) else number


def read_number(file: Path, slice_: Any, tag: str, default: float) -> float:
    """Return the one finite number of an attribute; raises `DataError`."""
    try:
        value = slice_.get(tag)
        if value is None or value == "":
            return default
        if isinstance(value, bytes):  # of the kind "US or SS"
            value = int.from_bytes(value[:2], "little")
        several = isinstance(value, Sequence) and not isinstance(value, str)
        values = {float(one) for one in (value if several else [value])} or {default}
    except (TypeError, ValueError):
        values = set()
    if len(values) != 1 or not abs(next(iter(values))) < MAX_NUMBER:
        raise DataError(f"{file}: its {tag} is not one finite number; export the series again")
    return values.pop()
