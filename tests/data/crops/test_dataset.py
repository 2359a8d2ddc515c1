"""Batches: a pure function of seed, step and row, with labels and flags that fit the crops."""

from __future__ import annotations

import dataclasses
import operator
import shutil

import numpy as np
import pytest
import torch

from crossvox.batch import IGNORE, Batch, LabelledView
from crossvox.data.crops.dataset import CropDataset, CropSettings
from crossvox.data.crops.settings import Augment, Sampling
from crossvox.data.manifest import load_manifest
from crossvox.data.manifest.selection import select
from crossvox.data.prepare.fingerprint import fingerprint
from crossvox.data.prepare.plan import Budget, make_plan
from crossvox.data.prepare.store import Store
from crossvox.errors import UsageError
from crossvox.methods import METHODS

ALL = frozenset({"unlabelled", "companion"})
PLAIN = Augment(rotate=0, scale=0, flip=0, probability=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


def dataset(
    manifest,
    folder,
    *,
    sampling=None,
    augment=None,
    needs=ALL,
    seed=0,
    voxels=1500,
    parts=1,
    **ranks,
):
    plan = make_plan(fingerprint(manifest), manifest, Budget(voxels, 0.5, 3))
    store = Store(
        folder / plan.preprocessing.digest / manifest.path.parent.name, plan.preprocessing
    )
    return CropDataset(
        manifest,
        store,
        plan.task,
        select(manifest, "2"),
        CropSettings(sampling or Sampling(), augment or Augment(), seed=seed, parts=parts),
        needs=needs,
        **ranks,
    )


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    views = {**batch.labelled, "unlabelled": batch.unlabelled}
    found = {}
    for name, view in views.items():
        for field in ("images", "same_subject"):
            values = getattr(view, field).items()
            found |= {f"{name}/{field}/{m}": torch.as_tensor(t) for m, t in values}
        if isinstance(view, LabelledView):
            found[f"{name}/label"] = view.label
    return found


def assert_equal(one: Batch, other: Batch):
    a, b = tensors(one), tensors(other)
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


@pytest.mark.parametrize("paired", [True, False])
def test_a_step_is_a_function_of_seed_and_step(paired_files, unpaired_files, folder, paired):
    manifest = paired_files if paired else unpaired_files
    one, again = dataset(manifest, folder), dataset(manifest, folder)
    again[0], again[11]
    assert_equal(one[3], again[3])
    other_step, other_seed = tensors(one[4]), tensors(dataset(manifest, folder, seed=1)[3])
    here = tensors(one[3])
    image = "unlabelled/images/ct"
    assert not torch.equal(here[image], other_step[image])
    assert not torch.equal(here[image], other_seed[image])


def test_ranks_share_out_what_one_process_would_see(unpaired_files, folder):
    whole = tensors(dataset(unpaired_files, folder)[5])
    parts = [tensors(dataset(unpaired_files, folder, rank=r, world=2)[5]) for r in (0, 1)]
    for key, tensor in whole.items():
        assert torch.equal(tensor, torch.cat([part[key] for part in parts])), key


def test_rows_that_ranks_cannot_share_are_refused(unpaired_files, folder):
    for labelled, nearest in ((2, "it 3$"), (3, "it 2 or 4$")):
        sampling, world = Sampling(labelled=labelled, unlabelled=6), 5 - labelled
        with pytest.raises(UsageError, match=f"{world} processes cannot share.*{nearest}"):
            dataset(unpaired_files, folder, sampling=sampling, world=world)


def test_rows_that_parts_cannot_share_are_refused(unpaired_files, folder):
    sampling = Sampling(labelled=4, unlabelled=6)
    for world, takers in ((1, "fit.accumulate 4"), (2, "2 processes with fit.accumulate 4")):
        with pytest.raises(UsageError, match=f"which {takers} cannot share evenly; make it .*8$"):
            dataset(unpaired_files, folder, sampling=sampling, world=world, parts=4)


def test_labels_lie_on_what_they_label(unpaired_files, folder):
    augment = dataclasses.replace(PLAIN, rotate=20)
    data = dataset(unpaired_files, folder, augment=augment, voxels=9000)
    seen = 0
    for step in range(8):
        view = data[step].labelled["ct"]
        left = view.images["ct"][:, 0][view.label == 1]
        right = view.images["ct"][:, 0][view.label == 2]
        assert len(left) + len(right) > 0
        seen += (len(left) >= 100) + (len(right) >= 100)
        # 60 HU → 0.2 and 140 HU → 1.0; at the rims less, because the body has −0.6.
        assert len(left) < 100 or -0.4 < left.median() < 0.3
        assert len(right) < 100 or 0.3 < right.median() < 1.1
    assert seen > 4


def test_foreground_crops_show_foreground(unpaired_files, folder):
    data = dataset(unpaired_files, folder, sampling=Sampling(foreground=1.0))
    for step in range(6):
        for view in data[step].labelled.values():
            assert (view.label > 0).flatten(1).any(1).all()


def test_unpaired_sets_never_show_a_companion(unpaired_files, folder):
    batch = dataset(unpaired_files, folder, sampling=Sampling(partner_drop=0))[0]
    for modality, view in batch.labelled.items():
        assert set(view.images) == {modality}
    assert set(batch.unlabelled.images) == {"ct", "mr"}
    same = batch.unlabelled.same_subject
    assert all(map(operator.xor, same["ct"], same["mr"]))


def test_strangers_take_the_places_of_companions_where_a_method_needs_them(unpaired_files, folder):
    needs, sampling = ALL | {"stranger"}, Sampling(labelled=8, partner_drop=0.5)
    asked = dataset(unpaired_files, folder, needs=needs, sampling=sampling)[0]
    plain = dataset(unpaired_files, folder, sampling=sampling)[0]
    for anchor, view in asked.labelled.items():
        (other,) = set(view.images) - {anchor}
        assert not any(view.same_subject[other])
        assert 0 < sum(view.strangers[other]) < len(view)  # the others were dropped
        shown = [bool(image.any()) for image in view.images[other]]
        assert shown == list(view.strangers[other])
        assert torch.equal(view.images[anchor], plain.labelled[anchor].images[anchor])
        assert not any(map(any, plain.labelled[anchor].strangers.values()))
    assert plain.unlabelled is not None
    for m, same in plain.unlabelled.same_subject.items():
        assert plain.unlabelled.strangers[m] == tuple(not row for row in same)


def test_paired_sets_show_the_subjects_other_scan_where_it_is(paired_files, folder, tmp_path):
    """The two files of a subject are the same scan, so both crops must agree."""
    shutil.copytree(paired_files.path.parent, tmp_path / "twins")
    manifest = load_manifest(tmp_path / "twins" / "dataset.json")
    for case in manifest.cases:
        for kind in ("images", "labels"):
            shutil.copy(getattr(case, kind)["ct"], getattr(case, kind)["mr"])
    twins = dataclasses.replace(manifest, modalities={"ct": "ct", "mr": "ct"})
    augment = dataclasses.replace(PLAIN, rotate=20, scale=0.2)
    data = dataset(twins, folder, sampling=Sampling(partner_drop=0), augment=augment)
    for step in range(3):
        batch = data[step]
        for view in [*batch.labelled.values(), batch.unlabelled]:
            assert set(view.images) == {"ct", "mr"} and all(view.one_subject)
            torch.testing.assert_close(view.images["ct"], view.images["mr"])


def test_partners_are_dropped_as_often_as_asked(paired_files, folder):
    always = dataset(paired_files, folder, sampling=Sampling(partner_drop=1))[0]
    assert set(always.labelled["ct"].images) == {"ct"}
    half = dataset(paired_files, folder, sampling=Sampling(partner_drop=0.5))
    shown = [sum(half[s].labelled["ct"].same_subject.get("mr", ())) for s in range(20)]
    assert 8 < sum(shown) < 32


def test_no_companion_is_dropped_where_a_method_needs_every_one(paired_files, folder):
    needs, sampling = ALL | {"every companion"}, Sampling(partner_drop=1)
    batch = dataset(paired_files, folder, needs=needs, sampling=sampling)[0]
    assert all(set(view.images) == {"ct", "mr"} for view in batch.labelled.values())
    for method in ("efcd", "mmformer"):
        assert "every companion" in METHODS[method].needs


def test_a_method_gets_only_what_it_needs(paired_files, folder):
    batch = dataset(paired_files, folder, needs=frozenset(), sampling=Sampling(partner_drop=0))[0]
    assert batch.unlabelled is None
    assert all(set(view.images) == {m} for m, view in batch.labelled.items())


def test_unlabelled_means_unlabelled(paired_files, tmp_path):
    """Deleting the label files of the unlabelled images changes no batch."""
    shutil.copytree(paired_files.path.parent, tmp_path / "paired set")
    manifest = load_manifest(tmp_path / "paired set" / "dataset.json")
    before = dataset(manifest, tmp_path / "a")
    batches = [before[step] for step in range(4)]
    selection = select(manifest, "2")
    for case in manifest.split("train"):
        for modality, path in case.labels.items():
            if case.id not in selection.labelled[modality]:
                path.unlink()
    after = dataset(manifest, tmp_path / "b")
    for step, batch in enumerate(batches):
        assert not isinstance(batch.unlabelled, LabelledView)
        assert_equal(batch, after[step])


def test_voxels_beyond_the_scan_are_filled_and_ignored(unpaired_files, folder):
    data = dataset(unpaired_files, folder, augment=PLAIN)
    data.task = dataclasses.replace(data.task, patch=(64, 64, 32))
    view = data[0].labelled["ct"]
    assert (view.label == IGNORE).float().mean() > 0.5
    assert (view.images["ct"][:, 0][view.label == IGNORE] == -2).all()


def test_partial_annotation_is_passed_on(unpaired_files, folder, tmp_path):
    cases = tuple(
        dataclasses.replace(c, annotated=("right ball",)) if c.id == "ct0" else c
        for c in unpaired_files.cases
    )
    manifest = dataclasses.replace(unpaired_files, cases=cases, path=unpaired_files.path)
    batch = dataset(manifest, folder)[0]
    rows = dict(
        zip(
            [n for n in batch.names if n.endswith("ct")][-2:],
            batch.labelled["ct"].annotated.tolist(),
            strict=True,
        )
    )
    assert rows["ct0/ct"] == [True, False, True]
    assert batch.labelled["mr"].annotated is None


def test_names_say_what_was_drawn(unpaired_files, folder):
    batch = dataset(unpaired_files, folder)[0]
    names = batch.names
    assert all(type(t) is torch.Tensor for t in tensors(batch).values())
    assert len(names) == 6 and {n.split("/")[1] for n in names} == {"ct", "mr"}


def test_appearance_varies_but_pose_is_shared(paired_files, folder):
    """Augmentation must not pull the two scans of a subject apart."""
    strong = Augment(rotate=30, scale=0.2, probability=0)
    data = dataset(paired_files, folder, augment=strong, sampling=Sampling(partner_drop=0))
    bodies = []
    for step in range(6):
        images = data[step].unlabelled.images
        bodies += list(zip(images["ct"][:, 0] > -1.2, images["mr"][:, 0] > -0.8, strict=True))
    overlap = [float((a & b).sum() / max(1, (a | b).sum())) for a, b in bodies]
    assert np.mean(overlap) > 0.6
