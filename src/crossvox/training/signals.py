"""Signals that ask a run to stop: it finishes the step under way first."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopRequest:
    """Note SIGINT and SIGTERM in `requested`; a second SIGINT acts at once.

    >>> with StopRequest() as stop:
    ...     while not stop.requested:
    ...         train_step()
    """

    def __init__(self) -> None:
        self.requested = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        # Python lets only the main thread set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        # Launchers may send SIGTERM twice, so only a second SIGINT acts at once.
        signal.signal(signal.SIGINT, self._former[signal.SIGINT])
        os.write(2, b"\nstopping after this step ...\n")


def ignore_signals() -> None:
    """Ignore both signals in a worker process; only the main process decides when to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
