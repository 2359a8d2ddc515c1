"""The window of a CT: asked for, or chosen by the labelled voxels."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from crossvox.data.geometry import Grid
from crossvox.data.manifest import Case, Manifest, load_manifest
from crossvox.data.prepare.budget import Budget
from crossvox.data.prepare.fingerprint import fingerprint
from crossvox.data.prepare.plan import continue_plan, make_plan
from crossvox.data.prepare.preprocess import SOFT_TISSUE, Preprocessing
from crossvox.data.prepare.store import Store
from crossvox.data.prepare.window import choose_windows, fit_window
from crossvox.errors import DataError, UsageError
from crossvox.workflows.messages import describe_plan

HU = {"liver": (60, 20), "kidney": (150, 40), "lung": (-850, 40), "bone": (600, 250)}


def hu(name: str, n: int = 20_000) -> np.ndarray:
    return np.random.default_rng(0).normal(*HU[name], n)


@pytest.mark.parametrize(
    ("classes", "window"),
    [
        (["liver"], SOFT_TISSUE),
        (["liver", "kidney"], SOFT_TISSUE),
        (["lung"], (-1000.0, 240.0)),
        (["bone"], (-160.0, 1300.0)),
        (["lung", "liver", "bone"], (-1000.0, 1300.0)),
        ([], SOFT_TISSUE),
    ],
)
def test_soft_tissue_is_widened_until_it_holds_the_classes(classes, window):
    low, high = fit_window({name: hu(name) for name in classes})
    assert low == window[0] and abs(high - window[1]) <= 100 and high % 10 == 0


def test_a_few_stray_voxels_of_a_class_widen_nothing():
    values = hu("liver")
    values[: len(values) // 5] = 1500
    values[-len(values) // 10 :] = -900
    assert fit_window({"liver": values}) == SOFT_TISSUE


def test_a_window_maps_onto_the_same_range_as_before():
    data = np.linspace(-1200, 600, 8 * 8 * 8, dtype=np.float32).reshape(8, 8, 8)
    grid = Grid((8, 8, 8), np.eye(4))

    def prepared(**windows):
        own = Preprocessing(np.eye(3), (1.0, 1.0, 1.0), {"ct": "ct"}, windows)
        return own.prepare_image(data.copy(), grid, "ct").array

    np.testing.assert_allclose(prepared(), (np.clip(data, -160, 240) - 40) / 100, atol=1e-4)
    lung = prepared(ct=(-1000.0, 400.0))
    np.testing.assert_allclose(lung, (np.clip(data, -1000, 400) + 300) / 350, atol=1e-4)


@pytest.fixture
def lungs(tmp_path) -> Manifest:
    """Two labelled chests, and a label that nobody may look at."""
    cases = []
    for k in range(3):
        rng = np.random.default_rng(k)
        label = np.zeros((12, 10, 8), np.uint8)
        label[3:9, 3:8, 2:6] = 1
        values = np.where(label, -850, 40) + rng.normal(0, 20, label.shape)
        paths = [tmp_path / f"{k}.nii", tmp_path / f"{k}_label.nii"]
        for path, data in zip(paths, (values.astype(np.int16), label), strict=True):
            nib.save(nib.Nifti1Image(data, np.diag([3.0, 3.0, 4.0, 1.0])), path)
        cases.append(Case(f"c{k}", "train", {"ct": paths[0]}, {"ct": paths[1]}))
    (tmp_path / "2_label.nii").write_bytes(b"")
    manifest = Manifest("lungs", {"ct": "ct"}, {"lung": 1}, tuple(cases))
    manifest.save(tmp_path / "dataset.json")
    return load_manifest(tmp_path / "dataset.json")


LABELLED = {"ct": ("c0", "c1")}


def test_the_labels_in_use_choose_the_window_and_no_other_is_opened(lungs):
    first = choose_windows(lungs, Budget(), LABELLED)
    assert first == choose_windows(lungs, Budget(), LABELLED) == {"ct": (-1000.0, 240.0)}
    assert choose_windows(lungs, Budget(), {}) == {"ct": SOFT_TISSUE}
    with pytest.raises(DataError):
        choose_windows(lungs, Budget(), {"ct": ("c2",)})


def test_the_manifest_and_then_the_run_decide_without_a_look_at_labels(lungs):
    asked = replace(lungs, windows={"ct": (-900.0, 300.0)})
    everything = {"ct": ("c0", "c1", "c2")}
    assert choose_windows(asked, Budget(), everything) == {"ct": (-900.0, 300.0)}
    budget = Budget(window=(-175, 250))
    assert choose_windows(asked, budget, everything) == {"ct": (-175, 250)}
    with pytest.raises(UsageError, match="lowest value comes first"):
        Budget(window=(250, -175))


def test_plans_keep_their_window_and_stores_do_not_mix_them(lungs, tmp_path):
    windows = choose_windows(lungs, Budget(), LABELLED)
    found = fingerprint(lungs)
    wide = make_plan(found, lungs, Budget(600), windows=windows)
    soft = make_plan(found, lungs, Budget(600))
    own = json.loads(json.dumps(wide.preprocessing.to_dict()))
    assert Preprocessing.from_dict(own).windows == windows
    assert wide.preprocessing.digest != soft.preprocessing.digest
    assert "window       ct −1000 to 240 HU" in list(describe_plan(wide))
    assert continue_plan(soft, wide, lungs).preprocessing.windows == windows
    stores = [Store(tmp_path / "store", plan.preprocessing) for plan in (wide, soft)]
    one, other = (store.image(lungs.cases[0], "ct").array[:] for store in stores)
    assert not np.array_equal(one, other)
