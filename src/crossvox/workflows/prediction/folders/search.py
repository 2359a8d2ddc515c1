"""Find the scans in folders: NIfTI files, and DICOM series by patient and study."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossvox.data.formats.dicom.folder import (
    Contents,
    FileLook,
    look_at,
    named,
    pydicom_module,
    sort_files,
)
from crossvox.data.formats.dicom.rules import Rule
from crossvox.data.formats.dicom.series import (
    SERIES_TAGS,
    Series,
    describe_rest,
    group_series,
)
from crossvox.errors import UsageError
from crossvox.utils.files import (
    files_below,
    is_nifti,
    logical_path,
    nifti_stem,
    real_path,
    require_there,
)
from crossvox.workflows.prediction.scans import Source


@dataclass(frozen=True)
class FoundScan:
    """A scan in a folder, or files that should be one.

    Attributes:
        modality: that it was looked for as.
        source: where it is.
        files: all that was looked at to choose it; while these change, it is not whole.
        patient: hash of the DICOM patient; empty if unknown.
        study: hash of the DICOM study; empty if unknown.
        problem: why it is no scan to predict; empty if it is one.
    """

    modality: str
    source: Source
    files: tuple[Path, ...]
    patient: str = ""
    study: str = ""
    problem: str = ""


class Search:
    """Finds the scans below folders. What it read of a file is kept until the file changes.

    Attributes:
        unused: lines on what the last search left aside.
    """

    def __init__(
        self,
        places: Mapping[str, Sequence[Path]],
        kinds: Mapping[str, str],
        rules: Sequence[Rule] = (),
        without: Path | None = None,
    ) -> None:
        """Keep what to look for.

        Args:
            places: modality → folders, files, and patterns of these with `*` or `?`.
            kinds: modality → kind that its series must not contradict; none = any.
            rules: which series of a study to take; all of them must fit.
            without: folder that is not searched, that of the results.

        Raises:
            UsageError: a place is the folder of the results.
            DataError: a place is missing.
        """
        self.places, self.kinds, self.rules = places, kinds, tuple(rules)
        self.unused: list[str] = []
        self._without = None if without is None else real_path(without)
        self._looks: dict[Path, tuple[tuple[int, int], FileLook]] = {}
        self._known = self._looks
        for path in (path for paths in places.values() for path in paths):
            if not (_is_pattern(path) or path.exists() or "#" in path.name):
                require_there(path, "give a folder, a file or a pattern in quotes")
            if self._without == real_path(path):
                raise UsageError(f"{path}: is also the folder of the results; give another --out")

    def find(self) -> list[FoundScan]:
        """Return the scans that are there now, in the order of their paths.

        Raises:
            UsageError: a file is found as two modalities, or pydicom is not installed.
        """
        self.unused, self._known, self._looks = [], self._looks, {}
        found: dict[Path, FoundScan] = {}
        for modality, paths in self.places.items():
            for scan in (scan for path in paths for scan in self._in_place(modality, path)):
                first = found.setdefault(scan.source.path, scan)
                if first.modality != modality:
                    raise UsageError(_found_twice(first, scan))
        return list(found.values())

    def _in_place(self, modality: str, path: Path) -> Iterator[FoundScan]:
        base, pattern = _split_pattern(path)
        for match in sorted(base.glob(pattern)) if pattern else [path]:
            if match.is_dir():
                yield from self._in_folder(modality, match, base if pattern else match)
            elif match.is_file():
                name = _joined(match, base) if pattern else nifti_stem(match.name)
                yield FoundScan(modality, Source(match, name), (match,))
            elif "#" in match.name:
                source = Source.from_path(match)
                yield FoundScan(modality, source, source.files)

    def _in_folder(self, modality: str, folder: Path, base: Path) -> Iterator[FoundScan]:
        files = [file for file in files_below(folder) if not self._is_result(file, folder)]
        niftis = [file for file in files if is_nifti(file.name)]
        for file in niftis:
            yield FoundScan(modality, Source(file, _joined(file, base)), (file,))
        others = [file for file in files if not is_nifti(file.name)]
        if not others:
            return
        try:
            pydicom_module()
        except UsageError:
            if not niftis:
                raise
            return
        looks = {file: look for file in others if (look := self._look(file))}
        yield from self._in_series(modality, sort_files(looks), folder, base)

    def _is_result(self, file: Path, folder: Path) -> bool:
        """Return whether a file lies in the folder of the results, if that is below `folder`."""
        if self._without is None or not self._without.is_relative_to(real_path(folder)):
            return False
        return real_path(file).is_relative_to(self._without)

    def _look(self, file: Path) -> FileLook | None:
        """Look at a file unless it is as it was; None if it was taken away meanwhile."""
        try:
            status = file.stat()
        except FileNotFoundError:
            return None
        state = (status.st_size, status.st_mtime_ns)
        look = self._looks.get(file) or self._known.get(file)
        if look is None or look[0] != state:
            look = (state, look_at(file, SERIES_TAGS))
        self._looks[file] = look
        return look[1]

    def _in_series(
        self, modality: str, contents: Contents, folder: Path, base: Path
    ) -> Iterator[FoundScan]:
        """Yield the series to take of each study, or why there is none."""
        places: dict[Path, list[Series]] = defaultdict(list)
        studies: dict[tuple[str, str], list[Series]] = defaultdict(list)
        for series in sorted(group_series(contents, folder), key=lambda one: one.files[0]):
            place = _common_folder(series.files)
            places[place].append(series)
            studies[series.patient, series.study].append(replace(series, folder=place))
        for (patient, study), members in studies.items():
            own = [series for series in members if self._is_own(series, modality)]
            files = tuple(file for series in own for file in (*series.files, *series.damaged))
            chosen, problem = self._choose(own) if own else ([], "")
            if problem:
                place = _common_folder(files)
                source = Source(place, _joined(place, base))
                yield FoundScan(modality, source, files, patient, study, f"{place}: {problem}")
            for series in chosen:
                source = _source(series, base, len(places[series.folder]) > 1)
                yield FoundScan(modality, source, files, patient, study)
        yield from _damaged(modality, contents, base)
        left = [one for one in studies.values() if not any(self._is_own(s, modality) for s in one)]
        if left:
            codes = ", ".join(sorted({series.modality for members in left for series in members}))
            self.unused.append(f"{folder}: {len(left)} studies without {modality} ({codes})")
        if contents.others:
            rest = describe_rest(Contents(others=contents.others))
            self.unused.append(f"{folder}: not used: {rest}")

    def _is_own(self, series: Series, modality: str) -> bool:
        """Return whether a series may be of a modality's kind."""
        kind = self.kinds.get(modality, "other")
        return kind == "other" or series.kind in ("", kind)

    def _choose(self, study: Sequence[Series]) -> tuple[list[Series], str]:
        """Return the series to take of a study, and what is wrong if there are none."""
        chosen = [series for series in study if all(rule.fits(series) for rule in self.rules)]
        shown = sorted(study, key=lambda series: series.description)
        listed = ", ".join(f"{one.description} ({len(one.files)} slices)".strip() for one in shown)
        if not chosen:
            asked = ", ".join(map(str, self.rules))
            return [], f"no series fits --series {asked}; there is {listed}"
        if len(chosen) > 1 and not self.rules:
            return [], (
                f"{len(study)} series in one study: {listed}; choose by --series, such as "
                "--series description~=TEXT"
            )
        return chosen, ""


