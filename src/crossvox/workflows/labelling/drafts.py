"""The record of a folder of drafts: which label map is whose, and what it was when it was made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from crossvox.errors import DataError, UsageError
from crossvox.utils.documents import parse_json
from crossvox.utils.files import atomic_write

DRAFTS, AS_DRAFTED = "drafts.json", "as_drafted"
"""The record of a folder, and the folder in it with a copy of each label map as it was made."""


@dataclass(frozen=True)
class Draft:
    """A predicted label map that somebody is to correct.

    Attributes:
        case: id.
        modalities: the scans whose label it becomes: one, or all of a registered subject.
        scan: file in the folder that leads to the scan on whose grid the label map lies.
        mark: of that scan (`InputScan.mark`).
        label: the label map's file in the folder.
        uncertainty: of the scan, as in `rank-cases`; None if the order was random.
    """

    case: str
    modalities: tuple[str, ...]
    scan: str
    mark: str
    label: str
    uncertainty: float | None = None

    @property
    def name(self) -> str:
        """The case and its modalities, for messages."""
        return f"{self.case} {'+'.join(self.modalities)}"


@dataclass(frozen=True)
class DraftFolder:
    """What is in a folder of drafts.

    Attributes:
        path: the folder.
        run: directory of the run that made them.
        classes: the classes that this run knows.
        drafts: in the order of the ranking.
    """

    path: Path
    run: Path
    classes: tuple[str, ...]
    drafts: tuple[Draft, ...]

    def as_drafted(self, draft: Draft) -> Path:
        """Return the copy of a label map that nobody is to change."""
        return self.path / AS_DRAFTED / draft.label

    def save(self) -> None:
        """Write `drafts.json`."""
        content = {
            "run": str(self.run),
            "classes": self.classes,
            "drafts": [asdict(draft) for draft in self.drafts],
        }
        text = json.dumps(content, indent=1, ensure_ascii=False)
        atomic_write(self.path / DRAFTS, text + "\n")

    @classmethod
    def load(cls, path: Path) -> DraftFolder:
        """Read `drafts.json`.

        Raises:
            UsageError: there is none.
            DataError: it is damaged.
        """
        file = path / DRAFTS
        if not file.exists():
            raise UsageError(f"{path} holds no drafts ({DRAFTS}); crossvox draft makes them")
        try:
            content = parse_json(file.read_text(encoding="utf-8"))
            drafts = [
                Draft(**{**entry, "modalities": tuple(entry["modalities"])})
                for entry in content["drafts"]
            ]
            return cls(path, Path(content["run"]), tuple(content["classes"]), tuple(drafts))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file}: damaged ({error}); draft into another folder") from error
