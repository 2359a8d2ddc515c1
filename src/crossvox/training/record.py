"""The run directory: configuration, facts about the machine, logged numbers, checkpoints."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import yaml

from crossvox.errors import DataError, UsageError
from crossvox.training.progress import timed
from crossvox.utils.csv_tables import csv_text
from crossvox.utils.documents import parse_json, plain, read_yaml
from crossvox.utils.files import atomic_write, naming_errors
from crossvox.utils.locks import Lock
from crossvox.version import __version__

if TYPE_CHECKING:
    from lightning_fabric.loggers import TensorBoardLogger

FOLDS = "folds.yaml"
"""File of a folder that holds the runs of a cross-validation."""
METRICS_HEADER = ("step", "name", "value")
TENSORBOARD = importlib.util.find_spec("tensorboard") is not None
"""True if TensorBoard is installed; its files are written then."""
FLUSH_SECONDS = 10
"""TensorBoard's numbers are on disk after this time; `metrics.csv` has them at once."""
LOCATION_KEYS = frozenset({"compute", "data", "root", "store", "out", "weights", "start_from"})
"""Parts of a configuration that say where to compute and read, not what to compute."""
PACKAGES = (
    "torch",
    "monai",
    "lightning-fabric",
    "numpy",
    "scipy",
    "nibabel",
    "blosc2",
    "SimpleITK",
)


def holds_run(out: Path) -> bool:
    """Return whether `out` holds a run or the folds of one, finished or not."""
    return any((out / name).exists() for name in ("config.yaml", "checkpoints", FOLDS))


