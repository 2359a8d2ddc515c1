"""The harness: a tiny grid from the command to the tables, resumed, shared out, and failing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from crossvox.benchmark.cells.runner import CommandError, Launcher, Share
from crossvox.benchmark.pages import page
from crossvox.cli.main import main
from crossvox.data.manifest import load_manifest
from crossvox.utils.locks import Lock
from crossvox.version import __version__
from fixtures.benchmark import COST, TINY, InProcess, read, write_suite
from fixtures.files.weights import published
from fixtures.run import refused, same, weights


def arguments(suite, data, out, *more):
    return [str(w) for w in ("benchmark", suite, "--data", f"tiny={data}", "--out", out, *more)]


@pytest.fixture
def ran(monkeypatch):
    """Commands run within this process; the list of them."""
    launch = InProcess()
    monkeypatch.setattr(Launcher, "__call__", lambda self, *given: launch(*given))
    # They take seconds each; `finished` has them.
    monkeypatch.setattr(page, "write_paper_figures", lambda results, folder: None)
    return launch.ran


@pytest.fixture(scope="module")
def finished(paired_files, tmp_path_factory):
    """Two methods with tests of missing and of misaligned modalities: (suite, folder)."""
    root = tmp_path_factory.mktemp("bench ü")
    variants = {"subsets": True, "shift_mm": [0, 10]}
    suite = write_suite(root / "s.yaml", title="Tiny ü", variants=variants)
    launch = InProcess()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Launcher, "__call__", lambda self, *given: launch(*given))
        code = main(arguments(suite, paired_files.path, root / "out", "--page", root / "page.md"))
    assert code == 0
    return suite, root / "out"


def test_every_case_of_every_cell_and_test_is_in_one_tidy_file(finished):
    cases = read(finished[1] / "cases.csv")
    keys = [tuple(x[k] for k in ("row", "variant", "case", "modality", "class")) for x in cases]
    assert len(set(keys)) == len(keys)
    classes = 2
    per_variant = {"": 2, "given=ct": 1, "given=mr": 1, "shift=10": 2}
    for row in ("sup", "cmc"):
        found = {v: sum(k[:2] == (row, v) for k in keys) for v in per_variant}
        assert found == {v: n * classes for v, n in per_variant.items()}
    one = cases[0]
    assert (one["suite"], one["data"], one["labels"], one["seed"]) == ("s", "tiny", "2", "0")
    own = finished[1] / "cells" / "tiny_sup_unet_labels-2_seed-0" / "scores" / "plain"
    assert float(one["dice"]) == float(read(own / "cases.csv")[0]["dice"])


def test_cells_say_what_they_are_and_took(finished):
    cells = {cell["row"]: cell for cell in read(finished[1] / "cells.csv")}
    assert list(cells) == ["sup", "cmc"]
    assert [c["uses_unlabelled"] for c in cells.values()] == ["no", "yes"]
    assert int(cells["cmc"]["parameters"]) > int(cells["sup"]["parameters"]) > 0
    for cell in cells.values():
        assert (cell["state"], cell["attempts"]) == ("done", "1")
        # Training and four tests of 2 s each.
        assert (cell["cpu_seconds"], cell["peak_mb"]) == ("10.0", "3.0")
        assert float(cell["train_seconds"]) > 0 and (finished[1] / cell["log"]).exists()


def test_tables_and_figures_are_written_and_made_anew_from_the_csv_files(finished, capsys):
    out = finished[1]
    names = ["tables.md", "tables.tex", "scores.csv"]
    before = {name: (out / name).read_text(encoding="utf-8") for name in names}
    text = before["tables.md"]
    assert text.startswith("# Tiny ü") and "benchmarks/s.yaml" in text and "ct only" in text
    assert "Dice: tiny, labels: 2, unet" in text and "Δ to cmc" in text and "METHOD" not in text
    assert before["tables.tex"].count(r"\begin{table}") == 8
    figures = sorted(path.name for path in (out / "figures").iterdir())
    papers = [f"tiny-labels-2-{k}.{f}" for k in ("boxes", "differences") for f in ("pdf", "svg")]
    charts = [f"tiny-{m}-{x}.png" for m in ("assd", "dice") for x in ("given", "shift")]
    assert figures == sorted([*papers, *charts])
    boxes = (out / "figures" / "tiny-labels-2-boxes.svg").read_text(encoding="utf-8")
    assert "tiny, labels: 2, unet; one seed." in boxes and "1 scan<" in boxes
    for name in names:
        (out / name).unlink()
    assert main(["benchmark", "--table", str(out)]) == 0
    assert {name: (out / name).read_text(encoding="utf-8") for name in names} == before


def test_a_page_of_several_benchmarks_shows_figures_that_exist(finished, tmp_path):
    page = finished[1].parent / "page.md"
    text = page.read_text(encoding="utf-8")
    assert "no number in them is by hand" in text and "## Tiny ü" in text
    links = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line[:2] == "!["]
    assert len(links) == 2 and all((page.parent / link).exists() for link in links)


def test_done_cells_are_passed_over_and_new_seeds_are_added(
    finished, paired_files, tmp_path, ran, capsys
):
    suite, out = finished
    assert main(arguments(suite, paired_files.path, out)) == 0 and ran == []
    assert "2 cells: 2 done" in capsys.readouterr().out
    # Another split or checkpoint is scored anew, without training again.
    own = write_suite(tmp_path / "s.yaml", methods=["sup"])
    target = tmp_path / "out"
    assert main(arguments(own, paired_files.path, target)) == 0
    said = capsys.readouterr().out.splitlines()
    (line,) = [line for line in said if line.startswith("1/1  ")]
    assert re.fullmatch(r"1/1  tiny_sup_unet_labels-2_seed-0: Dice 0\.\d{3}; none left", line)
    assert said[-1] == f"  crossvox report {target} --out {target / 'report.html'}"
    ran.clear()
    assert main(arguments(own, paired_files.path, target, "--split", "test")) == 0
    assert [command[0] for command in ran] == ["evaluate"]
    assert {case["case"] for case in read(target / "cases.csv")} == {"s6"}


def test_other_lengths_of_training_are_added_to_those_there_are(paired_files, tmp_path, ran):
    tiny = {**TINY, "fit": {"validations": 0}}
    suite = write_suite(tmp_path / "s.yaml", methods=["sup"], set=tiny, steps=[2])
    out = tmp_path / "out"
    assert main(arguments(suite, paired_files.path, out)) == 0
    ran.clear()
    assert main(arguments(suite, paired_files.path, out, "--steps", "2,3")) == 0
    assert [command[0] for command in ran] == ["train", "evaluate"]
    assert [cell["steps"] for cell in read(out / "cells.csv")] == ["2", "3"]
    assert {case["steps"] for case in read(out / "cases.csv")} == {"2", "3"}


def test_other_settings_in_the_same_folder_are_refused(finished, paired_files, capsys):
    suite, out = finished
    line = refused(capsys, *arguments(suite, paired_files.path, out, "--set", "fit.steps=5"))
    assert "another fit.steps than" in line and "another --out" in line


def copied(finished: Path, out: Path) -> list[tuple[Path, dict]]:
    """A benchmark's folder copied to `out`: each run's config.yaml there, and what it holds."""
    shutil.copytree(finished, out)
    return [
        (path, yaml.safe_load(path.read_text().replace(str(finished), str(out))))
        for path in sorted(out.glob("cells/*/run/config.yaml"))
    ]


def test_a_run_of_another_method_or_option_is_refused(finished, paired_files, tmp_path, capsys):
    suite, finished_in = finished
    out = tmp_path / "out"
    path, config = copied(finished_in, out)[-1]
    path.write_text(yaml.safe_dump(config | {"method": config["method"] | {"balance": 1.0}}))
    line = refused(capsys, *arguments(suite, paired_files.path, out))
    assert "another method.balance than" in line
    path.write_text(yaml.safe_dump(config | {"method": {"name": "uamt"}}))
    assert "another method.name than" in refused(capsys, *arguments(suite, paired_files.path, out))


def test_a_run_of_another_version_is_refused(finished, paired_files, tmp_path, capsys):
    suite, finished_in = finished
    out = tmp_path / "out"
    path, _ = copied(finished_in, out)[-1]
    record = path.with_name("run.json")
    facts = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps(facts | {"versions": {"crossvox": "99.0.0"}}), encoding="utf-8")
    line = refused(capsys, *arguments(suite, paired_files.path, out))
    assert f"{path.parents[1]}: " in line and "made by crossvox 99.0.0" in line
    assert f"this is crossvox {__version__}" in line and "another --out" in line


@pytest.mark.parametrize("name", [{}, {"name": "gone"}, "gone", ["x"], None])
def test_a_run_of_a_method_that_is_gone_is_named_with_its_folder(
    name, finished, paired_files, tmp_path, capsys
):
    suite, finished_in = finished
    out = tmp_path / "out"
    path, config = next(pair for pair in copied(finished_in, out) if "sup" in pair[0].parts[-3])
    path.write_text(yaml.safe_dump(config | {"method": name}))
    line = refused(capsys, *arguments(suite, paired_files.path, out))
    assert str(path.parent.parent) in line and "another --out" in line
    assert "unknown method" in line


def test_the_reading_leaves_a_bound_out(paired_files, tmp_path, ran):
    bound = {"label": "bound", "method": "sup", "labelled": "all"}
    suite = write_suite(
        tmp_path / "s.yaml", methods=["sup", "sup_joint", bound], labels=[1], reference="sup"
    )
    out = tmp_path / "out"
    assert main(arguments(suite, paired_files.path, out)) == 0
    text = (out / "tables.md").read_text(encoding="utf-8")
    assert "| bound |" in text and "bound is first" not in text and "bound second" not in text
    assert "**bound" not in text and "* bound: `method=sup`, `labelled=all`." in text


def test_every_row_can_be_scored_with_and_without_the_one_part_rule(paired_files, tmp_path, ran):
    methods = ["sup", "cmc+"]
    rules = {"largest": ["always", "never"]}
    suite = write_suite(tmp_path / "s.yaml", methods=methods, reference="sup", variants=rules)
    out = tmp_path / "out"
    assert main(arguments(suite, paired_files.path, out)) == 0
    rules = [c[c.index("--largest") + 1] for c in ran if "--largest" in c]
    assert rules == ["always", "never"] * 2
    for row in methods:
        scores = out / "cells" / f"tiny_{row}_unet_labels-2_seed-0" / "scores"
        for rule in ("always", "never"):
            made = json.loads((scores / f"largest-{rule}" / "summary.json").read_text())
            assert made["run"]["largest"] == rule and made["run"]["weigh"] is False
        plain = json.loads((scores / "plain" / "summary.json").read_text())
        assert not {"largest", "weigh"} & set(plain["run"])
    text = (out / "tables.md").read_text(encoding="utf-8")
    assert "one component per one-piece class" in text and "all components" in text
    chart = out / "figures" / "tiny-dice-largest.png"
    assert chart.exists()
    ran.clear()
    assert main(arguments(suite, paired_files.path, out)) == 0 and ran == []


def test_scores_of_other_tests_and_of_other_runs_are_not_taken_for_these(
    paired_files, tmp_path, ran
):
    out = tmp_path / "out"
    shift = {"shift_mm": [10]}

    def again(name, **keys):
        ran.clear()
        suite = write_suite(tmp_path / "s.yaml", methods=["sup"], **keys)
        assert main(arguments(suite, paired_files.path, out)) == 0, name
        return [command[0] for command in ran]

    assert again("first", variants=shift) == ["train", "evaluate", "evaluate"]
    assert again("same", variants=shift) == []
    # The same amount, of another modality.
    assert again("moved", variants={**shift, "modality": "ct"}) == ["evaluate"]
    assert "ct" in ran[0][ran[0].index("--misalign.modality") + 1]
    # Without its run, a cell's scores are of nobody knows what.
    (cell,) = (out / "cells").iterdir()
    before = (cell / "scores" / "plain" / "cases.csv").read_bytes()
    shutil.rmtree(cell / "run")
    longer = TINY | {"fit": {"steps": 8, "save_every": 2, "validations": 0}}
    assert again("gone", variants=shift, set=longer) == ["train", "evaluate", "evaluate"]
    assert (cell / "scores" / "plain" / "cases.csv").read_bytes() != before
    (cell / "scores" / "plain" / "summary.json").write_text("{")
    assert again("damaged", variants=shift, set=longer) == ["evaluate"]


def test_scans_that_changed_are_noticed(paired_files, tmp_path, ran, capsys):
    """Those scored are scored again, those trained on make it another data set."""
    shutil.copytree(paired_files.path.parent, tmp_path / "data")
    manifest = load_manifest(tmp_path / "data" / "dataset.json")
    suite = write_suite(tmp_path / "s.yaml", methods=["sup"], split="test")
    argv = arguments(suite, manifest.path, tmp_path / "out")
    assert main(argv) == 0
    before = read(tmp_path / "out" / "cases.csv")
    (scored,), train = manifest.split("test"), manifest.split("train")
    # A label that was corrected.
    corrected = nib.load(scored.labels["ct"])
    voxels = np.asarray(corrected.dataobj).copy()
    voxels[: voxels.shape[0] // 2] = 0
    nib.save(nib.Nifti1Image(voxels, corrected.affine), scored.labels["ct"])
    ran.clear()
    assert main(argv) == 0
    assert [command[0] for command in ran] == ["evaluate"]
    assert read(tmp_path / "out" / "cases.csv") != before
    ran.clear()
    os.utime(scored.labels["ct"])
    assert main(argv) == 0 and ran == []
    shutil.copy(train[0].images["mr"], train[1].images["mr"])
    assert "another data set" in refused(capsys, *argv)


def test_shards_are_disjoint_and_together_the_whole(paired_files, tmp_path, ran):
    bound = {"label": "bound", "method": "sup", "labelled": "all"}
    methods = ["sup", "sup_joint", bound]
    suite = write_suite(tmp_path / "s.yaml", methods=methods, labels=[1, 2], reference="sup")
    out, argv = tmp_path / "out", lambda k: arguments(
        suite, paired_files.path, tmp_path / "out", "--shard", f"{k}/2"
    )  # fmt: skip
    trained = []
    for k in (1, 2):
        ran.clear()
        assert main(argv(k)) == 0
        trained.append({c[-1] for c in ran if c[0] == "train"})
    assert not trained[0] & trained[1] and [len(t) for t in trained] == [3, 2]
    assert [cell["state"] for cell in read(out / "cells.csv")] == ["done"] * 6
    assert {case["row"] for case in read(out / "cases.csv")} == {"sup", "sup_joint", "bound"}


def test_a_failing_cell_stops_no_other_and_enters_no_table(paired_files, tmp_path, ran, capsys):
    diverging = {"method": "sup", "label": "bad", "set": {"fit": {**TINY["fit"], "lr": 1e30}}}
    suite = write_suite(tmp_path / "s.yaml", methods=[diverging, "cmc"])
    out = tmp_path / "out"
    assert main(arguments(suite, paired_files.path, out)) == 1
    said = capsys.readouterr()
    log = out / "cells" / "tiny_bad_unet_labels-2_seed-0" / "log.txt"
    assert str(log) in said.err and "1 of 2 cells failed" in said.err
    assert log.exists() and "crossvox: error" in log.read_text()
    assert {case["row"] for case in read(out / "cases.csv")} == {"cmc"}
    assert [cell["state"] for cell in read(out / "cells.csv")] == ["failed", "done"]
    text = (out / "tables.md").read_text(encoding="utf-8")
    assert "Failed, and in no mean" in text and "tiny_bad_unet_labels-2_seed-0/log.txt" in text


def test_seeds_draw_the_labels_when_asked(paired_files, tmp_path, ran):
    suite = write_suite(tmp_path / "s.yaml", methods=["sup"], seeds=[0, 1], label_draw="seed")
    assert main(arguments(suite, paired_files.path, tmp_path / "out")) == 0
    plans = [
        json.loads(p.read_text()) for p in sorted((tmp_path / "out").glob("cells/*/run/plan.json"))
    ]
    labelled = [plan["selection"]["labelled"]["ct"] for plan in plans]
    assert len(labelled) == 2 and labelled[0] != labelled[1]
    assert " ± " in (tmp_path / "out" / "tables.md").read_text(encoding="utf-8")
    assert len(list((tmp_path / "out" / "prepared").glob("*/*/images"))) == 1


def test_a_row_of_one_modality_sees_no_other(paired_files, tmp_path, ran):
    suite = write_suite(
        tmp_path / "s.yaml", methods=["cmc", {"method": "cmc", "label": "mr", "only": "last"}]
    )
    assert main(arguments(suite, paired_files.path, tmp_path / "out")) == 0
    cases = read(tmp_path / "out" / "cases.csv")
    assert {c["modality"] for c in cases if c["row"] == "mr"} == {"mr"}
    (plan,) = (tmp_path / "out" / "cells").glob("tiny_mr_*/run/plan.json")
    assert json.loads(plan.read_text())["task"]["modalities"] == ["mr"]


def test_a_killed_cell_goes_on_where_it_was(paired_files, tmp_path, monkeypatch):
    """A real process, killed without warning; then resumed, and as if it had never been killed."""
    longer = TINY | {"fit": {"steps": 60, "save_every": 5, "validations": 0}}
    suite = write_suite(tmp_path / "s.yaml", methods=["sup"], set=longer)
    out, whole = tmp_path / "out", tmp_path / "whole"
    run = out / "cells" / "tiny_sup_unet_labels-2_seed-0" / "run"

    def kill(self, command, log, lock):
        program = [str(Path(sys.executable).with_name("crossvox")), *command]
        process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (run / "checkpoints" / "last.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        raise CommandError(process.wait(), "train", COST)

    monkeypatch.setattr(Launcher, "__call__", kill)
    assert main(arguments(suite, paired_files.path, out)) == 1
    launch = InProcess()
    monkeypatch.setattr(Launcher, "__call__", lambda self, *given: launch(*given))
    assert main(arguments(suite, paired_files.path, out)) == 0
    assert [command[:2] for command in launch.ran] == [
        ["train", "--resume"],
        ["evaluate", str(run)],
    ]
    (cell,) = read(out / "cells.csv")
    assert cell["attempts"] == "2"
    # Of both attempts and the test.
    assert float(cell["cpu_seconds"]) == 3 * COST["cpu"]
    assert main(arguments(suite, paired_files.path, whole)) == 0
    assert same(weights(run), weights(whole / run.relative_to(out)))


def test_costs_of_a_removed_run_do_not_count_and_damaged_ones_do_no_harm(
    paired_files, tmp_path, ran
):
    suite, out = write_suite(tmp_path / "s.yaml", methods=["sup"]), tmp_path / "out"
    folder = out / "cells" / "tiny_sup_unet_labels-2_seed-0"
    folder.mkdir(parents=True)
    unfinished = folder / "unfinished.json"
    unfinished.write_text(json.dumps({**COST, "cpu": 1000}))
    assert main(arguments(suite, paired_files.path, out)) == 0
    assert float(read(out / "cells.csv")[0]["cpu_seconds"]) == 2 * COST["cpu"]
    assert not unfinished.exists()
    (folder / "trained.json").unlink()
    unfinished.write_text("{}")
    assert main(arguments(suite, paired_files.path, out)) == 0
    assert float(read(out / "cells.csv")[0]["cpu_seconds"]) == 2 * COST["cpu"]


def test_a_cell_at_work_elsewhere_is_left_alone(paired_files, tmp_path, ran, capsys):
    suite = write_suite(tmp_path / "s.yaml", methods=["sup"])
    folder = tmp_path / "out" / "cells" / "tiny_sup_unet_labels-2_seed-0"
    folder.mkdir(parents=True)
    with Lock(folder / "lock") as lock:
        assert lock.acquire()
        assert main(arguments(suite, paired_files.path, tmp_path / "out")) == 0
    assert ran == [] and "left to another process" in capsys.readouterr().out


def test_commands_are_processes_with_their_threads_output_and_cost(tmp_path):
    log = tmp_path / "log.txt"
    with open(tmp_path / "lock", "w") as lock:
        spent = Launcher(3)(["list", "presets"], log, lock.fileno())
        assert "$ crossvox list presets" in log.read_text() and "paper" in log.read_text()
        assert spent["wall"] > 0 and spent["cpu"] > 0 and spent["megabytes"] > 5
        with pytest.raises(CommandError) as failed:
            Launcher(1)(["list", "nonsense"], log, lock.fileno())
    assert failed.value.code == 2 and failed.value.cost["cpu"] > 0
    assert "choose from" in log.read_text().splitlines()[-1]


def test_the_users_number_of_threads_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert Share(jobs=2).threads == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert Share(jobs=2).threads == 3
    monkeypatch.setattr("sys.executable", "/bin/python")  # `crossvox` beside it is /bin/env
    monkeypatch.setattr(Path, "with_name", lambda path, name: Path("/usr/bin/env"))
    with open(tmp_path / "lock", "w") as lock:
        Launcher(Share().threads)([], tmp_path / "log.txt", lock.fileno())
    said = (tmp_path / "log.txt").read_text().splitlines()
    assert "OMP_NUM_THREADS=3" in said and "MKL_NUM_THREADS=3" in said


def test_sigterm_ends_the_benchmark_and_fails_no_cell(paired_files, tmp_path, monkeypatch):
    """As at a cluster's time limit: what was done is in the tables, the rest goes on later."""
    stopped, former = [], signal.getsignal(signal.SIGTERM)

    def terminate(self, command, log, lock):
        os.kill(os.getpid(), signal.SIGTERM)
        while not stopped:
            time.sleep(0.01)
        raise CommandError(130, "train", COST)

    monkeypatch.setattr(Launcher, "__call__", terminate)
    monkeypatch.setattr(Launcher, "stop", lambda self: stopped.append(True))
    suite = write_suite(tmp_path / "s.yaml")
    assert main(arguments(suite, paired_files.path, tmp_path / "out")) == 130
    assert [cell["state"] for cell in read(tmp_path / "out" / "cells.csv")] == ["open", "open"]
    assert signal.getsignal(signal.SIGTERM) == former


