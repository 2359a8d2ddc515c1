"""Signals that ask a run to stop: it finishes the step under way first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 5
"""Seconds that the next batch may take after a signal, before `StoppedWaiting`."""


class StoppedWaiting(BaseException):
    """The run is asked to stop, and what it waits for does not come."""


class StopRequest:
    """Note SIGINT and SIGTERM in `requested`; a second SIGINT acts at once.

    >>> with StopRequest() as stop:
    ...     for batch in stop.while_waiting(batches):
    ...         train_step(batch)
    ...         if stop.requested:
    ...             break
    """

    def __init__(self) -> None:
        self.requested = False
        self._waits = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        # Python lets only the main thread set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._note)
            if hasattr(signal, "SIGALRM"):  # not on Windows
                self._former[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._give_up)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.requested and hasattr(signal, "SIGALRM"):
            signal.alarm(0)
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def while_waiting(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; raise `StoppedWaiting` if one does not come after a signal."""
        iterator = iter(items)
        while True:
            self._waits = True
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._waits = False
            yield item

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        # Launchers may send SIGTERM twice, so only a second SIGINT acts at once.
        signal.signal(signal.SIGINT, self._former[signal.SIGINT])
        if hasattr(signal, "SIGALRM"):
            signal.alarm(PATIENCE)
        os.write(2, b"\nstopping after this step ...\n")

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        if self._waits:
            raise StoppedWaiting
        signal.alarm(PATIENCE)  # a step is under way; the next batch may not come


def ignore_signals() -> None:
    """Ignore both signals in a worker process; only the main process decides when to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
