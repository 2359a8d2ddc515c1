"""One label map that serves several registered scans of a subject, each on its own grid."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from crossvox.batch import IGNORE
from crossvox.cli.main import main
from crossvox.data.checks import check
from crossvox.data.formats.nifti import read_header, read_label
from crossvox.data.geometry import Grid
from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.data.prepare.store import Store
from fixtures.run import trained

IDS = {"ball": 2, "slab": 7}
FINE = Grid(
    (24, 24, 12), np.array([[-2.0, 0, 0, 24], [0, -2.0, 0, 24], [0, 0, 4, -24], [0, 0, 0, 1]])
)
# Other voxels, other axis order, mirrored; a margin that FINE does not reach.
COARSE = Grid(
    (10, 20, 20), np.array([[0, 3.0, 0, -28.3], [0, 0, 3.0, -28.4], [-6, 0, 0, 26.6], [0, 0, 0, 1]])
)


def world(grid: Grid) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def truth(grid: Grid, centre: np.ndarray) -> np.ndarray:
    at = world(grid) - centre
    found = np.zeros(grid.shape, np.int16)
    found[np.linalg.norm(at - [9, 0, 0], axis=-1) < 7] = 2
    found[(np.abs(at - [-9, 0, 0]) < [5, 7, 9]).all(-1)] = 7
    return found


def build(folder: Path, registered: bool = True) -> Manifest:
    rng = np.random.default_rng(0)
    cases = []
    for number in range(5):
        centre = rng.uniform(-2, 2, 3)
        files = {}
        for name, grid in (("t1", FINE), ("t2", COARSE)):
            label = truth(grid, centre)
            values = np.select([label == 2, label == 7], [300, 600], 100) + rng.normal(
                0, 9, grid.shape
            )
            files[name] = folder / f"{number}_{name}.nii.gz"
            nib.save(nib.Nifti1Image(values.astype(np.float32), grid.affine), files[name])
        label_file = folder / f"{number}_seg.nii.gz"
        nib.save(nib.Nifti1Image(truth(FINE, centre), FINE.affine), label_file)
        split = "train" if number < 3 else "val" if number < 4 else "test"
        cases.append(Case(f"s{number}", split, files, dict.fromkeys(files, label_file)))
    made = Manifest("shared", {"t1": "mr", "t2": "mr"}, IDS, tuple(cases), registered)
    made.save(folder / "dataset.json")
    return load_manifest(folder / "dataset.json")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Manifest:
    return build(tmp_path_factory.mktemp("shared ü"))


def test_the_label_appears_on_the_other_scans_grid(data: Manifest) -> None:
    case = data.cases[0]
    found = read_label(case.labels["t2"], IDS, grid=read_header(case.images["t2"]))
    own = read_label(case.labels["t2"], IDS)
    inverse = np.linalg.inv(FINE.affine)
    index = world(COARSE) @ inverse[:3, :3].T + inverse[:3, 3]
    inside = ((index > -0.5) & (index < np.array(FINE.shape) - 0.5)).all(-1)
    nearest = np.clip(np.rint(index).astype(int), 0, np.array(FINE.shape) - 1)
    wanted = np.where(inside, own[tuple(np.moveaxis(nearest, -1, 0))], IGNORE)
    clear = (np.abs(np.abs(index - np.floor(index)) - 0.5) > 1e-6).all(-1)  # no tie of two voxels
    assert clear.all()
    assert np.array_equal(found[clear], wanted[clear])
    assert set(np.unique(found)) == {IGNORE, 0, 1, 2}


def test_on_its_own_grid_a_label_stays_as_it_is(data: Manifest) -> None:
    path = data.cases[0].labels["t1"]
    assert np.array_equal(read_label(path, IDS), read_label(path, IDS, grid=FINE))


def test_check_accepts_it_only_where_scans_are_registered(data: Manifest) -> None:
    assert check(data) == []
    problems = check(dataclasses.replace(data, registered=False))
    assert {(p.severity, p.modality) for p in problems} == {("error", "t2")}
    assert "resample the label onto the image" in problems[0].fix


def test_check_warns_of_a_grid_of_none_of_the_images_and_refuses_one_elsewhere(
    tmp_path: Path,
) -> None:
    data = build(tmp_path)
    file = data.cases[0].labels["t1"]
    finer = FINE.affine @ np.diag([0.5, 0.5, 1, 1])
    label = np.repeat(np.repeat(truth(FINE, np.zeros(3)), 2, 0), 2, 1)
    nib.save(nib.Nifti1Image(label, finer), file)
    problems = check(data)
    assert {(p.severity, p.modality) for p in problems} == {("warning", "t1"), ("warning", "t2")}
    assert "nearest neighbour" in problems[0].fix
    finer[:3, 3] += 500
    nib.save(nib.Nifti1Image(label, finer), file)
    problems = check(data)
    assert {p.severity for p in problems} == {"error"} and "wholly outside" in problems[0].found


def test_the_prepared_label_lies_on_its_images_grid_and_follows_it(
    data: Manifest, tmp_path
) -> None:
    case = data.cases[0]
    prep = Preprocessing(np.eye(3), (3.0, 3.0, 4.0), {"t1": "mr", "t2": "mr"})
    for modality in ("t1", "t2"):
        store = Store(tmp_path, prep)
        entry = store.label(case, modality, IDS, None)
        assert entry.shape == store.image(case, modality).shape
        assert {1, 2} <= set(np.unique(entry.array[:]))
    first = Store(tmp_path, prep).label(case, "t2", IDS, None).array[:]
    # The same label file for a scan on another grid must be prepared anew.
    image = nib.load(case.images["t2"])
    moved = image.affine.copy()
    moved[0, 3] += 12
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), tmp_path / "moved.nii.gz")
    elsewhere = dataclasses.replace(case, images={"t2": tmp_path / "moved.nii.gz"})
    assert not np.array_equal(
        Store(tmp_path, prep).label(elsewhere, "t2", IDS, None).array[:], first
    )


def test_train_and_evaluate_with_one_label_for_both(data: Manifest, tmp_path: Path) -> None:
    run = trained(data.path, tmp_path / "run", "--method", "sup_joint")
    out = tmp_path / "scores"
    assert main(["evaluate", str(run), "--data", str(data.path), "--split", "test",
                 "--out", str(out), "--overlays"]) == 0  # fmt: skip
    rows = list(csv.DictReader((out / "cases.csv").open()))
    assert {(r["case"], r["modality"]) for r in rows} == {("s4", "t1"), ("s4", "t2")}
    assert all(0 <= float(r["dice"]) <= 1 for r in rows)
    assert len(list((out / "overlays").iterdir())) == 2
