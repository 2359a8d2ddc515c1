"""From measurements of benchmarks/reliability.py to a page of the documentation."""

from __future__ import annotations

from typing import Any

HEAD = """\
# Reliability

What crossvox promises to whoever trusts it with days of training or a folder of scans, and how
far each promise was tried. This page is written by

```
python benchmarks/reliability.py --page docs/reliability.md
```

from what tests and tools reported; no number in it was typed. `benchmarks/reliability` names the
tests of each section.
"""


def page(sections: dict[str, dict[str, Any]], records: dict[str, dict[str, Any]]) -> str:
    """The page in Markdown.

    Args:
        sections: title and promise by name, in the order to be shown.
        records: measurements by section's name; those that are missing are said to be.
    """
    parts = [HEAD]
    for name, section in sections.items():
        record = records.get(name)
        body = _measured(record) if record else "*Not measured yet.*\n"
        parts.append(f"## {section['title']}\n\n{section['promise']}\n\n{body}")
    return "\n".join(parts)


def _measured(record: dict[str, Any]) -> str:
    figures = record.get("figures", {})
    table = ["| figure | value |", "| --- | ---: |"]
    table += [f"| {_cell(name)} | {_cell(value)} |" for name, value in figures.items()]
    parts = ["\n".join(table) + "\n"] if figures else []
    if failures := record.get("failures"):
        listed = ", ".join(f"`{failure}`" for failure in failures[:10])
        more = f" and {len(failures) - 10} more" if len(failures) > 10 else ""
        parts.append(f"**{len(failures)} tests failed:** {listed}{more}\n")
    if same := record.get("equivalent"):
        parts.append("Faults that change nothing that can be seen, left out of the share:\n")
        parts.append("".join(f"- `{change}`: {why}\n" for change, why in same.items()))
    return "\n".join([*parts, _provenance(record)])


def _provenance(record: dict[str, Any]) -> str:
    stack = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    changed = " with uncommitted changes" if record["changed"] else ""
    counts = [f"{record[k]} {k}" for k in ("passed", "failed", "skipped") if k in record]
    tests = f"{', '.join(counts)}; " if counts else ""
    return (
        f"{tests}{record['date']}, commit {record['commit']}{changed}, "
        f"{_duration(record['seconds'])} on {record['machine']}; Python {record['python']}, "
        f"{stack}.\n"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _cell(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
