"""What the viewer shows and how it moves, run by node; skipped where there is none."""

from __future__ import annotations

import re

import pytest

from crossvox.report.page import VIEWER_HELP
from crossvox.utils.palette import ERRORS
from fixtures.node import evaluate
from fixtures.paths import ROOT

# A scan of 10 × 20 × 40 voxels of 4 × 2 × 1 mm, 400 pixels wide: ten pixels are a millimetre.
SCAN = (
    "const scan = { shape: [10, 20, 40], spacing: [4, 2, 1] }, view = new View(scan, [5, 9, 20]);"
)
AXIAL, CORONAL = "[0, 1, 2]", "[0, 2, 1]"


def state(body: str):
    return evaluate(SCAN + body, "viewer_state.js")


def test_a_slice_fills_the_picture_and_lies_in_its_middle():
    found = state(f"return view.layout({AXIAL}, 400)")
    assert found == {"voxel": [40, 20], "corner": [0, 0], "size": [400, 400]}
    narrow = "return new View({ shape: [10, 10, 4], spacing: [1, 2, 1] }, [0, 0, 0])"
    assert state(f"{narrow}.layout({AXIAL}, 400)")["corner"] == [100, 0]


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [([0, 0], [0, 0, 20]), ([399, 201], [9, 10, 20]), ([-50, 999], [0, 19, 20])],
)
def test_the_crosshair_goes_where_one_points_and_stays_in_the_scan(pixel, expected):
    assert state(f"view.point({AXIAL}, 400, {pixel}); return view.at") == expected


def test_zooming_keeps_what_is_under_the_pointer():
    before, after, far = state(
        f"const here = () => view.under({AXIAL}, 400, [300, 250]), before = here();"
        f"view.zoomAt({AXIAL}, 400, 3, [300, 250]); const after = here();"
        f"view.zoomAt({AXIAL}, 400, 1e9, [300, 250]); return [before, after, view.zoom]"
    )
    assert after == pytest.approx(before) and far == 16


def test_zooming_out_ends_where_the_view_began():
    start, zoomed, end = state(
        f"const seen = () => [...view.focus, view.zoom], start = seen();"
        f"view.zoomAt({AXIAL}, 400, 5, [10, 10]); view.pan({AXIAL}, 400, [30, -7]);"
        "const zoomed = seen(); view.zoomBy(1 / 50); return [start, zoomed, seen()]"
    )
    assert zoomed != start == end


def test_pictures_stay_full_however_far_they_are_moved():
    for by in ([1e5, 1e5], [-1e5, -1e5]):
        found = state(
            f"view.zoomBy(2); view.pan({AXIAL}, 400, {by}); return view.layout({AXIAL}, 400)"
        )
        for corner, size in zip(found["corner"], found["size"], strict=True):
            assert corner <= 1e-9 and corner + size >= 400 - 1e-9


def test_zoomed_pictures_follow_the_crosshair_through_the_slices():
    seen = state(
        f"view.zoomBy(4); const seen = []; for (let k = 0; k < 60; k++) {{ view.step(2, 1);"
        f"const {{ voxel, corner }} = view.layout({CORONAL}, 400);"
        "seen.push(corner[1] + view.at[2] * voxel[1], corner[1] + (view.at[2] + 1) * voxel[1]); }"
        "return [seen, view.at[2], view.hasRoom(2, 1), view.hasRoom(2, -1)]"
    )
    assert min(seen[0]) >= -1e-9 and max(seen[0]) <= 400 + 1e-9
    assert seen[1:] == [39, False, True]


def test_two_fingers_zoom_and_move_what_is_between_them():
    before, after, zoom = state(
        f"view.zoomBy(2); const under = (p) => view.under({AXIAL}, 400, p);"
        "const before = under([200, 200]);"
        f"view.pinch({AXIAL}, 400, [[150, 200], [250, 200]], [[130, 210], [290, 210]]);"
        "return [before, under([210, 210]), view.zoom]"
    )
    assert after == pytest.approx(before) and zoom == pytest.approx(3.2)


def test_a_notch_of_the_wheel_is_a_slice_and_small_moves_add_up():
    steps = state(
        "const run = (events) => { const wheel = new Wheel();"
        "return events.map(([delta, mode]) => wheel.slices(delta, mode)); };"
        "return [run([[120, 0], [-120, 0], [3, 1], [-3, 1]]), run(Array(12).fill([10, 0])),"
        "run([[40, 0], [-40, 0], [-20, 0]])]"
    )
    assert steps[0] == [1, -1, 1, -1]
    assert steps[1] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]
    assert steps[2] == [0, 0, -1]


