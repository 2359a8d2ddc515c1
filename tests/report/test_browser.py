"""The page in a real browser. Needs Chromium and the extra `browser`; skipped where one lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossvox.report.page import render
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


def pictures(tab) -> list[str]:
    return tab.evaluate("[...document.querySelectorAll('canvas')].map((c) => c.toDataURL())")


def test_each_slider_changes_its_plane(tab):
    for k in range(3):
        before = pictures(tab)
        slider = tab.locator(".plane input").nth(k)
        slider.evaluate("(e) => { e.value = 1; e.dispatchEvent(new Event('input')); }")
        assert tab.locator(".plane output").nth(k).inner_text().startswith("2 /")
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
    assert tab.evaluate(read, 3) == [0x00, 0x72, 0xB2]  # missed
    assert tab.evaluate(read, 7) == [0xD5, 0x5E, 0x00]  # extra
    red, green, blue = tab.evaluate(read, 5)  # right: grey
    assert red == green == blue


def test_keys_move_and_toggle(tab):
    tab.locator("canvas").first.focus()
    for key in ("ArrowUp", "ArrowRight", "p", "t", "e", "u", "+", "-", "]", "["):
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


def test_an_unlabelled_scan_has_no_truth_to_show(tab):
    tab.locator("select").select_option("1")
    tab.wait_for_selector("input[name=truth]:disabled")
    assert "truth" not in tab.locator(".status").inner_text()


def test_columns_sort_by_number_with_missing_values_last(tab):
    cells = "[...document.querySelectorAll('tbody td:last-child')].map((c) => c.textContent)"
    head = tab.locator("th button").nth(1)
    head.click()
    assert tab.evaluate(cells) == ["9", "10", "–"]
    head.click()
    assert tab.evaluate(cells) == ["10", "9", "–"]
    assert tab.locator("th").nth(1).get_attribute("aria-sort") == "descending"


def test_nothing_is_wider_than_a_phone(tab):
    tab.set_viewport_size({"width": 360, "height": 700})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def test_dark_mode_is_dark_and_legible(tab):
    colours = (
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    light = tab.evaluate(colours)
    tab.emulate_media(color_scheme="dark")
    dark = tab.evaluate(colours)
    brightness = [[sum(map(int, c[4:-1].split(", "))) for c in pair] for pair in (light, dark)]
    assert brightness[0][0] - brightness[0][1] > 450 and brightness[1][1] - brightness[1][0] > 450
