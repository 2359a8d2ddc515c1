"""Reading of the named tensors in a weights file, without running code that it may hold."""

from __future__ import annotations

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from crossvox.errors import DataError

WRAPPERS = ("model_state_dict", "state_dict", "model", "net")
"""Keys under which training programs store the weights, next to the optimiser and the like."""

_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *{type(np.dtype(kind)) for kind in (np.float16, np.float32, np.float64, np.int32, np.int64)},
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
"""Types that training programs store next to the weights: command lines and scores."""


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read a file written by `torch.save`, or a safetensors file.

    Only tensors and plain values are unpickled, including NumPy's numbers and
    `argparse.Namespace`.

    Returns:
        The tensors by their full names, and the one of `WRAPPERS` that held them, "" if none.

    Raises:
        DataError: the file does not exist, is damaged or holds something else.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file of weights; check the path")
    content: Any = _read_safetensors(path) if _is_safetensors(path) else _unpickle(path)
    wrapper = ""
    if isinstance(content, Mapping):
        for key in WRAPPERS:
            if isinstance(content.get(key), Mapping):
                content, wrapper = content[key], key
                break
    held = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(name): t for name, t in held if isinstance(t, Tensor)}
    if hollow := [name for name, t in tensors.items() if not _whole(t)]:
        raise DataError(
            f"{path}: {hollow[0]!r} claims {tensors[hollow[0]].numel():.3g} numbers, more than "
            "the file holds of it; have its maker save plain tensors"
        )
    if not tensors:
        raise DataError(
            f"{path}: holds no named tensors{f' under {wrapper!r}' if wrapper else ''}; "
            f"expected a state dict, bare or under one of {', '.join(WRAPPERS)}"
        )
    return tensors, wrapper


def _whole(tensor: Tensor) -> bool:
    """Return whether the file holds every value; others take their full memory when copied."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _refuse_bomb(path: Path) -> None:
    """Refuse an archive that unpacks to more than its size: `torch.save` does not compress."""
    try:
        with zipfile.ZipFile(path) as archive:
            promised = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # the reader reports this
    if promised > path.stat().st_size:
        raise DataError(
            f"{path}: would unpack to {promised / 1e6:.0f} MB, more than its size; no file of "
            "torch.save does, so it is not opened"
        )


def _is_safetensors(path: Path) -> bool:
    """Decide by the suffix, or by the JSON that follows the eight bytes of its length."""
    if path.suffix.lower() == ".safetensors":
        return True
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            if "crossvox" in (file.metadata() or {}):
                raise DataError(
                    f"{path}: a checkpoint of a run, no published weights; go on with that run by "
                    "--resume, or give the file that it started from"
                )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path}: not a whole safetensors file ({_line(error)})") from None


def _unpickle(path: Path) -> Any:
    _refuse_bomb(path)
    try:
        # It warns of pickle protocols that it may not know, and fails if it does not.
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    # To the unpickler, damaged bytes are instructions that can lead to any error.
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and "global" in str(error).lower():
            raise DataError(
                f"{path}: holds more than tensors and plain values, which is not opened since it "
                "could run any code; have its maker save the state dict alone"
            ) from None
        raise DataError(
            f"{path}: truncated or not a file of weights ({_line(error)}); fetch it again"
        ) from None


def _line(error: Exception, most: int = 120) -> str:
    text = " ".join(str(error).split())
    # A bare byte says nothing, and for a damaged pickle torch prints pages of advice.
    if not text or text.isdigit() or isinstance(error, pickle.UnpicklingError):
        text = type(error).__name__
    return text if len(text) <= most else text[:most] + "…"
