"""One subject's scans in, label maps on the scans' own grids out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from crossvox.batch import Task
from crossvox.data.geometry import Grid, orient, resample
from crossvox.data.nifti import read_image
from crossvox.data.preprocess import Prepared, Preprocessing
from crossvox.errors import require
from crossvox.methods.base import Method


@dataclass(frozen=True)
class Inference:
    """How windows slide.

    Attributes:
        overlap: part of a window that its neighbour sees again, per axis.
        batch: windows at a time; more may be faster and change no result.
    """

    overlap: float = 0.5
    batch: int = 1

    def __post_init__(self) -> None:
        require("inference.overlap", self.overlap, 0, 0.95)
        require("inference.batch", self.batch, 1)


@dataclass
class Prediction:
    """Result for one subject.

    Attributes:
        labels: modality → (X, Y, Z) class indices on that scan's own grid.
        seconds: stage → wall time.
    """

    labels: dict[str, np.ndarray] = field(default_factory=dict)
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
        """Move `method` to `device`; `predict` puts it in evaluation mode while it runs."""
        self.method = method.to(device)
        self.preprocessing = preprocessing
        self.inference = inference
        self.device = torch.device(device)

    @property
    def task(self) -> Task:
        """What the method segments."""
        return self.method.task

    def predict(self, images: Mapping[str, Path]) -> Prediction:
        """Segment the scans of one subject.

        Args:
            images: modality → NIfTI file; any non-empty subset of the task's modalities, each
                on its own grid.

        Returns:
            One label map per scan given.

        Raises:
            DataError: a file cannot be read.
        """
        result = Prediction()
        prepared, native = self.prepare(images, result)
        return self.predict_prepared(prepared, native, result)

    def prepare(
        self, images: Mapping[str, Path], result: Prediction
    ) -> tuple[dict[str, Prepared], dict[str, Grid]]:
        """The scans as `predict_prepared` takes them; the time goes to `result`."""
        start = time.perf_counter()
        prepared, native = {}, {}
        for modality, path in images.items():
            volume = read_image(path)
            start = result.clock("read", start)
            prepared[modality] = self.preprocessing.image(volume.data, volume.grid, modality)
            native[modality] = volume.grid
            start = result.clock("prepare", start)
        return prepared, native

    def predict_prepared(
        self,
        prepared: Mapping[str, Prepared],
        native: Mapping[str, Grid],
        result: Prediction | None = None,
    ) -> Prediction:
        """`predict` for scans that are prepared already, `native` being their files' grids."""
        result = result or Prediction()
        training = self.method.training
        self.method.eval()
        try:
            for modality in prepared:
                start = time.perf_counter()
                probabilities = self.probabilities(prepared, modality)
                start = result.clock("network", start)
                result.labels[modality] = self._to_native(
                    probabilities, prepared[modality].grid, native[modality]
                )
                result.clock("resample", start)
        finally:
            self.method.train(training)
        return result

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
            logits = self.method.predict(given, [names[0]])[names[0]]
            if result is None:
                result = logits.new_empty((len(images), *logits.shape[1:]), dtype=torch.float32)
            result[rows] = logits.float().softmax(1)
        assert result is not None  # a batch has at least one row
        return result

    def _to_native(self, probabilities: Tensor, grid: Grid, native: Grid) -> np.ndarray:
        """Most probable class per voxel of the scan's own grid; one class at a time in memory."""
        labels = np.zeros(native.shape, dtype=np.int16)
        view, oriented = orient(labels, native, self.preprocessing.frame)
        best = np.full(oriented.shape, -1.0, dtype=np.float32)
        for index, channel in enumerate(probabilities):
            # The prepared grid may end half a voxel short of the scan: its border continues.
            values = resample(channel.numpy(), grid, oriented, fill=None)
            larger = values > best
            view[larger] = index
            np.copyto(best, values, where=larger)
        return labels
