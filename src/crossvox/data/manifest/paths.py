"""Where the files of a manifest may lie: below its own folder, or below a root that is trusted.

A manifest from elsewhere must not decide which files of this machine are read, so only whoever
runs a command can name another root; the manifest cannot.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crossvox.errors import UsageError
from crossvox.utils.files import real_path


class Places:
    """Finds the files that a manifest names.

    Attributes:
        folder: of the manifest, absolute.
        root: the folder below which all of them must lie, without symbolic links.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        """Raises `UsageError` if there is no such root."""
        if root is not None and not root.is_dir():
            raise UsageError(f"--root {root}: no such folder; name one that holds the data set")
        self.folder = folder.absolute()
        self.root = real_path(folder if root is None else root)

    def find(self, file: str) -> Path:
        """Where a file lies: a path starts at the manifest's folder, or else at the root.

        One that leads out of the root, by `..`, as an absolute path or by a symbolic link, starts
        at the manifest's folder all the same; `refusal` tells of it.
        """
        starts = (self.folder, self.root)
        return next((s / file for s in starts if self._holds(s / file)), self.folder / file)

    def stray(self, case: Mapping[str, Any]) -> str | None:
        """The first file of a case (as in JSON) outside the root, as `images.ct`."""
        for kind in ("images", "labels"):
            for modality, file in case.get(kind, {}).items():
                if not self._holds(self.find(file)):
                    return f"{kind}.{modality}"
        return None

    def refusal(self, cases: Iterable[Mapping[str, Any]]) -> str | None:
        """One line on the cases with files outside the root; None if there are none."""
        cases = list(cases)
        strays = [(case, place) for case in cases if (place := self.stray(case))]
        if not strays:
            return None
        case, place = strays[0]
        kind, _, modality = place.partition(".")
        more = f" (so do files of {len(strays) - 1} other cases)" if len(strays) > 1 else ""
        wide = common_folder(self.find(file) for one in cases for file in _files(one))
        remedy = f"--root {shlex.quote(str(wide))}" if wide else "--root DIR"
        return (
            f"case {case['id']!r}, {place}: {case[kind][modality]} lies outside {self.root}, where "
            f"this manifest may name files{more}; correct the path or, if you trust whoever wrote "
            f"it, give {remedy}"
        )

    def _holds(self, path: Path) -> bool:
        return real_path(path).is_relative_to(self.root)


def needed_root(files: Iterable[Path], folder: Path) -> Path | None:
    """The `--root` that a manifest in `folder` needs to name these files; None if it needs none."""
    files = list(files)
    inside = all(real_path(file).is_relative_to(real_path(folder)) for file in files)
    return None if inside else common_folder(files)


def common_folder(files: Iterable[Path]) -> Path | None:
    """The deepest folder that holds all files, links followed; None if there is none such."""
    try:
        return Path(os.path.commonpath([real_path(file).parent for file in files]))
    except ValueError:  # on several drives of Windows
        return None


def _files(case: Mapping[str, Any]) -> list[str]:
    return [*case["images"].values(), *case.get("labels", {}).values()]
