"""nnU-Net on the labelled scans of a manifest, scored as crossvox scores.

    pip install "crossvox[peers]"
    python benchmarks/peers/nnunet.py --data dataset.json --labelled 2 --minutes 60 --out DIR

Each modality gets an nnU-Net of its own, trained on the scans that `crossvox train --labelled`
takes. With --channels the modalities of a registered set are the channels of a single one. nnU-Net
plans, prepares, augments and predicts by its own rules; unlabelled scans are not used.

Without --minutes it trains its full length, which takes a card. With them its learning rate falls
to zero within that time, preparing not counted. nnU-Net's own lines go to DIR/nnunet.log, and its
checkpoints to DIR/results. scores/summary.json tells the steps, the processor's seconds and the
threads. nnU-Net takes no seed: a second run differs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from crossvox.batch import FUSED, IGNORE
from crossvox.data.formats.nifti import read_image, read_label
from crossvox.data.formats.nifti.writer import write_volume
from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.data.manifest.selection import select
from crossvox.errors import CrossvoxError, UsageError, require
from crossvox.evaluation.metrics import score_case
from crossvox.evaluation.scores import terminal_table, write_scores

POWER = 0.9
"""Of nnU-Net's fall of the learning rate."""


@dataclass(frozen=True)
class Problem:
    """What one nnU-Net segments.

    Attributes:
        name: a modality, or `FUSED`.
        channels: modalities of its input.
        learnt: id of a train case → modality whose label is learnt.
    """

    name: str
    channels: tuple[str, ...]
    learnt: dict[str, str]

    def scored(self, case: Case) -> str | None:
        """Return the modality whose label a prediction is compared with; None without one."""
        if not set(self.channels) <= set(case.images):
            return None
        return next((m for m in self.channels if m in case.labels), None)


def problems(manifest: Manifest, labelled: str, channels: bool) -> list[Problem]:
    """Return an nnU-Net for each modality, or one for all; each learns what `select` chooses.

    Raises:
        UsageError: a case has not all classes outlined, or not all channels on one grid; or
            channels are asked for a set that is not registered.
    """
    chosen = select(manifest, labelled).labelled
    if not channels:
        found = [Problem(m, (m,), dict.fromkeys(ids, m)) for m, ids in chosen.items() if ids]
    elif manifest.registered:
        learnt: dict[str, str] = {}
        for m, ids in chosen.items():
            learnt |= {id: m for id in ids if id not in learnt}
        found = [Problem(FUSED, tuple(chosen), learnt)]
    else:
        raise UsageError(f"{manifest.location}: --channels needs a set that is registered")
    for problem in found:
        for id in problem.learnt:
            _require_learnable(problem, manifest.case(id), manifest)
    return found


def _require_learnable(problem: Problem, case: Case, manifest: Manifest) -> None:
    where = f"{manifest.location}, case {case.id}"
    if lacking := [m for m in problem.channels if m not in case.images]:
        raise UsageError(f"{where}: no image of {', '.join(lacking)}, a channel of nnU-Net")
    if case.annotated is not None and set(case.annotated) != set(manifest.classes):
        raise UsageError(f"{where}: nnU-Net would learn the classes not outlined as background")
    require_one_grid(problem, case, manifest)


def require_one_grid(problem: Problem, case: Case, manifest: Manifest) -> None:
    """Raise `UsageError` if the channels of a case lie on different grids."""
    where = f"{manifest.location}, case {case.id}"
    first, *others = (case.read_grid(m) for m in problem.channels)
    for grid in others:
        if grid.shape != first.shape or not np.allclose(grid.affine, first.affine, atol=1e-3):
            raise UsageError(f"{where}: its images lie on different grids; resample them first")


def export(problem: Problem, manifest: Manifest, folder: Path) -> None:
    """Write scans and labels as nnU-Net's raw data, as crossvox reads them."""
    labels = {"background": 0, **{name: i for i, name in enumerate(manifest.classes, start=1)}}
    (folder / "labelsTr").mkdir(parents=True)
    for id, modality in problem.learnt.items():
        case = manifest.case(id)
        export_images(problem, case, folder / "imagesTr")
        truth = read_truth(manifest, case, modality)
        if (truth == IGNORE).any():
            labels["ignore"] = len(manifest.classes) + 1
        truth = np.where(truth == IGNORE, len(manifest.classes) + 1, truth).astype(np.uint8)
        write_volume(folder / "labelsTr" / f"{id}.nii.gz", truth, case.read_grid(modality))
    kinds = {m: manifest.modalities[m] for m in problem.channels}
    content = {
        # nnU-Net normalises a channel called CT by the values of the organs.
        "channel_names": {i: "CT" if kinds[m] == "ct" else m for i, m in enumerate(kinds)},
        "labels": labels,
        "numTraining": len(problem.learnt),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def export_images(problem: Problem, case: Case, folder: Path) -> list[Path]:
    """Write the channels of a case; return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{case.id}_{i:04d}.nii.gz" for i in range(len(problem.channels))]
    for modality, file in zip(problem.channels, files, strict=True):
        volume = read_image(case.images[modality], case.form(modality))
        write_volume(file, volume.data.astype(np.float32), volume.grid)
    return files


def read_truth(manifest: Manifest, case: Case, modality: str) -> np.ndarray:
    """Return class indices, `IGNORE` where there is no annotation."""
    grid = case.read_grid(modality)
    return read_label(case.labels[modality], manifest.labels, manifest.ignore, grid)


def train(name: str, number: int, configuration: str, minutes: float | None) -> tuple[Any, int]:
    """Plan, prepare and train; return nnU-Net's trainer and the number of steps made."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )
    from nnunetv2.paths import nnUNet_preprocessed
    from nnunetv2.run.run_training import get_trainer_from_args

    extract_fingerprints([number], num_processes=1, show_progress_bar=False)
    plans = plan_experiments([number])
    file = Path(str(nnUNet_preprocessed)) / name / f"{plans}.json"
    planned = json.loads(file.read_text(encoding="utf-8"))["configurations"]
    if configuration not in planned:
        raise UsageError(
            f"nnU-Net planned no {configuration!r}; choose one of {', '.join(planned)}"
        )
    preprocess([number], plans, (configuration,), (1,), show_progress_bar=False)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = get_trainer_from_args(name, configuration, "all", device=device)
    if minutes is None:
        trainer.run_training()
        return trainer, trainer.num_epochs * trainer.num_iterations_per_epoch
    trainer.on_train_start()
    trainer.network.train()
    begun, steps = time.monotonic(), 0
    while (share := (time.monotonic() - begun) / (60 * minutes)) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - share) ** POWER
        loss = float(trainer.train_step(next(trainer.dataloader_train))["loss"])
        steps += 1
        if steps % 10 == 1:
            print(f"step {steps}  loss {loss:.4f}  {share:.0%}", file=sys.stderr, flush=True)
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):
            loader._finish()  # ends its processes
    return trainer, steps


