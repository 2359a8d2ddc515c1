"""Try ideas on data sets without a look at their test scans, and write down what came of each.

    python benchmarks/experiments.py heart/dataset.json abdomen/dataset.json \\
        --out runs --page docs/experiments.md

The ideas stand in `ideas/experiments.yaml`: what, why, what was expected, what became of
it, and the settings that it is; an idea whose code was removed has none. Each is a `crossvox
train` per data set and seed, and a `crossvox evaluate` on the train and val scans whose labels the
run did not use; one thread each, `--jobs` of them side by side. An idea that concerns prediction
alone names the one whose runs it scores (`runs`) and the options of `evaluate` (`evaluate`). What
is done is not done again, what was stopped goes on; a number of which `--out` holds no scores stays
on the page as it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from crossvox.config.presets import merge
from crossvox.data.manifest import load_manifest
from crossvox.utils.documents import read_yaml
from crossvox.utils.files import atomic_write

IDEAS = Path(__file__).parent / "ideas" / "experiments.yaml"
BASE = {"preset": "cpu", "fit": {"warmup": 0}, "sampling": {"align": False}}
"""What every idea starts from: the preset as it was; `rise` and `aligned` and the like differ."""

HEAD = """# Experiments

What was tried on the way to `cmc+`, one idea a line, written by

```
python benchmarks/experiments.py heart/dataset.json abdomen/dataset.json \\
  --seeds 0 1 2 --out runs --page docs/experiments.md
```

of what has been run so far. The numbers are Dice, the mean over scans and classes, ± sd over
seeds, on the train and val scans whose labels the run did not use: two labelled scans per
modality, preset `cpu`, up to `whole-prior` with `fit.warmup` 0, up to `place` with
`sampling.align` false, last checkpoint. Methods that use
unlabelled scans have seen most of these, without their labels. No number here is of a test scan;
but that `sup_joint`, `cml` and `umml` do well was known from
[results-methods.md](results-methods.md), whose scores are, when sharing was thought of. The sets
are cut as that page says. With one seed a number is an observation, and differences of a few
points are none.

Ideas up to `no-prior` were chosen on seed 0. The choice between `recipe` and `no-prior`, which are
the same training and differ in prediction alone, was made on three seeds here, after test scores of
`recipe` had shown that a seed lost an organ. What makes the label maps of `maps` was then chosen
on heart seed 0 and abdomen seeds 0 and 1: of 0, ¼, ½, ¾ and 1 of the balance and 0 to 75 % of a
class's voxels, ½ and 70 %; on the heart 1 would be better still, on the abdomen worse. `joint` was
tried on three seeds, when test scores had shown that `cmc` was behind `sup_joint` on the abdomen
and `maps` was not; `parted` on two; `calm`, `half`, `joint-danet` and `gated-half` on seed 1 of the
abdomen, where `parted` was behind `joint`; `gated` on seed 0 of the heart and both of the abdomen,
and `cmc+` on the same before its three seeds were run. Up to there no test score was looked at on
that way.

Those of `cmc+` had shown it level with `cmc` on MR, and with four labels (one seed) behind
`sup_joint` there, when what follows it was tried: what concerns prediction on seed 0 of both sets,
all else on abdomen seeds 0 and 1 (`recolour-first` on 0 alone); `late` on heart seed 0, too,
`recolour` on heart seeds 0 and 1; `gammas`, `late` and `recolour` with four labels on the abdomen,
too. `recolour` was left out after the test scores of its runs had been seen: on train and val scans
it is ahead of `cmc+` by a point on MR, on test scans behind by two, each mostly by what became of
one scan. It is in the history (networks/recolour.py); in the runs of `recolour-first`, `-second`
and `-all`, and in its own with four labels, the random network saw zeros beyond a crop's edge.

`deep` and `deep-half` were then tried on abdomen seeds 0 and 1, `deep` on heart seed 0, too.
`deep-first` was first tried on the same three with a script; then it was written (`method.deep`, in
the history) and run on three seeds of both sets, and on three more of the abdomen (`again-deep`),
beside `cmc+` itself (`again`). `deep-first-only` was run on abdomen seed 1, `unfused` on abdomen
seeds 0 to 5, `whole-prior` on the runs of `cmc+` with heart seed 0 and abdomen seeds 0 and 1. No
test score of these was looked at. The command above makes neither `again` nor
`rise-again`, nor what is made of code that is gone.

Why an organ is found late was looked at in the curves of the loss on labelled crops alone. With
seed 4 that of `cmc` and `cmc+` is still near 0.7 after half of the training (0.3 with the others),
as spleen and left kidney are not told apart. Without CSC and CAC, or with a tenth of what awareness
and fusion add, it is so, too; with a learning rate that rises over the first tenth of the steps it
falls somewhat sooner, but late; without awareness or without fusion it falls as with other seeds.
These runs were stopped in the second half. `sup_joint` with four labels and seed 2 ends at 0.66; at
0.36 with half the learning rate, at 0.26 with one that rises over the first twentieth or tenth of
the steps. One seed each: this may be chance, rather than any of these parts.

