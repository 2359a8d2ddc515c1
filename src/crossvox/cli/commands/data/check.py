"""`crossvox check`."""

from __future__ import annotations

from pathlib import Path

from crossvox.cli.parser import add_root, new_parser, parse
from crossvox.data.manifest import load_valid_cases
from crossvox.errors import UsageError
from crossvox.utils.documents import parse_json
from crossvox.utils.files import atomic_write


def check_command(argv: list[str]) -> int:
    """Report every problem of every case of a data set; exit code 1 if there are errors."""
    parser = new_parser("check", check_command.__doc__)
    parser.add_argument("dataset", type=Path, help="the dataset.json")
    add_root(parser)
    parser.add_argument("--json", type=Path, help="also write the problems to this file")
    parser.add_argument(
        "--overlay",
        type=Path,
        help="also draw every case with its labels, as CASE.png in this folder",
    )
    values = parse(parser, argv)
    if values["json"] is not None:
        _require_own(values["json"])
    load_valid_cases(values["dataset"], values["root"])
    from crossvox.data.checks import format_problems, has_errors
    from crossvox.data.checks.overlap import describe_overlaps
    from crossvox.workflows.check import check_dataset, draw_cases

    result = check_dataset(values["dataset"], values["root"])
    if values["json"] is not None:
        atomic_write(values["json"], result.to_json())
    print(
        "\n".join(
            [*describe_overlaps(result.overlaps), format_problems(result.problems), *result.unused]
        )
    )
    if result.manifest and values["overlay"] is not None:
        draw_cases(result.manifest, values["overlay"], result.faulty)
    return int(has_errors(result.problems))


def _require_own(file: Path) -> None:
    """Raise `UsageError` if a file is there that no check wrote, such as the manifest itself."""
    if not file.exists():
        return
    try:
        known = parse_json(file.read_text(encoding="utf-8")).keys() == {"problems", "overlaps"}
    except (ValueError, AttributeError, IsADirectoryError):
        known = False
    if not known:
        raise UsageError(f"--json {file}: is there already, and no list of problems; name another")
