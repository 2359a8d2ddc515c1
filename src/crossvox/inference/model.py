"""One trained method: class probabilities of one subject's prepared scans."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from crossvox.batch import Task
from crossvox.data.geometry.grid import Grid, resample
from crossvox.data.prepare.align import laid_over
from crossvox.data.prepare.preprocess import Prepared, Preprocessing
from crossvox.errors import require
from crossvox.inference.postprocessing import Postprocessing
from crossvox.inference.slabs import Slabs, Traversal, native_slabs
from crossvox.inference.sliding_window import Place, SlidingWindow, slide
from crossvox.methods.base import Method

Largest = Literal["auto", "always", "never"]

ROWS_BYTES = 1_000_000_000
"""Probabilities of rows that windows still reach: beyond this the way through a scan is chosen
by what it takes."""


@dataclass(frozen=True)
class Inference:
    """How windows slide.

    Attributes:
        overlap: part of a window that its neighbour sees again, per axis.
        batch: windows at a time; more may be faster and change no result.
        tta: average over the window's mirror images, along axes on which no left and right
            class change places; 2, 4 or 8 times the time.
        largest: whether label maps keep one part only of each class that is one piece in the
            labelled training scans: the largest, unless another lies better
            (`inference.largest_part`); auto = if the method says so. Probabilities stay.
        weigh: whether label maps weigh the classes, where the method has weights for them.
    """

    overlap: float = 0.5
    batch: int = 1
    tta: bool = False
    largest: Largest = "auto"
    weigh: bool = True

    def __post_init__(self) -> None:
        require("inference.overlap", self.overlap, 0, 0.95)
        require("inference.batch", self.batch, 1)


class TrainedModel:
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

    @property
    def postprocessing(self) -> Postprocessing:
        """How its probabilities become a label map."""
        asked = self.inference.largest
        keeps = asked == "always" or (asked == "auto" and self.method.keeps_largest)
        weights = self.method.class_weights() if self.inference.weigh else ()
        if not keeps:
            return Postprocessing(weights)
        return Postprocessing(weights, self.task.single, self.task.offsets)

    def predict_prepared(
        self, prepared: Mapping[str, Prepared], native: Mapping[str, Grid]
    ) -> dict[str, np.ndarray]:
        """Label maps of one subject's prepared scans on `native`, the grids of their files."""
        prepared = self.together(prepared)
        return {m: self.label(prepared, m, native[m]) for m in prepared}

    def together(self, prepared: Mapping[str, Prepared]) -> Mapping[str, Prepared]:
        """A subject's scans, brought over each other if they were in training, and are not yet.

        What predicts does it too; who predicts several outputs saves time by doing it once.
        """
        known = len(prepared) < 2 or all(scan.place is not None for scan in prepared.values())
        if known or not self.task.aligned:
            return prepared
        return laid_over(prepared, self.task.modalities)

    def label(self, prepared: Mapping[str, Prepared], output: str, native: Grid) -> np.ndarray:
        """The label map of `output` alone, on its file's grid `native`."""
        return self.postprocessing.label_map(self.slabs(prepared, output, native), native.affine)

    def slabs(
        self,
        prepared: Mapping[str, Prepared],
        output: str,
        native: Grid,
        way: Traversal | None = None,
    ) -> Slabs:
        """Probabilities of `output` on its file's grid `native`, some planes at a time.

        The network does its work as the slabs are asked for. `way` is through `native`; None =
        the member's own (`own_way`).
        """
        frame = self.preprocessing.frame
        way = way or self.own_way(prepared[output].grid, native)
        rows = self.rows(prepared, output, way.reoriented(native.directions, frame))
        return native_slabs(rows, prepared[output].grid, native, frame, way)

    def own_way(self, grid: Grid, native: Grid) -> Traversal:
        """Through a scan's file: what is the first axis of its prepared `grid`, from the start.

        For scans so large that the rows under way would take more than `ROWS_BYTES`, the axis
        along which they take least. Probabilities then differ in their last bit, as windows that
        meet are added up in another order.
        """
        planes = [math.prod(grid.shape) // n for n in grid.shape]
        sizes = [self.task.patch[k] * planes[k] * self.task.n_classes * 4 for k in range(3)]
        axis = 0 if sizes[0] <= ROWS_BYTES else int(np.argmin(sizes))
        return Traversal(axis).reoriented(grid.directions, native.directions)

    def probabilities(self, prepared: Mapping[str, Prepared], output: str) -> Tensor:
        """(C, X, Y, Z) class probabilities on the whole prepared grid of `output`."""
        return torch.stack([row for _, row in self.rows(prepared, output, Traversal(0))], 1)

    def rows(
        self, prepared: Mapping[str, Prepared], output: str, way: Traversal
    ) -> Iterator[tuple[int, Tensor]]:
        """Class probabilities on the prepared grid of `output`, plane by plane.

        The subject's other scans are resampled onto that grid, first brought over it if that was
        done in training (`Task.aligned`); a window whose centre lies outside such a scan's field
        of view is predicted without it, as in training.

        Yields:
            The planes' places along `way`, in its order, and their (C, …, …).
        """
        anchor, lies = prepared[output], self._grids(prepared)
        scans, grids = {output: (anchor.array, anchor.fill)}, []
        for other, scan in prepared.items():
            if other != output and self.task.paired:
                array = resample(scan.array, lies[other], lies[output], fill=scan.fill)
                scans[other] = (array, scan.fill)
                grids.append(lies[other])
        shape, patch, overlap = anchor.grid.shape, self.task.patch, self.inference.overlap
        windows = SlidingWindow(shape, patch, overlap, way.axis, way.descending)

        def answer(places: Sequence[Place]) -> Tensor:
            cut = [[windows.cut(*scan, place) for scan in scans.values()] for place in places]
            images = torch.stack([torch.stack(row) for row in cut]).to(self.device)
            centres = [lies[output].affine @ [*windows.centre(place), 1] for place in places]
            present = torch.tensor([[True, *(g.holds(c) for g in grids)] for c in centres])
            with self._predicting():
                return self._window(images, present.to(self.device), list(scans))

        return slide(answer, windows, self.inference.batch, self.device)

    def _grids(self, prepared: Mapping[str, Prepared]) -> dict[str, Grid]:
        """Where the scans lie to each other."""
        moved = self.task.aligned
        scans = self.together(prepared)
        return {m: (moved and scan.place) or scan.grid for m, scan in scans.items()}

    @contextlib.contextmanager
    def _predicting(self) -> Iterator[None]:
        """The method in evaluation mode and without gradients; then as it was."""
        training = self.method.training
        self.method.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.method.train(training)

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
