"""Every problem of every scan of a data set, found before any work is done."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from crossvox.data.checks.files import (
    Finding,
    Header,
    inspect_file,
    inspect_header,
)
from crossvox.data.checks.placement import agreement_findings, registered_findings
from crossvox.data.checks.repeats import Use, repeated_content, repeated_paths
from crossvox.data.checks.values import count_labels, digest, image_findings, label_findings
from crossvox.data.manifest import SPLITS, Case, Manifest, load_sound_part
from crossvox.errors import DataError


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, and what to do; `str` makes one line of it.

    Attributes:
        severity: "error" or "warning".
        case: the case's id, empty where the problem is not one case's.
        modality: empty where the problem is not one modality's.
        file: path, relative to the manifest where it lies below it.
        found: what the file holds.
        expected: what it should hold.
        fix: what to do.

    A broken rule of the manifest's format is all in `found`, with the other two empty.
    """

    severity: str
    case: str
    modality: str
    file: str
    found: str
    expected: str
    fix: str

    def __str__(self) -> str:
        names = " ".join(name for name in (self.case, self.modality) if name)
        where = f"{names}  {self.file}" if names else self.file
        line = f"{where}: {self.found}"
        if self.expected:
            line = f"{where}: found {self.found}; expected {self.expected}; fix: {self.fix}"
        return f"{self.severity:<7}  {' '.join(line.splitlines())}"


def check(
    manifest: Manifest,
    labels: Container[tuple[str, str]] | None = None,
    splits: Sequence[str] = SPLITS,
    skip: Callable[[Path], bool] = lambda path: False,
) -> list[Problem]:
    """Read the scans of a data set once, one at a time, and list what is wrong with them.

    Args:
        manifest: the data set.
        labels: (case id, modality) of the label files to look at, the others are not opened;
            None = all of them.
        splits: the splits to look at.
        skip: true for images that need not be read again, such as prepared ones.

    Returns:
        The problems, in the manifest's order; none if the data can be used.
    """
    run = _look(manifest, labels, splits, skip)
    run.absent_classes()
    return run.problems


def check_file(path: Path, root: Path | None = None) -> tuple[Manifest | None, list[Problem]]:
    """List what is wrong with a manifest, and with the scans of its cases that break no rule.

    Args:
        path: the manifest.
        root: folder below which its files must lie; None = its own.

    Returns:
        The manifest with these cases, None if there are none, and the problems.

    Raises:
        DataError: the manifest is missing or not JSON.
    """
    manifest, broken = load_sound_part(path, root)
    if manifest and not broken:
        return manifest, check(manifest)
    problems = [Problem("error", "", "", str(path), line, "", "") for line in broken]
    # Whether a class is absent cannot be told: the cases left out may show it.
    return manifest, problems + (_look(manifest).problems if manifest else [])


def _look(
    manifest: Manifest,
    labels: Container[tuple[str, str]] | None = None,
    splits: Sequence[str] = SPLITS,
    skip: Callable[[Path], bool] = lambda path: False,
) -> _Check:
    """Look at all files, see `check`; what takes all of a split's labels is not told yet."""
    run = _Check(manifest, skip)
    for case in manifest.cases:
        if case.split not in splits:
            run.mention(case)
            continue
        for modality, path in case.images.items():
            wanted = labels is None or (case.id, modality) in labels
            label = case.labels.get(modality) if wanted else None
            header = run.image(case, modality, path, label is not None)
            if label is not None:
                run.label(case, modality, label, header)
    run.repeats()
    return run


def check_images(images: Mapping[str, Path]) -> list[Problem]:
    """List what is wrong with the scans of one subject, given by modality."""
    run = _Check(None, lambda path: False)
    for modality, path in images.items():
        run.image(Case("", "test", images), modality, Path(path), False)
    run.repeats()
    return run.problems


def report(problems: Sequence[Problem]) -> str:
    """Plain text: a line per problem, errors first, then a line that counts them."""
    errors = [problem for problem in problems if problem.severity == "error"]
    warnings = [problem for problem in problems if problem.severity != "error"]
    if not problems:
        return "no problems found"
    found = {"error": len(errors), "warning": len(warnings)}
    counts = [f"{n} {name}{'s' * (n > 1)}" for name, n in found.items() if n]
    return "\n".join([*map(str, errors), *map(str, warnings), ", ".join(counts)])


