"""Take corrected drafts back into a data set, as labels of its train scans."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from crossvox.data.checks import check_labels
from crossvox.data.formats.nifti import read_header, read_label
from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.data.problems import Problem, has_errors
from crossvox.errors import UsageError
from crossvox.utils.files import atomic_path, atomic_write, require_writable, sha256_once
from crossvox.utils.going_on import start_from_command
from crossvox.workflows.labelling.drafts import Draft, DraftFolder
from crossvox.workflows.labelling.label_paths import label_path
from crossvox.workflows.prediction.scans import InputScan

Outcome = Literal["adopted", "there already", "left", "refused"]

EXCHANGED = 0.5
"""Share of a drafted class that another class must have taken to be told of."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of a draft.

    Attributes:
        draft: the draft.
        outcome: "adopted"; "there already" as a label; "left" for its user to correct or to do
            without; or "refused", because something is wrong.
        words: why, for the user.
        problems: of the label map.
        case: with the label, if it is adopted.
    """

    draft: Draft
    outcome: Outcome
    words: str
    problems: Sequence[Problem] = ()
    case: Case | None = None


def adopt(
    path: Path,
    data: Path,
    out: Path | None = None,
    *,
    root: Path | None = None,
    unchanged: bool = False,
    ids: Mapping[str, int] | None = None,
) -> list[Verdict]:
    """Check the drafts of a folder, and make those that were corrected labels of a data set.

    A draft is adopted for a train scan without label. Others are left or refused, and told why.
    Label maps are copied, and none is overwritten. The manifest is written last, as a whole. So
    it is harmless to adopt again, be it after an interruption or after further corrections.

    >>> adopt(Path("drafts"), Path("dataset.json"))[0].outcome
    'adopted'

    Args:
        path: folder of `crossvox draft`.
        data: the data set's dataset.json.
        out: manifest to write; None = `data` itself.
        root: folder below which the files of the data set must lie; None = its own.
        unchanged: adopt drafts that nobody changed, too.
        ids: class name → id of classes to add to the data set. What was labelled before counts as
            not outlined for them, and so does an adopted label that shows none of it.

    Returns:
        What became of each draft.

    Raises:
        UsageError: the folder holds no drafts, or `out` is another file.
        DataError: the manifest breaks a rule, or a file of the folder is damaged.
    """
    folder = DraftFolder.load(path)
    before = load_manifest(data, root)
    made = _with_classes(before, ids or {})
    require_writable((out or data).parent)
    verdicts = []
    for draft in folder.drafts:
        verdict = _judge(draft, folder, made, unchanged)
        verdicts.append(verdict)
        made = _with_case(made, verdict.case)
        for problem in verdict.problems:
            print(problem)
        print(f"{draft.name}: {verdict.words}")
    if made != before:
        print(_write(made, verdicts, folder, out, data))
    for line in _summary(made, verdicts):
        print(line)
    if any(verdict.outcome in ("adopted", "there already") for verdict in verdicts):
        written = out if out is not None and out.exists() else data
        wide = made.needed_root(written.absolute().parent)
        if folder.run.is_dir():
            print(f"next: {start_from_command(folder.run, written, wide)}")
        else:
            print(f"next: {folder.run}, which made the drafts, is not here any more; go on from")
            print(f"  another run by {start_from_command(Path('RUN'), written, wide)}")
    return verdicts


def _with_case(manifest: Manifest, case: Case | None) -> Manifest:
    """Return a data set in which a case has taken the place of that of its id."""
    if case is None:
        return manifest
    cases = tuple(case if other.id == case.id else other for other in manifest.cases)
    return replace(manifest, cases=cases)


def _with_classes(manifest: Manifest, ids: Mapping[str, int]) -> Manifest:
    """Return a data set with further classes, which its labels do not outline."""
    new = {name: number for name, number in ids.items() if manifest.labels.get(name) != number}
    for name in new:
        if name in manifest.labels:
            raise UsageError(
                f"--ids {name}={new[name]}: has the id {manifest.labels[name]} in "
                f"{manifest.location}; leave it out"
            )
    if not new:
        return manifest
    cases = tuple(
        replace(case, annotated=case.annotated or manifest.classes) if case.labels else case
        for case in manifest.cases
    )
    return replace(manifest, labels={**manifest.labels, **new}, cases=cases)


def _judge(draft: Draft, folder: DraftFolder, manifest: Manifest, unchanged: bool) -> Verdict:
    """Decide on a draft; nothing is written."""
    label = folder.path / draft.label
    case = next((case for case in manifest.cases if case.id == draft.case), None)
    if case is None or not set(draft.modalities) <= set(case.images):
        return Verdict(draft, "refused", f"no such scan in {manifest.location}")
    if case.split != "train":
        words = f"is in {case.split} by now; put it back into train, or label it without a draft"
        return Verdict(draft, "refused", words)
    if not label.exists():
        return Verdict(draft, "left", f"{label} is not there")
    if free := tuple(m for m in draft.modalities if m not in case.labels):
        return _judge_label(replace(draft, modalities=free), folder, manifest, case, unchanged)
    there = case.labels[draft.modalities[0]]
    if _same_file(label, there):
        return Verdict(draft, "there already", f"adopted already, {there}")
    return Verdict(draft, "left", f"has a label, {there}, which stays; correct that file")


def _judge_label(
    draft: Draft, folder: DraftFolder, manifest: Manifest, case: Case, unchanged: bool
) -> Verdict:
    """Decide on the label map of a train scan without label."""
    label, first = folder.path / draft.label, draft.modalities[0]
    if draft.mark not in {InputScan.from_path(file).mark for file in case.images.values()}:
        return Verdict(draft, "refused", "its scan was changed since; draft it again")
    drafted = replace(case, labels={**case.labels, **dict.fromkeys(draft.modalities, label)})
    alone = replace(manifest, cases=(drafted,))
    problems = check_labels(alone, {(case.id, first)})
    if has_errors(problems):
        return Verdict(draft, "refused", "correct it, then adopt again", problems)
    drafted_as = folder.as_drafted(draft)
    grid = read_header(drafted_as)
    now, then = (
        read_label(file, manifest.labels, manifest.ignore, grid) for file in (label, drafted_as)
    )
    if not unchanged and np.array_equal(now, then):
        words = f"{label} is as it was drafted; correct it, or add --unchanged if it is right"
        return Verdict(draft, "left", words, problems)
    target = label_path(manifest, case.id, first)
    if target.exists() and not _same_file(label, target):
        words = f"{target} is there and another file; move it, or name it in the manifest"
        return Verdict(draft, "refused", words, problems)
    problems = [*problems, *_exchanged(now, then, manifest, draft)]
    labels = {**case.labels, **dict.fromkeys(draft.modalities, target)}
    adopted = replace(
        case,
        labels=labels,
        annotated=_annotated(now, folder, manifest, case),
        drafted=(*case.drafted, *draft.modalities),
    )
    words = f"adopted as {target}, {_share(now, then)} of the foreground changed"
    return Verdict(draft, "adopted", words, problems, adopted)


def _same_file(first: Path, second: Path) -> bool:
    return second.exists() and sha256_once(first) == sha256_once(second)


def _annotated(
    label: np.ndarray, folder: DraftFolder, manifest: Manifest, case: Case
) -> tuple[str, ...] | None:
    """Return the classes outlined in a label: not those that neither it nor the run knows."""
    shown = set(np.unique(label).tolist())
    unknown = {
        name
        for index, name in enumerate(manifest.classes, start=1)
        if name not in folder.classes and index not in shown
    }
    outlined = case.annotated or manifest.classes
    left = tuple(name for name in outlined if name not in unknown)
    return left if left and left != manifest.classes else case.annotated


def _exchanged(
    now: np.ndarray, then: np.ndarray, manifest: Manifest, draft: Draft
) -> Iterator[Problem]:
    """Yield a warning for each drafted class that is mostly another class now."""
    for index, name in enumerate(manifest.classes, start=1):
        taken = np.bincount(np.maximum(now[then == index], 0), minlength=1)
        other = int(taken[1:].argmax()) + 1 if len(taken) > 1 else index
        share = taken[other] / max(1, taken.sum()) if other < len(taken) else 0
        if other != index and share > EXCHANGED:
            whose = manifest.classes[other - 1]
            yield replace(
                Problem.warning(
                    f"a drafted {name} that is {whose} now ({share:.0%} of it)",
                    "classes that keep their ids",
                    "nothing if you changed it by hand; else the viewer renumbered the classes: "
                    "save the label map with the ids of labels.ctbl",
                ),
                case=draft.case,
                modality=draft.modalities[0],
                file=draft.label,
            )


def _share(now: np.ndarray, then: np.ndarray) -> str:
    either = int(np.count_nonzero((now != 0) | (then != 0)))
    return f"{np.count_nonzero(now != then) / max(1, either):.0%}"


def _write(
    made: Manifest,
    verdicts: Sequence[Verdict],
    folder: DraftFolder,
    out: Path | None,
    data: Path,
) -> str:
    """Copy the adopted label maps, then write the manifest; return a line on it."""
    adopted = [verdict for verdict in verdicts if verdict.case is not None]
    names = ", ".join(verdict.draft.name for verdict in adopted)
    if names:
        source = f"{made.source}; adopt: {names}" if made.source else f"adopt: {names}"
        made = replace(made, source=source)
    place = out or data
    text = made.to_json(place.parent)
    if out is not None and out.exists() and not out.samefile(data):
        if out.read_text(encoding="utf-8") != text:
            raise UsageError(f"{out} exists and is another manifest; give another --out")
        return f"{out}: holds this already"
    for verdict in adopted:
        assert verdict.case is not None
        target = verdict.case.labels[verdict.draft.modalities[0]]
        if not target.exists():
            with atomic_path(target) as temporary:
                shutil.copyfile(folder.path / verdict.draft.label, temporary)
    atomic_write(place, text)
    return f"{place}: written"


def _summary(manifest: Manifest, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield lines on what became of the drafts, and on who is labelled now."""
    counts = {
        outcome: sum(verdict.outcome == outcome for verdict in verdicts)
        for outcome in dict.fromkeys(verdict.outcome for verdict in verdicts)
    }
    yield f"drafts: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}"
    for modality in manifest.modalities:
        names = [case.id for case in manifest.split("train") if modality in case.labels]
        yield f"labelled for training now: {modality} {len(names)} ({', '.join(names)})"
