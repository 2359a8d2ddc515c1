"""Spacing, crop size and strides, planned from the data and the budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossvox.batch import CropRule
from crossvox.data.manifest import Case, Manifest
from crossvox.data.prepare.fingerprint import Fingerprint, fingerprint
from crossvox.data.prepare.plan import Budget, make_plan
from crossvox.errors import UsageError

AXIAL = np.eye(3)
OBLIQUE = np.linalg.qr([[0.68, -0.39, -0.62], [0.71, 0.14, 0.69], [0.18, 0.91, -0.38]])[0]


def facts(spacing, extent, frame=AXIAL):
    values = dict(frame=frame, counts={"a": 1, "b": 1}, sizes={}, paired=False)
    return Fingerprint(
        spacing={k: np.array(v, float) for k, v in zip("ab", spacing, strict=True)},
        extent={k: np.array(v, float) for k, v in zip("ab", extent, strict=True)},
        **values,
    )


def manifest(*labels):
    case = Case("one", "train", {"a": Path("one.nii.gz").absolute()})
    ids = {name: number for number, name in enumerate(labels, start=1)}
    return Manifest("m", {"a": "ct", "b": "mr"}, ids, (case,))


ABDOMEN = facts([(1.3, 1.3, 3), (1.25, 1.25, 7.7)], [(342, 342, 273), (320, 320, 270)])
HEART = facts([(1.25, 1.25, 8), (0.73, 0.73, 5)], [(240, 240, 108), (235, 235, 75)])


@pytest.mark.parametrize("data", [ABDOMEN, HEART], ids=["abdomen", "heart"])
@pytest.mark.parametrize("voxels, coverage", [(20_000, 0.6), (60_000, 0.5), (900_000, 0.5)])
def test_a_crop_keeps_the_budget_covers_the_anatomy_and_fits_the_network(data, voxels, coverage):
    task = make_plan(data, manifest("x"), Budget(voxels, coverage, 5)).task
    total = np.prod(task.strides, axis=0)
    assert not (np.array(task.patch) % total).any()
    assert (np.array(task.patch) // total >= 4).all()
    assert 0.4 * voxels < np.prod(task.patch) < 1.7 * voxels
    extent = np.median(list(data.extent.values()), axis=0)
    covered = np.array(task.patch) * task.spacing / extent
    assert (covered > 0.7 * coverage).all()


def test_thick_slices_stay_whole_and_are_not_convolved_over_at_the_top():
    task = make_plan(HEART, manifest("x"), Budget(60_000, 0.5, 4)).task
    assert task.spacing[2] > 3 * task.spacing[0]
    assert task.patch[2] * task.spacing[2] > 80
    assert task.strides[1] == (2, 2, 1)
    assert task.kernels[0] == (3, 3, 1) and task.kernels[-1] == (3, 3, 3)


def test_kernels_never_lose_an_axis_again():
    task = make_plan(HEART, manifest("x"), Budget(900_000, 0.5, 6)).task
    for above, below in zip(task.kernels, task.kernels[1:], strict=False):
        assert all(b >= a for a, b in zip(above, below, strict=True))


def test_one_spacing_serves_all_modalities_and_only_coarsens():
    task = make_plan(ABDOMEN, manifest("x"), Budget(60_000, 0.5, 4)).task
    assert all(np.array(task.spacing) >= np.array([1.27, 1.27, 5.3]))
    roomy = make_plan(ABDOMEN, manifest("x"), Budget(5_000_000, 0.3, 4)).task
    np.testing.assert_allclose(roomy.spacing, [1.275, 1.275, 5.35], atol=0.02)


def test_a_given_crop_is_kept_and_filled_with_voxels_that_exist():
    task = make_plan(HEART, manifest("x"), Budget(coverage=0.3, levels=4, patch=(96, 96, 96))).task
    assert task.patch == (96, 96, 96)
    assert task.patch[2] * task.spacing[2] < 1.2 * 108
    given = Budget(patch=(32, 32, 16), spacing=(3.0, 3.0, 6.0))
    assert make_plan(HEART, manifest("x"), given).task.spacing == (3.0, 3.0, 6.0)


def test_a_crop_that_the_strides_do_not_divide_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match=r"nearest is \(96, 96, 16\)"):
        make_plan(ABDOMEN, manifest("x"), Budget(patch=(97, 96, 16)))


def test_left_right_classes_forbid_mirroring_across_the_midline():
    free = make_plan(ABDOMEN, manifest("liver", "kidney"), Budget()).task
    sided = make_plan(ABDOMEN, manifest("left kidney", "Right kidney"), Budget()).task
    short = make_plan(ABDOMEN, manifest("kidney_l", "kidney_r"), Budget()).task
    assert free.flips == (0, 1, 2) and sided.flips == short.flips == (1, 2)
    lone = make_plan(ABDOMEN, manifest("left kidney", "liver"), Budget()).task
    assert lone.flips == (1, 2)


@pytest.mark.parametrize("mirror, flips", [(None, (1, 2)), (True, (0, 1, 2)), (False, (1, 2))])
def test_the_manifest_decides_on_mirroring_where_names_leave_it_in_doubt(mirror, flips):
    data = replace(manifest("lv", "myo", "rv"), mirror=mirror)
    assert make_plan(ABDOMEN, data, Budget()).task.flips == flips
    plain = replace(manifest("liver"), mirror=mirror)
    assert make_plan(ABDOMEN, plain, Budget()).task.flips == (
        (1, 2) if mirror is False else (0, 1, 2)
    )


def test_oblique_axes_count_as_left_right_too():
    data = facts([(1.25, 1.25, 8)] * 2, [(240, 240, 108)] * 2, frame=OBLIQUE)
    task = make_plan(data, manifest("left ventricle", "right ventricle"), Budget()).task
    assert task.flips == ()


def test_the_fingerprint_reads_train_images_only(unpaired_files, tmp_path):
    before = fingerprint(unpaired_files)
    train = tuple(c for c in unpaired_files.cases if c.split == "train")
    after = fingerprint(Manifest("t", unpaired_files.modalities, unpaired_files.labels, train))
    assert before.counts == after.counts == {"ct": 5, "mr": 5}
    np.testing.assert_array_equal(before.frame, after.frame)
    np.testing.assert_allclose(before.spacing["mr"], [2.5, 2.2, 5.0], atol=1e-5)
    assert not before.paired


def test_a_modality_without_training_images_is_a_usage_error(unpaired_files):
    only = tuple(c for c in unpaired_files.cases if "ct" in c.images)
    with pytest.raises(UsageError, match="no training image of mr"):
        fingerprint(Manifest("t", unpaired_files.modalities, unpaired_files.labels, only))


def test_tasks_survive_json(unpaired_files):
    import json

    from crossvox.batch import Task

    task = make_plan(fingerprint(unpaired_files), unpaired_files, Budget(4000)).task
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task


@pytest.mark.parametrize("data", [ABDOMEN, HEART], ids=["abdomen", "heart"])
@pytest.mark.parametrize("rule", [CropRule(8), CropRule(16), CropRule(16, cubic=True)])
@pytest.mark.parametrize("voxels", [60_000, 900_000])
def test_a_network_with_strides_of_its_own_gets_a_crop_that_it_takes(data, rule, voxels):
    plan = make_plan(data, manifest("x"), Budget(voxels, 0.5, 5), rule)
    rule.check(plan.task.patch, "it")
    assert 0.4 * voxels < np.prod(plan.task.patch) < 1.7 * voxels
    assert plan.task.strides == ((1, 1, 1),) and plan.task.kernels == ((3, 3, 3),)
    extent = np.median(list(data.extent.values()), axis=0)
    covered = np.array(plan.task.patch) * plan.task.spacing / extent
    assert (covered > 0.45).all() and (covered < 1.2).all()


def test_a_given_crop_must_be_one_that_the_network_takes():
    budget = Budget(patch=(96, 96, 90))
    with pytest.raises(UsageError, match=r"budget.patch.*nearest is \(96, 96, 88\)"):
        make_plan(ABDOMEN, manifest("x"), budget, CropRule(8))
    with pytest.raises(UsageError, match=r"a cube.*nearest is \(96, 96, 96\)"):
        make_plan(ABDOMEN, manifest("x"), budget, CropRule(16, cubic=True))
    taken = Budget(patch=(96, 96, 96))
    assert make_plan(ABDOMEN, manifest("x"), taken, CropRule(16, True)).task.patch == (96, 96, 96)


@pytest.mark.parametrize(
    ("rule", "size", "nearest"),
    [
        (CropRule(16), (100, 90, 8), (96, 96, 16)),
        (CropRule(16), (20, 17, 3), (32, 16, 16)),
        (CropRule(16), (16, 16, 16), (32, 32, 32)),
        (CropRule(8), (16, 8, 8), (16, 8, 8)),
        (CropRule(16, cubic=True), (96, 96, 48), (80, 80, 80)),
        (CropRule(16, cubic=True), (16, 16, 16), (32, 32, 32)),
        (CropRule(16, cubic=True), (48, 48, 48), (48, 48, 48)),
    ],
)
def test_the_nearest_crop(rule, size, nearest):
    assert rule.nearest(size) == nearest == rule.nearest(nearest)
    rule.check(nearest, "it")
    if size != nearest:
        with pytest.raises(ValueError, match=f"it cannot take a crop.*{nearest[0]}, {nearest[1]}"):
            rule.check(size, "it")
