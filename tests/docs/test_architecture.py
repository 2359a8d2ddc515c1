"""docs/explanation/architecture.md names every layer of .importlinter, from top to bottom."""

from __future__ import annotations

import configparser
import re
from dataclasses import fields

import pytest

from crossvox.batch import Batch, LabelledView, View
from fixtures.paths import ROOT

PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")


def contract(name: str) -> list[set[str]]:
    """Return the layers of a contract, top first."""
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    rows = config[f"importlinter:contract:{name}"]["layers"].split("\n")
    return [set(re.split(r"[\s|:]+", row.strip())) for row in rows if row.strip()]


def table(head: str) -> list[set[str]]:
    """Return the names in the first column of the table whose head begins with `head`."""
    rows = PAGE.split(f"| {head} |")[1].split("\n\n")[0].splitlines()[2:]
    return [set(re.findall(r"`(\w+)`", row.split("|")[1])) for row in rows]


@pytest.mark.parametrize(("name", "head"), [("layers", "layer"), ("data", "layer of `data`")])
def test_the_page_shows_the_layers_that_are_checked(name: str, head: str) -> None:
    assert table(head) == contract(name)


def test_every_package_of_the_top_folder_has_a_layer() -> None:
    folder = ROOT / "src" / "crossvox"
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert set().union(*contract("layers")) == packages | modules


@pytest.mark.parametrize("kind", [Batch, View, LabelledView])
def test_the_page_shows_the_fields_of_a_batch(kind: type) -> None:
    (diagram,) = re.findall(r"```text\n(Batch\n.*?)```", PAGE, flags=re.S)
    (tree,) = re.findall(rf"^{kind.__name__}\b.*\n((?:[├└]─ .*\n)+)", diagram, flags=re.M)
    shown = re.findall(r"^[├└]─ (\w+)", tree, flags=re.M)
    inherited = [f.name for base in kind.__bases__ if base is not object for f in fields(base)]
    assert shown == [f.name for f in fields(kind) if f.name not in inherited]
