"""Which scans a run learnt from with their labels, by itself and through the runs it began from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossvox.data.checks.duplicates import fingerprint
from crossvox.data.formats.nifti import read_nifti
from crossvox.data.manifest import Case, Manifest
from crossvox.errors import DataError
from crossvox.training.record import read_facts
from crossvox.utils.files import sha256_once

if TYPE_CHECKING:
    from crossvox.data.prepare.store import Store
    from crossvox.workflows.run import Run

LEARNT = "learnt"
"""Entry of `run.json` that lists the scans whose labels a run learnt from."""

SameScan = Callable[[Case, str], bool]
"""Tells whether a case's scan of a modality is a learnt one."""


@dataclass(frozen=True)
class LearntScan:
    """A scan whose label was trained on. Its hashes tell it from others of that name.

    Attributes:
        case: id of its case, as the manifest of that training had it.
        modality: of the scan.
        file: SHA-256 of its file.
        voxels: hash of its values (`crossvox.data.checks.duplicates.fingerprint`).
    """

    case: str
    modality: str
    file: str
    voxels: str


def read_learnt(run: Path) -> list[LearntScan]:
    """Return the scans that a run learnt from; an exported run lists none.

    Raises:
        DataError: the entry in `run.json` is damaged.
    """
    try:
        return [LearntScan(**entry) for entry in read_facts(run).get(LEARNT, [])]
    except TypeError as error:
        raise DataError(
            f"{run / 'run.json'}: '{LEARNT}' is damaged ({error}); restore the file"
        ) from None


def learnt_facts(
    run: Run, manifest: Manifest, store: Store, earlier: Iterable[LearntScan]
) -> list[dict[str, Any]]:
    """Return the entry `LEARNT` of a new run: what it learns from, and what its start learnt from.

    Args:
        run: the new run.
        manifest: its data set.
        store: holds its prepared scans.
        earlier: what the run that it begins from had learnt from.
    """
    found = {scan.voxels: scan for scan in earlier}
    for case, modality in sorted(run.selection.labels):
        meta = store.image(manifest.case(case), modality).meta
        scan = LearntScan(case, modality, meta["sha256"], meta["voxels"])
        found.setdefault(scan.voxels, scan)
    return [asdict(scan) for scan in found.values()]


def seen_cases(
    cases: Iterable[Case], learnt: Sequence[LearntScan], is_same: SameScan | None = None
) -> list[str]:
    """Return the ids of the cases of which one scan at least is among the learnt ones.

    A subject's other scans count as seen too, since they show the same organs.

    Args:
        cases: with any number of scans.
        learnt: the scans that were learnt from.
        is_same: compares a scan of a case with them; None compares files, then values.
    """
    is_same = is_same or HashedFiles(learnt)
    return [case.id for case in cases if learnt and any(is_same(case, m) for m in case.images)]


class HashedFiles:
    """Compare files with learnt scans: first their bytes, then the values in them."""

    def __init__(self, learnt: Iterable[LearntScan], values: bool = True) -> None:
        """Take the learnt scans; without `values`, a scan that was saved anew is not found."""
        scans = list(learnt)
        self._files = {scan.file for scan in scans}
        self._voxels = {scan.voxels for scan in scans} if values else set()

    def __call__(self, case: Case, modality: str) -> bool:
        """Return whether a case's scan of a modality is a learnt one."""
        path = case.images[modality]
        if sha256_once(path) in self._files:
            return True
        if not self._voxels:
            return False
        file = read_nifti(path, form=case.form(modality))
        return fingerprint(file).digest.hex() in self._voxels


def in_store(learnt: Iterable[LearntScan], store: Store) -> SameScan:
    """Compare prepared scans with learnt ones; no file is read."""
    voxels = {scan.voxels for scan in learnt}
    return lambda case, modality: store.image(case, modality).meta["voxels"] in voxels


def name_some(names: Sequence[str]) -> str:
    """Return names as text, the first five of them."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def unrecorded(runs: Iterable[Run]) -> list[Path]:
    """Return the runs whose record lacks the scans they learnt from, such as exported ones."""
    return [run.path for run in runs if LEARNT not in read_facts(run.path)]
