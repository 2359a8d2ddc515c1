"""Hooks of MkDocs: generate the reference pages and expand folders in the navigation."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

import crossvox
from crossvox.cli.main import COMMANDS, main
from crossvox.data.convert import LAYOUTS

PARTS = {
    "convert": [*LAYOUTS, "folders"],
    "weights": ["inspect", "convert"],
}
"""Command → its subcommands, which have options of their own."""


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages, and expand `folder/*.md` in the navigation."""
    from mkdocs.structure.files import File

    generated = {"reference/commands.md": commands_page(), "reference/api.md": api_page()}
    for name, text in generated.items():
        files.append(File.generated(config, name, content=text))
    pages = sorted(file.src_uri for file in files.documentation_pages())
    config.nav = expand(config.nav, pages)
    return files


def expand(nav: list[Any], pages: list[str]) -> list[Any]:
    """Return `nav` with each `folder/*.md` replaced by the sorted pages of the folder."""
    found: list[Any] = []
    for entry in nav:
        if isinstance(entry, dict):
            (title, part), *_ = entry.items()
            found.append({title: expand(part, pages) if isinstance(part, list) else part})
        elif entry.endswith("/*.md"):
            found += [page for page in pages if page.startswith(entry[: -len("*.md")])]
        else:
            found.append(entry)
    return found


def commands_page() -> str:
    """Return the page of all commands, with the help of their parsers."""
    lines = ["# Commands", "", "What `crossvox COMMAND --help` prints, or `--help-all`.", ""]
    for command, text in COMMANDS.items():
        lines += [f"## crossvox {command}", "", f"{text[0].upper()}{text[1:]}.", ""]
        lines += _help_block(command)
        for part in PARTS.get(command, ()):
            lines += [f"### crossvox {command} {part}", "", *_help_block(command, part)]
    return "\n".join(lines)


def help_of(*words: str) -> str:
    """Return the text that a command prints for --help, or --help-all, 100 columns wide."""
    measured = words[0] == "profile" and words[1:2] in (("train",), ("load",), ("memory",))
    option = "--help-all" if measured or words[0] in ("train", "prepare") else "--help"
    columns, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "100"
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = main([*words, option])
    finally:
        del os.environ["COLUMNS"]
        if columns is not None:
            os.environ["COLUMNS"] = columns
    if code:
        raise RuntimeError(f"crossvox {' '.join(words)} {option} ended with {code}")
    return out.getvalue()


def api_page() -> str:
    """Return the page of the public names of `import crossvox`, from their docstrings."""
    names = sorted((n for n in crossvox.__all__ if not n.startswith("_")), key=str.lower)
    lines = [
        "# Python",
        "",
        "The public names of `import crossvox`. [The guide](../guides/library.md) has examples.",
        "",
    ]
    return "\n".join([*lines, *(f"::: crossvox.{name}\n" for name in names)])


def _help_block(*words: str) -> list[str]:
    return ["```text", help_of(*words).rstrip(), "```", ""]
