"""benchmarks/reliability: its sections, and the page that it writes from measurements."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml

from fixtures.paths import ROOT

FOLDER = ROOT / "benchmarks" / "reliability"

JUNIT = """\
<testsuites><testsuite>
  <testcase classname="tests.test_a" name="test_one">
    <properties><property name="kills survived" value="25"/></properties></testcase>
  <testcase classname="tests.test_a" name="test_wide">
    <properties><property name="kills survived" value="7"/>
      <property name="slowest" value="a disk"/></properties></testcase>
  <testcase classname="tests.test_a" name="test_bad"><failure message="no"/></testcase>
  <testcase classname="tests.test_a" name="test_worse"><error message="no"/></testcase>
  <testcase classname="tests.test_a" name="test_elsewhere"><skipped/></testcase>
</testsuite></testsuites>
"""


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("measure", "page", "mutation"):
        sys.modules.pop(name, None)


@pytest.fixture
def program(_scripts):
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("reliability", FOLDER / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(**fields) -> dict:
    given = {
        "date": "2026-01-02",
        "seconds": 240.0,
        "commit": "abc1234",
        "changed": False,
        "machine": "A processor, 2 cores, Linux",
        "python": "3.11.7",
        "versions": {"torch": "2.13.0"},
        "passed": 3,
        "failed": 0,
        "skipped": 1,
        "failures": [],
        "figures": {"kills survived": 25, "a | b": 0.25},
    }
    return given | fields


def sections() -> dict[str, dict[str, str]]:
    return {
        "kills": {"title": "Kill it", "promise": "Nothing is lost."},
        "memory": {"title": "Memory", "promise": "It fits."},
    }


def test_every_test_that_reports_a_figure_belongs_to_a_section(program) -> None:
    patterns = [p for s in program.load_sections().values() for p in s.get("tests", ())]
    placed = {path for pattern in patterns for path in ROOT.glob(pattern)}
    assert [pattern for pattern in patterns if not any(ROOT.glob(pattern))] == []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if path == Path(__file__):
            continue
        names = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if any(isinstance(node, ast.arg) and node.arg == "record_property" for node in names):
            assert path in placed, (
                f"{path.name} is in no section of benchmarks/reliability/sections.yaml"
            )


def test_the_page_has_the_words_of_today(program) -> None:
    """Title and promise of every section, whichever commit its figures were measured at."""
    from page import HEAD

    text = (ROOT / "docs" / "explanation" / "reliability.md").read_text(encoding="utf-8")
    assert text.startswith(HEAD)
    for section in program.load_sections().values():
        assert f"\n## {section['title']}\n\n{section['promise']}\n\n" in text


def test_every_equivalent_mutant_is_of_a_function_that_exists() -> None:
    keys = yaml.safe_load((FOLDER / "equivalent_mutants.yaml").read_text(encoding="utf-8"))
    for key in keys:
        module, mangled = key.split(": ")[0].rsplit(".x", 1)  # as mutmut mangles names
        value = importlib.import_module(module)
        for part in mangled.strip("ǁ").split("ǁ") if "ǁ" in mangled else [mangled[1:]]:
            assert hasattr(value, part), key
            value = getattr(value, part)


def test_figures_and_outcomes_are_read_from_what_pytest_writes(tmp_path) -> None:
    from measure import read_junit

    file = tmp_path / "junit.xml"
    file.write_text(JUNIT, encoding="utf-8")
    assert read_junit(file) == {
        "passed": 2,
        "failed": 2,
        "skipped": 1,
        "failures": ["tests.test_a.test_bad", "tests.test_a.test_worse"],
        "figures": {"kills survived": 25, "slowest": "a disk"},
    }


def test_a_section_runs_its_tests_slow_ones_too(tmp_path, monkeypatch) -> None:
    import measure

    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -m 'not slow'\nmarkers = slow\n")
    (tmp_path / "test_promise.py").write_text(
        "import pytest\n"
        "def test_quick(record_property): record_property('tries', 3)\n"
        "@pytest.mark.slow\n"
        "def test_slow(record_property): record_property('tries', 30)\n"
        "def test_broken(): assert False\n"
    )
    monkeypatch.setattr(measure, "ROOT", tmp_path)
    found = measure.tests(tmp_path, ["test_prom*.py"])
    assert found is not None
    assert (found["passed"], found["failed"], found["figures"]) == (2, 1, {"tries": 30})
    assert measure.tests(tmp_path, ["test_none*.py"]) is None


def test_branches_are_reported_apart_from_statements() -> None:
    from measure import read_coverage

    total = {
        "num_statements": 200,
        "covered_lines": 190,
        "num_branches": 80,
        "covered_branches": 60,
    }
    files = {f"{k}.py": {"summary": {"percent_covered": 90.0 + k}} for k in range(5)}
    figures = read_coverage({"totals": total, "files": files})
    assert figures["branches taken, %"] == 75.0 and figures["statements run, %"] == 95.0
    assert next(name for name in figures if "least" in name) == "least covered: 0.py, %"


def test_the_page_shows_figures_and_says_what_is_missing() -> None:
    from page import page

    text = page(sections(), {"kills": record(changed=True)})
    kills, memory = text.split("## ")[1:]
    assert "| kills survived | 25 |" in kills and "| a \\| b | 0.25 |" in kills
    assert "3 passed, 0 failed, 1 skipped; 2026-01-02, commit abc1234 with uncommitted" in kills
    assert "4 min on A processor" in kills and "torch 2.13.0" in kills
    assert "Not measured" not in kills and "*Not measured yet.*" in memory


def test_a_section_that_is_not_measured_keeps_its_figures(program) -> None:
    from page import page

    first = page(sections(), {"kills": record(), "memory": record(figures={"bytes": 7})})
    again = page(sections(), {"memory": record(figures={"bytes": 8})}, first)
    assert again == first.replace("| bytes | 7 |", "| bytes | 8 |")
    text = (ROOT / "docs" / "explanation" / "reliability.md").read_text(encoding="utf-8")
    assert page(program.load_sections(), {}, text) == text


def test_the_page_names_failed_tests_and_equivalent_mutants() -> None:
    from page import page

    failures = [f"tests.test_a.test_{k}" for k in range(12)]
    found = record(failures=failures, equivalent={"f: a → b": "same on every input"})
    text = page(sections(), {"kills": found})
    assert "**12 tests failed:** `tests.test_a.test_0`" in text and "and 2 more" in text
    assert "- `f: a → b`: same on every input" in text


def test_a_measurement_is_kept_until_asked_for_again(
    program, tmp_path, monkeypatch, capsys
) -> None:
    calls = []

    def tests(work, patterns):
        calls.append(patterns)
        return {"passed": 1, "failed": 0, "skipped": 0, "failures": [], "figures": {"n": 1}}

    monkeypatch.setattr(program.measure, "tests", tests)
    out, file = tmp_path / "out", tmp_path / "page.md"
    words = ["--out", str(out), "--page", str(file), "--only", "numbers"]
    program.main(words)
    program.main(words)
    assert len(calls) == 1 and "measured before" in capsys.readouterr().out
    program.main([*words, "--again"])
    assert len(calls) == 2
    assert json.loads((out / "numbers.json").read_text(encoding="utf-8"))["figures"] == {"n": 1}
    text = file.read_text(encoding="utf-8")
    assert (
        "| n | 1 |" in text
        and text.count("*Not measured yet.*") == len(program.load_sections()) - 1
    )


def test_an_interpreter_that_is_not_there_is_refused(program, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        program.main(["--out", str(tmp_path), "--environment", "oldest=/none/python"])
    assert "give NAME=PATH" in capsys.readouterr().err


def test_mutants_that_time_out_count_as_killed_and_equivalent_ones_not_at_all() -> None:
    from mutation import summary

    codes = {"a": 1, "b": 3, "c": -24, "d": 0, "e": 0, "f": 33, "g": None}
    changes = {"d": "f: 1 → 2", "e": "f: x → y", "f": "g: 3 → 4"}
    found = summary(codes, 90, changes.__getitem__, {"f: x → y": "rounding", "h: 1 → 2": "unused"})
    assert found["figures"] == {
        "mutants in all": 90,
        "mutants tested": 6,
        "killed": 3,
        "of them by running out of time": 1,
        "survived": 2,
        "equivalent, not counted": 1,
        "killed, %": 60.0,
    }
    assert found["survivors"] == {"d": "f: 1 → 2", "f": "g: 3 → 4"}
    assert found["equivalent"] == {"f: x → y": "rounding"}


def test_a_mutants_change_is_one_line_without_the_files_names() -> None:
    from mutation import change

    diff = (
        "# name: survived\n--- a.py\n+++ a.py\n@@ -1 +1 @@\n def f():\n-    return 1\n+    return 2"
    )
    assert change(diff) == "return 1 → return 2"


def test_specimens_are_counted_by_kind_and_stand_in_one_section(program) -> None:
    patterns = program.load_sections()["scans"]["tests"]
    counted = {path for pattern in patterns for path in ROOT.glob(pattern)}
    marked = {
        path
        for path in (ROOT / "tests").rglob("test_*.py")
        if "mark.specimen(" in path.read_text(encoding="utf-8") and path != Path(__file__)
    }
    assert marked and marked <= counted
