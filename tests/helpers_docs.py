"""What the documents say: their code blocks, their command lines, their links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


class Block(NamedTuple):
    """A fenced block: its language ("" for none) and its text."""

    language: str
    text: str


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```\w*\n.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def command_lines(text: str) -> list[list[str]]:
    """The words of every `crossvox …` in a block of shell lines; a `\\` goes on in the next."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[0] == "crossvox":
            found.append(words[1:])
    return found


def spoken_commands(page: Path) -> list[list[str]]:
    """The same of `crossvox …` between backticks in the text."""
    spans = re.findall(r"`(crossvox [^`]+)`", prose(page).replace("\n", " "))
    return [words for span in spans for words in command_lines(span)]


def links(page: Path) -> list[str]:
    """Where the page's links lead, but for other sites."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [link for link in found if not re.match(r"[a-z]+:", link)]