def test_a_page_shows_overviews_leads_to_all_tables_and_ends_with_the_notes(
    finished, tmp_path, capsys
):
    notes, page = tmp_path / "notes.md", tmp_path / "page.md"
    notes.write_text("What was looked into.", encoding="utf-8")
    assert main(["benchmark", "--table", str(finished[1]), "--page", str(page),
                 "--notes", str(notes)]) == 0  # fmt: skip
    text = page.read_text(encoding="utf-8")
    places = [text.index(s) for s in ("## Tiny ü", "tiny: ct", "(page/s.md)", "How to read")]
    assert places == sorted(places) and text.endswith("What was looked into.")
    assert "Dice: tiny" not in text
    tables = (tmp_path / "page" / "s.md").read_text(encoding="utf-8")
    places = [tables.index(s) for s in ("# Tiny ü", "Dice: tiny", " is first with", "How to read")]
    assert places == sorted(places) and "What was looked into." not in tables
    twice = [str(finished[1])] * 2
    assert main(["benchmark", "--table", *twice, "--page", str(tmp_path / "two.md")]) == 0
    text = (tmp_path / "two.md").read_text(encoding="utf-8")
    assert "(two/s.md)" in text and "(two/s-2.md)" in text
    written = {path.name for path in (tmp_path / "two").iterdir()}
    assert written == {"s", "s.md", "s-2", "s-2.md"}
    missing = refused(capsys, "benchmark", "--table", finished[1], "--notes", tmp_path / "no.md")
    assert "no.md: cannot be read" in missing


