"""Broken suites, DICOM folders and label maps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from broken_inputs_text import CONFIGS
from helpers_dicom import change, in_order, plain, write_series

SUITES: dict[str, bytes] = {
    "empty": b"",
    "a text": b"hello\n",
    "a list": b"- cmc\n",
    "unclosed": b"methods: [cmc\n",
    "a tab": b"methods:\n\t- cmc\n",
    "not UTF-8": b"\xff\xfe",
    "a Python object": b"methods: [!!python/object/apply:os.mkdir ['ran']]\n",
    "nested without end": b"methods: " + b"[" * 20_000,
    "an alias of itself": b"methods: [cmc]\nset: &a {fit: *a}\n",
    "an alias bomb": b"methods: [cmc]\n" + CONFIGS["alias bomb of maps"],
    "no methods": b"labels: [2]\n",
    "methods are null": b"methods:\n",
    "a method that is a number": b"methods: [3]\n",
    "a method that is a list": b"methods: [[cmc]]\n",
    "options that are text": b"methods: [{method: cmc, options: many}]\n",
    "a label that is null": b"methods: [{method: cmc, label: }]\n",
    "only that is a list": b"methods: [{method: cmc, only: [ct]}]\n",
    "unknown key": b"methods: [cmc]\nmethodz: 3\n",
    "a key that is a list": b"methods: [cmc]\n? [a, b]\n: 3\n",
    "a key that is a number": b"methods: [cmc]\n3: 4\n",
    "seeds that are text": b"methods: [cmc]\nseeds: many\n",
    "a seed that is no number": b"methods: [cmc]\nseeds: [.nan]\n",
    "labels that are a map": b"methods: [cmc]\nlabels: {ct: 2}\n",
    "labels that are null": b"methods: [cmc]\nlabels:\n",
    "a name that is a list": b"name: [a]\nmethods: [cmc]\nsplit: dev\n",
    "a split that is a list": b"methods: [cmc]\nsplit: [val]\n",
    "a preset that is a map": b"methods: [cmc]\npreset: {a: 1}\n",
    "data that is a text": b"methods: [cmc]\ndata: heart.json\n",
    "data that is null": b"methods: [cmc]\ndata: {tiny: }\n",
    "backbones without a name": b"methods: [cmc]\nbackbones: [{width: 3}]\n",
    "set that is a list": b"methods: [cmc]\nset: [fit]\n",
    "set with a section that is text": b"methods: [cmc]\nset: {fit: fast}\n",
    "set with an unknown section": b"methods: [cmc]\nset: {fitt: {steps: 3}}\n",
    "a shift that is endless": b"methods: [cmc]\nvariants: {shift_mm: [.inf]}\n",
    "a shift that is no number": b"methods: [cmc]\nvariants: {shift_mm: [.nan]}\n",
    "subsets that are text": b"methods: [cmc]\nvariants: {subsets: many}\n",
    "pictures of no kind": b"methods: [cmc]\npictures: {cases: 3}\n",
    "a root that is nowhere": b"methods: [cmc]\nroot: nowhere\n",
    "a root that is a list": b"methods: [cmc]\nroot: [a]\n",
}

Folder = Callable[[Path], None]


def _one(**attributes: object) -> Folder:
    """A change made to the third slice."""
    return lambda folder: change(in_order(folder)[2], **attributes)


def _all(**attributes: object) -> Folder:
    def changed(folder: Path) -> None:
        for file in in_order(folder):
            change(file, **attributes)

    return changed


def _bytes(made: Callable[[bytes], bytes]) -> Folder:
    """A change made to the bytes of the third slice."""

    def changed(folder: Path) -> None:
        file = in_order(folder)[2]
        file.write_bytes(made(file.read_bytes()))

    return changed


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _only_texts(folder: Path) -> None:
    _emptied(folder)
    (folder / "readme.txt").write_text("no scan")


def _only_a_report(folder: Path) -> None:
    _emptied(folder)
    plain("SR", "1.9").save_as(folder / "report.dcm", enforce_file_format=True)


def _one_slice(folder: Path) -> None:
    for file in in_order(folder)[1:]:
        file.unlink()


def _slice_gone(folder: Path) -> None:
    in_order(folder)[2].unlink()


def _twice(folder: Path) -> None:
    shutil.copy(in_order(folder)[2], folder / "again")


def _another_series(folder: Path) -> None:
    write_series(folder / "more", np.zeros((6, 5, 4)), np.eye(4))


DICOM: dict[str, Folder] = {
    "an empty folder": _emptied,
    "texts alone": _only_texts,
    "a report alone": _only_a_report,
    "a single slice": _one_slice,
    "a slice missing": _slice_gone,
    "a slice twice": _twice,
    "two series": _another_series,
    "a slice cut in its header": _bytes(lambda content: content[:300]),
    "a slice cut in its pixels": _bytes(lambda content: content[:-20]),
    "a slice of zeros": _bytes(lambda content: bytes(len(content))),
    "pixels without their end": _one(PixelData=b"12"),
    "no pixels": _one(PixelData=None),
    "rows by the thousand": _all(Rows=60000, Columns=60000),
    "no rows": _all(Rows=0),
    "no columns named": _all(Columns=None),
    "three samples a pixel": _all(SamplesPerPixel=3),
    "many frames": _all(NumberOfFrames=30),
    "a position of two numbers": _all(ImagePositionPatient=[1, 2]),
    "a position that is no number": _all(ImagePositionPatient=["nan", "nan", "nan"]),
    "a position of one slice that is no number": _one(ImagePositionPatient=["nan", "nan", "nan"]),
    "an endless position": _one(ImagePositionPatient=["1e300", "1e300", "1e300"]),
    "an orientation of five numbers": _all(ImageOrientationPatient=[1, 0, 0, 0, 1]),
    "an orientation that is no number": _all(ImageOrientationPatient=["nan"] * 6),
    "rows and columns alike": _all(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
    "a spacing of one number": _all(PixelSpacing=[1]),
    "a spacing of zero": _all(PixelSpacing=[0, 0]),
    "a negative spacing": _all(PixelSpacing=[-1, -1]),
    "a spacing that is no number": _all(PixelSpacing=["nan", "nan"]),
    "all slices in one place": _all(ImagePositionPatient=[0, 0, 0]),
    "a slope that is no number": _all(RescaleSlope="nan"),
    "one bit a pixel": _all(BitsAllocated=1),
    "seventeen bits a pixel": _all(BitsAllocated=17),
    "colours": _all(PhotometricInterpretation="RGB"),
}


def _with(value: float, dtype: str = "f4") -> Callable[[np.ndarray], np.ndarray]:
    """The label map with one voxel of that value."""

    def changed(sound: np.ndarray) -> np.ndarray:
        voxels = sound.astype(dtype)
        voxels[0, 1, 1] = value
        return voxels

    return changed


LABELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "no number": _with(np.nan),
    "infinity": _with(np.inf),
    "minus infinity": _with(-np.inf),
    "a fraction": _with(0.5),
    "an id that is not listed": _with(7),
    "a negative id": _with(-1, "i2"),
    "an id beyond 32 bits": _with(2.0**40, "f8"),
    "an id beyond any integer": _with(1e300, "f8"),
    "probabilities": lambda sound: np.linspace(0, 1, sound.size, dtype="f4").reshape(sound.shape),
    "a scan": lambda sound: np.arange(sound.size, dtype="i2").reshape(sound.shape),
    "complex numbers": lambda sound: sound.astype("c8"),
    "one class per fourth axis": lambda sound: np.stack([sound, sound], -1).astype("u1"),
    "another shape": lambda sound: sound[:-1],
    "two dimensions": lambda sound: sound[:, :, 0],
    "many ids": lambda sound: np.arange(100, 100 + sound.size, dtype="i4").reshape(sound.shape),
    "mostly no number": lambda sound: np.full(sound.shape, np.nan, "f4"),
}
