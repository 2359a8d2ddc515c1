"""The page in a real browser. Needs Chromium and the extra `browser`; skipped where one lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossvox.report.page import render
from crossvox.utils.palette import ERRORS
from fixtures.browser import chromium
from fixtures.page import page


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "report ü.html"
    path.write_text(render(page()), encoding="utf-8")
    return path


@pytest.fixture
def tab(browser, file):
    """The page, opened; fails at the end if it complained or asked for anything but itself."""
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    complaints, requests = [], []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(file.as_uri())
    opened.wait_for_selector(".status:has-text('crosshair')")
    yield opened
    assert complaints == [] and requests == [file.as_uri()]
    assert opened.evaluate("window.harmed") is None
    opened.close()


def colour(kind: str) -> list[int]:
    return [int(ERRORS[kind][k : k + 2], 16) for k in (1, 3, 5)]


def pictures(tab) -> list[str]:
    return tab.evaluate("[...document.querySelectorAll('canvas')].map((c) => c.toDataURL())")


def test_each_slider_changes_its_plane(tab):
    for k in range(3):
        before = pictures(tab)
        slider = tab.locator(".plane input").nth(k)
        slider.evaluate("(e) => { e.value = 1; e.dispatchEvent(new Event('input')); }")
        assert tab.locator(".plane .position").nth(k).inner_text().startswith("2 /")
        assert pictures(tab)[k] != before[k]


@pytest.mark.parametrize("name", ["prediction", "truth", "error", "uncertainty"])
def test_each_toggle_changes_the_picture_and_back(tab, name):
    before = pictures(tab)
    tab.locator(f"input[name={name}]").click()
    # In the sagittal plane prediction and truth agree.
    planes = 2 if name == "error" else 3
    assert all(a != b for a, b in zip(pictures(tab)[:planes], before, strict=False))
    tab.locator(f"input[name={name}]").click()
    assert pictures(tab) == before


def test_opacity_fades_the_overlay(tab):
    before = pictures(tab)
    for value in ("0", "100"):
        set_value = "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }"
        tab.locator("input[name=opacity]").evaluate(set_value, value)
        assert pictures(tab) != before
        before = pictures(tab)


def test_the_error_is_drawn_where_prediction_and_truth_differ(tab):
    read = """(x) => {
      const canvas = document.querySelector("canvas"), side = canvas.width;
      const at = (n, total) => Math.floor(((n + 0.25) / total) * side);
      const margin = side * (1 - 20 / 24) / 2;
      const y = Math.floor(margin + (6.25 / 10) * (side * 20 / 24));
      const one = document.createElement("canvas").getContext("2d");
      one.drawImage(canvas, -at(x, 12), -y);
      return [...one.getImageData(0, 0, 1, 1).data].slice(0, 3);
    }"""
    tab.locator("input[name=truth]").click()
    tab.locator("input[name=prediction]").click()
    tab.locator("input[name=error]").click()
    tab.locator("input[name=opacity]").evaluate(
        "(e) => { e.value = 100; e.dispatchEvent(new Event('input')); }"
    )
    assert tab.evaluate(read, 3) == colour("missed")
    assert tab.evaluate(read, 7) == colour("extra")
    red, green, blue = tab.evaluate(read, 5)  # right: grey
    assert red == green == blue


def test_keys_move_and_toggle(tab):
    tab.locator("canvas").first.focus()
    keys = ["ArrowUp", "ArrowRight", *"pteu.,+-bdcf", "+", "Shift+ArrowLeft", "r", "]", "["]
    for key in keys:
        before = pictures(tab), tab.locator("select").input_value()
        tab.keyboard.press(key)
        tab.wait_for_timeout(60)
        assert (pictures(tab), tab.locator("select").input_value()) != before, key
    tab.keyboard.press("3")
    assert tab.evaluate("document.activeElement.dataset.name") == "sagittal"


def test_a_click_moves_the_crosshair(tab):
    before = pictures(tab)
    tab.locator("canvas").first.click(position={"x": 300, "y": 100})
    assert pictures(tab)[1] != before[1] and pictures(tab)[2] != before[2]


def axial_box(tab) -> dict:
    tab.locator("canvas").first.scroll_into_view_if_needed()
    return tab.locator("canvas").first.bounding_box()


def slices(tab) -> list[str]:
    return tab.locator(".plane .position").all_inner_texts()


def test_dragging_moves_the_crosshair_until_the_button_is_let_go(tab):
    box = axial_box(tab)
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(*middle)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 1, middle[1])
    assert slices(tab)[2] == "1 / 12"
    tab.mouse.up()
    tab.mouse.move(*middle)
    assert slices(tab)[2] == "1 / 12"


def test_the_wheel_steps_slices_and_scrolls_the_page_at_the_last(tab):
    tab.set_viewport_size({"width": 1200, "height": 500})
    tab.locator("canvas").first.scroll_into_view_if_needed()
    tab.locator("canvas").first.hover()
    at, top = slices(tab)[0], tab.evaluate("scrollY")
    tab.mouse.wheel(0, -100)
    tab.wait_for_function("(at) => document.querySelector('.position').textContent !== at", arg=at)
    assert tab.evaluate("scrollY") == top
    for _ in range(9):
        tab.mouse.wheel(0, -100)
    tab.wait_for_function("document.querySelector('.plane .position').textContent === '1 / 8'")
    tab.mouse.wheel(0, -100)
    tab.wait_for_function("(top) => scrollY < top", arg=top)


@pytest.mark.parametrize(
    ("button", "key"), [("left", "Shift"), ("right", None), ("left", "Control")]
)
def test_dragging_with_a_key_or_the_right_button_changes_the_view_alone(tab, button, key):
    tab.locator("button[value='+']").click()
    before, at = pictures(tab), slices(tab)
    box = axial_box(tab)
    if key:
        tab.keyboard.down(key)
    tab.mouse.move(box["x"] + 100, box["y"] + 100)
    tab.mouse.down(button=button)
    tab.mouse.move(box["x"] + 140, box["y"] + 60)
    tab.mouse.up(button=button)
    if key:
        tab.keyboard.up(key)
    assert pictures(tab) != before and slices(tab) == at
    greys = tab.locator(".greys").inner_text()
    assert (greys == "black 0, white 255") == (key == "Shift")
    tab.locator("button[value=r]").click()
    assert tab.locator(".greys").inner_text() == "black 0, white 255"


def test_a_finger_moves_the_crosshair_after_a_tap_and_two_fingers_zoom(tab):
    """Touch events, made by hand: Playwright has only taps."""
    fire = """([type, x, y, id]) => {
      const canvas = document.querySelector("canvas"), box = canvas.getBoundingClientRect();
      canvas.setPointerCapture = () => {};
      canvas.dispatchEvent(new PointerEvent(type, {
        pointerType: "touch", pointerId: id, bubbles: true,
        clientX: box.left + x * box.width, clientY: box.top + y * box.height,
      }));
    }"""
    at = slices(tab)
    for kind, x in [("pointerdown", 0.5), ("pointermove", 0.05), ("pointercancel", 0.05)]:
        tab.evaluate(fire, [kind, x, 0.5, 1])
    assert slices(tab) == at
    for kind in ("pointerdown", "pointerup", "click"):
        tab.evaluate(fire, [kind, 0.05, 0.5, 1])
    assert slices(tab)[2] == "1 / 12"
    for kind, x in [("pointerdown", 0.5), ("pointermove", 0.99), ("pointerup", 0.99)]:
        tab.evaluate(fire, [kind, x, 0.5, 1])
    assert slices(tab)[2] == "12 / 12"
    before = pictures(tab)
    for kind, x, finger in [("pointerdown", 0.4, 1), ("pointerdown", 0.6, 2),
                            ("pointermove", 0.1, 1), ("pointermove", 0.9, 2)]:  # fmt: skip
        tab.evaluate(fire, [kind, x, 0.5, finger])
    assert pictures(tab) != before and slices(tab)[2] == "12 / 12"


def test_the_help_opens_and_closes_by_key(tab):
    tab.locator("canvas").first.focus()
    for is_open in (True, False):
        tab.keyboard.press("?")
        assert tab.locator(".viewer details").evaluate("(e) => e.open") is is_open


def test_everything_can_be_reached_and_has_a_name(tab):
    unnamed = """[...document.querySelectorAll("button, select, input, canvas, [role=region]")]
      .filter((e) => !(e.ariaLabel || e.labels?.[0]?.textContent.trim() || e.textContent.trim())
                     || e.tabIndex < 0).map((e) => e.outerHTML)"""
    assert tab.evaluate(unnamed) == []


def test_an_unlabelled_scan_has_no_truth_to_show(tab):
    tab.locator("select").select_option("1")
    tab.wait_for_selector("input[name=truth]:disabled")
    assert "truth" not in tab.locator(".status").inner_text()


def test_columns_sort_by_number_with_missing_values_last(tab):
    cells = "[...document.querySelectorAll('.sortable td:last-child')].map((c) => c.textContent)"
    head = tab.locator("th button").nth(1)
    head.click()
    assert tab.evaluate(cells) == ["9", "10", "–"]
    head.click()
    assert tab.evaluate(cells) == ["10", "9", "–"]
    assert tab.locator("th").nth(1).get_attribute("aria-sort") == "descending"


def test_nothing_is_wider_than_a_phone(tab):
    hint = tab.locator(".hint").first
    assert hint.is_hidden()
    tab.set_viewport_size({"width": 360, "height": 700})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    tab.evaluate("document.querySelector('tbody td:last-child').textContent = 'x'.repeat(300)")
    tab.set_viewport_size({"width": 361, "height": 700})
    hint.wait_for(state="visible")


def test_a_printed_page_holds_tables_and_pictures_and_no_controls(tab):
    tab.emulate_media(media="print")
    assert tab.locator("canvas").first.is_visible() and tab.locator("table").first.is_visible()
    for name in (".controls", "nav", ".viewer details", ".plane input"):
        assert tab.locator(name).first.is_hidden()


def test_dark_mode_is_dark_and_legible(tab):
    colours = (
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    light = tab.evaluate(colours)
    tab.emulate_media(color_scheme="dark")
    dark = tab.evaluate(colours)
    brightness = [[sum(map(int, c[4:-1].split(", "))) for c in pair] for pair in (light, dark)]
    assert brightness[0][0] - brightness[0][1] > 450 and brightness[1][1] - brightness[1][0] > 450
