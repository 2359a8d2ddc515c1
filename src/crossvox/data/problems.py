"""Problems of files and data sets: what was found, what was expected, and how to fix it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from crossvox.errors import DataError


@dataclass(frozen=True)
class Problem:
    """One problem of one file.

    Readers fill in what is wrong; whoever knows the data set adds the case and the modality.

    Attributes:
        severity: an error makes the file unusable, a warning does not.
        case: id of the case; empty if the problem is not one case's.
        modality: empty if the problem is not one modality's.
        file: path, relative to the manifest's folder if it lies below it.
        found: what the file holds.
        expected: what it should hold.
        fix: what to do.

    A broken rule of the manifest's format is described by `found` alone.

    >>> print(Problem.error("a 2-D image", "a 3-D volume", "export it again", file="a.nii"))
    error    a.nii: found a 2-D image; expected a 3-D volume; fix: export it again
    """

    severity: Literal["error", "warning"]
    case: str = ""
    modality: str = ""
    file: str = ""
    found: str = ""
    expected: str = ""
    fix: str = ""

    @classmethod
    def error(cls, found: str, expected: str = "", fix: str = "", file: str = "") -> Problem:
        """Return a problem that makes a file unusable."""
        return cls("error", file=file, found=found, expected=expected, fix=fix)

    @classmethod
    def warning(cls, found: str, expected: str = "", fix: str = "", file: str = "") -> Problem:
        """Return a problem that a user should know of."""
        return cls("warning", file=file, found=found, expected=expected, fix=fix)

    @property
    def line(self) -> str:
        """The problem on one line, without its severity."""
        names = " ".join(name for name in (self.case, self.modality) if name)
        where = "  ".join(part for part in (names, self.file) if part)
        text = self.found
        if self.expected:
            text = f"found {text}; expected {self.expected}; fix: {self.fix}"
        return " ".join((f"{where}: {text}" if where else text).splitlines())

    def __str__(self) -> str:
        return f"{self.severity:<7}  {self.line}"


class ProblemsError(DataError):
    """Files that cannot be used, each with what is wrong with it.

    Attributes:
        problems: all that were found, warnings too.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(format_problems(problems))
        self.problems = tuple(problems)


def has_errors(problems: Sequence[Problem]) -> bool:
    """Return whether a problem is an error."""
    return any(problem.severity == "error" for problem in problems)


def format_problems(problems: Sequence[Problem]) -> str:
    """Return one line per problem, errors first, and a last line with their numbers."""
    errors = [problem for problem in problems if problem.severity == "error"]
    warnings = [problem for problem in problems if problem.severity != "error"]
    if not problems:
        return "no problems found"
    numbers = {"error": len(errors), "warning": len(warnings)}
    counts = [f"{n} {name}{'s' * (n > 1)}" for name, n in numbers.items() if n]
    return "\n".join([*map(str, errors), *map(str, warnings), ", ".join(counts)])


def raise_on_errors(problems: Sequence[Problem]) -> None:
    """Raise `ProblemsError`, a `DataError`, with all problems if one of them is an error."""
    if has_errors(problems):
        raise ProblemsError(problems)
