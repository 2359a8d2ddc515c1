from __future__ import annotations

import base64
import hashlib
import re

import pytest

from crossvox.report.page import Page, Section, render
from crossvox.utils.text_table import TextTable
from fixtures.page import HOSTILE, Elements, page


@pytest.fixture(scope="module")
def text() -> str:
    return render(page())


def test_names_are_escaped_wherever_they_stand(text):
    elements = Elements(text)
    assert "window.harmed" in text  # it is there, as text
    assert len(elements.scripts) == 1 and "harmed" not in elements.scripts[0]
    assert not [tag for tag, _ in elements.found if tag == "img"]
    assert not [a for _, attrs in elements.found for a in attrs if a.startswith("on")]
    assert "</script><script>window" not in text


def test_nothing_outside_the_file_is_asked_for(text):
    for tag, attributes in Elements(text).found:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            if value := attributes.get(name):
                assert value.startswith(("#", "data:")), (tag, value)
    style = re.search(r"<style>(.*?)</style>", text, re.S)
    assert style and "url(" not in style[1] and "@import" not in style[1]


def test_only_the_page_s_own_script_may_run(text):
    policy = next(a["content"] for t, a in Elements(text).found if "http-equiv" in a)
    script = Elements(text).scripts[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_warnings_come_before_everything_else():
    found = render(Page("t", [Section("first", [])], warnings=["holds images"]))
    assert found.index("holds images") < found.index('<section id="section-1"')


def test_a_table_shows_its_rows_in_order():
    found = render(Page("t", [Section("s", [TextTable("", ["a"], [["x1"], ["x2"], [HOSTILE]])])]))
    assert found.index("x1") < found.index("x2") < found.index("window.harmed")


def test_each_table_of_results_can_say_that_it_is_wider_than_the_page(text):
    assert text.count('class="note hint" hidden') == text.count('<table class="sortable">') == 1


def test_numbers_sort_by_value_and_names_by_text():
    rows = [["0.1.0", "0.81 ± 0.02"], ["4", "−0.020 [−0.1, +0.1]"], ["x 1", "–"]]
    found = render(Page("t", [Section("s", [TextTable("", ["a", "b"], rows)])]))
    assert re.findall(r'data-sort="([^"]*)"', found) == ["0.81", "4.0", "-0.02"]
