"""Modules, classes, files, settings and defaults that the documents name exist."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import inspect
import re

import pytest

from crossvox.config.run_config import SECTIONS
from crossvox.methods import METHODS
from crossvox.networks import BACKBONES
from fixtures.docs import PAGES, ROOT, blocks, name, prose

MEASURED = {"docs/explanation/reliability.md"}
"""Pages of measurements: their names are those of the commit that was measured."""
PAGES_OF_TODAY = [page for page in PAGES if name(page) not in MEASURED]
METHOD_PAGES = sorted((ROOT / "docs" / "methods").glob("*.md"))
PLANNED = {
    "src/crossvox/methods/entropy.py",
    "src/crossvox/losses/focal.py",
    "src/crossvox/networks/plain.py",
}
"""The files that CONTRIBUTING.md has the reader write."""


NO_MODULES = {METHODS.group, BACKBONES.group} | {
    path.removeprefix("src/").removesuffix(".py").replace("/", ".") for path in PLANNED
}
"""Dotted names of groups of entry points, and of the files in `PLANNED`."""

FOREIGN = {
    "Dockerfile",
    "CROSSVOX_GOLDEN",
    "LabelTable",
    "NCCL_SOCKET_IFNAME",
    "OMP_NUM_THREADS",
    "GLOO_SOCKET_IFNAME",
    "Test_Sets",
}
"""Capitalised names that are no Python of ours: variables of the environment, others' formats."""


@pytest.fixture(scope="module")
def defined() -> set[str]:
    """Names of all classes, functions and variables of the package and of the tests' helpers."""
    names = set(dir(builtins))
    for file in [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests" / "fixtures").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                names.add(node.name)
            elif isinstance(node, ast.Name):
                names.add(node.id)
    return names


@pytest.mark.parametrize("page", PAGES_OF_TODAY, ids=name)
def test_every_class_and_constant_exists(page, defined) -> None:
    spans = re.findall(r"`([A-Z]\w+)(?:\.(?!md|pt)\w+|\[\w+\]|\([^`]*\))?`", prose(page))
    diagrams = "".join(block.text for block in blocks(page) if block.language == "text")
    drawn = re.findall(r"\b[A-Z][a-z]+[A-Z]\w+", diagrams)
    assert {*spans, *drawn} - defined - FOREIGN == set()


def resolve(dotted: str) -> object:
    """Import the longest module of a dotted name and return the attribute it names."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            value = getattr(value, attribute)
        return value
    raise ModuleNotFoundError(dotted)


@pytest.mark.parametrize("page", PAGES_OF_TODAY, ids=name)
def test_every_dotted_name_resolves(page) -> None:
    text = page.read_text(encoding="utf-8")
    for dotted in sorted(set(re.findall(r"\bcrossvox(?:\.[A-Za-z_]\w*)+", text))):
        if dotted not in NO_MODULES:
            resolve(dotted)


@pytest.mark.parametrize("page", PAGES_OF_TODAY, ids=name)
def test_every_path_exists(page) -> None:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"(?<![\w/.-])((?:src|tests|benchmarks|docs|\.ci|\.github)/[\w./+-]*)", text)
    inside = [f"src/{path}" for path in re.findall(r"(?<![\w/])(crossvox/[\w/]+(?:\.py)?)", text)]
    short = [f"src/crossvox/{p}" for p in re.findall(r"`((?:\w+/)+\w+\.py)(?::\d+)?[`\]]", text)]
    top = ("src", "tests", "benchmarks", "docs", "crossvox")
    short = [path for path in short if path.split("/")[2] not in top]
    for path in {path.rstrip(".") for path in [*found, *inside, *short]} - PLANNED:
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES_OF_TODAY, ids=name)
def test_every_setting_of_a_run_exists(page) -> None:
    text = page.read_text(encoding="utf-8")
    fields = {s: {f.name for f in dataclasses.fields(kind)} for s, kind in SECTIONS.items()}
    for section, known in {"method": METHODS, "backbone": BACKBONES}.items():
        parameters = (inspect.signature(kind).parameters for kind in known.values())
        fields[section] = {"name"}.union(*parameters)
    for section, option in re.findall(rf"(?:`|--)({'|'.join(fields)})\.(\w+)\b(?!\()", text):
        assert option in fields[section], f"{section}.{option}"


@pytest.mark.parametrize("method", [path.stem for path in METHOD_PAGES])
def test_the_defaults_in_the_tables_are_those_of_the_method(method: str) -> None:
    page = ROOT / "docs" / "methods" / f"{method}.md"
    parameters = inspect.signature(METHODS[method]).parameters
    rows = re.findall(r"^\| (`method.+?) \| (\S+) \| .+ \|$", page.read_text("utf-8"), re.M)
    for options, shown in rows:
        for option in re.findall(r"`method\.(\w+)`", options):
            default = parameters[option].default
            value = {"⅔": "0.6666666666666666", "true": "True", "false": "False"}.get(shown, shown)
            assert value == str(default) or float(value) == default, f"{method}: {option}"
