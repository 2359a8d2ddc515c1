"""One HTML file about a run or a benchmark."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossvox.benchmark.results import holds_benchmark, read_results
from crossvox.data.manifest import Manifest
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
from crossvox.utils.files import atomic_write, logical_path, require_writable
from crossvox.utils.palette import ERRORS, class_colour
from crossvox.version import __version__
from crossvox.workflows.messages import Echo
from crossvox.workflows.prediction.evaluate import (
    evaluation_facts,
    require_same_problem,
    scored_maps,
    seen_by,
)
from crossvox.workflows.prediction.memory import require_memory
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.prediction.predict import load_split
from crossvox.workflows.prediction.predictor import Predictor
from crossvox.workflows.prediction.scoring import require_labelled
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
        split: the split whose labelled cases are scored and shown.
        scores: folder that `crossvox evaluate` wrote for that split; then only the scans that are
            shown are predicted.
        show: number of worst and of best scans of each modality to show; 0 shows none.
        include_seen: let cases that the run learnt from enter the means and charts.
    """

    data: Manifest | Path | None = None
    split: str = "val"
    scores: Path | None = None
    show: int = 2
    include_seen: bool = False


def report(
    path: Path,
    out: Path,
    source: ReportData,
    options: Options,
    echo: Echo = print,
) -> Path:
    """Write one self-contained HTML file about a run or a benchmark.

    Args:
        path: a run directory, or the folder of a benchmark.
        out: HTML file to write.
        source: the data set of a run's report.
        options: checkpoint, overlap and device for predictions.
        echo: takes the lines for the user.

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
        page = _run_page(run, source, options, echo)
    text = render(page)
    atomic_write(out, text)
    echo(f"{out}: {len(text.encode()) / 1e6:.1f} MB")
    return out


def _run_page(run: Run, source: ReportData, options: Options, echo: Echo) -> Page:
    if source.data is None and source.scores:
        raise UsageError("--scores goes with --data, the data set that was scored")
    rows: Sequence[dict[str, Any]] = []
    scans: list[ShownScan] = []
    data: list[Block] = recorded_data(run)
    if source.data is not None:
        manifest, rows, scans = _scores_and_scans(run, source.data, source, options, echo)
        data = [*data_set(run, manifest), label_size_table(rows)]
    sections = [
        Section("Run", [overview(run, rows, source.include_seen)]),
        Section("Data set", data),
        training(run),
    ]
    if rows:
        summary = summarise(rows, include_seen=source.include_seen)
        checkpoint = run.checkpoint(options.checkpoint).stem
        kind = f"Labelled scans of the split “{source.split}”, checkpoint “{checkpoint}”."
        text = " ".join(filter(None, [kind, seen_note(summary)]))
        charts = Charts(score_figures(unseen(rows, source.include_seen)))
        blocks: list[Block] = [summary_table(summary), charts, case_table(rows)]
        sections.append(Section("Scores", blocks, text))
    if scans:
        viewer = Viewer(
            [embed(scan) for scan in scans],
            [(name, class_colour(k)) for k, name in enumerate(run.task.classes, start=1)],
            ERRORS,
        )
        sections.append(Section("Worst and best scans", [viewer]))
    sections.append(Section("How to repeat this", reproduction(run, sys.argv)))
    images = IMAGES.format(len(scans)) if scans else NO_IMAGES
    title = f"{run.config.method['name']}, run {logical_path(run.path).name}"
    return Page(title, sections, SUBTITLE, [images, CAUTION], run.mark)


def _require_same_report(out: Path, mark: str, path: Path) -> None:
    """Raise `UsageError` if a file is there that is no earlier report of the same thing."""
    if out.exists() and read_mark(out) != mark:
        raise UsageError(f"{out}: is there already, and no report on {path}; give another --out")


def _scores_and_scans(
    run: Run, data: Manifest | Path, source: ReportData, options: Options, echo: Echo
) -> tuple[Manifest, Sequence[dict[str, Any]], list[ShownScan]]:
    """Return the data set, the rows of scores of the split, and the scans to show."""
    manifest, cases = load_split(data, source.split)
    cases = require_labelled(cases, manifest, source.split)
    require_same_problem(run, manifest)
    if source.show and len(run.task.classes) >= UNKNOWN:
        raise UsageError(f"the viewer takes at most {UNKNOWN - 1} classes; give --show 0")
    known = None
    if source.scores is not None:
        known = read_scores(source.scores, evaluation_facts([run], manifest, source.split, options))
        wanted = worst_and_best(known, source.show)
        if missing := wanted - {case.id for case in cases}:
            raise UsageError(
                f"{source.scores}: scores of {min(missing)}, which is no labelled case of split "
                f"'{source.split}' of {manifest.location}; give the data that were scored"
            )
        cases = [case for case in cases if case.id in wanted]
    gallery = Gallery(source.show, len(run.task.modalities) + run.task.fusible)
    rows: list[dict[str, Any]] = []
    if cases:
        predictor = Predictor(run.path, options=scored_maps(run, options))
        require_memory(predictor, [case.images for case in cases], options.memory_limit, echo)
        seen = seen_by([run], cases, echo)
        rows = predict_scans(run, manifest, predictor, cases, gallery, echo, seen)
    return manifest, rows if known is None else known, gallery.scans()
