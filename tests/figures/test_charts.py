"""Learning curves and scores: as PNG files, and as SVG for a page."""

from __future__ import annotations

import csv
import re
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from crossvox.figures import learning_curves, score_dots
from crossvox.figures.charts import POINTS, score_figures, training_figures
from crossvox.figures.style import to_svg
from crossvox.training.record import METRICS_HEADER, read_metrics
from fixtures.figures import CLASSES, curve, has_colour, picture, scores


def test_learning_curves_from_csv_and_numbers_agree(tmp_path: Path) -> None:
    rows = curve("train/loss", [2.0, 1.0, 0.1, 0.05]) + curve("val/dice/ct", [0.1, 0.4])
    with open(tmp_path / "metrics.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([METRICS_HEADER, *rows])
    learning_curves(tmp_path / "a.png", read_metrics(tmp_path / "metrics.csv"))
    learning_curves(tmp_path / "b.png", rows)
    assert np.array_equal(picture(tmp_path / "a.png"), picture(tmp_path / "b.png"))


def test_every_loss_term_has_its_panel(tmp_path: Path) -> None:
    sup = curve("train/sup", [1.0, 0.5])
    learning_curves(tmp_path / "1.png", sup)
    learning_curves(tmp_path / "2.png", sup + curve("train/csc", [-0.5, 0.0]))
    learning_curves(tmp_path / "3.png", sup + curve("lr", [0.1, 0.1]) + curve("time/step_s", [1]))
    widths = [picture(tmp_path / f"{k}.png").shape[1] for k in (1, 2, 3)]
    assert widths[1] > 1.7 * widths[0]
    assert widths[2] == widths[0]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        curve("train/loss", [1.0]),
        curve("val/dice", [0.1, 0.2]) + curve("val/dice/ct", [0.1, 0.2]),
        curve("train/loss", [1.0, float("nan"), float("inf"), 0.5]),
        [*curve("train/loss", [1.0, 0.9]), ("2", "train/lo", "")],
    ],
    ids=["nothing", "one value", "validation only", "not finite", "cut short"],
)
def test_learning_curves_with_missing_terms(tmp_path: Path, rows) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learning_curves(tmp_path / "a.png", rows)
    assert picture(tmp_path / "a.png").size


def test_score_dots_show_modalities_and_react_to_scores(tmp_path: Path) -> None:
    score_dots(tmp_path / "a.png", scores(), "test")
    assert has_colour(tmp_path / "a.png", "#D55E00")
    assert has_colour(tmp_path / "a.png", "#0072B2")
    score_dots(tmp_path / "b.png", [{**row, "dice": 0.2} for row in scores()], "test")
    assert not np.array_equal(picture(tmp_path / "a.png"), picture(tmp_path / "b.png"))


def test_score_dots_take_the_strings_of_a_csv_and_skip_missing_scores(tmp_path: Path) -> None:
    rows = scores()
    rows[0] = {**rows[0], "dice": "", "assd_mm": float("nan")}
    text = [{key: str(value) for key, value in row.items()} for row in rows]
    score_dots(tmp_path / "a.png", rows)
    score_dots(tmp_path / "b.png", text)
    assert np.array_equal(picture(tmp_path / "a.png"), picture(tmp_path / "b.png"))


def test_a_missed_organ_is_counted_beside_the_distances() -> None:
    lost = {"case": "c9", "modality": "ct", "class": CLASSES[0], "dice": "0.0"}
    rows = [*scores(), {**lost, "assd_mm": "400", "n_missed": "1", "n_false": "0"}]
    (ax,) = score_figures(rows)["ASSD (mm)"].axes
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["3.0 (1 lost)", "3.0", "3.0", "3.0"]
    assert max(x for dots in ax.collections for x, _ in dots.get_offsets()) < 10


