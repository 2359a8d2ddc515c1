"""A demonstration on synthetic scans: generate, train, predict, evaluate, draw."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from crossvox.config.demo import DEMO, Demo
from crossvox.config.presets import load_preset, merge, with_method_options
from crossvox.config.registry import declared
from crossvox.config.run_config import RunConfig
from crossvox.data.phantom import write_phantom
from crossvox.errors import UsageError
from crossvox.evaluation.scores import DECIMALS, Summary, plus_minus, read_cases, terminal_table
from crossvox.figures import learning_curves, score_dots
from crossvox.training.record import holds_run, read_metrics
from crossvox.utils.files import atomic_write, require_folder
from crossvox.utils.text_table import TextTable, to_markdown
from crossvox.workflows.messages import Echo
from crossvox.workflows.prediction.evaluate import ScoreOutputs, evaluate
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.prediction.predict import predict_split
from crossvox.workflows.run import Run
from crossvox.workflows.training.train import resume, train


def demo(out: Path, settings: Demo = DEMO, echo: Echo = print) -> dict[str, Summary]:
    """Write synthetic scans to `out`, train on them, segment and score the test split.

    Args:
        out: folder for everything; an interrupted demonstration continues.
        settings: how much to do.
        echo: takes the lines for the user.

    Returns:
        Method → summary of its scores on the test split.

    Raises:
        UsageError: `out` holds a demonstration that is finished or has other settings, or a method
            is unknown.

    Example:
        demo(Path("demo"), Demo(methods=("sup",), steps=50))
    """
    began = time.perf_counter()
    require_folder(out)
    if (out / "scores.md").exists():
        raise UsageError(f"{out} holds a demonstration; remove it or give another --out")
    for method in settings.methods:
        declared("method", method)
    echo("synthetic scans: nothing here says how the methods do on patients")
    data = write_phantom(
        out / "data",
        train=settings.train,
        val=1,
        test=settings.test,
        paired=settings.paired,
        seed=settings.seed,
        shape=settings.shape,
    )
    summaries = {method: _run(out, data, method, settings, echo) for method in settings.methods}
    atomic_write(out / "scores.md", to_markdown(_table(summaries)))
    echo(f"done in {(time.perf_counter() - began) / 60:.1f} minutes; look at")
    for what, where in _places(settings).items():
        echo(f"  {out / where!s:<40}  {what}")
    return summaries


def _run(out: Path, data: Path, method: str, settings: Demo, echo: Echo) -> Summary:
    """Train, predict, evaluate and draw one method."""
    echo(f"--- {method} ---")
    run = out / "runs" / method
    _train(_config(data, run, method, settings).absolute(), echo)
    predict_split(run, data, "test", out / "predictions" / method, echo=echo)
    scores = out / "scores" / method
    summary = evaluate(
        run, data, "test", scores, Options(), outputs=ScoreOutputs(overlays=True), echo=echo
    )
    Console().print(terminal_table(summary))
    learning_curves(scores / "learning.png", read_metrics(run / "metrics.csv"))
    score_dots(scores / "dice.png", read_cases(scores / "cases.csv"), title=f"{method}, test split")
    return summary


def _table(summaries: dict[str, Summary]) -> TextTable:
    """Return the Dice of all methods: a row per modality and method, a column per class."""
    first = next(iter(summaries.values()))["modalities"]
    classes = list(dict.fromkeys(name for part in first.values() for name in part["classes"]))
    rows = []
    for modality in [*first, "overall"]:
        for method, summary in summaries.items():
            part = summary["modalities"].get(modality, {"classes": {}})
            average = part.get("average", summary["overall"])
            cells = [*(part["classes"].get(name) for name in classes), average]
            dice = [plus_minus(cell["dice"], DECIMALS["dice"]) if cell else "" for cell in cells]
            counts = [str(average[key]) for key in ("n_missed", "n_false")]
            rows.append([modality, method, *dice, *counts])
    head = ["modality", "method", *classes, "average", "missed", "false"]
    return TextTable("", head, rows, left=2)


def _train(config: RunConfig, echo: Echo) -> None:
    """Train, or continue an interrupted training."""
    if not holds_run(config.out):
        train(config, echo)
        return
    if Run.load(config.out).config != config:
        raise UsageError(
            f"{config.out}: was begun with other settings; remove it or give another --out"
        )
    resume(config.out, echo=echo)


def _config(data: Path, run: Path, method: str, settings: Demo) -> RunConfig:
    given = {
        "data": data,
        "out": run,
        "labelled": str(settings.labelled),
        "seed": settings.seed,
        "method": {"name": method},
        "budget": {"patch_voxels": settings.patch_voxels},
        "backbone": {"width": settings.width},
        "fit": {"steps": settings.steps, "validations": 3, "save_every": settings.steps},
    }
    return RunConfig.from_dict(with_method_options(merge(load_preset("quick"), given)))


def _places(settings: Demo) -> dict[str, str]:
    first = settings.methods[0]
    return {
        "mean Dice of all methods, a Markdown table": "scores.md",
        "slices with truth, prediction and errors": f"scores/{first}/overlays",
        "losses and validation Dice": f"scores/{first}/learning.png",
        "every case's Dice and ASSD": f"scores/{first}/dice.png",
        "label maps, to open over data/": f"predictions/{first}",
        "the run: configuration, record, checkpoints": f"runs/{first}",
    }
