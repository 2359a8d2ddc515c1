"""Wait for scans that arrive in folders, until the command is asked to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from crossvox.workflows.prediction.folders.match import FoundSubject
from crossvox.workflows.prediction.folders.status import signature
from crossvox.workflows.prediction.scans import Subject


def arrivals(find: Callable[[], Sequence[FoundSubject]], quiet: float) -> Iterator[list[Subject]]:
    """Yield subjects once they are whole, and again if they change; never ends.

    A subject is whole when no file of its scans, nor of their studies, has changed for a while.

    Args:
        find: returns the subjects that are there now.
        quiet: seconds without a change.
    """
    seen: dict[str, tuple[str, float]] = {}
    taken: dict[str, str] = {}
    while True:
        there = {one.subject.place: one for one in find()}
        ready = []
        for place, one in there.items():
            state = signature(file for scan in one.scans for file in scan.files)
            now = time.monotonic()
            if place not in seen or seen[place][0] != state:
                seen[place] = (state, now)
            elif now - seen[place][1] >= quiet and taken.get(place) != state:
                taken[place] = state
                ready.append(one.subject)
        seen = {place: known for place, known in seen.items() if place in there}
        taken = {place: known for place, known in taken.items() if place in there}
        if ready:
            yield ready
        time.sleep(max(quiet / 3, 0.02))


class Stopped(BaseException):
    """The command was asked to stop."""


@contextlib.contextmanager
def until_stopped() -> Iterator[None]:
    """Leave the block at SIGINT or SIGTERM. What is being written is removed, as at any error."""
    if threading.current_thread() is not threading.main_thread():  # which has no signals
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        for also in (signal.SIGINT, signal.SIGTERM):  # once is enough
            signal.signal(also, signal.SIG_IGN)
        raise Stopped

    former = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.suppress(Stopped):
            yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
