"""Commands, options, Python blocks, links and pages of the documents exist."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shutil
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

import crossvox
from crossvox.cli.main import COMMANDS, main
from fixtures.docs import PAGES, ROOT, blocks, command_lines, links, name, spoken_commands

SUBCOMMANDS = ("convert", "weights", "profile")
CHOSEN = ("--method", "--backbone", "--preset")
"""Options whose value decides which other options there are."""

WRITTEN_BY_THE_SITE = {"reference/commands.md", "reference/api.md"}


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def options_of(hooks, words: tuple[str, ...]) -> frozenset[str]:
    return frozenset(re.findall(r"(?<!\S)-?-[a-zA-Z][\w.-]*", hooks.help_of(*words)))


def asked(words: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the words to ask for --help, and the options that it must list."""
    command = words[: 2 if words[0] in SUBCOMMANDS and len(words) > 1 else 1]
    for option, value in pairwise(words):
        if option in CHOSEN and value.islower() and value != "entropy":  # of CONTRIBUTING.md
            command += [option, value]
    return tuple(command), [w.split("=")[0] for w in words if w.startswith("--")]


def lines(page) -> list[list[str]]:
    shell = [words for b in blocks(page) if not b.language for words in command_lines(b.text)]
    return [words for words in shell + spoken_commands(page) if words[0] != "COMMAND"]


@pytest.mark.parametrize("page", [p for p in PAGES if lines(p)], ids=name)
def test_every_command_and_its_options_exist(page, hooks) -> None:
    for words in lines(page):
        if words[0].startswith("-"):
            assert words[0] in ("--help", "--version")
            continue
        assert words[0] in COMMANDS, words
        command, options = asked(words)
        for option in options:
            if not re.fullmatch(r"--(weights|misalign)\.\w+", option):
                listed = options_of(hooks, command) | {"--help"}
                # A run's settings may be spelled with dashes as well.
                spellings = {option, "--" + option[2:].replace("-", "_")}
                assert spellings & listed, (words, option)


def test_an_option_that_does_not_exist_is_found(hooks) -> None:
    command, options = asked(["convert", "amos", "SRC", "--out", "x", "--lables=liver"])
    assert set(options) - options_of(hooks, command) == {"--lables"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_compiles_and_imports_resolve(page) -> None:
    for block in blocks(page):
        if block.language == "python":
            for node in ast.walk(ast.parse(block.text)):
                _resolve(node)
        elif block.language == "yaml":
            yaml.safe_load(block.text)


def _resolve(node: ast.AST) -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            importlib.import_module(alias.name)
    elif isinstance(node, ast.ImportFrom):
        module = importlib.import_module(node.module or "")
        for alias in node.names:
            assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
    elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "crossvox":
        assert hasattr(crossvox, node.attr) or importlib.util.find_spec(f"crossvox.{node.attr}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file(page) -> None:
    for link in links(page):
        target = link.split("#")[0]
        assert target in WRITTEN_BY_THE_SITE or (page.parent / target).exists(), link


def test_every_page_has_a_place_in_the_navigation(hooks) -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = sorted(p.relative_to(ROOT / "docs").as_posix() for p in PAGES if "docs" in name(p))
    placed = re.findall(r"[\w+/.-]+\.md", str(hooks.expand(nav, pages)))
    assert sorted(placed) == sorted([*pages, *WRITTEN_BY_THE_SITE])


def test_the_reference_names_every_command_and_every_public_name(hooks) -> None:
    commands, api = hooks.commands_page(), hooks.api_page()
    for command in COMMANDS:
        assert f"\n## crossvox {command}\n" in commands
    assert "--save-uncertainty" in commands and "usage: crossvox convert amos" in commands
    for public in set(crossvox.__all__) - {"__version__"}:
        assert f"::: crossvox.{public}\n" in api


def test_the_site_builds_without_a_warning_and_asks_for_nothing_else(tmp_path) -> None:
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True)
    build(config)
    reference = (tmp_path / "reference" / "api.html").read_text(encoding="utf-8")
    assert 'id="crossvox.CSCLoss"' in reference and "temperature" in reference
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img)\b[^>]*(?:src|href)=\"?(?:https?:)?//", text)
        assert loaded == [], page.name


def test_the_results_are_made_of_the_numbers_in_the_repository(tmp_path: Path, monkeypatch) -> None:
    # The page has none of the figures for papers, which take long to draw.
    monkeypatch.setattr(
        "crossvox.benchmark.pages.page.write_paper_figures", lambda results, folder: None
    )
    shutil.copytree(ROOT / "benchmarks" / "measured", tmp_path / "measured")
    names = ("headline", "convergence", "robustness", "collaboration", "strangers", "splits")
    suites = [str(tmp_path / "measured" / name) for name in names]
    page = tmp_path / "results.md"
    notes = ["--notes", str(ROOT / "benchmarks" / "results-notes.md")]
    assert main(["benchmark", "--table", *suites, "--page", str(page), *notes]) == 0
    docs = ROOT / "docs" / "explanation"
    files = {file.relative_to(docs) for file in (docs / "results").rglob("*.*")}
    made = {file.relative_to(tmp_path) for file in (tmp_path / "results").rglob("*.*")}
    assert made == files
    for file in (Path("results.md"), *files):
        if file.suffix == ".md":
            assert (tmp_path / file).read_text("utf-8") == (docs / file).read_text("utf-8"), file


def test_the_results_need_little_reading() -> None:
    """At most 200 words of notes for each data set; the tables say the rest."""
    notes = (ROOT / "benchmarks" / "results-notes.md").read_text(encoding="utf-8")
    parts = re.split(r"^## Reading: ", notes, flags=re.M)[1:]
    assert [part.split("\n")[0] for part in parts] == ["brain", "heart", "abdomen"]
    assert all(len(part.split()) <= 200 for part in parts)
