"""Run tests and tools, and read their figures from the files that they write."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
SHOWN = ("torch", "monai", "numpy", "scipy", "nibabel")
"""Packages whose versions a measurement names."""
RAN = (0, 1)
"""pytest's exit codes after tests have run, passed or failed."""

Found = dict[str, Any]


def tests(work: Path, patterns: list[str]) -> Found | None:
    """Run test files, slow tests included, and collect the figures that they report.

    Args:
        work: folder for the results of the run.
        patterns: of paths in the repository.

    Returns:
        Outcome and figures; None if no file matches.
    """
    files = [str(path) for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    if not files:
        return None
    junit = work / "junit.xml"
    _pytest([sys.executable, "-m", "pytest"], junit, "-m", "", *files)
    return read_junit(junit)


def coverage(work: Path) -> Found:
    """Run the quick tests under coverage. Return the share of lines and branches of `src`."""
    junit, report = work / "junit.xml", work / "coverage.json"
    tool = [sys.executable, "-m", "coverage"]
    data = {"COVERAGE_FILE": str((work / ".coverage").resolve())}
    for command in (["erase"], ["run", "-m", "pytest"], ["combine", "-q"]):
        if command[0] == "run":
            _pytest([*tool, *command], junit, environment=data)
        else:
            subprocess.run([*tool, *command], cwd=ROOT, env=_environment() | data, check=True)
    command = [*tool, "json", "-q", "-o", str(report.resolve())]
    subprocess.run(command, cwd=ROOT, env=_environment() | data, check=True)
    found = read_junit(junit)
    found["figures"] = read_coverage(json.loads(report.read_text(encoding="utf-8")))
    return found


def versions(work: Path, pythons: dict[str, str]) -> Found:
    """Run the quick tests with this interpreter and with those of other environments."""
    figures, failures = {}, []
    for name, python in {"pinned": sys.executable, **pythons}.items():
        junit = work / f"{name}.xml"
        _pytest([str(Path(python).absolute()), "-m", "pytest"], junit)
        found = read_junit(junit)
        failures += [f"{name}: {failure}" for failure in found["failures"]]
        counts = ", ".join(f"{found[key]} {key}" for key in ("passed", "failed", "skipped"))
        code = (
            "import platform, importlib.metadata as m; print('Python', platform.python_version(), "
            f"*['· ' + n + ' ' + m.version(n) for n in {SHOWN}])"
        )
        stack = subprocess.check_output([python, "-c", code], text=True, encoding="utf-8").strip()
        figures[f"{name}: {stack}"] = counts
    return {"figures": figures, "failures": failures}


def read_junit(path: Path) -> Found:
    """Read the outcomes, the names of failed tests and the figures from a JUnit file.

    If several tests report a figure of one name, the largest is kept.
    """
    cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = [c for c in cases if c.find("skipped") is not None]
    figures: dict[str, Any] = {}
    for case in cases:
        for item in case.iter("property"):
            name, value = item.attrib["name"], _number(item.attrib["value"])
            old = figures.get(name)
            larger = isinstance(old, (int, float)) and isinstance(value, (int, float))
            figures[name] = max(old, value) if larger else value
    return {
        "passed": len(cases) - len(failed) - len(skipped),
        "failed": len(failed),
        "skipped": len(skipped),
        "failures": [f"{c.attrib['classname']}.{c.attrib['name']}" for c in failed],
        "figures": figures,
    }


def read_coverage(report: dict[str, Any]) -> dict[str, Any]:
    """Read the totals and the least covered files from a report of `coverage json`."""
    total = report["totals"]

    def share(of: str, all_of: str) -> float:
        return round(100 * total[of] / total[all_of], 1) if total[all_of] else 100.0

    figures = {
        "branches taken, %": share("covered_branches", "num_branches"),
        "branches": total["num_branches"],
        "statements run, %": share("covered_lines", "num_statements"),
        "statements": total["num_statements"],
    }
    worst = sorted(report["files"].items(), key=lambda f: f[1]["summary"]["percent_covered"])
    for path, file in worst[:3]:
        figures[f"least covered: {path}, %"] = round(file["summary"]["percent_covered"], 1)
    return figures


def surroundings() -> dict[str, Any]:
    """Return commit, machine and versions, for the record of a measurement."""
    return {
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in SHOWN},
    }


def _pytest(
    command: list[str], junit: Path, *arguments: str, environment: dict[str, str] | None = None
) -> None:
    words = [*command, "-p", "no:cacheprovider", f"--junitxml={junit.resolve()}", *arguments]
    done = subprocess.run(words, cwd=ROOT, env=_environment() | (environment or {}))
    if done.returncode not in RAN:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}")


def _environment() -> dict[str, str]:
    """Return an environment with the sources of this tree and one thread per process."""
    return os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def _git(*words: str) -> str:
    return subprocess.check_output(["git", *words], cwd=ROOT, text=True).strip()


def processor() -> str:
    """Return the name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
