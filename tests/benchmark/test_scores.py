"""From cases to lines and tables: means, spreads, marks, and what is compared with what."""

from __future__ import annotations

import math
import statistics

import pytest

from crossvox.benchmark.pages.charts import score_charts
from crossvox.benchmark.pages.tables import (
    change_table,
    cost_table,
    labels_text,
    length_table,
    networks_text,
    overview_table,
    score_table,
    table_groups,
    variant_table,
    volume_ratio_table,
)
from crossvox.benchmark.results.files import CELL_COLUMNS, Results
from crossvox.benchmark.results.scores import CASE_COLUMNS, score_lines
from crossvox.utils.text_table import to_markdown


def case(row, seed, name, modality, organ, dice, variant="", **other):
    line = dict.fromkeys(CASE_COLUMNS, 0) | {
        "suite": "s", "data": "d", "labels": "2", "backbone": "unet",
        "variant": variant, "row": row, "method": row, "seed": seed, "case": name,
        "modality": modality, "class": organ, "dice": dice, "assd_mm": 10 * (1 - dice),
    }  # fmt: skip
    return line | other


def grid(variant=""):
    """Two rows, two seeds, two cases of two modalities and organs; dice by formula."""
    gain = {"sup": 0.0, "cmc": 0.1}
    return [
        case(row, s, f"p{i}", m, k, 0.5 + gain[row] + 0.02 * s + 0.1 * i + 0.05 * (k == "b"),
             variant)
        for row in gain for s in (0, 1) for i in (0, 1) for m in ("ct", "mr") for k in "ab"
    ]  # fmt: skip


def line_of(lines, **keys):
    (found,) = [x for x in lines if all(x[key] == value for key, value in keys.items())]
    return found


def test_means_are_over_cases_and_spreads_over_seeds():
    lines = score_lines(grid(), "cmc")
    organ = line_of(lines, row="sup", modality="ct", metric="dice", **{"class": "b"})
    seeds = [0.6, 0.62]
    assert organ["mean"] == pytest.approx(statistics.mean(seeds))
    assert organ["sd"] == pytest.approx(statistics.stdev(seeds)) and organ["seeds"] == 2
    total = line_of(lines, row="sup", modality="overall", metric="dice")
    assert total["class"] == "average" and total["mean"] == pytest.approx(0.585)


def test_averages_are_compared_with_the_reference_and_classes_are_not():
    lines = score_lines(grid(), "cmc")
    for modality in ("ct", "mr", "overall"):
        found = line_of(lines, row="sup", modality=modality, metric="dice", **{"class": "average"})
        assert found["difference"] == pytest.approx(-0.1) and found["cases"] == 2
        assert found["p"] == 0.5
    assert all(x["p"] is None for x in lines if x["row"] == "cmc" or x["class"] != "average")


def test_a_row_of_one_modality_has_no_mean_over_both():
    cases = grid() + [case("ct only", 0, "p0", "ct", k, 0.9) for k in "ab"]
    lines = [x for x in score_lines(cases, "cmc") if x["row"] == "ct only"]
    assert {x["modality"] for x in lines} == {"ct"}
    table = score_table(score_lines(cases, "cmc"), "dice", "cmc", "d")
    assert [row[1].text for row in table.cells if row[0].text == "overall"] == ["sup", "cmc"]


def test_a_fused_map_has_lines_of_its_own_and_is_in_no_mean_over_modalities():
    fused = [{**x, "modality": "fused", "dice": x["dice"] + 0.2} for x in grid()[::2]]
    own = [line for line in score_lines(grid(), "cmc") if line["modality"] == "overall"]
    lines = score_lines(grid() + fused, "cmc")
    assert [line for line in lines if line["modality"] == "overall"] == own
    total = line_of(lines, row="sup", modality="fused", metric="dice", **{"class": "average"})
    assert total["mean"] == pytest.approx(0.76) and total["difference"] == pytest.approx(-0.1)
    # A row that lacks the fused map still has a mean over its modalities.
    only_cmc = [x for x in fused if x["row"] == "cmc"]
    kept = [x for x in score_lines(grid() + only_cmc, "cmc") if x["modality"] == "overall"]
    assert kept == own