def _source(series: Series, base: Path, is_shared: bool) -> Source:
    """Name a series after its folder, and by its UID too where others share the folder."""
    name, path = _joined(series.folder, base), series.folder
    if is_shared:
        name += f"_{hashlib.sha256(series.uid.encode()).hexdigest()[:8]}"
        path = Path(f"{path}#{series.uid}")
    return Source(path, name, series)


def _damaged(modality: str, contents: Contents, base: Path) -> Iterator[FoundScan]:
    """Yield the folders in which all that is DICOM is damaged."""
    sound = {file.parent for file in contents.images}
    groups: dict[Path, list[Path]] = defaultdict(list)
    for file in contents.damaged:
        groups[file.parent].append(file)
    for place in groups.keys() - sound:
        files = groups[place]
        reasons = " or ".join(dict.fromkeys(contents.damaged[file] for file in files))
        yield FoundScan(
            modality,
            Source(place, _joined(place, base)),
            tuple(files),
            problem=f"{place}: {len(files)} files are {reasons} ({named(files)}); copy them again",
        )


def _joined(path: Path, base: Path) -> str:
    """Return the path below `base` as a name; that of `base` if there is nothing below it."""
    parts = path.relative_to(base).parts
    return "_".join([*parts[:-1], nifti_stem(parts[-1])]) if parts else logical_path(base).name


def _common_folder(files: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([file.parent for file in files]))


def _is_pattern(path: Path) -> bool:
    return bool(re.search(r"[*?\[]", str(path))) and not path.exists()


def _split_pattern(path: Path) -> tuple[Path, str]:
    """Return the folder above the first wildcard, and the pattern below it; "" if none."""
    if not _is_pattern(path):
        return path, ""
    parts = path.parts
    first = next(k for k, part in enumerate(parts) if re.search(r"[*?\[]", part))
    return Path(*parts[:first]), str(Path(*parts[first:]))


def _found_twice(first: FoundScan, second: FoundScan) -> str:
    other = second.modality
    return (
        f"{second.source.path}: is found as {first.modality} and as {other}; give a folder or a "
        f"pattern for each, such as --images {other}='scans/*_{other}.nii.gz'"
    )
