"""`crossvox doctor`."""

from __future__ import annotations

from crossvox.cli.parser import new_parser, parse


def doctor_command(argv: list[str]) -> int:
    """Show versions, devices and thread counts, and what is missing for which feature."""
    parse(new_parser("doctor", doctor_command.__doc__), argv)
    from crossvox.workflows.doctor import diagnose

    for line in diagnose():
        print(line)
    return 0
