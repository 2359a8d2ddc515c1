"""Names in a manifest that mean harm: no page, table or terminal that they reach takes them up."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from crossvox.cli.main import main
from crossvox.data.manifest import Manifest
from fixtures.benchmark import InProcess, write_suite
from fixtures.browser import chromium
from fixtures.page import HOSTILE, Elements
from fixtures.run import trained

CASE = "a & b' onload='window.harmed=3' [b]($1)"
CLASS = f"[/b] {HOSTILE}"
NAMED = {
    "name": f"[/i] {HOSTILE}",
    "source": HOSTILE,
    "modalities": {"ct": {"kind": "ct"}, "mr": {"kind": "mr"}},
    "labels": {CLASS: 3, "=cmd|' /C calc'!A1": 9},
}


@pytest.fixture(scope="module")
def data(paired_files: Manifest, tmp_path_factory) -> Path:
    """The data set with names of the worst kind."""
    folder = tmp_path_factory.mktemp("hostile") / "data"
    shutil.copytree(paired_files.path.parent, folder)
    content = json.loads((folder / "dataset.json").read_text()) | NAMED
    next(case for case in content["cases"] if case["split"] == "val")["id"] = CASE
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder / "dataset.json"


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    return trained(data, data.parent.parent / "run", "--method", "sup")


@pytest.fixture(scope="module")
def page(data: Path, run: Path) -> Path:
    """The report of a run with scores and scans."""
    out = run.parent / "report.html"
    assert main(["report", str(run), "--data", str(data), "--show", "1", "--out", str(out)]) == 0
    return out


def harmless(text: str) -> None:
    """A page in which a browser finds one script, the page's own, and no name as anything else."""
    found = Elements(text)
    assert len(found.scripts) == 1 and "window.harmed" not in found.scripts[0]
    assert not [tag for tag, _ in found.found if tag in ("img", "iframe", "object", "embed")]
    assert not [a for _, attributes in found.found for a in attributes if a.startswith("on")]


def test_a_report_shows_them_as_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("window.harmed") > 5  # they are there, as text
    harmless(text)


def test_a_browser_runs_none_of_them(page: Path) -> None:
    with chromium() as browser:
        tab = browser.new_page()
        requests: list[str] = []
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(page.as_uri())
        tab.wait_for_selector(".status:has-text('crosshair')")
        assert tab.evaluate("window.harmed") is None and requests == [page.as_uri()]


class Tags(HTMLParser):
    """The elements of a Markdown file that a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)


def test_a_benchmark_shows_them_as_text(data: Path, tmp_path: Path, monkeypatch) -> None:
    from crossvox.benchmark.cells.runner import Launcher

    launch = InProcess()
    monkeypatch.setattr(Launcher, "__call__", lambda self, *given: launch(*given))
    suite = write_suite(tmp_path / "s.yaml", methods=["sup"], title=HOSTILE)
    out = tmp_path / "out"
    words = ["benchmark", str(suite), "--data", f"tiny={data}", "--out", str(out)]
    assert main([*words, "--page", str(tmp_path / "page.md")]) == 0
    for file in (out / "tables.md", tmp_path / "page.md", tmp_path / "page" / "s.md"):
        assert Tags(file.read_text(encoding="utf-8")).found <= {"u"}, file
    assert main(["report", str(out), "--out", str(tmp_path / "b.html")]) == 0
    harmless((tmp_path / "b.html").read_text(encoding="utf-8"))


def test_no_command_trips_over_them(data: Path, run: Path, tmp_path: Path) -> None:
    for words in (
        ["check", data],
        ["split", data, "--out", data.parent / "other.json", "--val", "1"],
        ["evaluate", run, "--data", data, "--split", "val", "--out", tmp_path / "scores"],
        ["predict", run, "--data", data, "--split", "val", "--out", tmp_path / "labels"],
        ["rank-cases", run, "--data", data, "--out", tmp_path / "next.csv"],
        ["export", run, "--bundle", tmp_path / "bundle"],
    ):
        assert main([str(word) for word in words]) == 0, words

    readme = (tmp_path / "bundle" / "docs" / "README.md").read_text(encoding="utf-8")
    assert not Tags(readme).found
