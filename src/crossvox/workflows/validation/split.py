"""What a new split means for earlier splits and runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from crossvox.data.manifest import Case, Manifest
from crossvox.errors import CrossvoxError
from crossvox.training.record import FOLDS, read_config
from crossvox.utils.documents import read_yaml
from crossvox.workflows.validation.learnt import (
    HashedFiles,
    LearntScan,
    name_some,
    read_learnt,
    seen_cases,
)


def lost_cases(manifest: Manifest, earlier: Manifest) -> list[str]:
    """Return a line on the val and test cases of an earlier split that are no more, if any."""
    ids = {case.id for case in manifest.cases}
    lost = [case.id for case in earlier.cases if case.split != "train" and case.id not in ids]
    return [f"not kept, as they are not here: {name_some(lost)}"] if lost else []


def learnt_before(cases: Iterable[Case], folders: Sequence[Path]) -> Iterator[str]:
    """Yield a line per run that has learnt from the labels of cases for validation or test.

    Files are compared by their bytes.

    Args:
        cases: for validation or test.
        folders: where to look for runs, two levels deep.
    """
    labelled = [case for case in cases if case.labels]
    for run in _runs(folders) if labelled else ():
        try:
            learnt, data = _learnt_from(run)
        except (CrossvoxError, OSError, KeyError, TypeError):
            continue  # not a run that can be used
        if seen := seen_cases(labelled, learnt, HashedFiles(learnt, values=False)):
            yield (
                f"warning: {run} learnt from the labels of {name_some(seen)}, now for validation "
                f"or test. Its scores on them count in no mean; --keep {data} keeps its split"
            )


def _learnt_from(run: Path) -> tuple[list[LearntScan], str]:
    """Return what a run, or all folds of one, learnt from, and the data set's file."""
    if (run / FOLDS).exists():
        folds = sorted(file.parent for file in run.glob("fold_*/run.json"))
        data = read_yaml(run / FOLDS)["config"]["data"]
        return [scan for fold in folds for scan in read_learnt(fold)], data
    return read_learnt(run), read_config(run)["data"]


def _runs(folders: Sequence[Path]) -> list[Path]:
    """Return the runs and the cross-validations in some folders, two levels deep."""
    found: dict[Path, Path] = {}
    for folder in folders:
        for pattern in ("*/run.json", "*/*/run.json", f"*/{FOLDS}", f"*/*/{FOLDS}"):
            found |= {file.parent.resolve(): file.parent for file in sorted(folder.glob(pattern))}
    return [path for path in found.values() if not (path.parent / FOLDS).exists()]
