"""Copy a manifest's files beside it, to have the data set in one place."""

from __future__ import annotations

import shutil
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

from crossvox.data.convert.raw import SUFFIXES, ShowProgress
from crossvox.data.manifest import Manifest
from crossvox.errors import UsageError
from crossvox.utils.files import atomic_path


def copy_files(manifest: Manifest, folder: Path, progress: ShowProgress) -> Manifest:
    """Copy all files to `images/` and `labels/` below a folder; return the copies' manifest.

    The copies are named `<case>_<modality>`. A label map that serves several modalities of a case
    is copied once. Files are copied as a whole or not at all, and the originals are not touched.

    Raises:
        UsageError: a copy would replace an original.
    """
    originals = {file.resolve() for case in manifest.cases for file in case.files}
    cases = []
    for case in progress(manifest.cases):
        copies: dict[Path, Path] = {}
        for kind, files in (("images", case.images), ("labels", case.labels)):
            for modality, file in files.items():
                if file not in copies:
                    suffix = next(s for s in SUFFIXES if file.name.lower().endswith(s))
                    copies[file] = folder / kind / f"{case.id}_{modality}{suffix}"
                    _copy(file, copies[file], originals)
        cases.append(
            replace(
                case,
                images={m: copies[file] for m, file in case.images.items()},
                labels={m: copies[file] for m, file in case.labels.items()},
            )
        )
    return replace(manifest, cases=tuple(cases))


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
