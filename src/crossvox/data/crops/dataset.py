"""The training data set: step → batch of crops, cut from prepared scans.

In TorchIO's terms, `CropDataset` is subjects data set, sampler and `Queue` in one. Every crop is a
pure function of seed, step and row. So resumed runs, any number of loader workers and any number
of processes see the same batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from crossvox.batch import IGNORE, Batch, LabelledView, Task, View
from crossvox.data.crops.intensities import IntensityAugmentation
from crossvox.data.crops.misalign import Misalign
from crossvox.data.crops.poses import random_pose
from crossvox.data.crops.sampling import (
    common_position,
    contains_centre,
    draw_case,
    labelled_start,
    overlapping_start,
    position_of,
    start_at,
)
from crossvox.data.crops.settings import Augment, Sampling
from crossvox.data.geometry import Grid, voxel_map
from crossvox.data.geometry.resampling import sample
from crossvox.data.manifest import Case, Manifest
from crossvox.data.manifest.selection import Selection
from crossvox.data.prepare.align import align_grids
from crossvox.data.prepare.store import Store, StoredArray
from crossvox.errors import UsageError

VOXELS_PER_CLASS = 5000
"""Voxels of each class that a labelled crop may be drawn to show, per scan."""


@dataclass(frozen=True)
class CropSettings:
    """Options of the crops.

    Attributes:
        sampling: number and position of the crops.
        augment: strength of the augmentation.
        misalign: motion imposed on one modality's scans.
        seed: of everything random in a batch.
        parts: number of equal parts that a process splits its batches into (`fit.accumulate`).
    """

    sampling: Sampling = field(default_factory=Sampling)
    augment: Augment = field(default_factory=Augment)
    misalign: Misalign = field(default_factory=Misalign)
    seed: int = 0
    parts: int = 1


@dataclass(frozen=True)
class LabelledScan:
    """A prepared scan with its label.

    Attributes:
        image: the scan.
        label: class indices on the same voxels.
        class_voxels: (N, 3) voxels of each class that the label shows.
        annotated: whether each class, the background first, was outlined in the case.
    """

    image: StoredArray
    label: StoredArray
    class_voxels: tuple[np.ndarray, ...]
    annotated: tuple[bool, ...]


@dataclass
class CropRow:
    """One row of a view: an anchor crop and the crops that go with it.

    Attributes:
        images: modality → (1, X, Y, Z).
        same_subject: see `View`.
        name: case and modality of the anchor, for messages.
        label: (X, Y, Z) class indices of the anchor; None without a label.
        annotated: see `LabelledScan`.
    """

    images: dict[str, Tensor]
    same_subject: dict[str, bool]
    name: str
    label: Tensor | None = None
    annotated: tuple[bool, ...] = ()


class CropDataset(Dataset[Batch]):
    """Map a step to its `Batch`.

    Rank r of w processes gets the rows r, r + w, …; together they see what one process would.
    Only the labels of the labelled scans are read.

    >>> dataset = CropDataset(manifest, store, task, selection, CropSettings(), needs=frozenset())
    >>> dataset[0].labelled["ct"].images["ct"].shape
    torch.Size([2, 1, 48, 48, 24])
    """

    def __init__(
        self,
        manifest: Manifest,
        store: Store,
        task: Task,
        selection: Selection,
        settings: CropSettings,
        needs: frozenset[str],
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Open the scans of the train split, preparing those that the store lacks.

        Args:
            manifest: the data set.
            store: prepared scans.
            task: modalities, classes and crop size.
            selection: the labelled scans and the unlabelled pool.
            settings: options of the crops.
            needs: what the method uses apart from labelled crops: "unlabelled", "companion",
                "every companion", "stranger"; see `Method.needs`.
            rank: of this process.
            world: number of processes.

        Raises:
            UsageError: the processes and their parts cannot share the crops evenly, or no such
                modality can be misaligned.
        """
        _require_even_shares(settings.sampling, world, settings.parts)
        self.task, self.selection, self.needs = task, selection, needs
        self.sampling, self.augment, self.seed = settings.sampling, settings.augment, settings.seed
        self.misalign = settings.misalign
        self.misaligned = settings.misalign.moved_modality(task.modalities)
        self.rank, self.world = rank, world
        self._augment_intensities = IntensityAugmentation(settings.augment)
        self.cases = {case.id: case for case in manifest.split("train")}
        self.store = store
        self.aligned_grids = self._align() if task.aligned else {}
        self.labelled = {
            (m, c): self._open_labelled(manifest, self.cases[c], m)
            for m, cases in selection.labelled.items()
            for c in cases
        }

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step."""
        labelled = {
            m: [self._labelled_row(m, step, k) for k in self._own_rows(self.sampling.labelled)]
            for m in self.task.modalities
            if self.selection.labelled.get(m)
        }
        unlabelled = []
        if "unlabelled" in self.needs:
            numbers = self._own_rows(self.sampling.unlabelled)
            unlabelled = [self._unlabelled_row(step, k) for k in numbers]
        rows = [*unlabelled, *(row for group in labelled.values() for row in group)]
        return Batch(
            step=step,
            labelled={m: self._labelled_view(group) for m, group in labelled.items()},
            unlabelled=self._view(unlabelled) if unlabelled else None,
            names=tuple(row.name for row in rows),
        )

    @property
    def shifts(self) -> dict[tuple[str, str], np.ndarray]:
        """(Case, modality) → (3,) mm (RAS+) by which alignment moved a scan; only those moved."""
        return {
            (c, m): (grid.affine - self._unaligned(self.cases[c], m).grid.affine)[:3, 3]
            for (c, m), grid in self.aligned_grids.items()
        }

    def _own_rows(self, total: int) -> range:
        """Return this process's share of the rows."""
        return range(self.rank, total, self.world)

    def _labelled_row(self, modality: str, step: int, k: int) -> CropRow:
        """Draw a labelled crop, and crops of the subject's other modalities at the same place."""
        stream = self.task.modalities.index(modality)
        rng = np.random.default_rng([self.seed, step, stream, k])
        number = step * self.sampling.labelled + k
        name = draw_case(self.selection.labelled[modality], number, [self.seed, stream])
        case, scan = self.cases[name], self.labelled[modality, name]
        voxel = None
        if rng.random() < self.sampling.foreground and scan.class_voxels:
            voxels = scan.class_voxels[rng.integers(len(scan.class_voxels))]
            voxel = voxels[rng.integers(len(voxels))]
        start = labelled_start(scan.image.shape, self.task.patch, voxel, rng)
        pose = random_pose(self.augment, self.task, rng)
        to_scan = self._crop_to_scan(start, pose)
        alone = rng.random() < self.sampling.partner_drop and "every companion" not in self.needs
        images = {modality: self._image(scan.image, to_scan, rng)}
        if "companion" in self.needs and not alone:
            for other in self._other_modalities(case, modality):
                companion = self._scan(case, other)
                to_companion = voxel_map(companion.grid, scan.image.grid) @ to_scan
                if contains_centre(companion, to_companion, np.zeros(3), self.task.patch):
                    images[other] = self._image(companion, to_companion, rng)
        same_subject = dict.fromkeys(images, True)
        if "stranger" in self.needs and not alone:
            position = position_of(scan.image, self.task.patch, start)
            for other in [m for m in self.task.modalities if m not in images]:
                pool = self.selection.unlabelled[other]
                stranger = self._scan(self.cases[pool[rng.integers(len(pool))]], other)
                place = self._crop_to_scan(start_at(stranger, self.task.patch, position), pose)
                images[other] = self._image(stranger, place, rng)
        label = _crop(scan.label, to_scan, self.task.patch, nearest=True, fill=IGNORE).long()
        return CropRow(images, same_subject, f"{name}/{modality}", label, scan.annotated)

    def _unlabelled_row(self, step: int, k: int) -> CropRow:
        """Draw a crop of every modality.

        The anchor's modality takes turns. The other crops show the anchor's subject at the same
        place where it has these modalities, else another subject at the same body position.
        """
        modalities, stream = self.task.modalities, len(self.task.modalities)
        rng = np.random.default_rng([self.seed, step, stream, k])
        number = step * self.sampling.unlabelled + k
        anchor = modalities[number % len(modalities)]

        def draw(modality: str) -> Case:
            key = [self.seed, stream + 1 + modalities.index(modality)]
            return self.cases[draw_case(self.selection.unlabelled[modality], number, key)]

        case, patch = draw(anchor), self.task.patch
        own = {m: self._scan(case, m) for m in [anchor, *self._other_modalities(case, anchor)]}
        if len(own) > 1:
            companions = [own[m] for m in own if m != anchor]
            start = overlapping_start(own[anchor], companions, patch, rng)
            position = position_of(own[anchor], patch, start)
        else:
            strangers = [self._scan(draw(m), m) for m in modalities if m != anchor]
            position = common_position([own[anchor], *strangers], patch, rng.random(3))
            start = start_at(own[anchor], patch, position)
        pose = random_pose(self.augment, self.task, rng)
        to_anchor = self._crop_to_scan(start, pose)
        images, same_subject = {}, {}
        for m in modalities:
            scan = own.get(m) or self._scan(draw(m), m)
            to_scan = voxel_map(scan.grid, own[anchor].grid) @ to_anchor
            same_subject[m] = m in own and contains_centre(scan, to_scan, np.zeros(3), patch)
            if not same_subject[m]:
                to_scan = self._crop_to_scan(start_at(scan, patch, position), pose)
            images[m] = self._image(scan, to_scan, rng)
        return CropRow(images, same_subject, f"{case.id}/{anchor}")

    def _scan(self, case: Case, modality: str) -> StoredArray:
        """Return a prepared scan on its aligned grid."""
        scan = self._unaligned(case, modality)
        grid = self.aligned_grids.get((case.id, modality))
        return scan if grid is None else scan.at(grid)

    def _unaligned(self, case: Case, modality: str) -> StoredArray:
        """Return a prepared scan where its header, or the imposed motion, puts it."""
        scan = self.store.image(case, modality)
        if modality != self.misaligned:
            return scan
        return scan.at(self.misalign.move(case.id, scan.grid))

    def _align(self) -> dict[tuple[str, str], Grid]:
        """Return (case, modality) → aligned grid of the scans that alignment moves."""
        moved = {}
        for case in self.cases.values():
            scans = {m: self._unaligned(case, m) for m in self.task.modalities if m in case.images}
            for m, grid in align_grids(scans, self.task.modalities).items():
                if grid is not scans[m].grid:
                    moved[case.id, m] = grid
        return moved

    def _other_modalities(self, case: Case, modality: str) -> list[str]:
        return [m for m in self.task.modalities if m in case.images and m != modality]

    def _crop_to_scan(self, start: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """Return the (4, 4) map from crop voxels to scan voxels, `pose` about the crop's centre."""
        centre = (np.array(self.task.patch) - 1) / 2
        matrix = np.eye(4)
        matrix[:3, :3] = pose
        matrix[:3, 3] = start + centre - pose @ centre
        return matrix

    def _image(self, scan: StoredArray, matrix: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Cut a crop and augment its intensities."""
        crop = _crop(scan, matrix, self.task.patch, nearest=False, fill=scan.fill)
        return self._augment_intensities(crop[None], int(rng.integers(2**31)))

    def _open_labelled(self, manifest: Manifest, case: Case, modality: str) -> LabelledScan:
        label = self.store.label(case, modality, manifest.labels, manifest.ignore)
        indices = label.array[:]
        rng = np.random.default_rng(0)
        class_voxels = []
        for index in range(1, self.task.n_classes):
            voxels = np.argwhere(indices == index)
            if len(voxels):
                class_voxels.append(rng.permutation(voxels)[:VOXELS_PER_CLASS])
        annotated = case.annotated if case.annotated is not None else self.task.classes
        flags = (True, *(name in annotated for name in self.task.classes))
        return LabelledScan(self._scan(case, modality), label, tuple(class_voxels), flags)

    def _view(self, rows: Sequence[CropRow]) -> View:
        modalities = [m for m in self.task.modalities if any(m in row.images for row in rows)]
        empty = torch.zeros(1, *self.task.patch)
        same = {m: tuple(r.same_subject.get(m, False) for r in rows) for m in modalities}
        strangers = {
            m: tuple(m in r.images and not r.same_subject.get(m, False) for r in rows)
            for m in modalities
        }
        images = {m: torch.stack([r.images.get(m, empty) for r in rows]) for m in modalities}
        return View(images, same, strangers=strangers)

    def _labelled_view(self, rows: Sequence[CropRow]) -> LabelledView:
        view = self._view(rows)
        labels = [row.label for row in rows if row.label is not None]
        partial = any(not all(row.annotated) for row in rows)
        annotated = torch.tensor([row.annotated for row in rows]) if partial else None
        return LabelledView(**vars(view), label=torch.stack(labels), annotated=annotated)


def _require_even_shares(sampling: Sampling, world: int, parts: int) -> None:
    shares = world * parts
    takers = [f"{world} processes"] * (world > 1) + [f"fit.accumulate {parts}"] * (parts > 1)
    for name in ("labelled", "unlabelled"):
        rows = getattr(sampling, name)
        if rows % shares:
            fewer, more = rows // shares * shares, (rows // shares + 1) * shares
            raise UsageError(
                f"sampling.{name} is {rows}, which {' with '.join(takers)} cannot share evenly; "
                f"make it {f'{fewer} or {more}' if fewer else more}"
            )


def _crop(
    scan: StoredArray, matrix: np.ndarray, patch: Sequence[int], *, nearest: bool, fill: float
) -> Tensor:
    """Resample a crop from the part of the stored array that it shows.

    Args:
        scan: image or label.
        matrix: (4, 4) map from crop voxels to scan voxels.
        patch: size of the crop.
        nearest: take the nearest voxel instead of interpolating.
        fill: value outside the scan.
    """
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in patch]), -1).reshape(-1, 3)
    corners = corners @ matrix[:3, :3].T + matrix[:3, 3]
    # A margin of a voxel on each side for the interpolation.
    low = np.maximum(np.floor(corners.min(0)) - 1, 0).astype(int)
    high = np.minimum(np.ceil(corners.max(0)) + 2, scan.shape).astype(int)
    if (low >= high).any():
        return torch.full(tuple(patch), float(fill))
    region = torch.from_numpy(np.ascontiguousarray(scan.read(low, high), dtype=np.float32))
    to_region = matrix.copy()
    to_region[:3, 3] -= low
    return sample(region, to_region, patch, "nearest" if nearest else "linear", fill)