def test_tables_mark_the_best_two_of_each_block_by_the_metrics_direction():
    cases = grid() + [case("low", s, f"p{i}", m, k, 0.1) for s in (0, 1) for i in (0, 1)
                      for m in ("ct", "mr") for k in "ab"]  # fmt: skip
    lines = score_lines(cases, "cmc")
    for metric in ("dice", "assd_mm"):
        table = score_table(lines, metric, "cmc", "d")
        marks = {row[1].text: row[5].mark for row in table.cells if row[0].text == "ct"}
        assert marks == {"cmc": "best", "sup": "second", "low": ""}
    assert "mean of the 2" in table.head and "Δ to cmc [95 %]" in table.head


def test_a_bound_is_shown_and_is_no_rival():
    cases = grid() + [case("all", s, f"p{i}", m, k, 0.99) for s in (0, 1) for i in (0, 1)
                      for m in ("ct", "mr") for k in "ab"]  # fmt: skip
    lines = score_lines(cases, "cmc")
    table = score_table(lines, "dice", "cmc", "d", {"all"})
    ct = {row[1].text: row[5] for row in table.cells if row[0].text == "ct"}
    assert {row: cell.mark for row, cell in ct.items()} == {
        "cmc": "best", "sup": "second", "all": ""
    }  # fmt: skip
    assert ct["all"].text.startswith("0.990")
    tested = variant_table(lines, "dice", "d", {"all"})
    assert [row[2].mark for row in tested.cells[:3]] == ["second", "best", ""]
    whole = overview_table(lines, [], "labels: 2", {"all"})
    assert [row[3].mark for row in whole.cells] == ["second", "best", ""]
    assert not any(" " in cell.text for row in whole.cells for cell in row[3:])
    assert any("±" in cell.text for row in whole.cells for cell in row[3:])


def test_a_row_that_found_nothing_is_never_marked():
    dice = {"x": 0.5, "y": 0.0004, "z": 0.0}
    cases = [case(row, 0, "p0", "ct", "a", value) for row, value in dice.items()]
    table = score_table(score_lines(cases, "none"), "dice", "none", "d")
    marks = {row[1].text: row[4].mark for row in table.cells}
    assert marks == {"x": "best", "y": "", "z": ""}
    nothing = score_table(score_lines(cases[1:], "none"), "dice", "none", "d")
    assert {cell.mark for row in nothing.cells for cell in row} == {""}


def test_a_missed_organ_is_counted_and_does_not_make_the_mean_distance():
    """A row that misses an organ has no better distance for it, nor one as long as the image."""
    cases = [
        case("misses", 0, "p0", "ct", "a", 0.0, assd_mm=400.0, n_missed=1),
        case("misses", 0, "p1", "ct", "a", 0.9, assd_mm=1.0),
        case("invents", 0, "p0", "ct", "a", 0.0, assd_mm=400.0, n_false=1),
        case("finds", 0, "p0", "ct", "a", 0.8, assd_mm=2.0),
        case("finds", 0, "p1", "ct", "a", 0.8, assd_mm=4.0),
    ]
    lines = score_lines(cases, "finds")
    table = score_table(lines, "assd_mm", "finds", "d")
    shown = {row[1].text: row[3] for row in table.cells if row[0].text == "ct"}
    assert {row: cell.text for row, cell in shown.items()} == {
        "misses": "1.00 (1 missed)", "invents": "– (1 false)", "finds": "3.00"
    }  # fmt: skip
    assert {row: cell.mark for row, cell in shown.items()} == {
        "misses": "", "invents": "", "finds": "best"
    }  # fmt: skip
    change = line_of(lines, row="misses", modality="ct", metric="assd_mm", **{"class": "average"})
    assert change["difference"] == pytest.approx(1 - 4) and change["cases"] == 1


