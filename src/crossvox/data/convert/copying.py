"""Copying a manifest's files beside it, for those who want the data set in one place."""

from __future__ import annotations

import shutil
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

from crossvox.data.convert.layout import SUFFIXES, Track
from crossvox.data.manifest import Case, Manifest
from crossvox.errors import UsageError
from crossvox.utils.files import atomic_path


def copied(manifest: Manifest, folder: Path, track: Track) -> Manifest:
    """Copy all files to `images/` and `labels/` below `folder`; the manifest of the copies.

    A label map that serves several modalities of a case is copied once. Files are named
    `<case>_<modality>`, copied whole or not at all, and the originals are not touched.

    Raises:
        UsageError: a copy would replace one of them.
    """
    originals = {file.resolve() for case in manifest.cases for file in _files(case)}
    cases = []
    for case in track(manifest.cases):
        place: dict[Path, Path] = {}
        for kind, files in (("images", case.images), ("labels", case.labels)):
            for modality, file in files.items():
                if file not in place:
                    suffix = next(s for s in SUFFIXES if file.name.endswith(s))
                    place[file] = folder / kind / f"{case.id}_{modality}{suffix}"
                    _copy(file, place[file], originals)
        cases.append(
            replace(
                case,
                images={m: place[file] for m, file in case.images.items()},
                labels={m: place[file] for m, file in case.labels.items()},
            )
        )
    return replace(manifest, cases=tuple(cases))


def _files(case: Case) -> list[Path]:
    return [*case.images.values(), *case.labels.values()]


def _copy(file: Path, target: Path, originals: Container[Path]) -> None:
    if target.exists() and target.samefile(file):
        return
    if target.resolve() in originals:
        raise UsageError(
            f"{target}: would be written over, but is a file of the data set itself; "
            "give another --out"
        )
    with atomic_path(target) as temporary:
        shutil.copyfile(file, temporary)
