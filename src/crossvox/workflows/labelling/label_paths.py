"""Where the label map of a scan belongs, judged by those that the data set has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crossvox.data.manifest import Manifest
from crossvox.utils.files import nifti_stem, require_writable


@dataclass(frozen=True)
class _Naming:
    """The way from a scan's path to that of its label map.

    Attributes:
        folders: place of a folder in the path → its name for scans and for label maps.
        ending: of the name without suffix, for scans and for label maps.
    """

    folders: tuple[tuple[int, str, str], ...]
    ending: tuple[str, str]

    @classmethod
    def between(cls, scan: Path, label: Path) -> _Naming | None:
        """Return the way from one path to the other; None if they lie at different depths."""
        if len(scan.parts) != len(label.parts):
            return None
        places = enumerate(zip(scan.parts[:-1], label.parts[:-1], strict=True))
        folders = tuple((k, a, b) for k, (a, b) in places if a != b)
        stems = (nifti_stem(scan.name), nifti_stem(label.name))
        signs = enumerate(zip(*stems, strict=False))
        shared = next((k for k, (a, b) in signs if a != b), min(map(len, stems)))
        return cls(folders, (stems[0][shared:], stems[1][shared:]))

    def apply(self, scan: Path) -> Path | None:
        """Return the path of a scan's label map; None if the scan's is of another form."""
        parts = list(scan.parts[:-1])
        for place, before, after in self.folders:
            if place >= len(parts) or parts[place] != before:
                return None
            parts[place] = after
        stem = nifti_stem(scan.name)
        if not stem.endswith(self.ending[0]):
            return None
        name = stem[: len(stem) - len(self.ending[0])] + self.ending[1]
        return Path(*parts, f"{name}.nii.gz")


def label_path(manifest: Manifest, case: str, modality: str) -> Path:
    """Return where the label map of a scan belongs; there may be a file of that name.

    It lies and is named as the labels of that modality are, seen from their scans. Where there are
    none, they follow no common rule, or the data set names such a file already, it is
    `labels/<case>_<modality>.nii.gz` beside the manifest.

    >>> label_path(manifest, "ct007", "ct")  # others are scans/ct/labels/ct000.nii.gz …
    PosixPath('scans/ct/labels/ct007.nii.gz')
    """
    scan = manifest.case(case).images[modality]
    labelled = [case for case in manifest.cases if modality in case.labels]
    ways = {_Naming.between(c.images[modality], c.labels[modality]) for c in labelled}
    way = ways.pop() if len(ways) == 1 else None
    found = way.apply(scan) if way else None
    taken = {file for case in manifest.cases for file in case.files}
    if found is not None and found not in taken and _can_write(found.parent):
        return found
    folder = manifest.path.parent if manifest.path else Path.cwd()
    return folder / "labels" / f"{case}_{modality}.nii.gz"


def _can_write(folder: Path) -> bool:
    try:
        require_writable(folder)
    except OSError:
        return False
    return True
