"""One trained method: class probabilities of one subject's prepared scans."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from crossvox.batch import Task
from crossvox.data.geometry import Grid, resample
from crossvox.data.preprocess import Prepared, Preprocessing
from crossvox.errors import require
from crossvox.inference.channels import Stream, most_probable, native_channels
from crossvox.methods.base import Method


@dataclass(frozen=True)
class Inference:
    """How windows slide.

    Attributes:
        overlap: part of a window that its neighbour sees again, per axis.
        batch: windows at a time; more may be faster and change no result.
        tta: average over the window's mirror images, along axes on which no left and right
            class change places; 2, 4 or 8 times the time.
    """

    overlap: float = 0.5
    batch: int = 1
    tta: bool = False

    def __post_init__(self) -> None:
        require("inference.overlap", self.overlap, 0, 0.95)
        require("inference.batch", self.batch, 1)


@dataclass
class Prediction:
    """Result for one subject.

    Attributes:
        labels: modality → (X, Y, Z) int16 class indices on that scan's own grid.
        affines: modality → (4, 4) from that scan's voxel indices to world mm (RAS+).
        seconds: stage → wall time.
    """

    labels: dict[str, np.ndarray] = field(default_factory=dict)
    affines: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def clock(self, stage: str, start: float) -> float:
        """Add the time since `start` to `stage`; returns now."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - start
        return now


class Predictor:
    """A trained method with the preprocessing it was trained with."""

    def __init__(
        self,
        method: Method,
        preprocessing: Preprocessing,
        inference: Inference,
        device: torch.device | str = "cpu",
    ) -> None:
        """Move `method` to `device`; it is put in evaluation mode while it predicts."""
        self.method = method.to(device)
        self.preprocessing = preprocessing
        self.inference = inference
        self.device = torch.device(device)

    @property
    def task(self) -> Task:
        """What the method segments."""
        return self.method.task

    def predict_prepared(
        self, prepared: Mapping[str, Prepared], native: Mapping[str, Grid]
    ) -> dict[str, np.ndarray]:
        """Label maps of one subject's prepared scans on `native`, the grids of their files."""
        return {m: most_probable(self.channels(prepared, m, native[m])) for m in prepared}

    def channels(self, prepared: Mapping[str, Prepared], output: str, native: Grid) -> Stream:
        """Probabilities of `output` on its file's grid `native`, (X, Y, Z) class by class.

        The network has done its work when this returns; each class is resampled when its turn
        comes.
        """
        training = self.method.training
        self.method.eval()
        try:
            probabilities = self.probabilities(prepared, output)
        finally:
            self.method.train(training)
        grid, frame = prepared[output].grid, self.preprocessing.frame
        return native_channels(probabilities, grid, native, frame)

    @torch.no_grad()
    def probabilities(self, prepared: Mapping[str, Prepared], output: str) -> Tensor:
        """(C, X, Y, Z) class probabilities on the prepared grid of `output`.

        The subject's other scans are resampled onto that grid; a window whose centre lies outside
        such a scan's field of view is predicted without it, as in training.
        """
        anchor = prepared[output]
        names, channels, masks, fills = [output], [anchor.array], [], [anchor.fill]
        for other, scan in prepared.items():
            if other == output or not self.task.paired:
                continue
            names.append(other)
            channels.append(resample(scan.array, scan.grid, anchor.grid, fill=scan.fill))
            fills.append(scan.fill)
            inside = np.ones(scan.grid.shape, dtype=np.float32)
            masks.append(resample(inside, scan.grid, anchor.grid, mode="nearest"))
        # Windows beyond the scan are padded with zeros; what is padded must be each scan's fill.
        fill = torch.tensor(fills).view(1, -1, 1, 1, 1)
        scans = torch.from_numpy(np.stack(channels))[None] - fill
        stack = torch.cat([scans, *(torch.from_numpy(m)[None, None] for m in masks)], 1)
        fill = fill.to(self.device)

        def window(x: Tensor) -> Tensor:
            images = x[:, : len(names)] + fill
            present = torch.ones(len(x), len(names), dtype=torch.bool, device=x.device)
            i, j, k = (n // 2 for n in x.shape[2:])
            present[:, 1:] = x[:, len(names) :, i, j, k] > 0.5
            return self._window(images, present, names)

        return sliding_window_inference(
            stack,
            self.task.patch,
            self.inference.batch,
            window,
            overlap=self.inference.overlap,
            mode="gaussian",
            sw_device=self.device,
            device="cpu",
        )[0]

    def _window(self, images: Tensor, present: Tensor, names: list[str]) -> Tensor:
        """Probabilities of a batch of windows; rows that lack a scan are predicted without it."""
        result: Tensor | None = None
        for pattern in present.unique(dim=0):
            rows = (present == pattern).all(1)
            given = {name: images[rows, k : k + 1] for k, name in enumerate(names) if pattern[k]}
            found = self._answer(given, names[0])
            if result is None:
                result = found.new_empty((len(images), *found.shape[1:]))
            result[rows] = found
        assert result is not None  # a batch has at least one row
        return result

    def _answer(self, given: Mapping[str, Tensor], output: str) -> Tensor:
        """Of a batch of windows, (B, C, X, Y, Z) that is laid over the scan: probabilities.

        With `tta` the mean over all mirrorings that the task allows.
        """
        axes = [axis + 2 for axis in self.task.flips] if self.inference.tta else []
        mirrorings = [c for n in range(len(axes) + 1) for c in combinations(axes, n)]
        total: Tensor | None = None
        for dims in mirrorings:
            # Also a flip over no axis would copy.
            images = {m: x.flip(dims) for m, x in given.items()} if dims else given
            found = self.method.predict(images, [output])[output].float().softmax(1)
            found = found.flip(dims) if dims else found
            total = found if total is None else total + found
        assert total is not None  # the first mirroring is none
        return total / len(mirrorings) if axes else total