def predict(
    trainer: Any, problem: Problem, cases: list[Case], folder: Path
) -> Iterator[np.ndarray]:
    """Yield the (X, Y, Z) label map of each case, with nnU-Net's mirrored windows."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    on_card = trainer.device.type == "cuda"
    predictor = nnUNetPredictor(
        device=trainer.device, perform_everything_on_device=on_card, allow_tqdm=False
    )
    trainer.set_deep_supervision_enabled(False)
    network = getattr(trainer.network, "_orig_mod", trainer.network)  # if it was compiled
    predictor.manual_initialization(
        network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    for case in cases:
        files = export_images(problem, case, folder)
        image, properties = SimpleITKIO().read_images([str(file) for file in files])
        yield predictor.predict_single_npy_array(image, properties).transpose(2, 1, 0)


def cpu_seconds() -> float:
    """Return the processor's seconds of this process and of its ended children."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def run(args: argparse.Namespace) -> None:
    """Train, predict and score; write `scores/` into the folder."""
    manifest = load_manifest(args.data, args.root)
    asked = problems(manifest, args.labelled, args.channels)
    tests = {p.name: [c for c in manifest.split(args.split) if p.scored(c)] for p in asked}
    if empty := [name for name, cases in tests.items() if not cases]:
        raise UsageError(f"{manifest.location}: no {args.split} case to score for {empty[0]}")
    for problem in asked:
        for case in tests[problem.name]:
            require_one_grid(problem, case, manifest)
    configuration = args.configuration
    if configuration == "auto":
        configuration = "3d_fullres" if torch.cuda.is_available() else "2d"
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {"method": f"nnU-Net {configuration}", "data": manifest.name}
    facts |= {"split": args.split, "labelled": args.labelled, "minutes": args.minutes}
    facts |= {"version": version("nnunetv2"), "threads": torch.get_num_threads()}
    for number, problem in enumerate(asked, start=1):
        name = f"Dataset{number:03d}_{problem.name}"
        export(problem, manifest, args.out / "raw" / name)
        with open(args.out / "nnunet.log", "a", encoding="utf-8") as log, redirect_stdout(log):
            begun = cpu_seconds()
            trainer, steps = train(name, number, configuration, args.minutes)
            spent = round(cpu_seconds() - begun)
            maps = list(predict(trainer, problem, tests[problem.name], args.out / "images"))
        size = sum(p.numel() for p in trainer.network.parameters())
        facts[problem.name] = {"steps": steps, "parameters": size, "cpu_seconds": spent}
        print(f"{problem.name}: {steps} steps, {size / 1e6:.1f} million parameters", flush=True)
        for case, found in zip(tests[problem.name], maps, strict=True):
            modality = str(problem.scored(case))
            truth, grid = read_truth(manifest, case, modality), case.read_grid(modality)
            scores = score_case(found, truth, grid.spacing, manifest.classes, case.annotated)
            own = {"case": case.id, "modality": problem.name, "seen": 0}
            rows += [{**own, **score} for score in scores]
    Console().print(terminal_table(write_scores(args.out / "scores", rows, facts)))
    print(args.out / "scores")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the dataset.json")
    parser.add_argument("--root", type=Path, help="folder that its files must lie in")
    parser.add_argument("--labelled", default="2", help="labelled cases per modality")
    parser.add_argument("--split", default="test", choices=["val", "test"], help="split to score")
    parser.add_argument("--minutes", type=float, help="of training for each network")
    parser.add_argument("--configuration", default="auto", help="2d, 3d_fullres or 3d_lowres",
                        choices=["auto", "2d", "3d_fullres", "3d_lowres"])  # fmt: skip
    parser.add_argument("--channels", action="store_true", help="one network for all modalities")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything; new")
    args = parser.parse_args(arguments)
    try:
        if args.out.exists() and any(args.out.iterdir()):
            raise UsageError(f"{args.out} is not empty; name another folder")
        if args.minutes is not None:
            require("--minutes", args.minutes, 0.01)
        for name in ("raw", "preprocessed", "results"):  # read when nnU-Net is imported
            os.environ[f"nnUNet_{name}"] = str((args.out / name).resolve())
        if find_spec("nnunetv2") is None:
            raise UsageError("nnU-Net is not installed; pip install 'crossvox[peers]'")
        run(args)
    except CrossvoxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
