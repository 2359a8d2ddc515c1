"""From a prepared store to the batch of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from crossvox.batch import IGNORE, Batch, LabelledView, Task, View
from crossvox.data.crops.augment import Appearance, Augment, random_pose
from crossvox.data.crops.misalign import Misalign
from crossvox.data.crops.sampling import (
    Sampling,
    common_position,
    labelled_start,
    overlapping_start,
    pick,
    position_of,
    shows,
    start_at,
)
from crossvox.data.geometry import Grid, sample, voxel_map
from crossvox.data.manifest import Case, Manifest
from crossvox.data.manifest.selection import Selection
from crossvox.data.prepare.align import align_grids
from crossvox.data.prepare.store import Store, StoredArray
from crossvox.errors import UsageError

VOXELS_PER_CLASS = 5000


@dataclass(frozen=True)
class LabelledCase:
    """A labelled image: what may be looked at, and where its classes are."""

    image: StoredArray
    label: StoredArray
    voxels: tuple[np.ndarray, ...]
    annotated: tuple[bool, ...]


@dataclass
class Row:
    """One row of a view before it is stacked."""

    images: dict[str, Tensor]
    same: dict[str, bool]
    label: Tensor | None
    annotated: tuple[bool, ...]
    name: str


class CropDataset(Dataset[Batch]):
    """Step → `Batch`; the same batch whatever the number of workers, and after any restart.

    Rank r of w processes gets rows r, r + w, …; all ranks together see what one process would.
    Labels exist here for the labelled cases alone.
    """

    def __init__(  # noqa: PLR0913 - each argument is one independent part of what a batch is
        self,
        manifest: Manifest,
        store: Store,
        task: Task,
        selection: Selection,
        *,
        sampling: Sampling,
        augment: Augment,
        seed: int,
        needs: frozenset[str],
        misalign: Misalign | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Open (and where missing, prepare) what the run looks at.

        Args:
            manifest: the data set.
            store: prepared arrays.
            task: modalities, classes and crop.
            selection: which images are labelled and which form the unlabelled pool.
            sampling: numbers of crops.
            augment: strength of the variations.
            seed: of everything random here.
            needs: `unlabelled` and / or `companion`, as the method declares.
            misalign: a motion imposed on one modality's scans.
            rank: of this process.
            world: number of processes.

        Raises:
            UsageError: the rows of a view cannot be shared out evenly.
        """
        for name in ("labelled", "unlabelled"):
            rows = getattr(sampling, name)
            if rows % world:
                fewer, more = rows // world * world, (rows // world + 1) * world
                raise UsageError(
                    f"sampling.{name} is {rows}, which {world} processes cannot share evenly; "
                    f"make it {f'{fewer} or {more}' if fewer else more}"
                )
        self.task, self.selection, self.sampling = task, selection, sampling
        self.augment, self.seed, self.needs = augment, seed, needs
        self.misalign = misalign = misalign or Misalign()
        self.misaligned = (misalign.modality or task.modalities[-1]) if misalign else None
        if self.misaligned not in (None, *task.modalities):
            raise UsageError(
                f"misalign.modality: no modality '{self.misaligned}'; "
                f"choose from {', '.join(task.modalities)}"
            )
        self.rank, self.world = rank, world
        self._appearance = Appearance(augment)
        self.cases = {case.id: case for case in manifest.split("train")}
        self.store = store
        self.places = self._align() if task.aligned else {}
        self.labelled = {
            (m, c): self._open_labelled(manifest, self.cases[c], m)
            for m, cases in selection.labelled.items()
            for c in cases
        }

    def __getitem__(self, step: int) -> Batch:
        """The batch of `step`."""
        rows = {
            m: [self._labelled_row(m, step, k) for k in self._rows(self.sampling.labelled)]
            for m in self.task.modalities
            if self.selection.labelled.get(m)
        }
        unlabelled = []
        if "unlabelled" in self.needs:
            unlabelled = [
                self._unlabelled_row(step, k) for k in self._rows(self.sampling.unlabelled)
            ]
        everything = [*unlabelled, *(row for group in rows.values() for row in group)]
        return Batch(
            step=step,
            labelled={m: self._labelled_view(group) for m, group in rows.items()},
            unlabelled=self._view(unlabelled) if unlabelled else None,
            names=tuple(row.name for row in everything),
        )

    @property
    def shifts(self) -> dict[tuple[str, str], np.ndarray]:
        """(Case, modality) → (3,) mm (RAS+) that scans were moved to lie over the subject's first.

        Only scans that were.
        """
        return {
            (c, m): (place.affine - self._as_given(self.cases[c], m).grid.affine)[:3, 3]
            for (c, m), place in self.places.items()
        }

    def _rows(self, total: int) -> range:
        return range(self.rank, total, self.world)

    def _labelled_row(self, modality: str, step: int, k: int) -> Row:
        stream = self.task.modalities.index(modality)
        rng = np.random.default_rng([self.seed, step, stream, k])
        number = step * self.sampling.labelled + k
        name = pick(self.selection.labelled[modality], number, [self.seed, stream])
        case = self.labelled[modality, name]
        voxel = None
        if rng.random() < self.sampling.foreground and case.voxels:
            voxels = case.voxels[rng.integers(len(case.voxels))]
            voxel = voxels[rng.integers(len(voxels))]
        start = labelled_start(case.image.shape, self.task.patch, voxel, rng)
        matrix = self._about_centre(start, random_pose(self.augment, self.task, rng))
        dropped = rng.random() < self.sampling.partner_drop
        images = {modality: self._image(case.image, matrix, rng)}
        same = {modality: True}
        if "companion" in self.needs and not dropped:
            for other in self._others(self.cases[name], modality):
                entry = self._scan(self.cases[name], other)
                to_other = voxel_map(entry.grid, case.image.grid) @ matrix
                if shows(entry, to_other, np.zeros(3), self.task.patch):
                    images[other], same[other] = self._image(entry, to_other, rng), True
        label = _crop(case.label, matrix, self.task.patch, nearest=True, fill=IGNORE)
        return Row(images, same, label.long(), case.annotated, f"{name}/{modality}")

    def _unlabelled_row(self, step: int, k: int) -> Row:
        """One crop of every modality: of the same subject where it has them, else matched."""
        modalities, stream = self.task.modalities, len(self.task.modalities)
        rng = np.random.default_rng([self.seed, step, stream, k])
        number = step * self.sampling.unlabelled + k
        anchor = modalities[number % len(modalities)]

        def drawn(modality: str) -> Case:
            key = [self.seed, stream + 1 + modalities.index(modality)]
            return self.cases[pick(self.selection.unlabelled[modality], number, key)]

        case, patch = drawn(anchor), self.task.patch
        own = {m: self._scan(case, m) for m in [anchor, *self._others(case, anchor)]}
        if len(own) > 1:
            partners = [own[m] for m in own if m != anchor]
            start = overlapping_start(own[anchor], partners, patch, rng)
            position = position_of(own[anchor], patch, start)
        else:
            strangers = {m: self._scan(drawn(m), m) for m in modalities if m != anchor}
            position = common_position([own[anchor], *strangers.values()], patch, rng.random(3))
            start = start_at(own[anchor], patch, position)
        pose = random_pose(self.augment, self.task, rng)
        matrix = self._about_centre(start, pose)
        images, same = {}, {}
        for m in modalities:
            entry = own.get(m) or self._scan(drawn(m), m)
            at = voxel_map(entry.grid, own[anchor].grid) @ matrix
            same[m] = m in own and shows(entry, at, np.zeros(3), patch)
            if not same[m]:
                at = self._about_centre(start_at(entry, patch, position), pose)
            images[m] = self._image(entry, at, rng)
        return Row(images, same, None, (), f"{case.id}/{anchor}")

    def _scan(self, case: Case, modality: str) -> StoredArray:
        entry = self._as_given(case, modality)
        place = self.places.get((case.id, modality))
        return entry if place is None else entry.at(place)

    def _as_given(self, case: Case, modality: str) -> StoredArray:
        """The scan where its header puts it, or where a motion was imposed to put it."""
        entry = self.store.image(case, modality)
        return self.misalign.stored(case.id, entry) if modality == self.misaligned else entry

    def _align(self) -> dict[tuple[str, str], Grid]:
        """(Case, modality) → where scans lie that are not where their header puts them."""
        found = {}
        for case in self.cases.values():
            scans = {m: self._as_given(case, m) for m in self.task.modalities if m in case.images}
            for m, place in align_grids(scans, self.task.modalities).items():
                if place is not scans[m].grid:
                    found[case.id, m] = place
        return found

    def _others(self, case: Case, modality: str) -> list[str]:
        return [m for m in self.task.modalities if m in case.images and m != modality]

    def _about_centre(self, start: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """Crop voxel → volume voxel: `pose` about the centre of the crop that begins at start."""
        middle = (np.array(self.task.patch) - 1) / 2
        matrix = np.eye(4)
        matrix[:3, :3] = pose
        matrix[:3, 3] = start + middle - pose @ middle
        return matrix

    def _image(self, entry: StoredArray, matrix: np.ndarray, rng: np.random.Generator) -> Tensor:
        crop = _crop(entry, matrix, self.task.patch, nearest=False, fill=entry.fill)
        return self._appearance(crop[None], int(rng.integers(2**31)))

    def _open_labelled(self, manifest: Manifest, case: Case, modality: str) -> LabelledCase:
        label = self.store.label(case, modality, manifest.labels, manifest.ignore)
        indices = label.array[:]
        rng = np.random.default_rng(0)
        voxels = []
        for index in range(1, self.task.n_classes):
            found = np.argwhere(indices == index)
            if len(found):
                voxels.append(rng.permutation(found)[:VOXELS_PER_CLASS])
        annotated = case.annotated if case.annotated is not None else self.task.classes
        flags = (True, *(name in annotated for name in self.task.classes))
        return LabelledCase(self._scan(case, modality), label, tuple(voxels), flags)

    def _view(self, rows: Sequence[Row]) -> View:
        modalities = [m for m in self.task.modalities if any(m in row.images for row in rows)]
        empty = torch.zeros(1, *self.task.patch)
        return View(
            {m: torch.stack([r.images.get(m, empty) for r in rows]) for m in modalities},
            {m: torch.tensor([r.same.get(m, False) for r in rows]) for m in modalities},
        )

    def _labelled_view(self, rows: Sequence[Row]) -> LabelledView:
        view = self._view(rows)
        labels = [row.label for row in rows if row.label is not None]
        partial = any(not all(row.annotated) for row in rows)
        annotated = torch.tensor([row.annotated for row in rows]) if partial else None
        return LabelledView(view.images, view.same_subject, torch.stack(labels), annotated)


def _corners(matrix: np.ndarray, patch: Sequence[int]) -> np.ndarray:
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in patch]), -1).reshape(-1, 3)
    return ends @ matrix[:3, :3].T + matrix[:3, 3]


def _crop(
    entry: StoredArray, matrix: np.ndarray, patch: Sequence[int], *, nearest: bool, fill: float
) -> Tensor:
    """Sample a crop, reading only the part of the stored array that it shows."""
    corners = _corners(matrix, patch)
    low = np.maximum(np.floor(corners.min(0)) - 1, 0).astype(int)
    high = np.minimum(np.ceil(corners.max(0)) + 2, entry.shape).astype(int)
    if (low >= high).any():
        return torch.full(tuple(patch), float(fill))
    region = torch.from_numpy(np.ascontiguousarray(entry.read(low, high), dtype=np.float32))
    shifted = matrix.copy()
    shifted[:3, 3] -= low
    return sample(region, shifted, patch, "nearest" if nearest else "linear", fill)
