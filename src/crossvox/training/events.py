"""Numbers for TensorBoard, written as they come.

TensorBoard's own writer works in a thread of its own, whose errors, such as of a full disk, end in
tracebacks at odd moments; here they are raised where they arise.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from crossvox.utils.files import naming


class EventFile:
    """One file of events in a folder that TensorBoard looks at.

    Args:
        folder: of all of a run's event files; made if need be.
        purge: earlier files' events from this step on are to be forgotten; None keeps all.
    """

    def __init__(self, folder: Path, purge: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard knows them by the beginning of their name and reads them in its order.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        self._append(Event(file_version="brain.Event:2"))
        if purge is not None:
            self._append(Event(step=purge, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of a step; the system has them when this returns."""
        numbers = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._append(Event(step=step, summary=Summary(value=numbers)))

    def _append(self, event: Event) -> None:
        event.wall_time = time.time()
        with naming(self._path), open(self._path, "ab") as file:
            RecordWriter(file).write(event.SerializeToString())
