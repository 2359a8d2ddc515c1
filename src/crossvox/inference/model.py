"""One trained model: a method, its preprocessing, and sliding-window inference with them."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from crossvox.batch import Task
from crossvox.data.checks.seen import Seen
from crossvox.data.content import Content
from crossvox.data.geometry import Grid
from crossvox.data.geometry.resampling import resample
from crossvox.data.prepare.align import align_scans
from crossvox.data.prepare.outlined import largest_reach
from crossvox.data.prepare.preprocess import PreparedScan, Preprocessing
from crossvox.inference.postprocessing import Postprocessing
from crossvox.inference.settings import Inference
from crossvox.inference.slabs import Slab, native_slabs
from crossvox.inference.sliding_window import SlidingWindow, Traversal, Window, blend_planes
from crossvox.methods.base import Method

Averaged = tuple[str, ...]
"""The modalities whose class probabilities are averaged for one label map, the first of which
gives the grid."""

MAX_PLANE_BYTES = 1_000_000_000
"""Probabilities of unfinished planes; where the first axis needs more, the cheapest one is used."""


class TrainedModel:
    """A trained method with the preprocessing it was trained with."""

    def __init__(
        self,
        method: Method,
        preprocessing: Preprocessing,
        inference: Inference,
        device: torch.device | str = "cpu",
        seen: Mapping[str, Seen] | None = None,
    ) -> None:
        """Move `method` to `device`. It is in evaluation mode only while it predicts.

        Args:
            method: trained.
            preprocessing: that it was trained with.
            inference: options of the sliding window.
            device: to predict on.
            seen: modality → what the training scans were like, where it is known.
        """
        self.method = method.to(device)
        self.preprocessing = preprocessing
        self.inference = inference
        self.device = torch.device(device)
        self.seen = dict(seen or {})

    @property
    def task(self) -> Task:
        """Task of the method."""
        return self.method.task

    @property
    def postprocessing(self) -> Postprocessing:
        """Rule that turns probabilities into a label map."""
        asked = self.inference.largest
        keeps = asked == "always" or (asked == "auto" and self.method.keeps_largest)
        weights = self.method.class_weights() if self.inference.weigh else ()
        if not keeps:
            return Postprocessing(weights)
        return Postprocessing(weights, self.task.one_piece_indices, self.task.offsets)

    def predict_prepared(
        self, prepared: Mapping[str, PreparedScan], native: Mapping[str, Grid]
    ) -> dict[str, np.ndarray]:
        """Return the label maps of one subject.

        Args:
            prepared: modality → prepared scan.
            native: modality → grid of the scan's file.

        Returns:
            Modality → (X, Y, Z) int16 class indices on the file's grid.
        """
        prepared = self.align(prepared)
        return {m: self.label_map(prepared, m, native[m]) for m in prepared}

    def align(self, prepared: Mapping[str, PreparedScan]) -> Mapping[str, PreparedScan]:
        """Bring a subject's scans over each other, if training did and it is not done yet.

        Every prediction does this by itself; doing it before several predictions saves time.
        """
        is_done = len(prepared) < 2 or all(
            scan.aligned_grid is not None for scan in prepared.values()
        )
        if is_done or not self.task.aligned:
            return prepared
        return align_scans(prepared, self.task.modalities)

    def label_map(
        self, prepared: Mapping[str, PreparedScan], output: str, native: Grid
    ) -> np.ndarray:
        """Return the (X, Y, Z) int16 class indices of `output` on its file's grid `native`."""
        slabs = self.slabs(prepared, [(output,)], native)
        content = shown_part([self], prepared[output], output)
        return self.postprocessing.label_map(slabs, native.affine, content)

    def slabs(
        self,
        prepared: Mapping[str, PreparedScan],
        maps: Sequence[Averaged],
        native: Grid,
        traversal: Traversal | None = None,
    ) -> Iterator[Slab]:
        """Yield class probabilities on one file's grid, slab by slab, in one pass of the network.

        The network runs while the slabs are consumed.

        Args:
            prepared: modality → prepared scan of one subject.
            maps: the modalities whose probabilities are averaged, for one map or several; all maps
                lie on the grid of the first modality of the first map.
            native: grid of that scan's file.
            traversal: order of the planes of `native`; None = `traversal`.

        Yields:
            Slabs with the channels of all maps, one map after the other.
        """
        frame, grid = self.preprocessing.frame, prepared[maps[0][0]].grid
        traversal = traversal or self.traversal(grid, native, len(maps))
        planes = self._planes(prepared, maps, traversal.reoriented(native.directions, frame))
        return native_slabs(planes, grid, native, frame, traversal)

    def traversal(self, grid: Grid, native: Grid, maps: int = 1) -> Traversal:
        """Return the order in which the planes of `native` are predicted, for so many `maps`.

        It follows the first axis of the prepared `grid`. If the unfinished planes would then take
        more than `MAX_PLANE_BYTES`, it follows the axis along which they take least;
        probabilities then differ in the last bit, since overlapping windows are added up in
        another order.
        """
        voxels = [math.prod(grid.shape) // n for n in grid.shape]
        channels = maps * self.task.n_classes
        sizes = [self.task.patch[k] * voxels[k] * channels * 4 for k in range(3)]
        axis = 0 if sizes[0] <= MAX_PLANE_BYTES else int(np.argmin(sizes))
        return Traversal(axis).reoriented(grid.directions, native.directions)

    def probabilities(self, prepared: Mapping[str, PreparedScan], output: str) -> Tensor:
        """Return the (C, X, Y, Z) class probabilities on the prepared grid of `output`."""
        planes = self._planes(prepared, [(output,)], Traversal())
        return torch.stack([plane for _, plane in planes], 1)

    def window_values(
        self, images: Mapping[str, Tensor], outputs: Sequence[str]
    ) -> dict[str, Tensor]:
        """Return the (B, C, X, Y, Z) values that are blended: here the class probabilities.

        With `Inference.tta` they are the mean over all mirrorings that the task allows.

        Args:
            images: modality → (B, 1, X, Y, Z) windows.
            outputs: modalities to segment.
        """
        axes = [axis + 2 for axis in self.task.flips] if self.inference.tta else []
        mirrorings = [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]
        totals: dict[str, Tensor] = {}
        for dims in mirrorings:
            # Flipping along no axis would copy, too.
            mirrored = {m: x.flip(dims) for m, x in images.items()} if dims else images
            logits = self.method.predict(mirrored, outputs)
            for m in outputs:
                values = logits[m].float().softmax(1)
                values = values.flip(dims) if dims else values
                totals[m] = totals[m] + values if m in totals else values
        return {m: total / len(mirrorings) if axes else total for m, total in totals.items()}

    def _planes(
        self,
        prepared: Mapping[str, PreparedScan],
        maps: Sequence[Averaged],
        traversal: Traversal,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield index and (maps · C, …, …) probabilities of the prepared grid's planes.

        The subject's other scans are resampled onto the grid of the first map, after they were
        brought over it if training did so (`Task.aligned`). As in training, a window is predicted
        without a scan whose field of view does not hold the window's centre.
        """
        output = maps[0][0]
        anchor, grids = prepared[output], self._aligned_grids(prepared)
        scans, companions = {output: (anchor.array, anchor.fill)}, []
        for other, scan in prepared.items():
            if other != output and self.task.paired:
                array = resample(scan.array, grids[other], grids[output], fill=scan.fill)
                scans[other] = (array, scan.fill)
                companions.append(grids[other])
        sliding = SlidingWindow(
            anchor.grid.shape, self.task.patch, self.inference.overlap, traversal
        )

        def predict(windows: Sequence[Window]) -> Tensor:
            crops = [[sliding.crop(*scan, window) for scan in scans.values()] for window in windows]
            images = torch.stack([torch.stack(row) for row in crops]).to(self.device)
            centres = [grids[output].affine @ [*sliding.centre(w), 1] for w in windows]
            present = torch.tensor([[True, *(g.contains(c) for g in companions)] for c in centres])
            with self._evaluation_mode():
                return self._predict_present(images, present.to(self.device), list(scans), maps)

        return blend_planes(predict, sliding, self.inference.batch, self.device)

    def _aligned_grids(self, prepared: Mapping[str, PreparedScan]) -> dict[str, Grid]:
        """Return where each scan lies relative to the others."""
        return {
            m: (self.task.aligned and scan.aligned_grid) or scan.grid
            for m, scan in self.align(prepared).items()
        }

    @contextlib.contextmanager
    def _evaluation_mode(self) -> Iterator[None]:
        """Switch off training mode and gradients inside the block."""
        training = self.method.training
        self.method.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.method.train(training)

    def _predict_present(
        self, images: Tensor, present: Tensor, names: list[str], maps: Sequence[Averaged]
    ) -> Tensor:
        """Predict each window from the modalities it has.

        Args:
            images: (B, M, X, Y, Z), one channel per modality.
            present: (B, M), whether a window has the modality; it has the first.
            names: of the modalities.
            maps: the modalities whose values are averaged in each; those that are absent are not.

        Returns:
            (B, maps · C, X, Y, Z).
        """
        averaged = set(itertools.chain(*maps))
        result: Tensor | None = None
        for pattern in present.unique(dim=0):
            rows = (present == pattern).all(1)
            given = {name: images[rows, k : k + 1] for k, name in enumerate(names) if pattern[k]}
            by_output = self.window_values(given, [m for m in given if m in averaged])
            means = [_mean(by_output, outputs) for outputs in maps]
            values = means[0] if len(means) == 1 else torch.cat(means, 1)
            if result is None:
                result = values.new_empty((len(images), *values.shape[1:]))
            result[rows] = values
        assert result is not None  # a batch has at least one window
        return result


def shown_part(models: Sequence[TrainedModel], scan: PreparedScan, modality: str) -> Content | None:
    """Return where a scan can hold classes; None = anywhere.

    This is what is no fill, and as much of that as the labels of the models' training scans reach
    into it.
    """
    seen = [model.seen[modality] for model in models if modality in model.seen]
    margin = largest_reach(own.sizes.fill_margin for own in seen)
    return None if margin is None or scan.content is None else scan.content.with_margin(margin)


def _mean(values: Mapping[str, Tensor], outputs: Averaged) -> Tensor:
    """Return the mean of the outputs that there are."""
    own = [values[m] for m in outputs if m in values]
    return own[0] if len(own) == 1 else torch.stack(own).mean(0)
