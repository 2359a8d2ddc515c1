"""Pictures of a benchmark: what is asked for is drawn, once, and nothing unknown is begun."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest

from crossvox.benchmark.cells.runner import Launcher
from crossvox.benchmark.pages import page
from crossvox.benchmark.pages import pictures as benchmark_pictures
from crossvox.cli.main import main
from crossvox.figures.side_by_side import (
    Heat,
    ScanSlice,
    attention_figure,
    predictions_figure,
)
from crossvox.figures.style import save_figure
from crossvox.utils.palette import ERRORS
from fixtures.benchmark import InProcess, read, write_suite
from fixtures.run import refused

OWN = {"label": "sup (own)", "method": "sup",
       "set": {"backbone": {"name": "universal_unet", "width": 2}}}  # fmt: skip


@pytest.fixture(autouse=True)
def ran(monkeypatch):
    launch = InProcess()
    monkeypatch.setattr(Launcher, "__call__", lambda self, *given: launch(*given))
    monkeypatch.setattr(page, "write_paper_figures", lambda results, folder: None)  # seconds each
    return launch.ran


def command(suite, manifest, out, *more):
    data = f"tiny={manifest.path}"
    return [str(word) for word in ("benchmark", suite, "--data", data, "--out", out, *more)]


def test_named_cases_and_attention_are_drawn_and_drawn_again_without_the_networks(
    paired_files, tmp_path, monkeypatch, ran
):
    rows = ["sup", {"label": "ct alone", "method": "cmc", "only": "ct"}, OWN]
    suite = write_suite(tmp_path / "s ü.yaml", methods=rows, pictures={"attention": True})
    out = tmp_path / "out"
    assert main(command(suite, paired_files, out, "--cases", "s5")) == 0
    pictures = sorted((out / "pictures").iterdir())
    kinds = ("attention", "predictions")
    names = [f"{kind}_tiny_2_s5_{m}.png" for kind in kinds for m in ("ct", "mr")]
    assert sorted(p.name for p in pictures) == sorted([*names, "attention.csv"])
    pictures = [p for p in pictures if p.suffix == ".png"]
    lines = read(out / "pictures" / "attention.csv")
    drawn = {(line["row"], line["case"], line["modality"]) for line in lines}
    assert drawn == {
        *((row, "s5", "ct") for row in ("sup", "ct alone", "sup (own)")),
        *((row, "s5", "mr") for row in ("sup", "sup (own)")),
    }
    shares = [(line["share"], float(line["area"])) for line in lines]
    assert all(not share or 0 <= float(share) <= 1 for share, _ in shares)
    assert all(0 < area < 0.5 for _, area in shares)
    size = {p.name: matplotlib.image.imread(p).shape for p in pictures}
    # A column for each row that knows the modality, and a row of attention.
    assert size["predictions_tiny_2_s5_ct.png"][1] > size["predictions_tiny_2_s5_mr.png"][1]
    assert size["attention_tiny_2_s5_ct.png"][0] > size["attention_tiny_2_s5_mr.png"][0]

    # The row with a backbone of its own stands in the same table, and says which.
    cells = {cell["row"]: cell for cell in read(out / "cells.csv")}
    backbones = {row: cell["backbone"] for row, cell in cells.items()}
    assert backbones == {"sup": "unet", "ct alone": "unet", "sup (own)": "universal_unet"}
    assert {(x["row"], x["backbone"]) for x in read(out / "cases.csv")} == set(backbones.items())
    assert cells["sup (own)"]["parameters"] != cells["sup"]["parameters"]
    text = (out / "tables.md").read_text(encoding="utf-8")
    assert text.count("Dice: tiny, labels: 2, unet; sup (own): universal_unet\n") == 1
    assert "| sup (own) | universal_unet | no |" in text

    before = {p.name: p.read_bytes() for p in pictures}
    for picture in pictures:
        picture.unlink()
    monkeypatch.setattr(benchmark_pictures, "load_model", None)
    ran.clear()
    assert main(command(suite, paired_files, out, "--cases", "s5")) == 0 and not ran
    again = (out / "pictures").glob("*.png")
    assert {p.name: p.read_bytes() for p in again} == before


def test_without_names_attention_is_drawn_of_each_modalitys_first_case(unpaired_files, tmp_path):
    suite = write_suite(tmp_path / "s.yaml", methods=["sup"], pictures={"attention": True})
    assert main(command(suite, unpaired_files, tmp_path / "out")) == 0
    found = sorted(p.name for p in (tmp_path / "out" / "pictures").glob("*.png"))
    assert found == ["attention_tiny_2_ct5_ct.png", "attention_tiny_2_mr5_mr.png"]


@pytest.mark.parametrize(
    ("keys", "more", "words"),
    [
        ({}, ["--cases", "s5,s99"], ["'s99'", "'val'", "tiny: s5"]),
        ({}, ["--cases", "s6"], ["'s6'", "tiny: s5"]),
        ({"pictures": {"case": ["s5"]}}, [], ["'case'", "cases, attention"]),
        ({"pictures": {"cases": "s5"}}, [], ["'s5'", "list"]),
        ({"pictures": {"attention": "yes please"}}, [], ["yes please", "true or false"]),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_the_first_cell(
    keys, more, words, paired_files, tmp_path, capsys, ran
):
    suite = write_suite(tmp_path / "s.yaml", **keys)
    line = refused(capsys, *command(suite, paired_files, tmp_path / "out", *more))
    assert all(word in line for word in words), line
    assert not ran and not (tmp_path / "out").exists()


def test_the_slice_has_most_of_the_truth_and_errors_have_their_colours(tmp_path: Path):
    image = np.random.default_rng(0).normal(size=(30, 24, 6)).astype(np.float32)
    truth = np.zeros(image.shape, np.int16)
    truth[5:8, 5:8, 1:3] = 1
    truth[4:20, 4:20, 4] = 1
    shown = ScanSlice.of(image, (2, 2, 5), truth, "case ü")
    assert shown.index == 4
    right, none = truth[..., 4], np.zeros((30, 24), np.int16)
    sizes = {}
    for name, planes in {"right": right, "missed": none}.items():
        path = tmp_path / f"{name}.png"
        save_figure(predictions_figure(shown, {"a": (planes, 0.5)}, ["heart"]), path)
        sizes[name] = matplotlib.image.imread(path)[..., :3]
    missed = np.array(matplotlib.colors.to_rgb(ERRORS["missed"]))
    count = {n: int((np.abs(x - missed).max(-1) < 0.12).sum()) for n, x in sizes.items()}
    assert count["missed"] > 5 * max(count["right"], 1)


def test_many_methods_go_in_bands(tmp_path: Path):
    truth = np.zeros((20, 20, 4), np.int16)
    truth[5:9, 5:9, 1] = 1
    shown = ScanSlice.of(truth.astype(np.float32), (2, 2, 5), truth, "c")
    planes = {f"m{k}": (truth[..., 1], float("nan")) for k in range(7)}
    figure = predictions_figure(shown, planes, ["heart"])
    titles = [ax.get_title() for ax in figure.axes]
    assert len(figure.axes) == 4 * 6 and titles.count("ground truth") == 2
    assert sum("Dice undefined" in title for title in titles) == 7


def test_maps_of_two_networks_share_a_scale_and_say_what_lies_inside_the_organ() -> None:
    truth = np.zeros((20, 20, 4), np.int16)
    truth[5:10, 5:10, 1] = 1
    shown = ScanSlice.of(truth.astype(np.float32), (2, 2, 5), truth, "c")
    inside = truth[..., 1] > 0
    values = {"even": np.ones((20, 20)), "sharp": 0.001 * inside, "dead": np.zeros((20, 20))}
    heats = {name: Heat(plane, inside) for name, plane in values.items()}
    assert heats["even"].share == heats["even"].area == 25 / 400
    assert heats["sharp"].share == 1 and math.isnan(heats["dead"].share)
    # A factor that a network may give its features is not seen.
    assert np.array_equal(heats["even"].relative, Heat(1e6 * values["even"], inside).relative)
    maps = {name: {"features": heat, "Grad-CAM": heat} for name, heat in heats.items()}
    figure = attention_figure(shown, maps, ["Grad-CAM"])
    panels = [ax for ax in figure.axes if ax.get_xlabel()]
    words = ["6.2 % inside", "100.0 % inside", "zero here"]
    assert [ax.get_xlabel() for ax in panels] == [word for word in words for _ in range(2)]
    assert "target: 6.2 % of the slice" in panels[0].get_title()
    brightest = [float(ax.images[-1].get_array().max()) for ax in panels]
    assert brightest == pytest.approx([1 / 16, 1 / 16, 1, 1, 0, 0])
