from __future__ import annotations

import pytest

from crossvox.cli.main import main
from crossvox.config.presets import presets
from crossvox.methods import METHODS
from crossvox.networks import BACKBONES


@pytest.mark.parametrize(
    ("what", "names"), [("methods", METHODS), ("backbones", BACKBONES), ("presets", presets())]
)
def test_list_has_one_line_for_each(what, names, capsys):
    assert main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(names)
    assert all(len(line.split()) > 2 for line in lines)
