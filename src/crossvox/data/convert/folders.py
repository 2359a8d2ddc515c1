"""Find scans in any tree of NIfTI files whose paths follow a pattern."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossvox.data.convert.raw import RawDataset, is_volume, natural, require_source
from crossvox.data.manifest import Case
from crossvox.errors import UsageError
from crossvox.utils.files import files_below

Files = Mapping[str, Path]
"""Path below the source → file."""

PIECES = re.compile(r"(\{case\}|\{modality\}|\*\*/|\*)")
"""Parts of a pattern that stand for something else."""


@dataclass(frozen=True)
class Patterns:
    """Patterns of the paths in a tree.

    Attributes:
        images: path of a scan below the source, with `{case}` and, for several modalities,
            `{modality}`; `*` stands for any text without a slash, `**` for any folders.
        kinds: modality → kind; names that are not listed are no modality.
        ids: class name → id in the label files.
        labels: path of a label map; without `{modality}`, one serves all images of a case.
        registered: see `Manifest`.
        unpaired: cases of one name are different subjects in each modality.
    """

    images: str
    kinds: Mapping[str, str]
    ids: Mapping[str, int]
    labels: str | None = None
    registered: bool = False
    unpaired: bool = False


def find_folders(source: Path, patterns: Patterns) -> RawDataset:
    """Find the scans and label maps of a tree.

    Raises:
        UsageError: a pattern is malformed, finds nothing, or finds two files for one scan.

    >>> patterns = Patterns("{modality}/{case}.nii.gz", {"ct": "ct", "t1": "mr"}, {"liver": 1})
    >>> len(find_folders(Path("scans"), patterns).cases)
    20
    """
    source = require_source(source)
    files = {f.relative_to(source).as_posix(): f for f in natural(files_below(source))}
    labels: dict[tuple[str, str], Path] = {}
    if patterns.labels is not None:
        labels = _matches(files, patterns.labels, patterns, "--labels-pattern")
        if not labels:
            raise UsageError(
                f"{source}: no .nii or .nii.gz file matches --labels-pattern "
                f"{patterns.labels!r}; correct it, or leave it out where nothing is labelled"
            )
    # {case}.nii.gz fits a_seg.nii.gz, too, so label maps are left out.
    images = _matches(files, patterns.images, patterns, "--pattern", set(labels.values()))
    if not images:
        _refuse_other_spelling(files, patterns, set())
        raise _nothing(source, list(files)[:3], patterns)
    _refuse_other_spelling(files, patterns, {modality for _, modality in images})
    cases: dict[str, Case] = {}
    for (case, modality), file in images.items():
        label = labels.get((case, modality), labels.get((case, "")))
        id = f"{modality}_{case}" if patterns.unpaired else case
        known = cases.get(id, Case(id, "", {}))
        cases[id] = Case(
            id,
            "",
            {**known.images, modality: file},
            {**known.labels, modality: label} if label else known.labels,
        )
    return RawDataset(
        source.name,
        dict(patterns.kinds),
        dict(patterns.ids),
        tuple(_in_order(case, patterns) for case in cases.values()),
        patterns.registered,
        folder=source,
        unpair="" if patterns.registered else "--unpaired",
    )


def _in_order(case: Case, patterns: Patterns) -> Case:
    """Return a case with its modalities in the manifest's order."""
    images, labels = (
        {m: files[m] for m in patterns.kinds if m in files} for files in (case.images, case.labels)
    )
    return Case(case.id, "", images, labels)


def _matches(
    files: Files, pattern: str, patterns: Patterns, option: str, without: Container[Path] = ()
) -> dict[tuple[str, str], Path]:
    """Return (case, modality) → file; modality is empty if a label map serves several."""
    expression = re.compile(_expression(pattern, list(patterns.kinds), option))
    only = next(iter(patterns.kinds)) if len(patterns.kinds) == 1 else ""
    if not only and option == "--pattern" and "{modality}" not in pattern:
        raise UsageError(
            f"{option} {pattern!r} has no {{modality}}, but there are {', '.join(patterns.kinds)}"
        )
    found: dict[tuple[str, str], Path] = {}
    for path, file in files.items():
        match = expression.fullmatch(path)
        if match is None or file in without or not is_volume(file):
            continue
        key = (match["case"], match.groupdict().get("modality") or only)
        if key in found:
            raise UsageError(
                f"{option} {pattern!r}: {found[key]} and {file} are both case {key[0]!r}"
                f"{f' in {key[1]}' if key[1] else ''}; make the pattern tell them apart"
            )
        found[key] = file
    return found


def _expression(pattern: str, modalities: list[str], option: str) -> str:
    """Return the user's pattern as a regular expression in which the modalities are known."""
    parts = PIECES.split(pattern)
    if any(re.search(r"[{}]", part) for part in parts[::2]) or "{case}" not in parts:
        raise UsageError(
            f"{option} {pattern!r}: expected a path with {{case}} and, for several modalities, "
            "{modality}, such as {modality}/images/{case}.nii.gz"
        )
    # Longer names first: t1c must not be read as t1.
    names = sorted(modalities, key=len, reverse=True)
    return path_expression(pattern, "|".join(map(re.escape, names)))


def path_expression(pattern: str, modality: str) -> str:
    """Return a pattern of paths as a regular expression; `modality` is the one of `{modality}`."""
    pieces = {"**/": "(?:[^/]+/)*", "*": "[^/]*"}
    groups = {"{case}": ("case", "[^/]+"), "{modality}": ("modality", modality)}
    written = ""
    for part in PIECES.split(pattern):
        if part in groups:
            name, content = groups[part]
            # A name that stands twice, as in {case}/{case}_ct.nii.gz, is the same both times.
            written += f"(?P={name})" if f"(?P<{name}>" in written else f"(?P<{name}>{content})"
        else:
            written += pieces.get(part, re.escape(part))
    return written


def _refuse_other_spelling(files: Files, patterns: Patterns, found: Container[str]) -> None:
    """Raise `UsageError` where files spell a modality without scans in other capitals."""
    expression = re.compile(_expression(patterns.images, list(patterns.kinds), "--pattern"), re.I)
    for path, file in files.items():
        match = expression.fullmatch(path)
        spelt = match.groupdict().get("modality") if match else None
        if spelt is None or spelt in patterns.kinds or not is_volume(file):
            continue
        name = next(kind for kind in patterns.kinds if kind.lower() == spelt.lower())
        if name not in found:
            raise UsageError(
                f"--kind {name}={patterns.kinds[name]}: no file has this modality, but {file} has "
                f"{spelt!r}; capitals count, so give --kind {spelt}={patterns.kinds[name]}"
            )


def _nothing(source: Path, examples: Sequence[str], patterns: Patterns) -> UsageError:
    held = f"the first files are {', '.join(examples)}" if examples else "the folder is empty"
    return UsageError(
        f"{source}: no .nii or .nii.gz file matches --pattern {patterns.images!r} with the "
        f"modalities {', '.join(patterns.kinds)}; {held}"
    )
