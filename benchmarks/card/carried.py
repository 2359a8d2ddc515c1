"""What a machine with a card needs of this one: resolved presets, and prepared scans as arrays.

The first half of the module needs crossvox as it is installed. The second half reads, and needs
numpy alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from crossvox.batch import Task

PRESETS = ("gpu", "paper-unet", "paper-sam")
TRAINED = "gpu"
"""The preset that is trained and scored."""
FILE = "carried.json"


def prepare(
    out: Path, data: Mapping[str, Path], presets: Sequence[str], **changes: dict[str, Any]
) -> None:
    """Write presets and sets into a new folder.

    Args:
        out: the folder.
        data: name → dataset.json; crops are planned for the first one.
        presets: names of presets.
        changes: settings to put over every preset's.
    """
    from crossvox.config.run_config import RunConfig
    from crossvox.config.settings import Settings, parse_settings
    from crossvox.data.manifest import load_manifest
    from crossvox.data.prepare.store import Store
    from crossvox.workflows.inputs import images_in_use
    from crossvox.workflows.profile import planned_run

    def plan(preset: str, path: Path) -> Any:
        given = {"preset": preset, "data": path, "out": out / "run", "labelled": "2", **changes}
        return planned_run(RunConfig.from_dict(parse_settings(Settings(given))).absolute())

    out.mkdir(parents=True)
    first = next(iter(data.values()))
    content: dict[str, Any] = {"presets": {}, "sets": {}}
    for preset in presets:
        run = plan(preset, first)
        content["presets"][preset] = _described(run)
    for name, path in data.items():
        run, manifest = plan(TRAINED, path), load_manifest(path)
        store = Store(out / "store" / name, run.preprocessing)
        scans = []
        for case, m in images_in_use(manifest):
            file, label = out / f"{name}-{case.id}-{m}.npy", None
            np.save(file, store.image(case, m).array[:])
            if case.split == "val" or (case.id, m) in run.selection.labels:
                label = file.with_suffix(".label.npy")
                indices = store.label(case, m, manifest.labels, manifest.ignore).array[:]
                np.save(label, indices.astype(np.int8))
            names = {"image": file.name, "label": label and label.name}
            scans.append({"modality": m, "split": case.split, **names})
        content["sets"][name] = {**_described(run), "scans": scans}
    (out / FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _described(run: Any) -> dict[str, Any]:
    return {"config": run.config.to_dict(), "task": run.task.to_dict()}


@dataclass(frozen=True)
class Scan:
    """A prepared scan.

    Attributes:
        modality: of the scan.
        split: "train" or "val".
        image: (X, Y, Z) float16.
        label: (X, Y, Z) class indices, −1 where not annotated; None without a label.
    """

    modality: str
    split: str
    image: np.ndarray
    label: np.ndarray | None


@dataclass(frozen=True)
class Preset:
    """A preset on a task.

    Attributes:
        name: of the preset, or of the set it was planned for.
        task: modalities, classes, crop.
        config: the settings of a run, plain values.
        scans: of a set.
    """

    name: str
    task: Task
    config: dict[str, Any]
    scans: list[Scan] = field(default_factory=list)

    def settings(self, method: str) -> SimpleNamespace:
        """Return what `config.registry.build_method` reads, for a method."""
        own = self.config["method"]
        options = own if own["name"] == method else {"name": method}
        return SimpleNamespace(
            method=options, backbone=_frozen(self.config["backbone"]), weights=None
        )


def read(folder: Path) -> tuple[dict[str, Preset], dict[str, Preset]]:
    """Return presets and sets by name."""
    content = json.loads((folder / FILE).read_text(encoding="utf-8"))

    def made(name: str, entry: dict[str, Any]) -> Preset:
        scans = [_scan(folder, scan) for scan in entry.get("scans", ())]
        return Preset(name, Task.from_dict(entry["task"]), entry["config"], scans)

    presets, sets = (
        {name: made(name, entry) for name, entry in content[part].items()}
        for part in ("presets", "sets")
    )
    return presets, sets


def _scan(folder: Path, entry: dict[str, Any]) -> Scan:
    label = entry["label"] and np.load(folder / entry["label"])
    return Scan(entry["modality"], entry["split"], np.load(folder / entry["image"]), label)


def _frozen(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
