"""Dependencies: what pyproject.toml allows, what the files of constraints hold, what CI runs."""

from __future__ import annotations

import re

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fixtures.paths import ROOT

TOOLS = ("dev", "docs", "mutation", "fuzz", "browser", "notebook")
"""Extras that hold tools or cannot be tested without a screen: taken at their newest."""


def requirements(*skip: str) -> dict[str, Requirement]:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11 to read TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = list(project["dependencies"])
    for extra, lines in project["optional-dependencies"].items():
        listed += lines if extra not in skip else []
    found = [Requirement(line) for line in listed]
    return {canonicalize_name(r.name): r for r in found if r.name != "crossvox"}


def pins(file: str) -> dict[str, list[str]]:
    """Versions by package; several where a marker chooses among them."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.strip() and not line.startswith("#"):
            pin = Requirement(line)
            (specifier,) = pin.specifier
            assert specifier.operator == "==", line
            found.setdefault(canonicalize_name(pin.name), []).append(specifier.version)
    return found


def test_the_oldest_constraints_are_the_lower_bounds() -> None:
    oldest = pins("constraints-oldest.txt")
    for name, requirement in requirements(*TOOLS).items():
        (bound,) = (s for s in requirement.specifier if s.operator == ">=")
        assert name in oldest, f"{name} is not in constraints-oldest.txt"
        (version,) = oldest.pop(name)
        assert [*map(int, version.split("."))][: bound.version.count(".") + 1] == [
            *map(int, bound.version.split("."))
        ], f"{name}: pyproject.toml says {bound.version}, constraints-oldest.txt {version}"
        assert requirement.specifier.contains(version)
    assert set(oldest) <= {"simpleitk"}, f"not in pyproject.toml: {sorted(oldest)}"


def test_every_dependency_is_pinned_to_an_allowed_version() -> None:
    pinned = pins("constraints.txt")
    for name, requirement in requirements().items():
        assert name in pinned, f"{name} is not in constraints.txt"
        for version in pinned[name]:
            assert requirement.specifier.contains(version), f"{name} {version}"


def test_ci_runs_every_python_and_system_with_oldest_and_newest() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    matrix = yaml.safe_load(text)["jobs"]["test"]["strategy"]["matrix"]
    assert {os.split("-")[0] for os in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == ["3.10", "3.11", "3.12", "3.13"]
    assert {"oldest", "newest"} <= set(matrix["dependencies"])
    assert all(cell["dependencies"] == "oldest" for cell in matrix["exclude"])
    kept = set(matrix["python"]) - {cell["python"] for cell in matrix["exclude"]}
    assert {"3.10", "3.11"} <= kept
    for target in re.findall(r"run: make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