def raise_on_errors(problems: Sequence[Problem]) -> None:
    """Raise `DataError` with the report's words if a problem is an error; warnings pass."""
    if any(problem.severity == "error" for problem in problems):
        raise DataError(report(problems))


@dataclass
class _Check:
    """What has been seen so far; what concerns several files is told at the end."""

    manifest: Manifest | None
    skip: Callable[[Path], bool]
    problems: list[Problem] = field(default_factory=list)
    images: list[Use] = field(default_factory=list)
    labels: list[Use] = field(default_factory=list)
    present: dict[str, set[str]] = field(default_factory=dict)
    all_counted: bool = True

    def mention(self, case: Case) -> None:
        """Note the images of a split that is not looked at: none of them may be in another too."""
        self.images += [Use(case.id, case.split, m, path) for m, path in case.images.items()]

    def image(self, case: Case, modality: str, path: Path, label: bool) -> Header | None:
        """Look at an image; of one to be skipped at the header, for its `label`'s sake only."""
        use = Use(case.id, case.split, modality, path)
        header = None
        if not self.skip(path):
            header, voxels, findings = inspect_file(path)
            if header is not None and voxels is not None:
                findings = findings + image_findings(voxels)
                use = replace(use, digest=digest(voxels, header))
            self._add(use, findings)
        elif label:
            header, _, findings = inspect_header(path)
            self._add(use, findings)
        self.images.append(use)
        return header

    def label(self, case: Case, modality: str, path: Path, image: Header | None) -> None:
        """Look at a label map, whose image has the header `image` if that could be read."""
        assert self.manifest is not None
        use = Use(case.id, case.split, modality, path)
        self.labels.append(use)
        header, voxels, findings = inspect_file(path)
        if header is not None and image is not None:
            findings = findings + self._place(case, modality, header, image)
        if header is not None and voxels is not None:
            counts = count_labels(voxels, header)
            ids = self.manifest.labels
            findings = findings + label_findings(
                counts, ids, self.manifest.ignore, case.annotated, self.manifest.background
            )
            if case.split == "train":
                names = {name for name, number in ids.items() if counts.voxels[number]}
                self.present.setdefault(modality, set()).update(names)
        elif case.split == "train":
            self.all_counted = False
        self._add(use, findings)

    def _place(self, case: Case, modality: str, label: Header, image: Header) -> list[Finding]:
        """Whether a label lies where its image does, or the case's others if these agree."""
        findings = agreement_findings(label, image)
        if not findings or self.manifest is None or not self.manifest.registered:
            return findings
        others = [path for m, path in case.images.items() if m != modality]
        headers = [header for path in others if (header := inspect_header(path).header)]
        return registered_findings(label, [image, *headers])

    def repeats(self) -> None:
        """Tell of files and scans that occur twice."""
        for use, finding in repeated_paths(self.images, self.labels):
            self._add(use, [finding])
        for use, finding in repeated_content(self.images):
            self._add(use, [finding])

    def absent_classes(self) -> None:
        """Tell of classes that training could not learn from the labels it uses."""
        if self.manifest is None or not self.present or not self.all_counted:
            return
        everywhere = set().union(*self.present.values())
        file = str(self.manifest.path or self.manifest.name)
        fix = "label a case that shows it, use more labels, or take it out of the manifest's labels"
        for name in self.manifest.classes:
            wanted = f"some voxels of {name}"
            if name not in everywhere:
                found = f"class {name} in none of the train labels in use"
                self.problems.append(Problem("error", "", "", file, found, wanted, fix))
                continue
            for modality, names in self.present.items():
                if name not in names:
                    found = f"class {name} in none of the {modality} train labels in use"
                    self.problems.append(Problem("warning", "", modality, file, found, wanted, fix))

    def _add(self, use: Use, findings: Sequence[Finding]) -> None:
        root = self.manifest.path.parent if self.manifest and self.manifest.path else None
        inside = root is not None and use.path.is_relative_to(root)
        file = str(use.path.relative_to(root)) if inside and root else str(use.path)
        self.problems += [
            Problem(f.severity, use.case, use.modality, file, *f[1:]) for f in findings
        ]
