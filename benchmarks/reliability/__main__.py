"""Measure the promises of docs/explanation/reliability.md, and write that page from it.

    python benchmarks/reliability --page docs/explanation/reliability.md
    python benchmarks/reliability --only mutation --sample 40
    python benchmarks/reliability --only scans --again --page docs/explanation/reliability.md
    python benchmarks/reliability --only versions --environment oldest=.venv-oldest/bin/python

All sections together take hours. Each section of sections.yaml becomes a JSON file in --out as
soon as it is measured. A section that has its file is skipped, unless --again is given, so a
stopped run can be resumed. The page is made of these files. A section without one keeps the figures
that the page has, so that one section can be measured anew. The page says when, at which commit and
on which machine each section was measured.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import measure
import yaml
from mutation import measure as measure_mutants
from page import page

from crossvox.utils.files import atomic_write

SECTIONS = Path(__file__).with_name("sections.yaml")


def load_sections() -> dict[str, dict[str, Any]]:
    """Return section name → title, promise and tests or tool, in the page's order."""
    return yaml.safe_load(SECTIONS.read_text(encoding="utf-8"))


def main(words: list[str] | None = None) -> None:
    """Measure what is missing, then write the page if one is asked for."""
    sections = load_sections()
    options = _parser(sections).parse_args(words)
    for name in options.only if options.only is not None else sections:
        file = options.out / f"{name}.json"
        if file.exists() and not options.again:
            print(f"{name}: measured before, {file}")
            continue
        record = _record(name, sections[name], options)
        if record is None:
            print(f"{name}: no test file matches")
            continue
        text = json.dumps(record, indent=1, ensure_ascii=False)
        atomic_write(file, text + "\n")
        print(f"{name}: {record['seconds']:.0f} s, {file}")
    if options.page:
        files = {name: options.out / f"{name}.json" for name in sections}
        found = {n: json.loads(f.read_text("utf-8")) for n, f in files.items() if f.exists()}
        earlier = options.page.read_text("utf-8") if options.page.exists() else ""
        atomic_write(options.page, page(sections, found, earlier))
        print(options.page)


def _record(
    name: str, section: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any] | None:
    """Measure one section. Return None if no test file matches."""
    began = time.monotonic()
    work = options.out / name
    work.mkdir(parents=True, exist_ok=True)
    tools = {
        "coverage": partial(measure.coverage, work),
        "mutation": partial(measure_mutants, options.sample, options.seed, options.jobs),
        "versions": partial(measure.versions, work, dict(options.environment)),
    }
    found = tools[section["tool"]]() if "tool" in section else measure.tests(work, section["tests"])
    if found is None:
        return None
    return {
        "section": name,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "seconds": round(time.monotonic() - began, 1),
        **measure.surroundings(),
        **found,
    }


def _environment(text: str) -> tuple[str, str]:
    name, _, python = text.partition("=")
    if not Path(python).exists():
        raise argparse.ArgumentTypeError(f"{text}: give NAME=PATH of a Python interpreter")
    return name, python


def _parser(sections: dict[str, Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--page", type=Path, help="the Markdown file to write")
    parser.add_argument("--out", type=Path, default=Path("runs/reliability"), help="measurements")
    parser.add_argument(
        "--only", nargs="*", choices=list(sections), metavar="SECTION",
        help=f"measure only these of {', '.join(sections)}; none at all: only write the page",
    )  # fmt: skip
    parser.add_argument("--again", action="store_true", help="also measure those that have a file")
    parser.add_argument("--sample", type=int, default=400, help="mutants to test")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample of mutants")
    parser.add_argument("--jobs", type=int, default=1, help="processes that test mutants")
    parser.add_argument(
        "--environment", type=_environment, action="append", default=[], metavar="NAME=PYTHON",
        help="for `versions`: an interpreter with other dependencies; may be repeated",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    main()
