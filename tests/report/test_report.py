from __future__ import annotations

import csv
import json
import re
import shlex
from html import unescape

import numpy as np
import pytest

from crossvox.benchmark.pages.page import run_settings
from crossvox.benchmark.results.files import CELL_COLUMNS, read_results
from crossvox.benchmark.results.scores import CASE_COLUMNS
from crossvox.cli.main import main
from crossvox.data.formats.nifti import Volume
from crossvox.data.geometry import Grid
from crossvox.report.gallery import Gallery, worst_and_best
from crossvox.report.page import FactList, Page, Section, render
from crossvox.report.shown_scan import to_shown_scan
from fixtures.run import refused, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory, unpaired_files):
    return trained(unpaired_files.path, tmp_path_factory.mktemp("run") / "cmc")


def titles(text: str) -> list[str]:
    return re.findall(r"<option value=\"\d+\">(.*?)</option>", text)


def test_a_report_holds_curves_scores_scans_and_how_it_came_to_be(run, unpaired_files, tmp_path):
    out = tmp_path / "sub" / "report.html"
    data = str(unpaired_files.path)
    assert main(["report", str(run), "--data", data, "--split", "val", "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "patient images: slices of 2 scans" in text
    assert [title.split(":")[0] for title in titles(text)] == ["ct, worst", "mr, worst"]
    assert text.count('class="scan-data"') == 2
    for word in ("left ball", "csc", "validation Dice", "ASSD", "torch", "different places"):
        assert word in text
    command = json.loads((run / "run.json").read_text(encoding="utf-8"))["command"]
    assert shlex.join(command) in unescape(text)
    assert (run / "config.yaml").read_text(encoding="utf-8").strip() in unescape(text)


def test_a_case_of_any_name_is_only_text(run, unpaired_files, tmp_path):
    data = ["--data", str(unpaired_files.path), "--split", "val"]
    assert main(["evaluate", str(run), *data, "--out", str(tmp_path)]) == 0
    # A manifest would refuse this id; a table of scores can be anyone's.
    name, scores = "<script>alert(1)</script>", tmp_path / "cases.csv"
    scores.write_text(scores.read_text().replace("ct5,", f"{name},"))
    out = tmp_path / "report.html"
    arguments = ["--scores", str(tmp_path), "--show", "0", "--out", str(out)]
    assert main(["report", str(run), *data, *arguments]) == 0
    text = out.read_text(encoding="utf-8")
    assert name not in text and name in unescape(text) and text.count("<script>") == 1


def test_the_scores_are_those_of_evaluate(run, unpaired_files, tmp_path):
    data = ["--data", str(unpaired_files.path), "--split", "test"]
    scores = tmp_path / "scores"
    assert main(["evaluate", str(run), *data, "--out", str(scores)]) == 0
    for name, more in {"own": [], "given": ["--scores", str(scores)]}.items():
        assert main(["report", str(run), *data, "--out", str(tmp_path / name), *more]) == 0
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in ("own", "given")]
    # All but the command is the same, whoever predicted.
    same = [re.sub(r"<h3>This report</h3>.*?</pre>", "", text, flags=re.S) for text in texts]
    assert same[0] == same[1]
    with open(scores / "cases.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert f"{float(row['dice']):.3f}" in texts[0]


def test_without_data_there_is_no_image_and_no_case(run, tmp_path):
    out = tmp_path / "training.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "holds no image" in text and "scan-data" not in text.split("<script>")[0]


def test_show_0_scores_without_images(run, unpaired_files, tmp_path):
    out = tmp_path / "numbers.html"
    arguments = ["--data", str(unpaired_files.path), "--show", "0", "--out", str(out)]
    assert main(["report", str(run), *arguments]) == 0
    text = out.read_text(encoding="utf-8")
    assert "holds no image" in text and not titles(text) and "left ball" in text


def test_what_cannot_be_meant_is_refused(run, unpaired_files, tmp_path, capsys):
    data, out = unpaired_files.path, tmp_path / "x.html"
    assert "--out is missing" in refused(capsys, "report", run)
    assert "folder" in refused(capsys, "report", run, "--out", tmp_path)
    assert "no run" in refused(capsys, "report", tmp_path, "--out", out)
    assert "at least 0" in refused(capsys, "report", run, "--out", out, "--show", "-1")
    assert "--data" in refused(capsys, "report", run, "--out", out, "--scores", tmp_path)
    wrong = ["--data", data, "--split", "dev", "--out", out]
    assert "dev" in refused(capsys, "report", run, *wrong)
    assert main(["evaluate", str(run), "--data", str(data), "--split", "test", "--out",
                 str(tmp_path / "test")]) == 0  # fmt: skip
    other = ["--data", data, "--out", out, "--scores", tmp_path / "test"]
    assert "scores of split test, asked for val" in refused(capsys, "report", run, *other)
    part = tmp_path / "part"
    assert main(["evaluate", str(run), "--data", str(data), "--split", "val", "--modalities", "ct",
                 "--out", str(part)]) == 0  # fmt: skip
    other = ["--data", data, "--out", out, "--scores", part]
    assert "scores of given ['ct'], asked for None" in refused(capsys, "report", run, *other)
    summary = json.loads((part / "summary.json").read_text())
    del summary["run"]["given"]
    summary["run"]["labelled"] = "all"
    (part / "summary.json").write_text(json.dumps(summary))
    assert "scores of labelled all, asked for 2" in refused(capsys, "report", run, *other)
    assert not out.exists()


def test_the_gallery_keeps_the_worst_and_the_best():
    gallery = Gallery(2, 1)
    scores = [0.5, 0.9, 0.1, 0.6, 0.7, 0.2, float("nan"), 0.8]
    for k, score in enumerate(scores):
        if gallery.wants("ct", score):
            gallery.add(f"c{k}", "ct", score, _ball())
    assert [scan.title for scan in gallery.scans()] == [
        "ct, worst: c2, mean Dice 0.100",
        "ct, 2. worst: c5, mean Dice 0.200",
        "ct, 2. best: c7, mean Dice 0.800",
        "ct, best: c1, mean Dice 0.900",
    ]
    rows = [{"case": f"c{k}", "modality": "ct", "dice": s} for k, s in enumerate(scores)]
    assert worst_and_best(rows, 2) == {"c2", "c5", "c7", "c1"} and not worst_and_best(rows, 0)


def _ball(signs=(1, 1, 1), voxels=10**6):
    """A scan whose class 1 lies to the patient's left, at the front and the head."""
    shape, spacing = (40, 36, 30), np.array([2.0, 2.0, 3.0])
    affine = np.diag([*(spacing * signs), 1.0])
    index = np.moveaxis(np.indices(shape), 0, -1)
    world = index @ affine[:3, :3].T
    middle = affine[:3, :3] @ (np.array(shape) / 2)
    ball = np.linalg.norm(world - middle - [-15, 12, 15], axis=-1) < 8
    labels = ball.astype(np.int16)
    image = np.where(ball, 100, 0).astype(np.float32)
    entropy = np.where(ball, 0.5, 0).astype(np.float32)
    return to_shown_scan(Volume(image, Grid(shape, affine)), labels, labels, entropy, voxels)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_scans_lie_upright_however_they_are_stored(signs):
    scan = _ball(signs)
    # Cropped to 30 mm around the ball, so the nearer borders are the scan's: left, front, head.
    x, y, z = (float(np.mean(places)) for places in np.nonzero(scan.truth))
    nx, ny, nz = scan.truth.shape
    assert x > nx / 2 and y < ny / 2 and z < nz / 2
    assert (scan.truth == scan.prediction).all() and scan.grey[scan.truth == 1].min() > 200


def test_scans_are_coarsened_to_the_budget():
    fine, coarse = _ball(), _ball(voxels=3000)
    assert coarse.grey.size <= 3000 * 1.15 < fine.grey.size
    volumes = [(s.truth == 1).sum() * np.prod(s.spacing) for s in (fine, coarse)]
    assert abs(volumes[1] / volumes[0] - 1) < 0.3
    assert "shown at" in coarse.note and "shown at" not in fine.note


def _benchmark(folder, drop: str = ""):
    """A benchmark's folder with two rows, the second of a hostile name, and one failed run."""
    hostile = "<b>cmc</b>"
    columns = [c for c in CASE_COLUMNS if c != drop]
    about = {"name": "s", "title": "T", "preset": "cpu", "split": "val", "checkpoint": "last"}
    about |= {"seeds": [0, 1], "settings": {}, "label_draw": "first", "reference": "sup"}
    about |= {"fewer_seeds": {}, "start": None}
    about |= {"rows": {"sup": {"method": "sup"}, hostile: {"method": "cmc"}}}
    (folder / "suite.json").write_text(json.dumps(about))
    with open(folder / "cases.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for row, base in {"sup": 0.4, hostile: 0.6}.items():
            for seed in (0, 1):
                for case in ("a", "b"):
                    writer.writerow(
                        dict.fromkeys(columns, 0)
                        | {
                            "data": "heart",
                            "labels": 2,
                            "steps": "",
                            "backbone": "unet",
                            "variant": "",
                        }
                        | {"row": row, "method": "cmc", "seed": seed, "case": case}
                        | {"modality": "lge", "class": "lv", "assd_mm": 2.5}
                        | {"dice": base + 0.1 * seed + (0.05 if case == "b" else -0.05)}
                    )
    with open(folder / "cells.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, CELL_COLUMNS)
        writer.writeheader()
        place = {"data": "heart", "labels": 2, "backbone": "unet", "seed": 0, "parameters": 1}
        writer.writerow({**place, "row": "sup", "state": "done"})
        writer.writerow({**place, "row": "uamt", "state": "failed", "log": "uamt/log.txt"})
    return folder


def test_a_benchmark_s_tables_are_means_over_seeds(tmp_path):
    out = tmp_path / "bench.html"
    assert main(["report", str(_benchmark(tmp_path)), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "Dice: heart, labels: 2, unet" in text
    assert "0.450 ± 0.071" in text and "0.650 ± 0.071" in text and "2.50 ± 0.00" in text
    assert "&lt;b&gt;cmc&lt;/b&gt;" in text and "<b>cmc" not in text
    assert "Runs without a result: 1" in text and "uamt/log.txt" in text
    assert "&lt;b&gt;cmc&lt;/b&gt; is first with 0.650" in text and "Costs: heart" in text


def test_a_damaged_benchmark_is_refused(tmp_path, capsys):
    folder = _benchmark(tmp_path, drop="dice")
    assert main(["report", str(folder), "--out", str(tmp_path / "x.html")]) == 1
    assert "no column dice" in capsys.readouterr().err
    arguments = ["--data", "d.json", "--out", tmp_path / "x.html"]
    assert "is a benchmark" in refused(capsys, "report", folder, *arguments)
    assert not (tmp_path / "x.html").exists()


def test_the_total_loss_is_drawn_before_its_terms(run, tmp_path):
    out = tmp_path / "training.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    drawn = [text.index(f">{name}<") for name in ("validation Dice", "loss", "cac")]
    assert drawn == sorted(drawn)


def test_only_long_facts_take_a_row_of_their_own():
    page = Page("t", [Section("s", [FactList("", {"short": "x", "long": "x" * 61})])], "", [])
    rows = re.findall(r"<div( class=\"wide\")?><dt>(\w+)</dt>", render(page))
    assert rows == [("", "short"), (' class="wide"', "long")]


def test_a_case_that_a_run_of_a_benchmark_learnt_from_is_in_no_mean(tmp_path):
    folder = _benchmark(tmp_path)
    lines = (folder / "cases.csv").read_text(encoding="utf-8").splitlines()
    case, seen = (lines[0].split(",").index(name) for name in ("case", "seen"))
    rows = [line.split(",") for line in lines[1:]]
    first = next(row for row in rows if row[case] == "a")
    first[seen] = "1"  # of one row and seed alone
    text = "\n".join([lines[0], *map(",".join, rows)]) + "\n"
    (folder / "cases.csv").write_text(text, encoding="utf-8")
    results = read_results(folder)
    assert {line["case"] for line in results.cases} == {"b"} and results.seen == [("heart", "a")]
    assert any("learnt from" in line and "a (heart)" in line for line in run_settings(results))