def test_a_caption_names_the_rows_on_other_backbones():
    lines = [{"row": r, "backbone": b} for r, b in (("x", "unet"), ("y", "own"), ("z", "vnet"))]
    assert networks_text([*lines, {"row": "w", "backbone": "unet"}]) == (
        "unet; y: own network; z: vnet"
    )


def test_equal_numbers_are_marked_alike_and_a_single_row_not_at_all():
    same = [case(row, 0, "p0", "ct", "a", 0.5) for row in ("x", "y")]
    table = score_table(score_lines(same, "none"), "dice", "none", "d")
    assert {row[4].mark for row in table.cells} == {"best"} and "p" not in table.head
    alone = score_table(score_lines(same[:1], "none"), "dice", "none", "d")
    assert {cell.mark for row in alone.cells for cell in row} == {""}


def test_a_score_that_does_not_exist_is_a_dash():
    cases = [case("x", 0, "p0", "ct", "a", math.nan, n_both_empty=1),
             case("x", 0, "p0", "ct", "b", 0.5)]  # fmt: skip
    text = to_markdown(score_table(score_lines(cases, "x"), "dice", "x", "d"))
    assert "| ct | x | 1 | – | 0.500 | 0.500 | 0 | 0 |" in text


def test_variants_stand_side_by_side():
    cases = grid() + grid("shift=10") + [
        case(row, s, "p0", "ct", k, 0.3, "given=ct") for row in ("sup", "cmc") for s in (0, 1)
        for k in "ab"
    ]  # fmt: skip
    table = variant_table(score_lines(cases, "cmc"), "dice", "d")
    assert table.head == ["modality", "row", "as it is", "shift 10 mm", "ct only"]
    cells = {(row[0].text, row[1].text): [c.text for c in row[2:]] for row in table.cells}
    assert cells["ct", "sup"] == ["0.585 ± 0.014", "0.585 ± 0.014", "0.300 ± 0.000"]
    assert cells["mr", "sup"][2] == "" and cells["overall", "sup"][2] == ""


def test_a_change_that_rounds_to_nothing_has_no_minus():
    moved = [x | {"dice": x["dice"] - 1e-5} for x in grid("shift=10")]
    table = change_table(grid() + moved, "dice", "d")
    assert {row[3].text for row in table.cells} == {"+0.000 [+0.000, +0.000]"}


def test_an_overview_has_a_column_per_data_set_and_modality():
    other = [case(row, 0, "q", "lge", "a", dice, data="heart")
             for row, dice in (("sup", 0.2), ("cmc", 0.7))]  # fmt: skip
    runs = [{"row": row, "parameters": n, "state": state, "cpu_seconds": cost}
            for row, n, state, cost in (("sup", "690000", "failed", "60"),
            ("cmc", "840000", "done", "60"), ("cmc", "860000", "done", "120"))]  # fmt: skip
    lines = score_lines(grid() + grid("shift=10") + other, "cmc")
    table = overview_table(lines, runs, "labels: 2")
    assert table.head == [
        "row",
        "parameters, M",
        "CPU, min",
        "d: ct",
        "d: mr",
        "d: mean",
        "heart: lge",
        "heart: mean",
    ]
    assert [[cell.text for cell in row] for row in table.cells] == [
        ["sup", "0.69", "–", *["0.585±0.014"] * 3, "0.200", "0.200"],
        ["cmc", "0.84–0.86", "1.5", *["0.685±0.014"] * 3, "0.700", "0.700"],
    ]
    assert [cell.mark for cell in table.cells[1]] == ["", "", "", *["best"] * 5]


