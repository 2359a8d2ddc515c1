"""Figures for a paper: what is in them, and the two formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossvox.evaluation.scores import write_scores
from crossvox.figures.publication import Difference, box_figure, forest_figure
from crossvox.figures.style import save_vector
from crossvox.workflows.prediction.publication import draw_scores


def row(case: int, organ: str, dice: float, assd: float = 2.0, missed: int = 0) -> dict:
    place = {"case": f"p{case}", "modality": "ct", "class": organ}
    counts = {"n_missed": missed, "n_false": 0, "n_both_empty": 0}
    sizes = {"volume_truth_ml": 1.0, "volume_prediction_ml": 1.0, "voxels": 9, "seen": 0}
    return {**place, "dice": dice, "assd_mm": assd, **counts, **sizes}


def grid(gain: float, organs: tuple[str, ...] = ("liver", "spleen")) -> list[dict]:
    return [row(k, organ, 0.5 + gain + 0.05 * k) for organ in organs for k in range(6)]


def medians(ax) -> list[float]:
    """Heights of the horizontal black lines."""
    return [
        float(y[0])
        for line in ax.lines
        if len(y := np.asarray(line.get_ydata())) == 2 and y[0] == y[1]
        if line.get_color() == "black"
    ]


def test_a_box_per_class_and_series_over_scans() -> None:
    lost = [*grid(0.0), row(9, "liver", 0.0, 400.0, missed=1)]
    figure = box_figure({"ct": {"sup": lost, "cmc $x$": grid(0.2)}}, "heart; 3 seeds.")
    dice, assd = figure.axes
    assert sorted(np.round(medians(dice), 3)) == [0.6, 0.625, 0.825, 0.825]
    # The organ that was missed has no distance, and is the only one without.
    assert medians(assd) == [2.0] * 4 and assd.get_ylim()[1] < 10
    assert dice.get_title() == "ct, 7 scans"
    assert [t.get_text() for t in figure.legends[0].texts] == ["sup", r"cmc \$x\$"]
    assert "3 seeds" in figure.get_supxlabel() and "over the scans" in figure.get_supxlabel()


def test_several_seeds_of_a_scan_are_one_value() -> None:
    seeds = [row(0, "liver", 0.4), row(0, "liver", 0.6)]
    figure = box_figure({"": {"sup": seeds}})
    assert medians(figure.axes[0]) == [0.5] and figure.axes[0].get_title() == "1 scan"


def test_differences_are_drawn_with_their_intervals() -> None:
    own = [
        Difference("cmc", "dice", 0.05, 0.01, 0.09),
        Difference("cml", "dice", -0.01, -0.05, 0.03),
        Difference("bcp", "dice", -0.0001, -0.02, 0.02),
        Difference("cmc", "assd_mm", -2.0, -3.0, -1.0),
    ]
    figure = forest_figure({"ct, 6 patients": own}, "to sup")
    dice, assd = figure.axes
    assert [t.get_text() for t in dice.get_yticklabels()] == ["cmc", "cml", "bcp"]
    assert [t.get_text() for t in dice.texts] == [
        "+0.050 [+0.010, +0.090]", "−0.010 [−0.050, +0.030]", "+0.000 [−0.020, +0.020]"
    ]  # fmt: skip
    assert [t.get_text() for t in assd.texts] == ["−2.00 [−3.00, −1.00]"]
    assert "6 patients" in dice.get_title("left") and "← better" in assd.get_xlabel()


def test_evaluate_s_scores_become_pdf_and_svg(tmp_path: Path) -> None:
    write_scores(tmp_path / "a", grid(0.1))
    write_scores(tmp_path / "b", grid(0.0))
    files = draw_scores(tmp_path / "a", tmp_path / "b")
    assert [f.name for f in files] == [
        "boxes.pdf", "boxes.svg", "differences.pdf", "differences.svg"
    ]  # fmt: skip
    for file in files:
        head = file.read_bytes()[:300]
        assert head.startswith(b"%PDF" if file.suffix == ".pdf" else b"<?xml")
    text = files[3].read_text(encoding="utf-8")
    assert "ct, 6 patients" in text and "+0.100 [+0.100, +0.100]" in text
    assert "mean of the classes" in text
    assert "p0" not in text and draw_scores(tmp_path / "a") == files[:2]
    before = files[0].read_bytes()
    save_vector(box_figure({"": {"ct": grid(0.1)}}), tmp_path / "a" / "figures" / "boxes")
    assert files[0].read_bytes() == before
