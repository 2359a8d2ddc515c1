"""Lines that a command prints while it works: text, JSON, or errors only."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from crossvox.workflows.prediction.job import Outcome

Form = Literal["text", "json"]


class Log:
    """Prints what a prediction does.

    As JSON, each line is an object with `time` (UTC), `event` and more: an event `note` has a
    `message`, the events `done` and `failed` are of one subject.
    """

    def __init__(self, form: Form = "text", quiet: bool = False) -> None:
        """Choose the form of the lines, and whether there are any but those of failures."""
        self.form, self.quiet = form, quiet

    def note(self, text: str) -> None:
        """Print a line."""
        if not self.quiet:
            self._print(text, {"event": "note", "message": " ".join(text.split())})

    def outcome(self, outcome: Outcome) -> None:
        """Print what became of a subject; if quiet, only of one that failed, as an error."""
        facts = {
            "event": outcome.state,
            "name": outcome.subject.name,
            "source": {m: str(s.path) for m, s in outcome.subject.sources.items()},
            "message": outcome.message,
            "seconds": round(outcome.seconds, 1),
            "output": [str(file) for file in outcome.written],
        }
        if not self.quiet:
            self._print(str(outcome), facts)
        elif outcome.state == "failed":
            self._print(str(outcome), facts, sys.stderr)

    def _print(self, text: str, facts: dict[str, Any], to: TextIO | None = None) -> None:
        if self.form == "json":
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            text = json.dumps({"time": now, **facts}, ensure_ascii=False)
        print(text, file=to, flush=True)  # a line is of use when it is written, in a file too