def test_rows_are_told_in_per_cent_of_a_bound():
    lines = [x | {"data": d, "steps": "", "dice": 0.5 if x["row"] == "sup" else 0.8}
             for d in ("brain", "heart") for x in grid()]  # fmt: skip
    lines = [x for x in lines if (x["data"], x["row"], x["modality"]) != ("heart", "sup", "mr")]
    runs = [{"data": d, "labels": "2", "steps": "", "row": row, "parameters": "1"}
            for d in ("brain", "heart") for row in ("sup", "cmc")]  # fmt: skip
    about = {"rows": {"cmc": {"labelled": "all"}}, "reference": "sup"}
    cells = [dict.fromkeys(CELL_COLUMNS, "1") | run | {"state": "done"} for run in runs]
    group, *_ = table_groups(Results(about, score_lines(lines, "sup"), cells, lines))
    scores, shares = group.tables
    assert shares.caption == "Dice in % of that of cmc: labels: 2, unet"
    assert shares.head == ["row", *scores.head[3:]]
    (sup,) = [[cell.text for cell in row] for row in shares.cells]
    assert dict(zip(shares.head[1:], sup[1:], strict=True)) == {
        "brain: ct": "62", "brain: mr": "62", "brain: mean": "62",
        "heart: ct": "62", "heart: mr": "–", "heart: mean": "–",
    }  # fmt: skip


def test_data_sets_stand_side_by_side_for_each_number_of_steps_and_rule_for_label_maps():
    rules = ("", "largest=always", "shift=10")
    lines = [
        x | {"data": d, "steps": n, "dice": x["dice"] + 0.05 * (n == "8") + 0.02 * (rule != "")}
        for d in ("brain", "heart") for n in ("4", "8") for rule in rules for x in grid(rule)
    ]  # fmt: skip
    cell = dict.fromkeys(CELL_COLUMNS, "1") | {"state": "done", "labels": "2"}
    cells = [cell | {"data": d, "steps": n, "row": row, "parameters": 10**6 * int(n)}
             for d in ("brain", "heart") for n in ("4", "8") for row in ("sup", "cmc")]  # fmt: skip
    about = {"rows": {}, "reference": "cmc"}
    groups = list(table_groups(Results(about, score_lines(lines, "cmc"), cells, lines)))
    assert groups[0].heading == "Overview"
    shown = {
        table.caption.split(": ", 1)[1]: [cell.text for cell in table.cells[0]]
        for table in groups[0].tables
    }
    rule = "; most probable class, one component per one-piece class"
    assert {place: [row[1], row[3]] for place, row in shown.items()} == {
        "labels: 2, 4 steps, unet": ["4.00", "0.585±0.014"],
        f"labels: 2, 4 steps, unet{rule}": ["4.00", "0.605±0.014"],
        "labels: 2, 8 steps, unet": ["8.00", "0.635±0.014"],
        f"labels: 2, 8 steps, unet{rule}": ["8.00", "0.655±0.014"],
    }
    assert all(len(row) == 9 for row in shown.values())


def test_a_test_is_compared_with_the_same_runs_plain_test():
    moved = [x | {"dice": x["dice"] - 0.02 * (x["modality"] == "mr")} for x in grid("shift=10")]
    alone = [x for x in grid("given=ct") if x["modality"] == "ct"]
    table = change_table(grid() + moved + alone, "dice", "d")
    texts = [[cell.text for cell in row[:4]] for row in table.cells]
    changes = {"ct": "+0.000 [+0.000, +0.000]", "mr": "−0.020 [−0.020, −0.020]",
               "overall": "−0.010 [−0.010, −0.010]"}  # fmt: skip
    assert texts == [
        *(
            ["shift 10 mm", m, row, change]
            for m, change in changes.items()
            for row in ("sup", "cmc")
        ),
        *(["ct only", "ct", row, changes["ct"]] for row in ("sup", "cmc")),
    ]
    assert table.breaks == {0, 2, 4, 6}


