"""Every option that the how-tos name is one of its command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crossvox.cli.main import main

DOCS = Path(__file__).parents[1] / "docs"


def commands() -> list[tuple[str, list[str]]]:
    found = []
    for page in ("convert.md", "labelling.md"):
        text = (DOCS / page).read_text(encoding="utf-8")
        for block in re.findall(r"```\n(.*?)```", text, re.S):
            for line in block.replace("\\\n", " ").splitlines():
                words = line.split()
                depth = 3 if words[1] == "convert" else 2
                options = re.findall(r"(?<!\S)--[a-z-]+", line)
                found.append((" ".join(words[1:depth]), options))
    return found


@pytest.mark.parametrize(("command", "options"), commands())
def test_options_in_the_documents_exist(command: str, options: list[str], capsys) -> None:
    assert options
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"(?<!\S){option}\b", shown) for option in options), options
