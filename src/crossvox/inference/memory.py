"""What a prediction will take, before it is made."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crossvox.data.geometry.grid import Grid, oriented_grid, respaced
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.inference.ensemble import Ensemble
from crossvox.inference.model import TrainedModel
from crossvox.inference.slabs import SLAB_VOXELS

PREPARED, LABEL = 4, 2
"""Bytes per voxel of a prepared scan and of a label map."""
PREPARING = 13
"""Bytes per voxel of the prepared grid while it is made: the array, the copies that percentiles
and deviations are taken of, and the body's mask (`data.prepare.preprocess`)."""
PARTS = 7
"""Bytes per voxel of a label map while smaller parts are taken out of it (`components`). Some 100
bytes per part come to that, which matters from a million parts on."""
SLAB_COPIES = 6
"""How often a slab's values are there on their way through `native_slabs` and its consumers."""
MARGIN = 1.1
"""For what the allocators keep: what they gave back is not at once the system's again."""


class MemoryEstimator:
    """What an ensemble takes for this subject and for that."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble
        self._windows: dict[tuple[str, ...], list[int]] = {}

    def peak(self, grids: Mapping[str, Grid]) -> int:
        """Bytes that predicting a subject takes at most, beside those in use already.

        Args:
            grids: modality → grid of the scan's file.
        """
        models, paired = self.ensemble.models, self.ensemble.task.paired
        ways = {member.preprocessing.digest: member.preprocessing for member in models}
        sizes = {m: [_voxels(_prepared(g, way)) for way in ways.values()] for m, g in grids.items()}
        held = preparing = 0
        for m, grid in grids.items():
            # Read and blurred, or read and prepared.
            largest = max(12 * _voxels(grid), 4 * _voxels(grid) + PREPARING * max(sizes[m]))
            preparing = max(preparing, held + largest)
            held += PREPARED * sum(sizes[m])
        decision, largest = self.ensemble.postprocessing, max(map(_voxels, grids.values()))
        labels = LABEL * (sum(map(_voxels, grids.values())) + largest * bool(decision.weights))
        # To bring scans over each other takes less than these do afterwards (`data.prepare.align`).
        companions = paired * (len(grids) - 1) * PREPARED * max(map(max, sizes.values()))
        # Of a paired run's windows each sees all scans; of another's each modality alone.
        seen = tuple(grids) if paired else tuple(grids)[:1]
        if seen not in self._windows:
            self._windows[seen] = [window_bytes(member, seen) for member in models]
        segmenting = held + labels + len(models) * companions + sum(self._windows[seen])
        segmenting += sum(max(_blending(m, g) for g in grids.values()) for m in models)
        dropping = PARTS * largest if decision.single else 0
        return int(MARGIN * max(preparing, segmenting, held + labels + dropping))


def window_bytes(member: TrainedModel, modalities: tuple[str, ...]) -> int:
    """The most that is held of one batch of windows at a time, from input to probabilities.

    The network runs on tensors without values, which takes neither time nor memory.
    """
    if member.device.type != "cpu":
        return 0
    bare = copy.deepcopy(member.method).to("meta").eval()
    inference, task = member.inference, member.task
    shadow = TrainedModel(bare, member.preprocessing, inference, "meta")
    with torch.no_grad(), _Held() as held:
        size = (inference.batch, 1, *task.patch)
        images = {m: torch.empty(size, device="meta") for m in modalities}
        shadow._answer(images, modalities[0])
    return held.most


def _blending(member: TrainedModel, native: Grid) -> int:
    """The rows under way, what a window adds to them, and the slabs that are made of them."""
    task, grid = member.task, _prepared(native, member.preprocessing)
    way = member.own_way(grid, native)
    axis = way.reoriented(native.directions, member.preprocessing.frame).axis
    size = [max(n, p) for n, p in zip(grid.shape, task.patch, strict=True)]
    rows = task.patch[axis] * math.prod(size) // size[axis] * (task.n_classes + 1)
    added = member.inference.batch * math.prod(task.patch) * task.n_classes
    plane = _voxels(native) // native.shape[way.axis]
    slab = max(plane, min(SLAB_VOXELS, _voxels(native))) * task.n_classes
    return 4 * (rows + added + SLAB_COPIES * slab)


def _prepared(grid: Grid, way: Preprocessing) -> Grid:
    return respaced(oriented_grid(grid, way.frame), way.spacing)


def _voxels(grid: Grid) -> int:
    return math.prod(grid.shape)


class _Held(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, `most` of them at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in self.known:
                storage = leaf.untyped_storage()
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return made

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size