class RunRecord:
    """Write a run directory, or continue one.

    It holds `config.yaml`, `run.json` (versions, machine, data hashes, times), `metrics.csv`
    (columns step, name, value), `checkpoints/{last,best}.safetensors` and, where TensorBoard is
    installed, `tensorboard/`.

    Args:
        out: the directory; made where it is missing.
        config: the whole configuration as plain values. A resumed run keeps its stored one.
        facts: further entries of `run.json` (seed, device, data hashes …).
        files: further files of a new run, name → text.
        resume: continue a run instead of beginning one.
        active: False writes nothing; for all processes but the first.

    Raises:
        UsageError: `out` holds a run and `resume` is False, or holds none and `resume` is True,
            or another process is writing it.

    >>> with RunRecord(Path("runs/first"), {"seed": 0}) as record:
    ...     record.log(1, {"train/loss": 0.7})
    """

    def __init__(
        self,
        out: Path,
        config: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
        *,
        files: Mapping[str, str] | None = None,
        resume: bool = False,
        active: bool = True,
    ) -> None:
        self.out = Path(out)
        self._active = active
        self._tensorboard: TensorBoardLogger | None = None
        self._purge_step: int | None = None
        self._lock: Lock | None = None
        if resume:
            self.config = read_config(self.out)
            self._lock_directory()
            self._facts = read_facts(self.out)
            again = {"at": _now(), "command": _command(), **_software()}
            self.note(resumed=[*self._facts.get("resumed", []), again])
            return
        # Other processes may arrive after the first one has written already.
        if active and holds_run(self.out):
            raise UsageError(f"{out} holds a run; use --resume {out} or another --out")
        self._lock_directory()
        self.config = plain(config or {})
        self._facts = {"started": _now(), "command": _command(), **_software(), "timings": {}}
        self.note(**(facts or {}))
        if active:
            for name, text in (files or {}).items():
                atomic_write(self.out / name, text)
            # Written last: a directory with this file is a complete run.
            text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True, width=100)
            atomic_write(self.out / "config.yaml", text)

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.out / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights with the best validation score; there is no such file without validation."""
        return self.out / "checkpoints" / "best.safetensors"

    @property
    def config_hash(self) -> str:
        """SHA-256 of the parts of the configuration that decide on results; key order is free."""
        config = {key: value for key, value in self.config.items() if key not in LOCATION_KEYS}
        return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()

    def note(self, **facts: Any) -> None:
        """Add JSON-able facts to `run.json`."""
        self._facts.update(plain(facts))
        if self._active:
            text = json.dumps(self._facts, indent=2, ensure_ascii=False)
            atomic_write(self.out / "run.json", text + "\n")

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall time of the block to the stage's seconds in `run.json`."""
        try:
            with timed(self._facts.setdefault("timings", {}), name):
                yield
        finally:
            self.note()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append numbers to `metrics.csv`, on disk when this returns, and to TensorBoard."""
        if not self._active:
            return
        text = csv_text(*((step, name, format(value, ".9g")) for name, value in values.items()))
        path = self.out / "metrics.csv"
        with naming_errors(path), open(path, "a", encoding="utf-8", newline="") as file:
            file.write(text)
        if TENSORBOARD:
            self._log_to_tensorboard(step, values)

    def rewind(self, step: int) -> None:
        """Forget all numbers logged after `step`, as if the run had stopped there."""
        if not self._active:
            return
        path = self.out / "metrics.csv"
        rows = read_metrics(path) if path.exists() else []
        if rows:
            self._purge_step = step + 1
        kept = (row for row in rows if int(row[0]) <= step)
        atomic_write(path, csv_text(METRICS_HEADER, *kept))

    def close(self) -> None:
        """Finish the TensorBoard file and unlock the directory."""
        if self._tensorboard:
            self._tensorboard.finalize("success")
            self._tensorboard = None
        if self._lock:
            self._lock.release()

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _lock_directory(self) -> None:
        """Keep other processes from writing here."""
        if not self._active:
            return
        self.out.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.out / ".lock")
        if not self._lock.acquire():
            raise UsageError(
                f"{self.out}: another process trains this run; wait for it, or stop it"
            )

    def _log_to_tensorboard(self, step: int, values: Mapping[str, float]) -> None:
        folder = self.out / "tensorboard"
        with naming_errors(folder):
            if self._tensorboard is None:
                # Imported here: this takes a second, which only commands that train should wait.
                from lightning_fabric.loggers import TensorBoardLogger

                self._tensorboard = TensorBoardLogger(
                    folder,
                    name="",
                    version="",
                    flush_secs=FLUSH_SECONDS,
                    purge_step=self._purge_step,
                )
            try:
                self._tensorboard.log_metrics(values, step)
            except ValueError as error:  # the logger hides the disk's error behind this one
                raise error.__cause__ or error from None


def read_config(out: Path) -> dict[str, Any]:
    """Read the configuration of the run in `out`; raises `UsageError` if there is no valid one."""
    path = Path(out) / "config.yaml"
    if not path.exists():
        raise UsageError(f"{out} holds no run (no config.yaml); name a run directory")
    return read_yaml(path)


def read_metrics(path: Path) -> list[tuple[str, str, str]]:
    """Read the complete rows (step, name, value) of a `metrics.csv` as text, without the header."""
    with open(path, encoding="utf-8", newline="") as file:
        # A crash may leave a torn last line, without a line break.
        lines = [line for line in file if line.endswith("\n")]
    return [(step, name, value) for step, name, value in csv.reader(lines[1:])]


def late_means(path: Path) -> dict[str, float]:
    """Return name → mean over the last tenth of the steps of a `metrics.csv`."""
    rows = [(int(step), name, float(value)) for step, name, value in read_metrics(path)]
    last = max((step for step, _, _ in rows), default=0)
    late: dict[str, list[float]] = {}
    for step, name, value in rows:
        if step > 0.9 * last:
            late.setdefault(name, []).append(value)
    return {name: statistics.fmean(values) for name, values in late.items()}


def read_facts(out: Path) -> dict[str, Any]:
    """Read a run's `run.json`, empty if there is none; raises `DataError` if it is damaged."""
    path = out / "run.json"
    try:
        found = parse_json(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DataError(f"{path}: not a JSON object; restore the file or remove it")
    return found


def _software() -> dict[str, Any]:
    versions = {"crossvox": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {"versions": versions, "platform": platform.platform(), "git": _git_state()}


def _git_state() -> dict[str, Any] | None:
    """Return the source tree's commit and whether it has changes; None outside a checkout."""
    source = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # A package installed inside another project's checkout is not part of that checkout.
        git("ls-files", "--error-unmatch", "__init__.py")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _command() -> list[str]:
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
