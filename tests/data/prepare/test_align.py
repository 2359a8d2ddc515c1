"""Scans of one subject are aligned where their headers are wrong, and only there."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - as its own documentation has it
import torch
from torch import nn

from crossvox.batch import Task
from crossvox.cli.main import main
from crossvox.data.crops.dataset import CropDataset, CropSettings
from crossvox.data.crops.misalign import Misalign
from crossvox.data.crops.settings import Augment, Sampling
from crossvox.data.formats.nifti import read_image
from crossvox.data.geometry import Grid
from crossvox.data.manifest import load_manifest
from crossvox.data.manifest.selection import select
from crossvox.data.phantom import write_phantom
from crossvox.data.prepare import align
from crossvox.data.prepare.align import _reduce, align_grids, find_shift, shift_grid
from crossvox.data.prepare.fingerprint import fingerprint
from crossvox.data.prepare.plan import Budget, make_plan
from crossvox.data.prepare.preprocess import PreparedScan
from crossvox.data.prepare.store import Store
from crossvox.inference.model import Inference, TrainedModel
from crossvox.workflows.messages import describe_shifts
from crossvox.workflows.run import Run
from fixtures.run import train_arguments

ERROR = 15.0
"""Largest error of a shift in mm: two slices of the phantom."""
SHIFTS = [(35, -30, 0), (0, 10, 25), (-60, 0, -20)]


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom")
    return load_manifest(write_phantom(out, train=4, val=1, test=0, paired=True, registered=True))


@pytest.fixture(scope="module")
def plan(registered):
    plan = make_plan(fingerprint(registered), registered, Budget(6000, 0.5, 3))
    return dataclasses.replace(
        plan, task=dataclasses.replace(plan.task, registered=False, aligned=True)
    )


@pytest.fixture(scope="module")
def scans(registered, plan):
    """Per subject: modality → prepared scan; the two lie over each other.

    Label maps are asked for on the prepared grids, so that nothing is known of the files' fill.
    """
    found = []
    for case in registered.cases:
        volumes = {m: read_image(path) for m, path in case.images.items()}
        prepare = plan.preprocessing.prepare_image
        prepared = {m: prepare(v.data, v.grid, m) for m, v in volumes.items()}
        found.append({m: dataclasses.replace(s, content=None) for m, s in prepared.items()})
    return found


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_wrong_header_is_found_out_by_what_the_scans_show(scans, shift):
    for pair in scans:
        ct, mr = pair["ct"], pair["mr"]
        there = find_shift(ct.array, ct.grid, mr.array, shift_grid(mr.grid, np.array(shift, float)))
        assert np.linalg.norm(there + shift) < ERROR
        back = find_shift(mr.array, shift_grid(mr.grid, np.array(shift, float)), ct.array, ct.grid)
        assert np.linalg.norm(back - shift) < ERROR


def test_headers_that_are_right_are_believed(scans):
    for pair in scans:
        places = align_grids(pair, ("ct", "mr"))
        assert places["ct"] is pair["ct"].grid and places["mr"] is pair["mr"].grid


def test_scans_that_tell_nothing_about_each_other_stay_where_they_are():
    rng = np.random.default_rng(0)
    for shape in ((30, 30, 12), (6, 5, 4), (40, 1, 40)):
        grid = Grid(shape, np.diag([4.0, 4.0, 8.0, 1.0]))
        far = shift_grid(grid, np.array([5000.0, 0, 0]))
        noise = rng.normal(size=(2, *shape)).astype(np.float32)
        for of in (grid, far):
            assert not find_shift(noise[0], grid, noise[1], of).any()
            assert not find_shift(np.zeros(shape, np.float32), grid, noise[1], of).any()


@pytest.mark.parametrize("slices", [2, 3])
@pytest.mark.parametrize("thin", ["ct", "mr"])
def test_stacks_of_two_or_three_slices_are_brought_over_the_others(scans, slices, thin):
    shift = np.array([35.0, -30, 0])
    pair = dict(scans[0])
    scan, middle = pair[thin], pair[thin].array.shape[2] // 2
    affine = scan.grid.affine.copy()
    affine[:3, 3] += affine[:3, 2] * middle
    array = scan.array[..., middle : middle + slices]
    pair[thin] = PreparedScan(array, Grid(array.shape, affine), scan.fill, scan.body_box)
    ct, mr = pair["ct"], pair["mr"]
    there = find_shift(ct.array, ct.grid, mr.array, shift_grid(mr.grid, shift))
    assert np.linalg.norm(there + shift) < ERROR
    assert not find_shift(ct.array, ct.grid, mr.array, mr.grid).any()


def test_scans_that_headers_put_apart_stay_apart(scans):
    """They may show different parts of the body; `crossvox check` reports them."""
    for pair in scans:
        ct, mr = pair["ct"], pair["mr"]
        far = shift_grid(mr.grid, np.array([0.0, 0, 600]))
        assert not find_shift(ct.array, ct.grid, mr.array, far).any()


def test_a_little_in_common_is_enough_to_be_found(scans):
    ct, mr = scans[0]["ct"], scans[0]["mr"]
    far = np.array([180.0, 120, 0])
    there = find_shift(ct.array, ct.grid, mr.array, shift_grid(mr.grid, far))
    assert np.linalg.norm(there + far) < ERROR


def test_the_number_of_threads_has_no_say(scans):
    ct, mr = scans[2]["ct"], scans[2]["mr"]
    of, before = shift_grid(mr.grid, np.array([30.0, 0, 0])), sitk.ProcessObject
    threads = before.GetGlobalDefaultNumberOfThreads()
    try:
        found = []
        for number in (1, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(number)
            found.append(find_shift(ct.array, ct.grid, mr.array, of))
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    assert found[0].any()
    np.testing.assert_array_equal(*found)


def test_of_three_scans_two_come_to_the_first(scans):
    pair = scans[0]
    shifts = {"mr": np.array([40.0, 0, 0]), "late": np.array([0.0, -45, 0])}
    three = {"ct": pair["ct"]} | {
        m: dataclasses.replace(pair["mr"], grid=shift_grid(pair["mr"].grid, shift))
        for m, shift in shifts.items()
    }
    places = align_grids(three, ("ct", "late", "mr"))
    assert places["ct"] is pair["ct"].grid
    for m, shift in shifts.items():
        moved = (places[m].affine - three[m].grid.affine)[:3, 3]
        assert np.linalg.norm(moved + shift) < ERROR


def test_the_first_scan_in_the_given_order_stays(scans):
    shift = np.array([0.0, 40, 0])
    ct, mr = scans[0]["ct"], scans[0]["mr"]
    pair = {"ct": dataclasses.replace(ct, grid=shift_grid(ct.grid, shift)), "mr": mr}
    for first, other, sign in (("ct", "mr", 1), ("mr", "ct", -1)):
        places = align_grids(pair, (first, "none", other))
        assert places[first] is pair[first].grid
        moved = (places[other].affine - pair[other].grid.affine)[:3, 3]
        assert np.linalg.norm(moved - sign * shift) < ERROR
        np.testing.assert_array_equal(places[other].affine[:3, :3], pair[other].grid.affine[:3, :3])
    assert align_grids({"mr": mr}, ("ct", "mr")) == {"mr": mr.grid}


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.7, 0.7, 5), (9, 2, 2)])
def test_coarse_blocks_lie_where_their_voxels_do(spacing):
    """The array holds the world position of its voxels."""
    affine = np.diag([*spacing, 1.0]) @ np.array(
        [[0, 1, 0, 3], [-1, 0, 0, 5], [0, 0, 1, -7], [0, 0, 0, 1.0]]
    )
    grid = Grid((101, 90, 40), affine)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    for axis in range(3):
        world = (index @ affine[:3, :3].T + affine[:3, 3])[..., axis]
        coarse, at = _reduce(world, grid)
        assert 5_000 < coarse.size <= 50_000 and coarse.shape == at.shape
        for corner in ((0, 0, 0), tuple(n - 1 for n in coarse.shape)):
            expected = (at.affine @ [*corner, 1])[axis]
            assert coarse[corner] == pytest.approx(expected, abs=0.01)


def crops(manifest, plan, folder, *, aligned, misalign=None):
    return CropDataset(
        manifest,
        Store(folder, plan.preprocessing),
        dataclasses.replace(plan.task, aligned=aligned),
        select(manifest, "2"),
        CropSettings(
            Sampling(partner_drop=0.0),
            Augment(rotate=0, scale=0, flip=0, probability=0),
            misalign or Misalign(),
        ),
        needs=frozenset({"unlabelled", "companion"}),
    )


def test_training_crops_show_the_same_anatomy_though_headers_are_wrong(registered, plan, tmp_path):
    """They are compared with crops of the same scans with right headers."""
    moved = Misalign("mr", shift=45)
    right = crops(registered, plan, tmp_path, aligned=False)
    wrong = crops(registered, plan, tmp_path, aligned=False, misalign=moved)
    mended = crops(registered, plan, tmp_path, aligned=True, misalign=moved)
    assert {m for _, m in mended.shifts} == {"mr"} and len(mended.shifts) == 4
    for (case, _), shift in mended.shifts.items():
        true = moved.motion(case, mended.store.image(mended.cases[case], "mr").grid)[:3, 3]
        assert np.linalg.norm(shift + true) < ERROR
    assert not wrong.shifts and not right.shifts

    def likeness(data, anchor, other):
        """Return the correlation of companion crops with those of `right` at the same positions."""
        found = []
        for step in range(6):
            view, truth = (d[step].labelled[anchor] for d in (data, right))
            assert torch.equal(view.images[anchor], truth.images[anchor])
            rows = zip(view.same_subject[other], truth.same_subject[other], strict=True)
            for k in (k for k, row in enumerate(rows) if all(row)):
                pair = torch.stack([v.images[other][k].flatten() for v in (view, truth)])
                found.append(float(torch.corrcoef(pair)[0, 1]))
        assert len(found) > 4
        return np.mean(found)

    for anchor, other in (("ct", "mr"), ("mr", "ct")):
        assert likeness(mended, anchor, other) > 0.8 > 0.5 > likeness(wrong, anchor, other)


def test_unlabelled_crops_of_a_subject_show_one_place(registered, plan, tmp_path):
    """Return the correlation of the body masks in the crops of the two scans."""
    moved = Misalign("mr", shift=45)

    def agreement(data):
        found = []
        for step in range(8):
            view = data[step].unlabelled
            for k in (k for k, row in enumerate(view.one_subject) if row):
                pair = torch.stack(
                    [(view.images[m][k] > -1).float().flatten() for m in view.images]
                )
                found.append(float(torch.nan_to_num(torch.corrcoef(pair)[0, 1])))
        assert len(found) > 8
        return np.mean(found)

    wrong = agreement(crops(registered, plan, tmp_path, aligned=False, misalign=moved))
    right = agreement(crops(registered, plan, tmp_path, aligned=False))
    mended = agreement(crops(registered, plan, tmp_path, aligned=True, misalign=moved))
    assert wrong < mended - 0.1 and abs(mended - right) < 0.1


class Companion(nn.Module):
    """Predicts class 1 where the other scan is bright."""

    def __init__(self, task: Task):
        super().__init__()
        self.task, self.keeps_largest, self.shown = task, False, []

    def class_weights(self):
        return ()

    def predict(self, images, outputs=None):
        (name,) = outputs
        self.shown.append(len(images))
        other = next((image for m, image in images.items() if m != name), images[name])
        zeros = torch.zeros_like(other)
        return {name: torch.cat([-50 * other, 50 * other, *[zeros - 99] * 3], 1)}


@pytest.mark.parametrize("output", ["ct", "mr"])
def test_a_prediction_sees_the_other_scan_where_it_shows_the_same(scans, plan, output):
    shift = np.array([40.0, -25, 0])
    pair = scans[1]
    moved = {**pair, "mr": dataclasses.replace(pair["mr"], grid=shift_grid(pair["mr"].grid, shift))}

    def label(prepared, aligned):
        task = dataclasses.replace(plan.task, aligned=aligned)
        member = TrainedModel(Companion(task), plan.preprocessing, Inference(0.25))
        return member.label_map(prepared, output, prepared[output].grid) == 1

    def overlap(a, b):
        return 2 * (a & b).sum() / (a.sum() + b.sum())

    truth = label(pair, False)
    np.testing.assert_array_equal(label(pair, True), truth)
    assert overlap(label(moved, True), truth) > 0.9 > 0.8 > overlap(label(moved, False), truth)


@pytest.mark.parametrize("output", ["ct", "mr"])
def test_windows_beyond_the_other_scan_do_without_it_where_it_truly_ends(scans, plan, output):
    """The companion has half the slices, and a header that is wrong by its length."""
    pair, other = scans[1], "mr" if output == "ct" else "ct"
    scan = pair[other]
    half = scan.array[..., : scan.array.shape[2] // 2]
    short = PreparedScan(half, Grid(half.shape, scan.grid.affine), scan.fill, scan.body_box)
    shift = np.array([120.0, 90, 0])
    moved = dataclasses.replace(short, grid=shift_grid(short.grid, shift))

    def shown(companion, aligned):
        patch = (16, 16, 4)
        task = dataclasses.replace(plan.task, aligned=aligned, patch=patch)
        member = TrainedModel(Companion(task), plan.preprocessing, Inference(0.0))
        member.label_map({output: pair[output], other: companion}, output, pair[output].grid)
        return member.method.shown

    truth = shown(short, False)
    assert 0 < truth.count(2) < len(truth)
    assert shown(moved, True) == truth != shown(moved, False)


def test_a_subject_is_brought_together_once_for_all_outputs(scans, plan, monkeypatch):
    pair, asked = scans[0], []
    monkeypatch.setattr(align, "align_grids", lambda *a: asked.append(a) or align_grids(*a))
    member = TrainedModel(Companion(plan.task), plan.preprocessing, Inference(0.25))
    found = member.predict_prepared(pair, {m: scan.grid for m, scan in pair.items()})
    assert len(asked) == 1 and set(found) == {"ct", "mr"}
    alone = TrainedModel(
        Companion(dataclasses.replace(plan.task, aligned=False)), plan.preprocessing, Inference()
    )
    assert alone.align(pair) is pair and member.align({"ct": pair["ct"]}).keys() == {"ct"}
    assert len(asked) == 1


def test_one_line_says_how_many_scans_were_moved_and_how_far():
    shifts = {("s1", "mr"): [0.0, 0, 12], ("s2", "mr"): [30.0, 40, 0], ("s2", "t1"): [6.0, 0, 8]}
    lines = list(describe_shifts({key: np.array(shift) for key, shift in shifts.items()}))
    start = "training subjects onto their first scan, by"
    assert lines == [
        f"moved        mr of 2 {start} 12 to 50 mm (most: s2)",
        f"moved        t1 of 1 {start} 10 to 10 mm (most: s2)",
    ]
    assert list(describe_shifts({})) == []


def run_of(manifest, out, *more):
    argv = train_arguments(manifest.path, out, *more)
    assert main(argv) == 0
    return Run.load(out), json.loads((out / "run.json").read_text())


def test_a_run_says_what_it_moved(registered, tmp_path, capsys):
    path = tmp_path / "set.json"
    dataclasses.replace(registered, registered=False).save(path)
    manifest = load_manifest(path, registered.path.parent)
    root = ["--root", str(registered.path.parent), "--store", str(tmp_path / "store")]
    moved = ["--misalign.modality", "mr", "--misalign.shift", "45"]
    run, facts = run_of(manifest, tmp_path / "a", *root, *moved)
    said = capsys.readouterr().out
    assert run.task.aligned and "moved        mr of 4 training subjects" in said
    assert set(facts["moved_mm"]) == {f"s{k:03d}/mr" for k in range(4)}
    for shift in facts["moved_mm"].values():
        assert 45 - ERROR < np.linalg.norm(shift) < 45 + ERROR
    run, facts = run_of(manifest, tmp_path / "b", *root, *moved, "--sampling.align", "false")
    assert not run.task.aligned and facts["moved_mm"] == {}
    assert "moved " not in capsys.readouterr().out
    run, facts = run_of(registered, tmp_path / "c", *root)
    assert run.task.registered and not run.task.aligned and facts["moved_mm"] == {}
    run, facts = run_of(registered, tmp_path / "d", *root, *moved)
    assert not run.task.registered and run.task.aligned and len(facts["moved_mm"]) == 4


def test_where_scans_never_meet_there_is_nothing_to_align(unpaired_files, paired_files, tmp_path):
    assert not run_of(unpaired_files, tmp_path / "unpaired")[0].task.aligned
    assert not run_of(paired_files, tmp_path / "sup", "--method", "sup")[0].task.aligned
    assert run_of(paired_files, tmp_path / "cml", "--method", "cml")[0].task.aligned


def test_a_task_that_says_nothing_of_alignment_has_none(scans, plan):
    values = plan.task.to_dict()
    assert Task.from_dict(values).aligned
    del values["aligned"]
    task = Task.from_dict(values)
    assert not task.aligned
    wrong = shift_grid(scans[0]["mr"].grid, np.array([45.0, 0, 0]))
    pair = scans[0] | {"mr": dataclasses.replace(scans[0]["mr"], grid=wrong)}
    assert TrainedModel(Companion(task), plan.preprocessing, Inference()).align(pair) is pair
