"""Rules that choose DICOM series by what their headers say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from crossvox.data.formats.dicom.series import Series
from crossvox.errors import UsageError

VALUES: dict[str, Callable[[Series], str]] = {
    "description": lambda series: series.description,
    "modality": lambda series: series.modality,
    "slices": lambda series: str(len(series.files)),
    "uid": lambda series: series.uid,
}
"""Keys that a rule may ask for, and where they are found."""
_FORM = re.compile(r"\s*(\w+)\s*(~=|>=|<=|=)\s*(.+?)\s*")


@dataclass(frozen=True)
class Rule:
    """A condition that a series fits or does not.

    >>> Rule.parse("description~=portal").fits(series)

    Attributes:
        key: one of `VALUES`.
        sign: `=`, or `~=` (the value is a regular expression that is found somewhere), both
            whether in capitals or not; `>=` or `<=` for numbers.
        value: to compare with.
    """

    key: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read `KEY~=VALUE`, `KEY=VALUE`, `KEY>=NUMBER` or `KEY<=NUMBER`; raises `UsageError`."""
        form = _FORM.fullmatch(text)
        if form is None or form[1] not in VALUES:
            raise UsageError(
                f"--series {text!r}: expected KEY~=TEXT, KEY=TEXT, KEY>=NUMBER or KEY<=NUMBER with "
                f"one of {', '.join(VALUES)}, such as description~=portal"
            )
        rule = cls(form[1], form[2], form[3])
        try:
            if rule.sign == "~=":
                re.compile(rule.value)
            elif rule.sign != "=":
                float(rule.value)
        except (re.error, ValueError) as error:
            raise UsageError(f"--series {text!r}: {error}") from error
        return rule

    def fits(self, series: Series) -> bool:
        """Return whether a series has what is asked for."""
        own = VALUES[self.key](series)
        if self.sign == "~=":
            return re.search(self.value, own, re.IGNORECASE) is not None
        if self.sign == "=":
            return own.lower() == self.value.lower()
        try:
            number = float(own)
        except ValueError:
            return False
        return number >= float(self.value) if self.sign == ">=" else number <= float(self.value)

    def __str__(self) -> str:
        return f"{self.key}{self.sign}{self.value}"
