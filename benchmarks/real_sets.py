"""Train and score methods × seeds on data sets, and write the tables to a Markdown page.

    python benchmarks/real_sets.py HEART/dataset.json ABDOMEN/dataset.json \\
        --out runs --page docs/results.md

Every cell is a `crossvox train` and a `crossvox evaluate` in processes of their own with one thread
each, `--jobs` of them side by side. A cell that is done is not done again, one that was stopped
goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from crossvox.data.manifest import load_manifest
from crossvox.evaluation.scores import AVERAGES, aggregate_runs, to_markdown
from crossvox.files import atomic_write


@dataclass(frozen=True)
class Cell:
    """One run: a data set, a method, a seed."""

    data: Path
    name: str
    method: str
    seed: int
    root: Path
    labelled: str
    preset: str

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.root / f"{self.name}-{self.method}-{self.seed}"

    @property
    def scores(self) -> Path:
        """Where the scores of the last checkpoint go."""
        return self.run / "scores"

    @property
    def unseen(self) -> Path:
        """Where the scores on all scans go whose labels the run did not use."""
        return self.run / "unseen"

    @property
    def train(self) -> list[str]:
        """The command that trains it."""
        if (self.run / "config.yaml").exists():
            return ["train", "--resume", str(self.run)]
        return ["train", "--data", str(self.data), "--labelled", self.labelled, "--method",
                self.method, "--preset", self.preset, "--seed", str(self.seed), "--out",
                str(self.run)]  # fmt: skip

    @property
    def evaluate(self) -> list[str]:
        """The command that scores it."""
        return ["evaluate", str(self.run), "--data", str(self.data), "--split", "val",
                "--checkpoint", "last", "--out", str(self.scores)]  # fmt: skip

    @property
    def evaluate_unseen(self) -> list[str]:
        """The command that scores it on the scans of `unseen`."""
        return ["evaluate", str(self.run), "--data", str(others(self)),
                "--root", str(self.data.parent), "--split", "test",
                "--checkpoint", "last", "--out", str(self.unseen)]  # fmt: skip


def others(cell: Cell) -> Path:
    """A manifest of the train and val scans whose labels the run did not use, as split `test`."""
    used = json.loads((cell.run / "plan.json").read_text())["selection"]["labelled"]
    manifest = load_manifest(cell.data)
    cases = []
    for case in (*manifest.split("train"), *manifest.split("val")):
        labels = {m: path for m, path in case.labels.items() if case.id not in used[m]}
        if labels:
            cases.append(replace(case, split="test", labels=labels))
    path = cell.run / "others.json"
    replace(manifest, cases=tuple(cases)).save(path)
    return path


def work(cell: Cell) -> None:
    """Do what is missing of a cell; its output goes to a log beside the run."""
    if (cell.unseen / "summary.json").exists():
        return
    finished = cell.run / "trained.json"
    if not finished.exists():
        atomic_write(finished, json.dumps(execute(cell, cell.train)))
    if not (cell.run / "scored.json").exists():
        spent = execute(cell, cell.evaluate)
        atomic_write(cell.run / "scored.json", json.dumps(spent))
    execute(cell, cell.evaluate_unseen)
    print(f"{cell.run.name} done", flush=True)


def execute(cell: Cell, arguments: list[str]) -> dict[str, float]:
    """Run a command with one thread; returns its wall, CPU seconds and peak memory in MB."""
    command = [str(Path(sys.executable).with_name("crossvox")), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    cell.root.mkdir(parents=True, exist_ok=True)
    with open(cell.root / f"{cell.run.name}.log", "a") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} ended with {code}; see {log.name}")
    return {
        "wall": time.perf_counter() - began,
        "cpu": usage.ru_utime + usage.ru_stime,
        "megabytes": usage.ru_maxrss / 1024,
    }


def section(cells: list[Cell]) -> str:
    """The page's part on one data set."""
    aggregate = aggregate_runs([_summary(c.scores) for c in cells])
    facts = json.loads((cells[0].run / "run.json").read_text())
    task = json.loads((cells[0].run / "plan.json").read_text())["task"]
    git = facts.get("git")
    commit = f" (commit {git['commit'][:10]})" if git else ""
    manifest = load_manifest(cells[0].data)
    counts = ", ".join(
        f"{sum(m in case.images for case in manifest.split('val'))} {m}"
        for m in manifest.modalities
    )
    patch, spacing = (" × ".join(f"{v:g}" for v in task[key]) for key in ("patch", "spacing"))
    lines = [
        f"## {cells[0].name}",
        f"{cells[0].labelled} labelled cases per modality, preset `{cells[0].preset}`, seeds "
        f"{', '.join(str(s) for s in sorted({c.seed for c in cells}))}, the last checkpoint, on "
        f"the validation scans ({counts}). Planned: crops of {patch} voxels at {spacing} mm. "
        f"crossvox {facts['versions']['crossvox']}{commit}, torch {facts['versions']['torch']}.",
        "Dice:",
        to_markdown(aggregate),
        "ASSD in mm:",
        to_markdown(aggregate, "assd_mm"),
        f"Dice on all scans whose labels the run did not use ({unseen_counts(cells[0])}), since "
        "the validation scans are few. Most of these are train scans, which methods that use "
        "unlabelled scans have seen, without their labels.",
        to_markdown(aggregate_runs([_summary(c.unseen) for c in cells])),
        "Time and memory of one run (means over seeds; one thread each, several runs at once):",
        costs(cells),
    ]
    return "\n\n".join(lines)


