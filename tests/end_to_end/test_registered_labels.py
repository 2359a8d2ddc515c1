"""One label map that serves several registered scans of a subject, each on its own grid."""

from __future__ import annotations

import csv
import dataclasses
import json
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
from fixtures.run import refused, trained

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


@pytest.fixture(scope="module")
def run(data: Manifest, tmp_path_factory) -> Path:
    return trained(data.path, tmp_path_factory.mktemp("runs") / "run", "--method", "sup_joint")


def evaluated(run: Path, data: Manifest, out: Path, *more: str) -> list[dict[str, str]]:
    assert main(["evaluate", str(run), "--data", str(data.path), "--split", "test",
                 "--out", str(out), *more]) == 0  # fmt: skip
    return list(csv.DictReader((out / "cases.csv").open()))


def test_one_label_for_both_scores_each_modality_and_the_fused_map_once(
    data: Manifest, run: Path, tmp_path: Path
) -> None:
    rows = evaluated(run, data, tmp_path, "--overlays")
    assert [(r["case"], r["modality"]) for r in rows] == [
        ("s4", name) for name in ("t1", "t2", "fused") for _ in IDS
    ]
    assert all(0 <= float(r["dice"]) <= 1 for r in rows)
    assert {p.stem for p in (tmp_path / "overlays").iterdir()} == {"s4_t1", "s4_t2", "s4_fused"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    dice = {m: part["average"]["dice"]["mean"] for m, part in summary["modalities"].items()}
    assert summary["overall"]["dice"]["mean"] == pytest.approx((dice["t1"] + dice["t2"]) / 2)
    # With one scan, the fused map is that scan's.
    alone = evaluated(run, data, tmp_path / "t2 alone", "--modalities", "t2")
    own, fused = ([r for r in alone if r["modality"] == name] for name in ("t2", "fused"))
    assert [{**r, "modality": "t2"} for r in fused] == own and len(alone) == 2 * len(IDS)


def test_the_fused_map_is_scored_against_each_label_that_differs(run: Path, tmp_path: Path) -> None:
    data = build(tmp_path)
    case = data.split("test")[0]
    label = nib.load(case.labels["t1"])
    other = np.asarray(label.dataobj).copy()
    other[:, :, :6] = 0
    file = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(other, label.affine), file)
    given = dataclasses.replace(case, labels={"t1": case.labels["t1"], "t2": file})
    cases = tuple(given if c.id == case.id else c for c in data.cases)
    dataclasses.replace(data, cases=cases).save(data.path)
    rows = evaluated(run, load_manifest(data.path), tmp_path / "scores")
    by_name = {name: [r for r in rows if r["modality"] == name] for name in (
        "fused on t1", "fused on t2"
    )}  # fmt: skip
    truth = {name: [r["volume_truth_ml"] for r in own] for name, own in by_name.items()}
    found = {name: [r["volume_prediction_ml"] for r in own] for name, own in by_name.items()}
    assert truth["fused on t1"] != truth["fused on t2"]
    assert found["fused on t1"] == found["fused on t2"]
    assert "fused" not in {r["modality"] for r in rows}


def test_predict_writes_one_map_on_the_first_scans_grid_unless_told_otherwise(
    data: Manifest, run: Path, tmp_path: Path
) -> None:
    case = data.split("test")[0]
    split = ["--data", str(data.path), "--split", "test"]
    images = [f"--image={m}={file}" for m, file in case.images.items()]
    wanted = {
        "split": ([*split, "--save-probabilities"], {"s4_fused": FINE}),
        "asked": ([*images[::-1], "--fused"], {"4_t2_fused": COARSE}),
        "one scan": ([images[1]], {"4_t2_fused": COARSE}),
        "apart": ([*split, "--no-fused"], {"s4_t1": FINE, "s4_t2": COARSE}),
    }
    for name, (words, maps) in wanted.items():
        out = tmp_path / name
        assert main(["predict", str(run), *words, "--out", str(out)]) == 0
        files = {p.name.removesuffix(".nii.gz"): p for p in out.glob("*.nii.gz")}
        assert {n for n in files if not n.endswith("_probabilities")} == set(maps)
        for label, grid in maps.items():
            assert nib.load(files[label]).shape == grid.shape
            assert np.allclose(nib.load(files[label]).affine, grid.affine)
        rows = list(csv.DictReader((out / "volumes.csv").open()))
        ends = {r["file"].removesuffix(".nii.gz").rsplit("_", 1)[1] for r in rows}
        assert {r["modality"] for r in rows} == ends
    assert (tmp_path / "split" / "s4_fused_probabilities.nii.gz").exists()


def test_a_report_shows_the_fused_map_as_well(data: Manifest, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert main(["report", str(run), "--data", str(data.path), "--split", "test",
                 "--out", str(out), "--show", "1"]) == 0  # fmt: skip
    text = out.read_text(encoding="utf-8")
    assert all(f"{m}, worst: s4" in text for m in ("t1", "t2", "fused"))


def test_scans_that_are_not_registered_are_refused_a_fused_map(
    paired_files, tmp_path: Path, capsys
) -> None:
    run = trained(paired_files.path, tmp_path / "run", "--method", "sup_joint")
    scan = paired_files.cases[0].images["ct"]
    line = refused(capsys, "predict", run, "--image", f"ct={scan}", "--fused",
                   "--out", tmp_path / "out")  # fmt: skip
    assert "not registered" in line and "leave --fused out" in line
    assert not (tmp_path / "out").exists()
