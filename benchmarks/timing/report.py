"""Time and size of a report of twenty large scans, predicted and scored, or scored before.

    python benchmarks/timing/report.py --out /tmp/report

The scans are phantoms of 256 × 256 × 100 voxels. The run is a tiny network on a coarse grid, so
that what is measured is the report's own work; a network's time per scan comes on top.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from crossvox.config.presets import load_preset, merge, with_method_options
from crossvox.config.run_config import RunConfig
from crossvox.data.phantom import write_phantom
from crossvox.report.report import ReportData, report
from crossvox.workflows.prediction.evaluate import evaluate
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.training.train import train

SHAPE = (256, 256, 100)


def main() -> None:
    """Generate, train for a moment, report twice, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for everything; new")
    parser.add_argument("--cases", type=int, default=20, help="half of them CT, half MR")
    arguments = parser.parse_args()
    out, half = arguments.out, arguments.cases // 2
    run = tiny_run(out)
    data = write_phantom(out / "large", train=0, val=0, test=half, shape=SHAPE)
    scores, options = out / "scores", Options()
    evaluate(run, data, "test", scores, options)
    for name, source in {
        "predicted": ReportData(data, "test"),
        "scored before": ReportData(data, "test", scores),
    }.items():
        began, worked = time.perf_counter(), time.process_time()
        file = report(run, out / f"{name.split()[0]}.html", source, options)
        seconds, work = time.perf_counter() - began, time.process_time() - worked
        size = file.stat().st_size / 1e6
        print(f"{2 * half} scans, {name:<14} {seconds:6.1f} s ({work:.1f} s CPU)  {size:6.1f} MB")


def tiny_run(out: Path) -> Path:
    """A run of sixty steps on small phantoms."""
    given = {
        "data": write_phantom(out / "small", train=3, val=1, test=0),
        "out": out / "run",
        "labelled": "2",
        "backbone": {"width": 4},
        "fit": {"steps": 60, "validations": 1, "save_every": 60},
    }
    settings = with_method_options(merge(load_preset("quick"), given))
    train(RunConfig.from_dict(settings), echo=lambda _: None)
    return out / "run"


if __name__ == "__main__":
    main()
