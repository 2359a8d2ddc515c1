"""What a machine with a card needs of this one: resolved presets, and prepared scans as arrays.

The first half of the module needs crossvox as it is installed. The second half reads, and needs
numpy alone.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
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
    out: Path,
    data: Mapping[str, Path],
    presets: Sequence[str],
    scans: int | None = None,
    **changes: dict[str, Any],
) -> int:
    """Write presets and sets into a new folder; return its bytes.

    Args:
        out: the folder.
        data: name → dataset.json; crops are planned for the first one.
        presets: names of presets.
        scans: most of each modality in each split, labelled ones first; None = all.
        changes: settings to put over every preset's.
    """
    from crossvox.config.run_config import RunConfig
    from crossvox.config.settings import Settings, parse_settings
    from crossvox.data.manifest import load_manifest
    from crossvox.data.prepare.store import Store
    from crossvox.workflows.training.inputs import images_in_use, labels_in_use
    from crossvox.workflows.training.planning import planned_run

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
        labelled = labels_in_use(manifest, run.selection)
        usable = [
            (case, m)
            for case, m in images_in_use(manifest)
            if case.split == "train" or (case.id, m) in labelled
        ]
        usable.sort(key=lambda scan: (scan[0].id, scan[1]) not in labelled)
        taken: Counter[tuple[str, str]] = Counter()
        rows: list[dict[str, str]] = []
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder), run.preprocessing)
            for case, m in usable:
                if taken[case.split, m] == scans:
                    continue
                taken[case.split, m] += 1
                arrays = {"image": store.image(case, m).array[:]}
                if (case.id, m) in labelled:
                    label = store.label(case, m, manifest.labels, manifest.ignore)
                    arrays["label"] = label.array[:].astype(np.int8)
                file = out / f"{name}-{case.id}-{m}.npz"
                np.savez_compressed(file, **arrays)
                rows.append({"modality": m, "split": case.split, "file": file.name})
        content["sets"][name] = {**_described(run), "scans": rows}
    (out / FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return sum(file.stat().st_size for file in out.iterdir())


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
    with np.load(folder / entry["file"]) as arrays:
        return Scan(entry["modality"], entry["split"], arrays["image"], arrays.get("label"))


def _frozen(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
