"""Copying a manifest's files beside it, for those who want the data set in one place."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from crossvox.data.convert.layout import SUFFIXES, Track
from crossvox.data.manifest import Manifest
from crossvox.files import atomic_path


def copied(manifest: Manifest, folder: Path, track: Track) -> Manifest:
    """Copy all files to `images/` and `labels/` below `folder`; the manifest of the copies.

    A label map that serves several modalities of a case is copied once. Files are named
    `<case>_<modality>`, copied whole or not at all, and the originals are not touched.
    """
    cases = []
    for case in track(manifest.cases):
        place: dict[Path, Path] = {}
        for kind, files in (("images", case.images), ("labels", case.labels)):
            for modality, file in files.items():
                if file not in place:
                    suffix = next(s for s in SUFFIXES if file.name.endswith(s))
                    place[file] = folder / kind / f"{case.id}_{modality}{suffix}"
                    _copy(file, place[file])
        cases.append(
            replace(
                case,
                images={m: place[file] for m, file in case.images.items()},
                labels={m: place[file] for m, file in case.labels.items()},
            )
        )
    return replace(manifest, cases=tuple(cases))


def _copy(file: Path, target: Path) -> None:
    if target.exists() and target.samefile(file):
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(file, temporary)
