"""Being asked to stop: finish what is under way instead of dying in the middle of it."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stop:
    """Turns SIGINT and SIGTERM into the wish `requested`; a second SIGINT acts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Stop:
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
        # Launchers may pass SIGTERM on a second time, so that only SIGINT insists.
        signal.signal(signal.SIGINT, self._former[signal.SIGINT])
        os.write(2, b"\nstopping after this step ...\n")


def ignore_signals() -> None:
    """For helper processes: the main process alone decides when to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