`rise` came of that: a rate that rises over the first tenth of the steps, for all rows. It was
chosen on those two. `sup_joint` with four labels and seed 2 then has 0.731 and 0.782 on CT and MR,
before 0.527 and 0.547; cmc+ with seed 4 is in `rise-again`. Weights that start 2.4 times as large
(He, as in nnU-Net; PyTorch's own are smaller) left the loss of that `sup_joint` at 0.41, with both
it ended at 0.27, and with both cmc+ with seed 4 was no sooner in the first 160 steps; they were
not kept, and their code was never in the repository. The other lines of `rise` were run after the
choice.

`place` came of test scores: in one MR scan all runs of cmc+ took something else for the left
kidney, which was larger, so that the kidney was dropped. What tells the two was looked for in the
scans of this page alone, in 931 classes of a scan that have several parts in 17 runs (three of each
of `rise`, `rise-sup`, `rise-sup_joint`, `rise-joint` and umml on the abdomen; two on the heart).
Neither their mass of probability nor its margin does. By place, in 26 of them another part than the
largest is kept; none of these is worse by more than 0.02 Dice, all together are better by 7.9. The
median of the distances instead of their mean, 30 to 100 mm or a share of the distances instead of
60 mm, or a limit to the sizes all gain 4 to 8. Test scores were then looked at once. Label maps of
the lines above it keep the largest part, where they say so.

`aligned` came of the lines from `constant` to `fused-cac`, and of a look at where predictions of
`constant-cac` lie: bSSFP's hearts 18 to 41 mm from the truth in six of the 13 patients that were
scored, those whose headers put LGE 24 to 52 mm from where bSSFP shows the heart (other patients: 1
to 13 mm, but for one with 18 and 23). Both scans' fields of view have their centres apart by that
much: headers are wrong there. With the shift taken back, the hearts of the two labels overlap with
a Dice of 0.84 to 0.94 in all 15 patients (by header 0.21 to 0.56 in the six). `aligned` and
`aligned-constant` were run on the heart on a copy of the set whose headers were corrected by the
first form of that search (`aligned-cml` and `lasting` with the repository's own, whose shifts are
the same to a few millimetres); on the abdomen `aligned-constant` is `constant`, as there is nothing
to align. The choice between falling and constant weights was made on heart seeds 0 and 2 and
abdomen seeds 0 and 1, that between CAC alone and both terms on heart seeds 0 and 2, cmc+ looked at
with the same, with both terms constant. No test score was looked at on that way but those that had
led to `constant`.

In the runs of `parted`, `calm`, `half`, `joint-danet`, `gated` and `gated-half` a modality's
network parted without the optimiser's moments; those of `rise` and the like are those of the
benchmark's rows. Rows were made on several machines: with the same
seeds, but not always the same bits. Single steps of the choice were looked at with scripts that
are not in the repository. Code that was removed is in the history of the repository, unless a line
says that it never was there."""


@dataclass(frozen=True)
class Trial:
    """An idea on a data set with a seed; `root` is where the data set's files lie.

    `trained` is the idea whose run it scores, its own or another's.
    """

    idea: str
    trained: str
    settings: dict[str, Any] | None
    options: tuple[str, ...]
    dataset: str
    data: Path
    root: Path
    seed: int
    out: Path

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.out / f"{self.dataset}-{self.trained}-{self.seed}"

    @property
    def scores(self) -> Path:
        """Where its scores go."""
        return self.out / f"{self.dataset}-{self.idea}-{self.seed}-scores"

    @property
    def trained_file(self) -> Path:
        """There when the run is finished."""
        return self.out / f"{self.run.name}.trained"

    @property
    def done(self) -> bool:
        """Whether it is scored."""
        return (self.scores / "summary.json").exists()

    def train(self) -> None:
        """Do what is missing of its run."""
        if self.settings is None or self.trained_file.exists():
            return
        root = ["--root", str(self.root)]
        if (self.run / "config.yaml").exists():
            self._execute(["train", "--resume", str(self.run), *root])
        else:
            settings = self.out / f"{self.run.name}.yaml"
            atomic_write(settings, yaml.safe_dump(merge(BASE, self.settings)))
            place = ["--data", str(self.data), *root, "--out", str(self.run)]
            store = ["--store", str(self.out / f"{self.dataset}-store")]
            self._execute([
                "train", "--config", str(settings), *place, *store, "--labelled", "2",
                "--seed", str(self.seed),
            ])  # fmt: skip
        atomic_write(self.trained_file, "")

    def score(self) -> None:
        """Score its run, if that is not done."""
        if self.settings is None or self.done:
            return
        self._execute([
            "evaluate", str(self.run), "--data", str(self._others()), "--root", str(self.root),
            "--split", "test", "--checkpoint", "last", "--out", str(self.scores), *self.options,
        ])  # fmt: skip

    def found(self) -> dict[str, float]:
        """Modality → mean Dice."""
        found = json.loads((self.scores / "summary.json").read_text(encoding="utf-8"))
        return {m: part["average"]["dice"]["mean"] for m, part in found["modalities"].items()}

    def _others(self) -> Path:
        """A manifest of the train and val scans whose labels the run did not use, as `test`."""
        plan = json.loads((self.run / "plan.json").read_text(encoding="utf-8"))
        used = plan["selection"]["labelled"]
        manifest = load_manifest(self.data, self.root)
        cases = []
        for case in (*manifest.split("train"), *manifest.split("val")):
            labels = {m: path for m, path in case.labels.items() if case.id not in used[m]}
            if labels:
                cases.append(replace(case, split="test", labels=labels))
        path = self.out / f"{self.scores.name}-others.json"
        replace(manifest, cases=tuple(cases)).save(path)
        return path

    def _execute(self, arguments: list[str]) -> None:
        """Run a command; its output goes to a log beside the run."""
        command = [str(Path(sys.executable).with_name("crossvox")), *arguments]
        self.out.mkdir(parents=True, exist_ok=True)
        log = self.out / f"{self.run.name}.log"
        with open(log, "a", encoding="utf-8") as file:
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            code = subprocess.call(command, env=environment, stdout=file, stderr=file)
        if code:
            raise SystemExit(f"{' '.join(command)} ended with {code}; see {log}")


def page(ideas: dict[str, Any], trials: list[Trial], before: str = "") -> str:
    """All ideas, a line each, in the order of the file; `before` is the page as it was."""
    done = [trial for trial in trials if trial.done]
    known = _numbers(before)
    found = dict.fromkeys(f"{t.dataset} {m}" for t in done for m in t.found())
    columns = list(dict.fromkeys(k for row in known.values() for k in row if k != "seeds") | found)
    head = ["idea", "what", "why", "expected", *columns, "seeds", "kept"]
    rows = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, idea in ideas.items():
        own = [trial for trial in done if trial.idea == name]
        numbers = known.get(name, {}) | (_measured(own) if own else {})
        cells = [numbers.get(column, "–") for column in columns]
        words = [name, idea["what"], idea["why"], idea["expected"]]
        line = [*words, *cells, numbers.get("seeds", "0"), idea["kept"]]
        rows.append("| " + " | ".join(line) + " |")
    return "\n\n".join([HEAD, "\n".join(rows)]) + "\n"


def _measured(trials: list[Trial]) -> dict[str, str]:
    """Column → what stands in it, of one idea."""
    values: dict[str, list[float]] = {}
    for trial in trials:
        for modality, dice in trial.found().items():
            values.setdefault(f"{trial.dataset} {modality}", []).append(dice)
    seeds = len({trial.seed for trial in trials})
    return {**{column: _spread(own) for column, own in values.items()}, "seeds": str(seeds)}


def _numbers(text: str) -> dict[str, dict[str, str]]:
    """Idea → column → what stands there, of a page written by this program."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line[:2] == "| "]
    return {row[0]: dict(zip(rows[0][4:-1], row[4:-1], strict=True)) for row in rows[2:]}


def _spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def _trial(name: str, ideas: dict[str, Any], *place: Any) -> Trial:
    """An idea with the settings of those runs that it scores."""
    idea = ideas[name]
    trained = idea.get("runs", name)
    options = tuple(idea.get("evaluate", "").split())
    return Trial(name, trained, ideas[trained].get("settings"), options, *place)


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--ideas", nargs="+", help="run these only; default: all")
    parser.add_argument("--root", type=Path, help="where the files lie; default: each set's own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    given = parser.parse_args()
    ideas = read_yaml(IDEAS)
    if unknown := [name for name in given.ideas or () if name not in ideas]:
        parser.error(f"no idea '{unknown[0]}'; choose from {', '.join(ideas)}")
    sets = []
    for data in given.data:
        root = given.root or data.parent
        sets.append((load_manifest(data, root).name, data, root))
    trials = [
        _trial(name, ideas, dataset, data, root, seed, given.out)
        for seed in given.seeds
        for name, idea in ideas.items()
        for dataset, data, root in sets
    ]
    asked = [trial for trial in trials if trial.idea in (given.ideas or ideas)]
    with ThreadPoolExecutor(given.jobs) as pool:
        # Ideas may share a run, and no two may train it.
        list(pool.map(Trial.train, {t.run: t for t in asked if not t.done}.values()))
        list(pool.map(Trial.score, asked))
    before = given.page.read_text(encoding="utf-8") if given.page.exists() else ""
    atomic_write(given.page, page(ideas, trials, before))


if __name__ == "__main__":
    main()
