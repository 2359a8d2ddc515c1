"""Broken and hostile checkpoints: each kind turns a sound file's bytes into a bad one's."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Break = Callable[[bytes, Path], bytes]
"""The sound file's bytes, and a folder that comes to be if anything in the file is run."""


class Malicious:
    """Unpickling it makes a folder, if anything ever does."""

    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> Any:
        return __import__("os").mkdir, (self.place,)


def _head(sound: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(sound[:8], "little")
    return json.loads(sound[8 : 8 + size]), sound[8 + size :]


def _file(head: bytes, tensors: bytes) -> bytes:
    return len(head).to_bytes(8, "little") + head + tensors


def _header(change: Callable[[dict[str, Any]], object]) -> Break:
    """A change made to the safetensors header."""

    def changed(sound: bytes, proof: Path) -> bytes:
        head, tensors = _head(sound)
        change(head)
        return _file(json.dumps(head).encode(), tensors)

    return changed


def _first(**values: object) -> Break:
    """A change made to what the header says of the first tensor."""
    return _header(lambda head: head[min(set(head) - {"__metadata__"})].update(values))


def _document(change: Callable[[dict[str, Any]], object]) -> Break:
    """A change made to the JSON object that crossvox keeps in the header."""

    def changed(head: dict[str, Any]) -> None:
        document = json.loads(head["__metadata__"]["crossvox"])
        change(document)
        head["__metadata__"]["crossvox"] = json.dumps(document)

    return _header(changed)


def _said(**values: object) -> Break:
    return _document(lambda document: document.update(values))


def _metadata(text: str) -> Break:
    return _header(lambda head: head["__metadata__"].update(crossvox=text))


def _torch_file(sound: bytes, proof: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"model": {"w": torch.zeros(2)}, "extra": Malicious(proof)}, file)
    return file.getvalue()


def _zip_bomb(sound: bytes, proof: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(100_000_000))
    return file.getvalue()


def _renamed(head: dict[str, Any]) -> None:
    name = min(name for name in head if name.startswith("model/"))
    head["model/other"] = head.pop(name)


BROKEN: dict[str, Break] = {
    "empty": lambda sound, proof: b"",
    "one byte": lambda sound, proof: sound[:1],
    "half a header": lambda sound, proof: sound[:200],
    "half the tensors": lambda sound, proof: sound[: len(sound) // 2],
    "last byte missing": lambda sound, proof: sound[:-1],
    "a byte too many": lambda sound, proof: sound + b"\0",
    "zeros instead": lambda sound, proof: bytes(len(sound)),
    "text instead": lambda sound, proof: b"<html>404 Not Found</html>" * 40,
    "a pickle that runs code": lambda sound, proof: pickle.dumps(Malicious(proof)),
    "a torch file that runs code": _torch_file,
    "a zip bomb": _zip_bomb,
    "a header of 2^62 bytes": lambda sound, proof: (2**62).to_bytes(8, "little") + sound[8:],
    "a header that is no JSON": lambda sound, proof: _file(b"{" + b" " * 50, b""),
    "a header nested without end": lambda sound, proof: _file(b'{"a":' * 100_000, b""),
    "a header that is a list": lambda sound, proof: _file(b"[]", b""),
    "a tensor larger than memory": _first(
        shape=[60000, 60000, 60000], data_offsets=[0, 864 * 10**12]
    ),
    "a tensor of negative length": _first(shape=[-1]),
    "a tensor beyond the end": _first(data_offsets=[10**9, 10**9 + 4]),
    "an unknown type": _first(dtype="Q7"),
    "no metadata": _header(lambda head: head.pop("__metadata__")),
    "published weights": _header(lambda head: head["__metadata__"].pop("crossvox")),
    "metadata that is no JSON": _metadata("{"),
    "metadata that is a list": _metadata("[]"),
    "metadata nested without end": _metadata("[" * 100_000),
    "metadata of a number of 100000 digits": _metadata('{"format": ' + "9" * 100_000 + "}"),
    "another format": _said(format=99),
    "aliases that are a list": _said(aliases=["a"]),
    "aliases of no kind": _said(aliases={"model/a": ["b"]}),
    "a tensor of another name": _header(_renamed),
}
"""Refused by whatever reads the file."""

BROKEN_TRAINING: dict[str, Break] = {
    "weights only": _document(lambda document: document.pop("param_groups")),
    "groups that are no list": _said(param_groups=3),
    "groups of no kind": _said(param_groups=[3]),
    "no groups": _said(param_groups=[]),
    "no step": _document(lambda document: document.pop("step")),
    "a step that is text": _said(step="many"),
    "a step behind the end": _said(step=10**9),
    "a best score that is text": _said(best="high"),
    "a negative step": _said(step=-1),
    "a step that is no number": _said(step=float("nan")),
    "moments without a number": _header(
        lambda head: head.update({"optim/x": head.pop(next(n for n in head if n[:6] == "optim/"))})
    ),
    "no generators": _header(
        lambda head: [head.pop(name) for name in list(head) if name.startswith("rng/")]
    ),
}
"""Refused where training is to go on; the weights in it are sound."""
