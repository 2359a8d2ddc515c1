"""Check every scan of a data set before any work is done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from crossvox.data.checks.duplicates import FileUse, changed_scans, repeated_paths, repeated_scans
from crossvox.data.checks.extent import compare_extents
from crossvox.data.checks.files import CheckedImage, CheckedLabel, check_image, check_label
from crossvox.data.checks.seen import Seen
from crossvox.data.formats.nifti import Form, NiftiFile, Volume, read_nifti
from crossvox.data.geometry import Grid
from crossvox.data.manifest import SPLITS, Case, Manifest, load_valid_cases
from crossvox.data.manifest.sides import may_tell_side
from crossvox.data.problems import Problem

CheckedFiles = Sequence[CheckedImage | CheckedLabel]
Found = Iterator[tuple[FileUse, Problem]]

_read = partial(read_nifti, sha256=False)


def check(
    manifest: Manifest,
    labels: Container[tuple[str, str]] | None = None,
    splits: Sequence[str] = SPLITS,
    skip: Callable[[Case, str], bool] = lambda case, modality: False,
    read_label: Callable[[Path], NiftiFile] = _read,
    seen: Mapping[str, Seen] | None = None,
    header: Form = "auto",
    whole: bool = True,
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
        whole: whether the manifest has all cases; else no class is called absent, as those that
            were left out may show it.

    Returns:
        The problems, in the manifest's order; none if the data can be used.

    >>> check(load_manifest("dataset.json"))
    []
    """
    files = list(_check_files(manifest, labels, splits, skip, read_label, seen or {}, header))
    # With a run, each scan was compared with those it was trained on, and its classes are settled.
    odd, sides = ((), ()) if seen else (_odd_extents(files), _doubtful_sides(manifest))
    found = [*_own_problems(files), *_repeated(files), *odd]
    absent = _absent_classes(manifest, files) if whole else ()
    return [*_named(found, manifest.path), *absent, *sides]


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
    return manifest, problems + check(manifest, whole=not broken_rules)


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
    volumes, kinds, seen = volumes or {}, kinds or {}, seen or {}
    files = []
    for modality, path in images.items():
        use = FileUse("", "test", modality, Path(path), header)
        kind, volume = kinds.get(modality, ""), volumes.get(modality)
        files.append(check_image(use, kind, seen.get(modality), volume, insist))
    return _named([*_own_problems(files), *_repeated(files)])


def check_labels(manifest: Manifest, labels: Container[tuple[str, str]]) -> list[Problem]:
    """List what is wrong with label maps, and whether they lie where their images do.

    Voxels of images are not read, and the data set is not judged as a whole.

    Args:
        manifest: the data set.
        labels: (case id, modality) of the label maps.
    """
    files = []
    for case in manifest.cases:
        for modality in case.labels:
            if (case.id, modality) in labels:
                image = read_nifti(case.images[modality], voxels=False, form=case.form(modality))
                files.append(check_label(manifest, case, modality, image.header, _read))
    return _named(_own_problems(files), manifest.path)


def _check_files(
    manifest: Manifest,
    labels: Container[tuple[str, str]] | None,
    splits: Sequence[str],
    skip: Callable[[Case, str], bool],
    read_label: Callable[[Path], NiftiFile],
    seen: Mapping[str, Seen],
    header: Form,
) -> Iterator[CheckedImage | CheckedLabel]:
    """Check each image and each label map by itself, see `check`."""
    for case in manifest.cases:
        for modality, path in case.images.items():
            form = case.form(modality) if header == "auto" else header
            image = CheckedImage(FileUse(case.id, case.split, modality, path, form))
            if case.split not in splits:
                # Not read, but none of the other images may be this file.
                yield image
                continue
            is_in_use = labels is None or (case.id, modality) in labels
            has_label = is_in_use and modality in case.labels
            if not skip(case, modality):
                kind = manifest.modalities[modality]
                image = check_image(image.use, kind, seen.get(modality))
            elif has_label:
                file = read_nifti(path, voxels=False, form=form)
                image = CheckedImage(image.use, file.header, file.problems)
            yield image
            if has_label:
                yield check_label(manifest, case, modality, image.header, read_label)


def _own_problems(files: CheckedFiles) -> Found:
    """Yield the problems that the files have by themselves."""
    for file in files:
        for problem in file.problems:
            yield file.use, problem


def _repeated(files: CheckedFiles) -> Found:
    """Yield files and scans that occur twice."""
    images = [file.use for file in files if isinstance(file, CheckedImage)]
    labels = [file.use for file in files if isinstance(file, CheckedLabel)]
    yield from repeated_paths(images, labels)
    yield from repeated_scans(images)
    yield from changed_scans(images)


def _odd_extents(files: CheckedFiles) -> Found:
    """Yield sound images whose size is far from that of the others of their modality."""
    sound: dict[str, list[tuple[FileUse, Grid]]] = defaultdict(list)
    for file in files:
        if isinstance(file, CheckedImage) and file.use.fingerprint and file.header:
            sound[file.use.modality].append((file.use, file.header.grid))
    for own in sound.values():
        problems = compare_extents([grid for _, grid in own])
        for (use, _), problem in zip(own, problems, strict=True):
            if problem is not None:
                yield use, problem


def _absent_classes(manifest: Manifest, files: CheckedFiles) -> Iterator[Problem]:
    """Yield classes that training could not learn from the labels it uses, if all could be read."""
    shown: dict[str, set[str]] = defaultdict(set)  # by modality
    for file in files:
        if isinstance(file, CheckedLabel) and file.use.split == "train":
            if file.classes is None:
                return
            shown[file.use.modality].update(file.classes)
    if not shown:
        return
    fix = "label a case that shows it, use more labels, or take it out of the manifest's labels"
    for name in manifest.classes:
        found = f"class {name} in none of the train labels in use"
        absent = Problem.error(found, f"some voxels of {name}", fix, manifest.location)
        lacking = [modality for modality, names in shown.items() if name not in names]
        if len(lacking) == len(shown):
            yield absent
            continue
        for modality in lacking:
            found = f"class {name} in none of the {modality} train labels in use"
            yield replace(absent, severity="warning", modality=modality, found=found)


def _doubtful_sides(manifest: Manifest) -> Iterator[Problem]:
    """Yield a warning if class names may tell a side, unless the manifest says whether they do."""
    names = may_tell_side(manifest.classes)
    if names and manifest.mirror is None:
        fix = 'leave it so if they do, else say "mirror": true in the manifest'
        found = f"classes {', '.join(names)}, which may tell a side: left-right is not mirrored"
        expected = '"mirror": true or false in the manifest'
        yield Problem.warning(found, expected, fix, manifest.location)


def _named(found: Iterable[tuple[FileUse, Problem]], manifest: Path | None = None) -> list[Problem]:
    """Add case, modality and file to problems; files below a manifest are named relative to it."""
    problems = []
    for use, problem in found:
        file = use.path
        if manifest is not None and file.is_relative_to(manifest.parent):
            file = file.relative_to(manifest.parent)
        problems.append(replace(problem, case=use.case, modality=use.modality, file=str(file)))
    return problems
