"""Files that a manifest may name: those below its own folder, or below a trusted root.

A manifest from elsewhere must not decide which files of this machine are read. So only the person
who runs a command can name another root; the manifest cannot.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crossvox.errors import UsageError
from crossvox.utils.files import real_path


class PathResolver:
    """Finds the files that a manifest names.

    Attributes:
        folder: of the manifest, absolute.
        root: the folder below which all files must lie, links followed.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        """Raises `UsageError` if there is no such root."""
        if root is not None and not root.is_dir():
            raise UsageError(f"--root {root}: no such folder; name one that holds the data set")
        self.folder = folder.absolute()
        self.root = real_path(folder if root is None else root)

    def resolve(self, file: str) -> Path:
        """Return a file's path, which starts at the manifest's folder or else at the root.

        A path that leads out of the root, by `..`, as an absolute path or by a symbolic link,
        starts at the manifest's folder; `outside` describes it.
        """
        starts = (self.folder, self.root)
        return next((s / file for s in starts if self._allows(s / file)), self.folder / file)

    def stray_file(self, case: Mapping[str, Any]) -> str | None:
        """Return the first file of a case (as in JSON) outside the root, as `images.ct`."""
        for kind in ("images", "labels"):
            for modality, file in case.get(kind, {}).items():
                if not self._allows(self.resolve(file)):
                    return f"{kind}.{modality}"
        return None

    def outside(self, cases: Iterable[Mapping[str, Any]]) -> str | None:
        """Return one line on the cases with files outside the root; None if there are none."""
        cases = list(cases)
        strays = [(case, key) for case in cases if (key := self.stray_file(case))]
        if not strays:
            return None
        case, key = strays[0]
        kind, _, modality = key.partition(".")
        more = f" (so do files of {len(strays) - 1} other cases)" if len(strays) > 1 else ""
        wide = common_folder(self.resolve(file) for one in cases for file in _files(one))
        remedy = f"--root {shlex.quote(str(wide))}" if wide else "--root DIR"
        return (
            f"case {case['id']!r}, {key}: {case[kind][modality]} lies outside {self.root}, where "
            f"this manifest may name files{more}; correct the path or, if you trust whoever wrote "
            f"it, give {remedy}"
        )

    def _allows(self, path: Path) -> bool:
        return real_path(path).is_relative_to(self.root)


def needed_root(files: Iterable[Path], folder: Path) -> Path | None:
    """Return the `--root` that a manifest in `folder` needs for its files; None if none."""
    files = list(files)
    inside = all(real_path(file).is_relative_to(real_path(folder)) for file in files)
    return None if inside else common_folder(files)


def common_folder(files: Iterable[Path]) -> Path | None:
    """Return the deepest folder that holds all files, links followed; None if there is none."""
    try:
        return Path(os.path.commonpath([real_path(file).parent for file in files]))
    except ValueError:  # on several drives of Windows
        return None


def _files(case: Mapping[str, Any]) -> list[str]:
    return [*case["images"].values(), *case.get("labels", {}).values()]