def test_volumes_are_medians_of_scans_that_show_the_class():
    def volume(modality, organ, truth, predicted):
        return case("x", 0, "p", modality, organ, 0.5,
                    volume_truth_ml=truth, volume_prediction_ml=predicted)  # fmt: skip

    cases = [volume("ct", "a", 10, 5), volume("ct", "a", 10, 20), volume("ct", "a", 10, 30),
             volume("ct", "a", 0, 7), volume("ct", "b", 0, 0), volume("mr", "b", 4, 1)]  # fmt: skip
    table = volume_ratio_table(cases, "d")
    assert table.head == ["modality", "row", "a", "b"]
    texts = [[cell.text for cell in row] for row in table.cells]
    assert texts == [["ct", "x", "2.00", ""], ["mr", "x", "", "0.25"]]
    assert table.breaks == {0, 1}


def test_costs_are_means_over_finished_cells():
    def cell(seed, state, seconds):
        return {"row": "x", "backbone": "unet", "state": state, "uses_unlabelled": "no",
                "pretrained_on": "", "adaptation": "", "parameters": "1500000",
                "train_seconds": seconds, "cpu_seconds": seconds, "peak_mb": "700",
                "seed": seed}  # fmt: skip

    table = cost_table([cell(0, "done", "60"), cell(1, "done", "120"), cell(2, "failed", "")], "c")
    (row,) = table.cells
    assert [c.text for c in row] == [
        "x", "unet", "no", "nothing", "none", "1.50", "1.5", "1.5", "700", "2 of 3"
    ]  # fmt: skip


def test_a_chart_has_no_panel_with_a_single_place():
    """Such as the mean over modalities, where each test gives one modality."""
    cases = grid() + [x for m in ("ct", "mr") for x in grid(f"given={m}") if x["modality"] == m]
    results = Results({}, score_lines(cases, "cmc"), [{"data": "d"}], cases)
    charts = score_charts(results)
    assert [chart.file for chart in charts] == ["d-dice-given.png", "d-assd-given.png"]
    assert list(charts[0].panels) == ["ct", "mr"]
    assert [x for x, _, _ in charts[0].panels["mr"]["sup"]] == ["all", "mr"]
    assert len(charts[0].figure(columns=1).axes) == 2


def test_steps_are_an_axis_and_a_table_says_what_the_last_increase_brought():
    lines = [x | {"steps": n} for n in ("400", "1600") for x in grid()]
    gain = {"cmc": 0.05, "sup": 0.009}
    lines = [x | {"dice": x["dice"] + gain[x["row"]] * (x["steps"] == "1600")} for x in lines]
    lines += [x | {"steps": "400", "row": "short"} for x in grid() if x["row"] == "sup"]
    scores = score_lines(lines, "cmc")
    results = Results({}, scores, [{"data": "d"}], lines)
    (dice, _) = score_charts(results)
    assert dice.file == "d-dice-steps.png" and dice.figure().axes[0].get_xscale() == "log"
    assert [x for x, _, _ in dice.panels["ct"]["sup"]] == [400, 1600]
    table = length_table(lines, "x")
    assert table.head == ["modality", "row", "400 steps", "1600 steps", "last gain"]
    gains = {row[1]: row[-1] for row in table.rows if row[0] == "ct"}
    assert gains == {"sup": "+0.009, converged", "cmc": "+0.050", "short": ""}
    worse = [x | {"dice": 0.1} if x["steps"] == "1600" else x for x in lines]
    assert "converged" not in {row[-1][8:] for row in length_table(worse, "x").rows}
    early = [x | {"steps": "500"} if x["steps"] == "1600" else x for x in lines]
    assert "converged" not in {row[-1][8:] for row in length_table(early, "x").rows}


