"""Check every scan of a data set before any work is done."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from crossvox.data.checks.duplicates import (
    FileUse,
    changed_scans,
    fingerprint,
    repeated_paths,
    repeated_scans,
)
from crossvox.data.checks.extent import compare_extents
from crossvox.data.checks.scans import (
    count_labels,
    kind_problems,
    label_problems,
    placement_problems,
    registered_placement_problems,
    scan_problems,
)
from crossvox.data.checks.seen import Seen
from crossvox.data.formats.nifti import Form, NiftiFile, NiftiHeader, Volume, as_nifti, read_nifti
from crossvox.data.geometry import Grid
from crossvox.data.manifest import SPLITS, Case, Manifest, load_valid_cases
from crossvox.data.manifest.sides import may_tell_side
from crossvox.data.problems import Problem, has_errors

_read = partial(read_nifti, sha256=False)


def check(
    manifest: Manifest,
    labels: Container[tuple[str, str]] | None = None,
    splits: Sequence[str] = SPLITS,
    skip: Callable[[Case, str], bool] = lambda case, modality: False,
    read_label: Callable[[Path], NiftiFile] = _read,
    seen: Mapping[str, Seen] | None = None,
    header: Form = "auto",
) -> list[Problem]:
    """Read the scans of a data set once, one at a time, and list what is wrong with them.

    Args:
        manifest: the data set.
        labels: (case id, modality) of the label files to look at, the others are not opened;
            None = all of them.
        splits: the splits to look at.
        skip: true for a case's image that need not be read again, such as a prepared one.
        read_label: reads a label map, such as a `LabelCache` that also keeps it.
        seen: modality → what the training scans of the run that is to predict were like.
        header: the part of all images' headers that places the voxels; auto = as the cases say.

    Returns:
        The problems, in the manifest's order; none if the data can be used.

    >>> check(load_manifest("dataset.json"))
    []
    """
    run = _DatasetCheck(manifest, skip, read_label, seen=seen or {}, header=header)
    run.check_cases(labels, splits)
    run.check_duplicates()
    run.check_extents()
    run.check_absent_classes()
    run.check_sides()
    return run.problems


def check_manifest(path: Path, root: Path | None = None) -> tuple[Manifest | None, list[Problem]]:
    """List what is wrong with a manifest, and with the scans of its cases that break no rule.

    Args:
        path: the manifest.
        root: folder below which its files must lie; None = its own.

    Returns:
        The manifest with these cases, None if there are none, and the problems.

    Raises:
        DataError: the manifest is missing or not JSON.
    """
    manifest, broken_rules = load_valid_cases(path, root)
    problems = [Problem.error(line, file=str(path)) for line in broken_rules]
    if manifest is None:
        return None, problems
    if not broken_rules:
        return manifest, check(manifest)
    # Cases that were left out may show a class that seems absent, so absence is not checked.
    run = _DatasetCheck(manifest)
    run.check_cases()
    run.check_duplicates()
    run.check_extents()
    run.check_sides()
    return manifest, problems + run.problems


def check_images(
    images: Mapping[str, Path],
    volumes: Mapping[str, Volume] | None = None,
    kinds: Mapping[str, str] | None = None,
    seen: Mapping[str, Seen] | None = None,
    header: Form = "auto",
    insist: bool = False,
) -> list[Problem]:
    """List what is wrong with the scans of one subject.

    Args:
        images: modality → path of the scan.
        volumes: modality → the scan, where it was read already, from another format than NIfTI.
        kinds: modality → kind, as far as they are known.
        seen: as in `check`.
        header: as in `check`.
        insist: whether a scan that says it is of another kind is a warning only.
    """
    run = _DatasetCheck(None, volumes=volumes or {}, kinds=kinds or {}, seen=seen or {})
    run.header, run.insist = header, insist
    case = Case("", "test", images)
    for modality, path in images.items():
        run.check_image(case, modality, Path(path))
    run.check_duplicates()
    return run.problems


def check_labels(manifest: Manifest, labels: Container[tuple[str, str]]) -> list[Problem]:
    """List what is wrong with label maps, and whether they lie where their images do.

    Voxels of images are not read, and the data set is not judged as a whole.

    Args:
        manifest: the data set.
        labels: (case id, modality) of the label maps.
    """
    run = _DatasetCheck(manifest)
    for case in manifest.cases:
        for modality, path in case.labels.items():
            if (case.id, modality) in labels:
                image = read_nifti(case.images[modality], voxels=False, form=case.form(modality))
                run.check_label(case, modality, path, image.header)
    return run.problems


@dataclass
class _DatasetCheck:
    """Collects the problems of a data set, and what is needed to compare its files.

    Attributes:
        manifest: the data set; None if there are scans alone.
        skip: true for images that need not be read again.
        read_label: reads a label map.
        volumes: modality → scan that was read already.
        kinds: modality → kind, where there is no manifest.
        seen: modality → what the training scans of the run that is to predict were like.
        header: the part of the images' headers that places the voxels.
        insist: the user insists on the scans' kinds.
        problems: those found so far.
        images: the images named so far.
        labels: the label maps named so far.
        grids: the sound images read so far, and where they lie.
        present: modality → classes that its train labels show.
        all_counted: every train label could be read.
    """

    manifest: Manifest | None
    skip: Callable[[Case, str], bool] = lambda case, modality: False
    read_label: Callable[[Path], NiftiFile] = _read
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, Seen] = field(default_factory=dict)
    header: Form = "auto"
    insist: bool = False
    problems: list[Problem] = field(default_factory=list)
    images: list[FileUse] = field(default_factory=list)
    labels: list[FileUse] = field(default_factory=list)
    grids: list[tuple[FileUse, Grid]] = field(default_factory=list)
    present: dict[str, set[str]] = field(default_factory=dict)
    all_counted: bool = True

    def check_cases(
        self, labels: Container[tuple[str, str]] | None = None, splits: Sequence[str] = SPLITS
    ) -> None:
        """Check all images and labels, see `check`."""
        assert self.manifest is not None
        for case in self.manifest.cases:
            for modality, path in case.images.items():
                if case.split not in splits:
                    # Not read, but none of the other images may be this file.
                    self.images.append(FileUse(case.id, case.split, modality, path))
                    continue
                wanted = labels is None or (case.id, modality) in labels
                label = case.labels.get(modality) if wanted else None
                header = self.check_image(case, modality, path, label is not None)
                if label is not None:
                    self.check_label(case, modality, label, header)

    def check_image(
        self, case: Case, modality: str, path: Path, has_label: bool = False
    ) -> NiftiHeader | None:
        """Check an image; of a skipped one only the header, and only for its label's sake."""
        form = case.form(modality) if self.header == "auto" else self.header
        use = FileUse(case.id, case.split, modality, path, form)
        header = None
        if not self.skip(case, modality):
            volume = self.volumes.get(modality)
            file = (
                _read(path, form=form)
                if volume is None
                else as_nifti(volume.data, volume.grid, path)
            )
            header = file.header
            kinds = self.manifest.modalities if self.manifest else self.kinds
            kind = kinds.get(modality, "")
            problems = [] if volume is None else kind_problems(volume.kind, kind, self.insist)
            problems += scan_problems(file, kind, self.seen.get(modality))
            if file.header is not None and not has_errors(problems):
                use = replace(use, fingerprint=fingerprint(file))
                self.grids.append((use, file.header.grid))
            self._add(use, problems)
        elif has_label:
            file = read_nifti(path, voxels=False, form=form)
            header = file.header
            self._add(use, file.problems)
        self.images.append(use)
        return header

    def check_label(self, case: Case, modality: str, path: Path, image: NiftiHeader | None) -> None:
        """Check a label map, and that it lies where its image does if that could be read."""
        assert self.manifest is not None
        use = FileUse(case.id, case.split, modality, path)
        self.labels.append(use)
        file = self.read_label(path)
        header, problems = file.header, file.problems
        if header is not None and image is not None:
            problems = problems + self._placement_problems(case, modality, header, image)
        if header is not None and file.stored is not None:
            counts = count_labels(file.stored, header)
            ids = self.manifest.labels
            problems = problems + label_problems(
                counts, ids, self.manifest.ignore, case.annotated, self.manifest.background
            )
            if case.split == "train":
                names = {name for name, number in ids.items() if counts.voxels[number]}
                self.present.setdefault(modality, set()).update(names)
        elif case.split == "train":
            self.all_counted = False
        self._add(use, problems)

    def check_duplicates(self) -> None:
        """Add files and scans that occur twice."""
        for use, problem in repeated_paths(self.images, self.labels):
            self._add(use, [problem])
        for use, problem in [*repeated_scans(self.images), *changed_scans(self.images)]:
            self._add(use, [problem])

    def check_extents(self) -> None:
        """Add scans whose size is far from that of the others, unless a run's scans are known."""
        for modality in {use.modality: None for use, _ in self.grids if not self.seen}:
            own = [(use, grid) for use, grid in self.grids if use.modality == modality]
            problems = compare_extents([grid for _, grid in own])
            for (use, _), problem in zip(own, problems, strict=True):
                self._add(use, [] if problem is None else [problem])

    def check_absent_classes(self) -> None:
        """Add classes that training could not learn from the labels it uses."""
        if self.manifest is None or not self.present or not self.all_counted:
            return
        everywhere = set().union(*self.present.values())
        fix = "label a case that shows it, use more labels, or take it out of the manifest's labels"
        for name in self.manifest.classes:
            absent = Problem.error(
                f"class {name} in none of the train labels in use",
                f"some voxels of {name}",
                fix,
                self.manifest.location,
            )
            if name not in everywhere:
                self.problems.append(absent)
                continue
            for modality, names in self.present.items():
                if name not in names:
                    found = f"class {name} in none of the {modality} train labels in use"
                    self.problems.append(
                        replace(absent, severity="warning", modality=modality, found=found)
                    )

    def check_sides(self) -> None:
        """Add class names that may tell a side, unless a run has been trained with them."""
        if self.manifest is None or self.manifest.mirror is not None or self.seen:
            return
        if names := may_tell_side(self.manifest.classes):
            fix = 'leave it so if they do, else say "mirror": true in the manifest'
            found = f"classes {', '.join(names)}, which may tell a side: left-right is not mirrored"
            expected = '"mirror": true or false in the manifest'
            self.problems.append(Problem.warning(found, expected, fix, self.manifest.location))

    def _placement_problems(
        self, case: Case, modality: str, label: NiftiHeader, image: NiftiHeader
    ) -> list[Problem]:
        """Compare a label with its image, or with any of the case's if these are registered."""
        assert self.manifest is not None
        problems = placement_problems(label, image)
        if not problems or not self.manifest.registered:
            return problems
        others = [
            read_nifti(path, voxels=False, form=case.form(m)).header
            for m, path in case.images.items()
            if m != modality
        ]
        return registered_placement_problems(label, image, [h for h in others if h is not None])

    def _add(self, use: FileUse, problems: Sequence[Problem]) -> None:
        """Add problems of a file, named relative to the manifest where it lies below it."""
        root = self.manifest.path.parent if self.manifest and self.manifest.path else None
        inside = root is not None and use.path.is_relative_to(root)
        file = str(use.path.relative_to(root)) if inside and root else str(use.path)
        self.problems += [
            replace(problem, case=use.case, modality=use.modality, file=file)
            for problem in problems
        ]
