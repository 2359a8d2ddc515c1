"""Score a trained run on the labelled cases of a split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from crossvox.data.checks import check
from crossvox.data.crops.misalign import Misalign
from crossvox.data.formats.nifti import Scan, Volume
from crossvox.data.geometry import Grid
from crossvox.data.manifest import Case, Manifest
from crossvox.errors import UsageError
from crossvox.evaluation.scores import Summary, require_same_scores, write_scores
from crossvox.figures import overlay
from crossvox.inference.ensemble import require_known_modalities
from crossvox.training.record import read_facts
from crossvox.utils.documents import plain
from crossvox.utils.files import require_folder
from crossvox.workflows.messages import Echo, report_problems
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.prediction.predict import distinct_runs, load_split
from crossvox.workflows.prediction.predictor import Predictor
from crossvox.workflows.prediction.scoring import (
    ScoredCase,
    labelled_first,
    require_labelled,
    score_cases,
)
from crossvox.workflows.run import Run, started_from
from crossvox.workflows.validation.learnt import read_learnt, seen_cases, unrecorded


@dataclass(frozen=True)
class Scenario:
    """Under which conditions cases are predicted, to test how robust a method is.

    Args:
        modalities: the only ones that the method gets of each case; None = all that it has.
        misalign: a motion imposed on one modality's scans before they are predicted together.
    """

    modalities: tuple[str, ...] | None = None
    misalign: Misalign = field(default_factory=Misalign)

    def restrict(self, case: Case) -> Case:
        """Return the case with these modalities only."""
        if self.modalities is None:
            return case
        images = {m: path for m, path in case.images.items() if m in self.modalities}
        labels = {m: path for m, path in case.labels.items() if m in images}
        return replace(case, images=images, labels=labels)

    def scans(self, case: Case, modalities: Sequence[str]) -> Mapping[str, Scan]:
        """Return the scans of a case, one of them moved in world space if so asked.

        What the moved scan shows stays as it is, voxel by voxel, and so does its label.

        Args:
            case: a case.
            modalities: all of the data set; the last one is moved unless another is named.
        """
        moved = self.misalign.modality or modalities[-1]
        if not self.misalign or moved not in case.images:
            return case.images
        volume = case.read_image(moved)
        motion = self.misalign.motion(case.id, volume.grid)
        grid = Grid(volume.grid.shape, motion @ volume.grid.affine)
        return {**case.images, moved: Volume(volume.data, grid)}

    def facts(self) -> dict[str, Any]:
        """Return what differs from the plain conditions, for the record."""
        facts: dict[str, Any] = {}
        if self.modalities is not None:
            facts["given"] = list(self.modalities)
        if self.misalign:
            facts["misalign"] = asdict(self.misalign)
        return facts


@dataclass(frozen=True)
class ScoreOutputs:
    """What is made of the scores.

    Args:
        overlays: also write `overlays/<case>_<modality>.png`, prediction and truth on the scan.
        include_seen: let cases that were learnt from enter the means.
    """

    overlays: bool = False
    include_seen: bool = False


def evaluate(
    paths: Path | Sequence[Path],
    data: Manifest | Path,
    split: str,
    out: Path,
    options: Options,
    *,
    scenario: Scenario = Scenario(),
    outputs: ScoreOutputs = ScoreOutputs(),
    echo: Echo = print,
) -> Summary:
    """Predict the labelled cases of a split, and write `cases.csv` and `summary.json`.

    Cases that a run learnt from, or a run that it began from, are marked and left out of the means.

    >>> summary = evaluate(Path("runs/first"), Path("dataset.json"), "test", Path("out"), Options())
    >>> summary["overall"]["dice"]["mean"]

    Args:
        paths: the run directory, or several to average.
        data: the data set, or its dataset.json; its classes and modalities must be the run's.
        split: train, val or test.
        out: folder for the files.
        options: checkpoint, overlap and device.
        scenario: modalities to leave out and misalignment to impose.
        outputs: what enters the means, and what is drawn.
        echo: takes the lines for the user.

    Returns:
        The summary (`crossvox.evaluation.scores.summarise`).

    Raises:
        UsageError: no labelled case in the split, other classes or modalities, no checkpoint,
            scores of another evaluation in `out`, or more memory would be needed than there is.
        DataError: scans or labels have errors; nothing is written then.
    """
    require_folder(out)
    paths = distinct_runs(paths)
    run = Run.load(paths[0])
    manifest, cases = load_split(data, split)
    require_same_problem(run, manifest)
    modalities = run.task.modalities
    named = [*(scenario.modalities or ()), scenario.misalign.modality or modalities[-1]]
    require_known_modalities(run.task, dict.fromkeys(named))
    whole = {case.id: case for case in cases}
    cases = require_labelled((scenario.restrict(case) for case in cases), manifest, split)
    used = {(case.id, modality) for case in cases for modality in case.labels}
    report_problems(check(manifest, used, splits=(split,), seen=run.plan.seen), echo)
    predictor = Predictor(*paths, options=scored_maps(run, options))
    facts = evaluation_facts(predictor.runs, manifest, split, options) | scenario.facts()
    require_same_scores(out, facts)
    predictor.tell_checkpoints(echo)
    predictor.require_memory([case.images for case in cases], echo)
    seen = seen_by(predictor.runs, [whole[case.id] for case in cases], echo)
    rows = []
    for scored in score_cases(
        lambda case: predictor.predict(
            labelled_first(case, scenario.scans(case, modalities)),
            checked=True,
            forms=case.header,
        ),
        cases,
        manifest,
        run.task.classes,
        seen=seen,
    ):
        rows += scored.rows
        if outputs.overlays:
            _draw_overlays(scored, run.task.classes, out / "overlays")
        echo(str(scored))
    return write_scores(out, rows, facts, outputs.include_seen)


def seen_by(runs: Sequence[Run], cases: Iterable[Case], echo: Echo) -> list[str]:
    """Return the ids of the cases that one of the runs learnt from, and tell what is not known."""
    for path in unrecorded(runs):
        echo(f"{path}: no record of the scans that it learnt from, so their scores are not marked")
    return seen_cases(cases, [scan for run in runs for scan in read_learnt(run.path)])


def scored_maps(run: Run, options: Options) -> Options:
    """Return the options with which every label map is made that has a score."""
    return replace(options, maps="both" if run.task.fusible else "modalities")


def require_same_problem(run: Run, manifest: Manifest) -> None:
    """Raise `UsageError` unless a manifest has the classes and modalities of a run."""
    for what, own, found in (
        ("classes", run.task.classes, manifest.labels),
        ("modalities", run.task.modalities, manifest.modalities),
    ):
        if set(own) != set(found):
            raise UsageError(
                f"{manifest.path}: {what} {', '.join(found)}; the run's are {', '.join(own)}"
            )


def evaluation_facts(
    runs: Sequence[Run], manifest: Manifest, split: str, options: Options
) -> dict[str, Any]:
    """Describe what was scored.

    Args:
        runs: the run, or the members of an ensemble.
        manifest: the data set.
        split: that was scored.
        options: of the prediction.
    """
    configs = [run.config for run in runs]
    facts = {
        "method": _joined([config.method["name"] for config in configs]),
        "seed": _joined([config.seed for config in configs]),
        "backbone": _joined([plain(config.backbone) for config in configs]),
        "data": manifest.name,
        "split": split,
        "labelled": _joined([config.labelled for config in configs]),
        "label_draw": _joined([config.label_draw for config in configs]),
        "preset": _joined([config.preset for config in configs]),
        "checkpoint": _joined([run.checkpoint(options.checkpoint).stem for run in runs]),
    }
    if weights := _published_weights(runs):
        facts["weights"] = weights
    if any(starts := [started_from(run) for run in runs]):
        facts["start"] = _joined(starts)
    if len(runs) > 1:
        facts["ensemble"] = len(runs)
    asked = {name: getattr(options, name) for name in ("overlap", "largest", "weigh")}
    facts |= {name: value for name, value in asked.items() if value is not None}
    if options.tta:
        facts["tta"] = True
    return {**facts, "mark": _joined([run.mark for run in runs])}


def _draw_overlays(scored: ScoredCase, classes: Sequence[str], folder: Path) -> None:
    """Write a picture of each scored scan with its prediction and truth."""
    for name, truth in scored.truth.items():
        scan = scored.case.read_image(scored.scan_of(name))
        overlay(
            folder / f"{scored.case.id}_{name}.png",
            scan.data,
            scan.grid.spacing.tolist(),
            truth,
            scored.prediction.labels[scored.map_of(name)],
            classes,
            title=f"{scored.case.id}, {name}",
            orientation=scan.grid.orientation,
        )


def _published_weights(runs: Sequence[Run]) -> dict[str, str]:
    """Return where the runs started from published weights → which, and what these had seen."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for place, facts in (read_facts(run.path).get("weights") or {}).items():
            found.setdefault(place, []).append(f"{facts['model']}; saw {facts['saw']}")
    return {place: " / ".join(dict.fromkeys(texts)) for place, texts in found.items()}


def _joined(values: Sequence[Any]) -> Any:
    """Return the value that all share, or all values as text."""
    is_shared = all(value == values[0] for value in values)
    return values[0] if is_shared else " + ".join(map(str, values))