def test_rows_keep_the_suites_order_when_some_lack_a_length():
    lines = [x | {"steps": n} for n in ("400", "1600") for x in grid()]
    lines = [x for x in lines if (x["row"], x["steps"]) != ("sup", "400")]
    lines += [x | {"row": "first", "steps": "400"} for x in grid() if x["row"] == "sup"]
    about = {"rows": {"first": {}, "sup": {}, "cmc": {}}, "reference": "cmc"}
    run = dict.fromkeys(CELL_COLUMNS, "1") | {"data": "d", "labels": "2"}
    runs = [run | {"steps": n} for n in ("400", "1600")]
    groups = table_groups(Results(about, score_lines(lines, "cmc"), runs, lines))
    (lengths,) = next(group.tables for group in groups if "training steps" in group.heading)
    assert [row[1] for row in lengths.rows] == ["first", "sup", "cmc"] * 3


def test_a_gain_is_of_the_seeds_and_the_lengths_that_a_row_has():
    lines = [x | {"steps": n} for n in ("400", "1600") for x in grid()]
    # One seed of one row goes on; the mean of both seeds at 1600 would tell another gain.
    lines += [
        x | {"steps": "6400", "dice": x["dice"] + 0.03}
        for x in grid()
        if x["row"] == "cmc" and x["seed"] == 0
    ]
    lines += [x | {"steps": n, "row": "gap"} for n in ("400", "6400") for x in grid()]
    gains = {row[1]: row[-1] for row in length_table(lines, "x").rows if row[0] == "mr"}
    assert gains == {
        "cmc": "+0.030",
        "sup": "+0.000, converged (400 → 1600)",
        "gap": "+0.000, converged (400 → 6400)",
    }


def test_a_condition_that_was_tested_in_one_way_has_no_chart_of_others():
    lines = [x | {"steps": n} for n in ("4", "8") for x in grid()]
    lines += [x | {"steps": "8"} for x in grid("largest=always")]
    charts = score_charts(Results({}, score_lines(lines, "cmc"), [{"data": "d"}], lines))
    assert [chart.file for chart in charts if chart.metric == "dice"] == [
        "d-dice-steps.png", "d-dice-largest-steps-8.png"
    ]  # fmt: skip


def test_a_chart_has_one_value_of_each_condition_but_its_own():
    lines = [x | {"steps": n, "labels": k} for n in ("4", "8") for k in "24" for x in grid()]
    results = Results({}, score_lines(lines, "cmc"), [{"data": "d"}], lines)
    charts = {chart.file: chart for chart in score_charts(results) if chart.metric == "dice"}
    assert list(charts) == [
        "d-dice-labels-steps-4.png", "d-dice-labels-steps-8.png",
        "d-dice-steps-labels-2.png", "d-dice-steps-labels-4.png",
    ]  # fmt: skip
    for chart in charts.values():
        assert all(len(points) == 2 for panel in chart.panels.values() for points in panel.values())


def test_costs_are_told_for_each_number_of_steps():
    facts = {"data": "d", "labels": "2", "state": "done", "row": "sup"}
    cell = dict.fromkeys(CELL_COLUMNS, "1") | facts
    cells = [cell | {"steps": n, "log": n, "train_seconds": 60 * int(n)} for n in ("4", "8")]
    lines = [x | {"steps": n} for n in ("4", "8") for x in grid()]
    about = {"rows": {}, "reference": "cmc"}
    groups = list(table_groups(Results(about, score_lines(lines, "cmc"), cells, lines)))
    tables = groups[-1].tables
    assert [t.caption.split(";")[0] for t in tables] == ["Costs: d, 4 steps", "Costs: d, 8 steps"]
    assert ["4.0" in [getattr(c, "text", c) for c in t.rows[0]] for t in tables] == [True, False]


def test_a_share_of_the_scans_is_shown_in_per_cent() -> None:
    assert [labels_text(n) for n in ("2", "all", "0.1", ".075", "ct=0.1,mr=2")] == [
        "labels: 2", "all labels", "labels: 10 %", "labels: 7.5 %", "labels: ct=0.1,mr=2"
    ]  # fmt: skip
