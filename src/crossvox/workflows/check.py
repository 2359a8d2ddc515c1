"""Check a data set: its problems, the overlap of its scans, and a picture per case."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crossvox.data.checks import Problem, check_manifest
from crossvox.data.checks.overlap import Overlap, measure_overlaps, overlap_problems
from crossvox.data.convert.unused import unused_beside
from crossvox.data.formats.nifti import read_label
from crossvox.data.manifest import Case, Manifest
from crossvox.data.prepare.partners import partner_problems
from crossvox.errors import UsageError
from crossvox.figures.overlays import overlay
from crossvox.figures.style import read_mark, stack_pictures
from crossvox.utils.files import require_folder
from crossvox.workflows.messages import tracked


@dataclass(frozen=True)
class CheckResult:
    """The problems and overlaps of a data set.

    Attributes:
        manifest: the cases that break no rule of the format; None if there are none.
        problems: of the manifest and its files.
        overlaps: of the scans of each subject.
        unused: lines on the volumes beside the manifest's files that it does not name.
    """

    manifest: Manifest | None
    problems: list[Problem]
    overlaps: list[Overlap]
    unused: list[str] = field(default_factory=list)

    @property
    def faulty(self) -> frozenset[tuple[str, str]]:
        """(case id, modality) of the images or labels with an error."""
        return frozenset((p.case, p.modality) for p in self.problems if p.severity == "error")

    def to_json(self) -> str:
        """Return problems and overlaps as a JSON text."""
        content = {
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
            "overlaps": [dataclasses.asdict(pair) for pair in self.overlaps],
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def check_dataset(path: Path, root: Path | None = None) -> CheckResult:
    """Find every problem of a manifest and of its scans, and measure how scans overlap.

    Args:
        path: the manifest.
        root: folder below which its files must lie; None = its own.

    Raises:
        DataError: the manifest is missing or not JSON.
    """
    result = CheckResult(*check_manifest(path, root), [])
    overlaps = measure_overlaps(result.manifest, result.faulty) if result.manifest else []
    problems = [*result.problems, *overlap_problems(overlaps)]
    problems += partner_problems(result.manifest, result.faulty) if result.manifest else []
    unused = unused_beside(result.manifest) if result.manifest else []
    return CheckResult(result.manifest, problems, overlaps, unused)


def draw_cases(
    manifest: Manifest,
    folder: Path,
    without: Collection[tuple[str, str]] = (),
) -> None:
    """Write `<case>.png` for each case: every scan of it, with its label map drawn over it.

    Pictures that an earlier check of the same manifest drew there of other cases are removed. Each
    picture holds a record of its manifest and its case; a file without it, or of another name than
    its case, is left alone.

    Args:
        manifest: the data set.
        folder: for the pictures.
        without: (case id, modality) of scans to leave out because they have an error.

    Raises:
        UsageError: a file there that is no picture of this data set would be lost.
    """
    require_folder(folder)
    for case in manifest.cases:
        file = folder / f"{case.id}.png"
        if file.exists() and read_mark(file) != _mark(manifest, case.id):
            raise UsageError(
                f"{file}: is there already, and not of {manifest.location}; give another folder"
            )
    drawn = list[Path]()
    for case in tracked(manifest.cases, "drawing"):
        modalities = [m for m in case.images if (case.id, m) not in without]
        if len(modalities) < len(case.images):
            left_out = ", ".join(m for m in case.images if m not in modalities)
            print(f"{case.id}: {left_out} not drawn because of errors")
        if modalities:
            drawn.append(folder / f"{case.id}.png")
            _draw_case(manifest, case, modalities, drawn[-1])
    print(f"{folder}: {_pictures(len(drawn))}")
    stale = [
        file
        for file in sorted(folder.glob("*.png"))
        if file not in drawn and read_mark(file) == _mark(manifest, file.stem)
    ]
    for file in stale:
        file.unlink()
    if stale:
        names = ", ".join(file.stem for file in stale)
        print(f"{folder}: removed {_pictures(len(stale))} that an earlier check drew: {names}")


def _mark(manifest: Manifest, case: str) -> str:
    """Return the record in a picture: of which manifest it is, and which case it shows."""
    path = str(manifest.path and manifest.path.absolute())
    return f"{hashlib.sha256(path.encode()).hexdigest()[:16]} {case}"


def _pictures(number: int) -> str:
    return f"{number} {'picture' if number == 1 else 'pictures'}"


def _draw_case(manifest: Manifest, case: Case, modalities: Sequence[str], path: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        pictures = []
        for modality in modalities:
            scan = case.read_image(modality)
            label = case.labels.get(modality)
            truth = None
            if label is not None:
                truth = read_label(label, manifest.labels, manifest.ignore, scan.grid)
            pictures.append(Path(temporary) / f"{modality}.png")
            overlay(
                pictures[-1],
                scan.data,
                scan.grid.spacing.tolist(),
                truth,
                None,
                manifest.classes,
                title=f"{case.id}, {modality}" + ("" if label else ", unlabelled"),
                orientation=scan.grid.orientation,
            )
        stack_pictures(pictures, path, _mark(manifest, case.id))