def test_a_root_goes_with_every_command_of_every_row(paired_files, tmp_path, ran, capsys):
    folder = paired_files.path.parent
    apart = tmp_path / "versioned" / "dataset.json"
    apart.parent.mkdir()
    shutil.copy(paired_files.path, apart)
    rows = ["sup", {"method": "sup", "label": "ct only", "only": "first"}]
    suite = write_suite(tmp_path / "s.yaml", methods=rows)
    outside = apart.read_text().replace('"s6 mrü.nii.gz"', f'"{folder}/s6 mrü.nii.gz"')
    apart.write_text(outside)
    assert main(arguments(suite, apart, tmp_path / "out")) == 1
    assert "lies outside" in capsys.readouterr().err and not (tmp_path / "out").exists()
    for _ in range(2):  # the second time there is nothing to do
        assert main(arguments(suite, apart, tmp_path / "out", "--root", str(folder))) == 0
    assert len(ran) == 4 and all("--root" in words for words in ran if words[0] == "evaluate")


def test_the_table_says_which_rows_start_from_published_weights(paired_files, tmp_path, ran):
    file = published(tmp_path / "unet.pth", "universal_unet")
    small = {"backbone": {"width": 2}, "budget": {"patch": [16, 16, 16], "spacing": None},
             "fit": {"steps": 1, "validations": 0}, "inference": {"overlap": 0},
             "compute": TINY["compute"], "weights": str(file)}  # fmt: skip
    suite = write_suite(tmp_path / "s.yaml", methods=["sup", "mmformer"], reference="sup",
                        preset="paper-unet", set=small)  # fmt: skip
    assert main(arguments(suite, paired_files.path, tmp_path / "out")) == 0
    sup, mmformer = read(tmp_path / "out" / "cells.csv")
    assert "AMOS" in sup["pretrained_on"] and mmformer["pretrained_on"] == ""
    (line,) = [
        line
        for line in (tmp_path / "out" / "tables.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| mmformer | own | no |")
    ]
    assert line.split("|")[4].strip() == "nothing"
