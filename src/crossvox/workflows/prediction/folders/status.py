"""The table of what became of each scan, by which a command goes on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from crossvox.utils.csv_tables import csv_text, read_own_table
from crossvox.utils.files import atomic_write, real_path
from crossvox.utils.locks import folder_lock
from crossvox.workflows.prediction.job import Outcome
from crossvox.workflows.prediction.scans import Subject

STATUS = "status.csv"
COLUMNS = ("name", "modality", "source", "state", "message", "seconds", "output", "stamp")


class Status:
    """The rows of `status.csv`, one per scan. A later row of the same scan replaces an earlier."""

    def __init__(self, folder: Path, work: str) -> None:
        """Read the table, if there is one.

        Args:
            folder: of the results.
            work: text that differs if the same scans would be predicted otherwise.

        Raises:
            DataError: `status.csv` there is another table.
        """
        self.path = folder / STATUS
        self._work = work
        self._done: dict[str, set[str]] = defaultdict(set)
        for row in self._read():
            if row["state"] == "done":
                self._done[row["stamp"]].update(row["output"].split(";"))

    def is_done(self, stamp: str) -> bool:
        """Return whether the files of a stamp were predicted, and the results are there."""
        files = self._done.get(stamp, set())
        return bool(files) and all((self.path.parent / name).is_file() for name in files)

    def stamp(self, subject: Subject) -> str:
        """Return sixteen digits that tell the files of a subject, as they are, and the work."""
        files = (f"{m} {signature(source.files)}" for m, source in subject.sources.items())
        return hashlib.sha256("\n".join([self._work, *files]).encode()).hexdigest()[:16]

    def add(self, outcome: Outcome, stamp: str) -> None:
        """Add the rows of a subject, whose files had this stamp before the work."""
        rows = [
            {
                "name": source.name,
                "modality": modality,
                "source": str(source.path),
                "state": outcome.state,
                "message": outcome.message,
                "seconds": f"{outcome.seconds:.1f}",
                "output": ";".join(file.name for file in outcome.files.get(modality, ())),
                "stamp": stamp,
            }
            for modality, source in outcome.subject.sources.items()
        ]
        if outcome.state == "done":
            self._done[stamp] = {file.name for file in outcome.written}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = {(row["source"], row["modality"]) for row in rows}
        # Several commands may fill one folder at a time.
        with folder_lock(self.path.parent):
            kept = [row for row in self._read() if (row["source"], row["modality"]) not in new]
            cells = ([row[column] for column in COLUMNS] for row in (*kept, *rows))
            atomic_write(self.path, csv_text(COLUMNS, *cells))

    def _read(self) -> list[dict[str, str]]:
        return read_own_table(self.path, COLUMNS, "scans")


def signature(files: Iterable[Path]) -> str:
    """Return a hash of path, size and time of the files that are there."""
    digest = hashlib.sha256()
    for file in sorted(files):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            line = f"{real_path(file)}\n{status.st_size} {status.st_mtime_ns}\n"
            digest.update(os.fsencode(line))
    return digest.hexdigest()