def test_score_dots_leave_out_assd_if_there_is_none(tmp_path: Path) -> None:
    score_dots(tmp_path / "both.png", scores())
    score_dots(tmp_path / "one.png", [{**row, "assd_mm": None} for row in scores()])
    score_dots(tmp_path / "none.png", [])
    heights = [picture(tmp_path / f"{n}.png").shape[0] for n in ("both", "one", "none")]
    assert heights[0] > 1.7 * heights[1]
    assert heights[2] <= heights[1]


def lines(figure) -> list[np.ndarray]:
    """The values of the lines in a figure's only panel."""
    return [np.asarray(line.get_ydata()) for line in figure.axes[0].lines]


def test_a_loss_is_drawn_with_its_running_mean() -> None:
    figures = training_figures(curve("train/csc", list(2 + np.sin(np.arange(60.0)))))
    raw, smooth = lines(figures["csc"])
    assert len(raw) == len(smooth) == 60 and np.ptp(smooth) < np.ptp(raw)
    assert figures["csc"].axes[0].get_yscale() == "linear"
    steep = training_figures(curve("train/x", list(2.0 ** np.arange(60))))
    assert steep["x"].axes[0].get_yscale() == "log"


def test_long_curves_keep_their_extremes() -> None:
    values = np.ones(10_000)
    values[4321], values[7000] = 5, -3
    raw = lines(training_figures(curve("train/x", list(values)))["x"])[0]
    assert len(raw) <= POINTS + 2
    assert raw.min() == -3 and raw.max() == 5


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [-1.0, 1.0]])
def test_short_and_constant_losses_are_drawn(values) -> None:
    (figure,) = training_figures(curve("train/x", values)).values()
    low, high = figure.axes[0].get_ylim()
    assert low < min(values) and max(values) < high
    assert to_svg(figure, "x").startswith("<svg ")


def test_dice_goes_from_0_to_1_and_comes_first_with_a_name_per_line() -> None:
    rows = curve("train/cac", [1.0]) + curve("train/loss", [1.0])
    rows += curve("val/dice", [0.5]) + curve("val/dice/ct", [0.5])
    figures = training_figures(rows)
    assert list(figures) == ["validation Dice", "loss", "cac"]
    (ax,) = figures["validation Dice"].axes
    assert ax.get_ylim() == (0, 1)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ct", "mean"]


def test_every_score_is_a_dot_and_their_mean_a_number() -> None:
    rows = [row for row in scores() if (row["class"], row["modality"]) != ("liver", "mr")]
    (ax,) = score_figures(rows)["Dice"].axes
    dots = sorted(x for part in ax.collections for x, _ in part.get_offsets() if x)
    assert dots == pytest.approx(sorted(row["dice"] for row in rows))
    assert [text.get_text() for text in ax.texts] == ["0.60"] * 3
    assert [label.get_text() for label in ax.get_yticklabels()] == list(CLASSES)
    # A modality keeps its colour in a class where another has no score.
    colours = {
        m: c.get_facecolor()[0].tolist() for m, c in zip("cm", ax.collections[::4], strict=False)
    }
    assert colours["c"] != colours["m"]


def test_an_svg_takes_its_colours_from_the_page_and_repeats_no_id() -> None:
    svgs = [to_svg(figure, title, salt=title) for title, figure in score_figures(scores()).items()]
    assert all("var(--ink)" in svg and "var(--c6)" in svg for svg in svgs)
    assert not any("#000000" in svg or "#ffffff" in svg or "url(http" in svg for svg in svgs)
    ids = [name for svg in svgs for name in re.findall(r' id="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    for svg in svgs:
        ElementTree.fromstring(svg)
    again = score_figures(scores())["Dice"]
    assert to_svg(again, "Dice", salt="Dice") == svgs[0]


def test_names_are_text_in_an_svg() -> None:
    name = "<b>$\\foo$</b> & $x"
    rows = [{**row, "class": name, "modality": name} for row in scores()[:3]]
    svg = to_svg(score_figures(rows)["Dice"], name)
    assert svg.count("&lt;b&gt;$\\foo$&lt;/b&gt; &amp; $x") == 3 and "<b>" not in svg
