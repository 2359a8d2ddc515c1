"""One HTML file about a run or a benchmark."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossvox.benchmark.results.files import holds_benchmark, read_results
from crossvox.data.manifest import Case, Manifest, as_manifest
from crossvox.errors import UsageError
from crossvox.evaluation.scores import seen_note, summarise, unseen
from crossvox.figures.charts import score_figures
from crossvox.report.benchmark_page import benchmark_sections
from crossvox.report.gallery import Gallery, predict_scans, worst_and_best
from crossvox.report.page import Block, Charts, Page, Section, Viewer, read_mark, render
from crossvox.report.run_page import (
    data_set,
    overview,
    read_scores,
    recorded_data,
    reproduction,
    training,
)
from crossvox.report.score_tables import case_table, label_size_table, summary_table
from crossvox.report.shown_scan import UNKNOWN, ShownScan, embed
from crossvox.report.unlabelled import (
    TITLE,
    WHY,
    first_of_each,
    report_cases,
    show_unlabelled,
)
from crossvox.utils.files import atomic_write, logical_path, require_writable
from crossvox.utils.palette import ERRORS, class_colour
from crossvox.version import __version__
from crossvox.workflows.prediction.evaluate import (
    evaluation_facts,
    require_same_problem,
    scored_maps,
    seen_by,
)
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.prediction.predict import load_split
from crossvox.workflows.prediction.predictor import Predictor
from crossvox.workflows.run import Run

SUBTITLE = f"crossvox {__version__}"
CAUTION = "Research software, not for clinical use."
IMAGES = (
    "This file holds patient images: slices of {} scans with their labels. Keep it where the scans "
    "may be kept, and share it only with those who may see them; never commit or publish it."
)
NO_IMAGES = "This file holds no image. Names of cases and scores in it may still be private."


@dataclass(frozen=True)
class ReportData:
    """The scans and scores that a run's report shows.

    Attributes:
        data: a data set, or its dataset.json; None limits the report to the training.
        split: the split whose labelled cases are scored and shown; None = val. Where it has no
            label, predictions of scans without one are shown.
        scores: folder that `crossvox evaluate` wrote for that split; then only the scans that are
            shown are predicted.
        show: number of worst and of best scans of each modality to show; 0 shows none.
        include_seen: let cases that the run learnt from enter the means and charts.
    """

    data: Manifest | Path | None = None
    split: str | None = None
    scores: Path | None = None
    show: int = 2
    include_seen: bool = False


def report(
    path: Path,
    out: Path,
    source: ReportData,
    options: Options,
) -> Path:
    """Write one self-contained HTML file about a run or a benchmark.

    Args:
        path: a run directory, or the folder of a benchmark.
        out: HTML file to write.
        source: the data set of a run's report.
        options: checkpoint, overlap and device for predictions.

    Returns:
        `out`.

    Raises:
        UsageError: `path` holds no run or benchmark, the data set does not fit the run, or `out`
            is another file that would be lost.
        DataError: files are damaged; nothing is written then.

    Example:
        report(Path("runs/first"), Path("report.html"), ReportData(Path("dataset.json")), Options())
    """
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; name an HTML file")
    require_writable(out.parent)
    if source.show < 0:
        raise UsageError(f"--show is {source.show}; must be at least 0")
    if holds_benchmark(path):
        if source.data or source.scores:
            raise UsageError(f"{path} is a benchmark; --data and --scores go with a run")
        results = read_results(path)
        mark = hashlib.sha256(json.dumps(results.about, sort_keys=True).encode()).hexdigest()[:16]
        _require_same_report(out, mark, path)
        title = results.about["title"] or f"Benchmark {results.about['name']}"
        page = Page(title, benchmark_sections(results), SUBTITLE, [NO_IMAGES, CAUTION], mark)
    else:
        run = Run.load(path)
        _require_same_report(out, run.mark, path)
        page = _run_page(run, source, options)
    text = render(page)
    atomic_write(out, text)
    print(f"{out}: {len(text.encode()) / 1e6:.1f} MB")
    return out


def _run_page(run: Run, source: ReportData, options: Options) -> Page:
    if source.data is None and source.scores:
        raise UsageError("--scores goes with --data, the data set that was scored")
    found = None if source.data is None else _look_at(run, source.data, source, options)
    rows = found.rows if found else []
    scans = found.scans if found else []
    data: list[Block] = recorded_data(run)
    if found:
        data = [*data_set(run, found.manifest), *([label_size_table(rows)] if rows else [])]
    sections = [
        Section("Run", [overview(run, rows, source.include_seen)]),
        Section("Data set", data),
        training(run),
    ]
    if found and rows:
        sections.append(_scores(run, found, source.include_seen, options))
    if scans:
        viewer = Viewer(
            [embed(scan) for scan in scans],
            [(name, class_colour(k)) for k, name in enumerate(run.task.classes, start=1)],
            ERRORS,
        )
        checkpoint = f"Checkpoint “{run.checkpoint(options.checkpoint).stem}”. "
        title, text = ("Worst and best scans", "") if rows else (TITLE, checkpoint + WHY)
        sections.append(Section(title, [viewer], text))
    sections.append(Section("How to repeat this", reproduction(run, sys.argv)))
    images = IMAGES.format(len(scans)) if scans else NO_IMAGES
    title = f"{run.config.method['name']}, run {logical_path(run.path).name}"
    return Page(title, sections, SUBTITLE, [images, CAUTION], run.mark)


def _scores(run: Run, found: _Found, include_seen: bool, options: Options) -> Section:
    """Return the section with tables and charts of the scores."""
    summary = summarise(found.rows, include_seen=include_seen)
    checkpoint = run.checkpoint(options.checkpoint).stem
    kind = f"Labelled scans of the split “{found.split}”, checkpoint “{checkpoint}”."
    text = " ".join(filter(None, [kind, seen_note(summary)]))
    charts = Charts(score_figures(unseen(found.rows, include_seen)))
    return Section("Scores", [summary_table(summary), charts, case_table(found.rows)], text)


def _require_same_report(out: Path, mark: str, path: Path) -> None:
    """Raise `UsageError` if a file is there that is no earlier report of the same thing."""
    if out.exists() and read_mark(out) != mark:
        raise UsageError(f"{out}: is there already, and no report on {path}; give another --out")


@dataclass(frozen=True)
class _Found:
    """What the report of a run says about a data set.

    Attributes:
        manifest: the data set.
        split: whose labelled cases were scored.
        rows: of scores; none where no case has a label.
        scans: to show.
    """

    manifest: Manifest
    split: str
    rows: Sequence[dict[str, Any]]
    scans: list[ShownScan]


def _look_at(run: Run, data: Manifest | Path, source: ReportData, options: Options) -> _Found:
    """Score labelled cases and choose scans to show, or predict scans without a label."""
    manifest = as_manifest(data)
    require_same_problem(run, manifest)
    if source.show and len(run.task.classes) >= UNKNOWN:
        raise UsageError(f"the viewer takes at most {UNKNOWN - 1} classes; give --show 0")
    split, cases = report_cases(manifest, source.split)
    if source.split is not None:
        load_split(manifest, split)
    gallery = Gallery(source.show, len(run.task.modalities) + run.task.fusible)
    labelled = [case for case in cases if case.labels]
    if labelled:
        rows = _score(run, manifest, labelled, replace(source, split=split), options, gallery)
        return _Found(manifest, split, rows, gallery.scans())
    if source.scores is not None:
        raise UsageError(f"--scores: no case of split '{split or 'val'}' has a label; leave it out")
    cases = first_of_each(cases, 2 * source.show)
    scans: list[ShownScan] = []
    if cases:
        predictor = Predictor(run.path, options=options)
        predictor.tell_checkpoints(print)
        predictor.require_memory([case.images for case in cases], print)
        scans = show_unlabelled(manifest, predictor, cases, gallery.voxels)
    return _Found(manifest, split, [], scans)


def _score(
    run: Run,
    manifest: Manifest,
    cases: list[Case],
    source: ReportData,
    options: Options,
    gallery: Gallery,
) -> list[dict[str, Any]]:
    """Return the rows of scores of labelled cases, and offer their scans to the gallery."""
    split, known = str(source.split), None
    if source.scores is not None:
        known = read_scores(source.scores, evaluation_facts([run], manifest, split, options))
        wanted = worst_and_best(known, source.show)
        if missing := wanted - {case.id for case in cases}:
            raise UsageError(
                f"{source.scores}: scores of {min(missing)}, which is no labelled case of split "
                f"'{split}' of {manifest.location}; give the data that were scored"
            )
        cases = [case for case in cases if case.id in wanted]
    rows: list[dict[str, Any]] = []
    if cases:
        predictor = Predictor(run.path, options=scored_maps(run, options))
        predictor.tell_checkpoints(print)
        predictor.require_memory([case.images for case in cases], print)
        seen = seen_by([run], cases, print)
        rows = predict_scans(run, manifest, predictor, cases, gallery, seen)
    return rows if known is None else known
