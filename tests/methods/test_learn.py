"""Every method, trained on the phantom, segments unseen scans of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossvox.methods import METHODS
from crossvox.workflows.demo import Demo, demo

REACHED = {
    "bcp": 0.15,
    "cmc": 0.6,
    "cmc+": 0.6,
    "cml": 0.35,
    "efcd": 0.3,
    "mmformer": 0.6,
    "self_training": 0.35,
    "sup": 0.35,
    "sup_joint": 0.35,
    "uamt": 0.35,
    "umml": 0.35,
}
"""Method → the mean Dice that it must reach; enter a new method here."""


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_reaches_its_dice_on_the_phantom(name: str, tmp_path: Path) -> None:
    settings = Demo(methods=(name,), steps=160, labelled=4, train=6, test=2)
    summary = demo(tmp_path / "demo", settings, echo=lambda line: None)[name]
    assert summary["overall"]["dice"]["mean"] > REACHED[name]
