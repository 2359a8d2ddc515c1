"""Runs of another version of crossvox are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossvox.errors import UsageError
from crossvox.version import __version__
from crossvox.workflows.prediction.predictor import Predictor
from crossvox.workflows.run import Run
from crossvox.workflows.training.train import resume
from fixtures.memory import untrained

MAJOR, MINOR, _ = __version__.split(".")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return untrained(tmp_path / "run", (8, 8, 8), (1.0, 1.0, 1.0), classes=2)


def made_by(run: Path, facts: dict[str, object]) -> None:
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")


@pytest.mark.parametrize("use", [Run.load, resume, Predictor])
@pytest.mark.parametrize("made", [f"{int(MAJOR) + 1}.{MINOR}.0", f"{MAJOR}.{int(MINOR) + 1}.0"])
def test_a_run_of_another_version_is_refused(use, made: str, run: Path) -> None:
    made_by(run, {"versions": {"crossvox": made}})
    with pytest.raises(UsageError) as refusal:
        use(run)
    assert str(refusal.value) == (
        f"{run}: made by crossvox {made}, this is crossvox {__version__}; "
        f"install crossvox=={made}, or train the run again"
    )


@pytest.mark.parametrize("facts", [{}, {"versions": {}}, {"versions": None}, None])
def test_a_run_of_an_unknown_version_is_refused(facts: dict | None, run: Path) -> None:
    if facts is None:
        (run / "run.json").unlink()
    else:
        made_by(run, facts)
    with pytest.raises(UsageError, match=rf"unknown version .*, this is crossvox {__version__}; "):
        Run.load(run)


def test_the_third_number_of_the_version_does_not_count(run: Path) -> None:
    made_by(run, {"versions": {"crossvox": f"{MAJOR}.{MINOR}.999"}})
    assert Run.load(run).config.method["name"] == "sup"