def _summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def unseen_counts(cell: Cell) -> str:
    """How many scans of each modality `others` has."""
    manifest = load_manifest(others(cell), cell.data.parent)
    return ", ".join(
        f"{sum(m in case.labels for case in manifest.cases)} {m}" for m in manifest.modalities
    )


def costs(cells: list[Cell]) -> str:
    """Table of parameters, times and memory per method."""
    rows = ["| method | train, min | evaluate, min | both, core-min | peak memory, MB |",
            "| --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for method in dict.fromkeys(c.method for c in cells):
        own = [c for c in cells if c.method == method]
        trained = [json.loads((c.run / "trained.json").read_text()) for c in own]
        scored = [json.loads((c.run / "scored.json").read_text()) for c in own]

        def mean(values: list[float]) -> float:
            return sum(values) / len(values)

        core = mean([a["cpu"] + b["cpu"] for a, b in zip(trained, scored, strict=True)]) / 60
        peak = max(part["megabytes"] for part in [*trained, *scored])
        rows.append(
            f"| {method} | {mean([t['wall'] for t in trained]) / 60:.1f} "
            f"| {mean([s['wall'] for s in scored]) / 60:.1f} | {core:.1f} | {peak:.0f} |"
        )
    return "\n".join(rows)


def page(groups: list[list[Cell]]) -> str:
    """The whole page."""
    first = groups[0][0]
    methods = " ".join(dict.fromkeys(c.method for g in groups for c in g))
    seeds = " ".join(str(s) for s in sorted({c.seed for g in groups for c in g}))
    alone = "With one seed this is an observation, not a comparison. " if len(seeds) == 1 else ""
    head = f"""# Results

Written by a command, no number by hand:

```
python benchmarks/real_sets.py {" ".join(f"{g[0].name}/dataset.json" for g in groups)} \\
  --methods {methods} --seeds {seeds} --labelled {first.labelled} --preset {first.preset} \\
  --out runs --page docs/results.md
```

which runs, for every method and seed,

```
crossvox train --data DATASET.json --labelled {first.labelled} --method METHOD \\
  --preset {first.preset} --seed SEED --out RUN
crossvox evaluate RUN --data DATASET.json --split val --checkpoint last --out RUN/scores
```

± is the standard deviation over seeds. {AVERAGES} A missed class counts as Dice 0
and the scan's diagonal. {alone}The validation cases are few; differences below the ± are none."""
    return "\n\n".join([head, *(section(group) for group in groups)]) + "\n"


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--methods", nargs="+", default=["sup", "sup_joint", "cmc"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--labelled", default="2")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    given = parser.parse_args()
    groups = []
    for data in given.data:
        name = load_manifest(data).name
        groups.append([
            Cell(data, name, method, seed, given.out, given.labelled, given.preset)
            for seed in given.seeds
            for method in given.methods
        ])  # fmt: skip
    cells = [cell for group in groups for cell in group]
    # By seed, so that whatever is done when time runs out is complete for the first seeds.
    cells.sort(key=lambda cell: cell.seed)
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(work, cells))
    atomic_write(given.page, page(groups))


if __name__ == "__main__":
    main()
