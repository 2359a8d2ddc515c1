"""An estimate of the memory that a prediction takes, made before the work begins.

Sizes follow from shapes and element types. The network's share is counted on tensors without
values. Four factors are measured: on volumes of 26 million voxels with tracemalloc, or as given.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping

import torch

from crossvox.data.geometry import Grid, orient_grid, respace
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.inference.ensemble import Ensemble, anchor_of
from crossvox.inference.model import TrainedModel
from crossvox.inference.slabs import SLAB_VOXELS
from crossvox.utils.allocations import Ledger

FLOAT, LABEL = 4, 2
"""Bytes per voxel of a scan (float32) and of a label map (int16)."""
PREPARING = 13
"""Bytes per voxel while a scan is prepared: measured 12.8, of which 8 are copies for percentiles
(CT: 8.0)."""
COMPONENTS = 7
"""Bytes per voxel while components are searched: measured below 7.5 (tests/inference/
test_postprocessing.py). Each component takes another 100, which matters from a million on."""
SLAB_COPIES = 6
"""Copies of a slab's values from planes to label map: measured 5.0 to 8.3, of some 12 MB each."""
MARGIN = 1.1
"""Factor for memory that allocators keep; the slow test of this module measured less."""


class MemoryEstimator:
    """Estimate an ensemble's peak memory per subject.

    >>> estimator = MemoryEstimator(ensemble)
    >>> estimator.peak({"ct": Grid((512, 512, 800), affine)}) / 1e9  # GB

    The networks' shares are kept, so that further subjects cost next to nothing.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        self._windows: dict[tuple[tuple[str, ...], int], list[int]] = {}

    def peak(self, grids: Mapping[str, Grid]) -> int:
        """Return the bytes that predicting a subject takes at most, beside those in use already.

        Args:
            grids: modality → grid of the scan's file.
        """
        models, paired = self.ensemble.models, self.ensemble.task.paired
        postprocessing = self.ensemble.postprocessing
        kinds = {model.preprocessing.digest: model.preprocessing for model in models}.values()
        sizes = {m: [_voxels(_prepared(grid, kind)) for kind in kinds] for m, grid in grids.items()}
        held = preparing = 0
        for m, grid in grids.items():
            # Either blurring the scan that was read takes most, or preparing it.
            most = max(3 * FLOAT * _voxels(grid), FLOAT * _voxels(grid) + PREPARING * max(sizes[m]))
            preparing = max(preparing, held + most)
            held += FLOAT * sum(sizes[m])
        largest = max(map(_voxels, grids.values()))
        passes = self.ensemble.passes(grids)
        written = [_voxels(grids[anchor_of(maps)]) for maps in passes for _ in maps]
        most_together = max(map(len, passes))
        labels = LABEL * (sum(written) + most_together * largest * bool(postprocessing.weights))
        # Bringing scans over each other takes less than holding the result (`data.prepare.align`).
        companions = paired * (len(grids) - 1) * FLOAT * max(map(max, sizes.values()))
        segmenting = held + labels + len(models) * companions
        outputs = max((set(itertools.chain(*maps.values())) for maps in passes), key=len)
        images = tuple(grids) if paired else tuple(grids)[:1]
        segmenting += sum(self._window_bytes(images, len(outputs)))
        segmenting += sum(
            max(_blending(model, grids[anchor_of(maps)], len(maps)) for maps in passes)
            for model in models
        )
        searching = held + labels + COMPONENTS * largest * bool(postprocessing.single)
        return int(MARGIN * max(preparing, segmenting, searching))

    def _window_bytes(self, modalities: tuple[str, ...], outputs: int) -> list[int]:
        """Return `window_bytes` of each model."""
        key = (modalities, outputs)
        if key not in self._windows:
            self._windows[key] = [window_bytes(model, *key) for model in self.ensemble.models]
        return self._windows[key]


def window_bytes(model: TrainedModel, modalities: tuple[str, ...], outputs: int = 1) -> int:
    """Return the most bytes that one batch of windows takes, from input to probabilities.

    The network runs on tensors without values, which takes neither time nor memory. On a GPU
    windows take no memory of the process: 0.

    Args:
        model: of the network.
        modalities: whose images it is given.
        outputs: number of these that are segmented.
    """
    if model.device.type != "cpu":
        return 0
    bare = copy.deepcopy(model.method).to("meta").eval()
    shadow = TrainedModel(bare, model.preprocessing, model.inference, "meta")
    with torch.no_grad(), Ledger() as ledger:
        size = (model.inference.batch, 1, *model.task.patch)
        images = {m: torch.empty(size, device="meta") for m in modalities}
        shadow.window_values(images, modalities[:outputs])
    return ledger.peak


def _blending(model: TrainedModel, native: Grid, maps: int) -> int:
    """Return the bytes of unfinished planes, one batch of windows and the slabs made of them.

    Args:
        model: of the windows.
        native: grid of the scan's file.
        maps: number of label maps that are made together.
    """
    task, grid = model.task, _prepared(native, model.preprocessing)
    traversal, channels = model.traversal(grid, native, maps), maps * model.task.n_classes
    axis = traversal.reoriented(native.directions, model.preprocessing.frame).axis
    size = [max(n, p) for n, p in zip(grid.shape, task.patch, strict=True)]
    planes = task.patch[axis] * math.prod(size) // size[axis] * (channels + 1)
    windows = model.inference.batch * math.prod(task.patch) * channels
    plane = _voxels(native) // native.shape[traversal.axis]
    slab = max(plane, min(SLAB_VOXELS, _voxels(native))) * channels
    return FLOAT * (planes + windows + SLAB_COPIES * slab)


def _prepared(grid: Grid, preprocessing: Preprocessing) -> Grid:
    return respace(orient_grid(grid, preprocessing.frame), preprocessing.spacing)


def _voxels(grid: Grid) -> int:
    return math.prod(grid.shape)
