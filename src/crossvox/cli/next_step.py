"""The last words of a command: what to do next, and the command for it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from crossvox.data.manifest import Manifest
from crossvox.utils.going_on import shown


def next_step(what: str, *words: object) -> str:
    """Return what to do next, in words and as the command of `command_line`."""
    return f"next: {what}\n  {command_line(*words)}"


def command_line(*words: object) -> str:
    """Return a command to paste: `crossvox` and words, paths relative below the working folder."""
    texts = (shown(word) if isinstance(word, Path) else shlex.quote(str(word)) for word in words)
    return f"crossvox {' '.join(texts)}"


def after_training(run: Path, data_file: Path, manifest: Manifest, root: Path | None) -> str:
    """Return how to go on with a trained run: score it, segment what is set aside, or draft."""
    data = ["--data", data_file, *root_option(root)]
    for split in ("val", "test"):
        if any(case.labels for case in manifest.split(split)):
            words = ["evaluate", run, *data, "--split", split, "--out", run / split]
            return next_step(f"score it on the labelled {split} scans", *words)
    aside = next((name for name in ("test", "val") if manifest.split(name)), None)
    if aside is None and any(case.images.keys() - case.labels for case in manifest.split("train")):
        words = ["draft", run, *data, "--out", run / "drafts"]
        return next_step("segment the scans to label next, as drafts to correct", *words)
    which = f"{aside} scans, of which none has a label to score" if aside else "train scans"
    words = ["predict", run, *data, "--split", aside or "train", "--out", run / "predicted"]
    return next_step(f"segment the {which}", *words)


def after_evaluation(values: dict[str, Any], defaults: dict[str, Any]) -> str | None:
    """Return how to look at the scores of one run under plain conditions; None for any others.

    Args:
        values: parsed options of `evaluate`.
        defaults: their defaults; what differs from them goes to the report as well.
    """
    plain = all(values[key] == defaults[key] for key in ("modalities", "misalign"))
    if len(values["run"]) > 1 or not plain:
        return None
    options: list[object] = [f"--{name}" for name in ("tta", "include-seen") if values[_key(name)]]
    for name in ("checkpoint", "overlap", "largest", "weigh", "accelerator"):
        if values[name] != defaults[name]:
            options += [f"--{name}", str(values[name]).lower()]
    out = values["out"]
    data = ["--data", values["data"], *root_option(values["root"]), "--split", values["split"]]
    return next_step(
        "look at the worst and best scans",
        *("report", values["run"][0], *data, "--scores", out, *options),
        *("--out", out / "report.html"),
    )


def root_option(root: Path | None) -> list[object]:
    """Return the words of `--root`, if there is one."""
    return [] if root is None else ["--root", root]


def _key(option: str) -> str:
    return option.replace("-", "_")