def test_buttons_and_keys_choose_what_a_drag_does():
    events = [
        "button: 0",
        "button: 0, shiftKey: true",
        "button: 0, ctrlKey: true",
        "button: 2",
        "button: 1",
    ]
    kinds = state(f"return [{', '.join(f'dragKind({{ {event} }})' for event in events)}]")
    assert kinds == ["crosshair", "pan", "greys", "greys", None]


def test_the_help_names_each_key_and_no_other():
    text = " ".join(row[-1] for row in VIEWER_HELP)
    named = set(re.findall(r"(?<!\S)(\S)(?!\S)", text))
    keys = set(state("return Object.keys(KEYS).concat(Object.keys(PANS))"))
    arrows = {"ArrowUp": "↑", "ArrowDown": "↓", "ArrowLeft": "←", "ArrowRight": "→"}
    have = {arrows.get(key, key.upper()) for key in keys} - {"=", "-"}  # other ways to type + and −
    assert named == have
    assert "Shift + arrows" in text


def test_the_page_about_reports_has_the_help_of_the_viewer():
    page = (ROOT / "docs" / "guides" / "report.md").read_text(encoding="utf-8")
    lines = page.replace("\\", "").splitlines()
    assert ["| " + " | ".join(row) + " |" for row in VIEWER_HELP] == [
        line for line in lines if len(line.split(" | ")) == 4 and line[2:4] != "to"
    ]


def test_keys_work_in_either_case_and_others_do_nothing():
    found = state(
        "return [keyAction('P', true), keyAction('ArrowUp', false), keyAction('ArrowUp', true),"
        "keyAction('x', false), keyAction('Tab', false), keyAction('F', true)]"
    )
    assert found[:3] == [["toggle", "prediction"], ["step", 0, -1], ["pan", [0, 1]]]
    assert found[3:] == [None, None, ["shift", "contrast", -5]]


def test_greys_are_those_stored_until_they_are_changed():
    same, brighter, harder = state(
        "return [[0, 0], [40, 0], [0, 50]].map(([b, c]) => [...greyTable(greyRange(b, c))])"
    )
    assert same == list(range(256))
    assert all(a >= b for a, b in zip(brighter, same, strict=True)) and brighter[100] > 100
    assert harder[:90] == [0] * 90 and harder[170:] == [255] * 86 and harder[128] in (128, 129, 130)


def test_greys_are_told_in_the_scan_s_own_unit():
    assert state("return inUnits(greyRange(0, 0), [-160, 240])") == ["−160", "240"]
    assert state("return inUnits(greyRange(0, 25), [0, 0.002])") == ["0.0005", "0.0015"]


def test_each_voxel_gets_the_colour_of_what_is_shown():
    colours = {kind: [int(c[k : k + 2], 16) for k in (1, 3, 5)] for kind, c in ERRORS.items()}
    # Voxels: right, missed, extra, wrong class, not annotated, background.
    found = state(
        "const bytes = Uint8Array.from([9, 9, 9, 9, 9, 9,  1, 0, 1, 2, 1, 0,  0, 0, 0, 0, 15, 15,"
        " 1, 1, 0, 1, 255, 0]);"
        "const one = new Scan({ shape: [6, 1, 1], labelled: true, levels: 15 }, bytes);"
        f"const colours = {{ classes: [[1, 1, 1], [2, 2, 2]], errors: {colours} }};"
        "const greys = greyTable([0, 255]);"
        "const run = (show) => { const p = paint(one, [0, 1, 2], 0, show, colours, greys);"
        "const voxel = (k) => [...p.over.slice(4 * k, 4 * k + 4)];"
        "return [[p.under[0], p.under[3]], ...[0, 1, 2, 3, 4, 5].map(voxel)]; };"
        "const both = { prediction: true, error: true };"
        "return [run({ ...both, opacity: 1 }), run({ uncertainty: true, opacity: 1 }),"
        "run({ opacity: 1 }), run({ ...both, opacity: 0.5 })]"
    )
    errors, unsure, nothing, faint = found
    clear = [0, 0, 0, 0]
    assert errors[0] == [9, 255] and errors[1] == [1, 1, 1, 255] == errors[5]
    assert [errors[k] for k in (2, 3, 4)] == [[*colours[kind], 255] for kind in ERRORS]
    assert errors[6] == clear and nothing[1:] == [clear] * 6
    assert [faint[k][3] for k in (1, 2, 5, 6)] == [128, 191, 128, 0]
    assert unsure[1] == clear and unsure[5][3] == unsure[6][3] == 255
