"""One trained model: label maps on the scans' own grids, from any subset of the modalities."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from crossvox.batch import Task
from crossvox.data.formats.nifti import read_image
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.inference.ensemble import Ensemble
from crossvox.inference.model import Inference, TrainedModel
from fixtures.methods import make_method, make_task


class Threshold(nn.Module):
    """Predict class 1 for bright voxels, and record the modalities it gets."""

    def __init__(self, paired: bool, patch=(16, 16, 8)):
        super().__init__()
        self.keeps_largest = False
        self.task = Task(
            ("ct", "mr"), ("bright",), patch, (2.0, 2.0, 4.0), ((1, 1, 1),), ((3, 3, 3),),
            paired=paired,
        )  # fmt: skip
        self.shown: list[tuple[str, ...]] = []
        self.darkest = np.inf

    def class_weights(self):
        return ()

    def predict(self, images, outputs=None):
        self.shown.append(tuple(images))
        self.darkest = min(self.darkest, min(float(i.min()) for i in images.values()))
        (name,) = outputs
        score = 50 * (images[name] - 0.5)
        return {name: torch.cat([-score, score], 1)}


def predictor(method, batch=1):
    kinds = {"ct": "ct", "mr": "ct"}
    preprocessing = Preprocessing(np.eye(3), (2.0, 2.0, 4.0), kinds)
    return Ensemble([TrainedModel(method, preprocessing, Inference(0.25, batch))])


def write(path, shape=(30, 26, 12), spacing=(2.0, 2.0, 4.0), order=(0, 1, 2), origin=(0, 0, 0)):
    """Write a bright block (200 HU) in dark surroundings, at a fixed place in the world."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(order)] * np.array(spacing) * (-1, 1, 1)
    affine[:3, 3] = np.array(origin) - affine[:3, :3] @ (np.array(shape) / 2)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    inside = ((world > [-12, -8, -9]) & (world < [10, 12, 11])).all(-1)
    nib.save(nib.Nifti1Image(np.where(inside, 200, -100).astype(np.int16), affine), path)
    return path, inside


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("spacing", [(2.0, 2.0, 4.0), (1.1, 1.3, 3.0)])
def test_the_label_map_lies_on_the_scans_own_grid(tmp_path, order, spacing):
    path, inside = write(tmp_path / "ct.nii.gz", (40, 38, 22), spacing, order)
    labels = predictor(Threshold(paired=False)).predict({"ct": path}).labels
    assert labels.keys() == {"ct"} and labels["ct"].shape == inside.shape
    found = labels["ct"] == 1
    overlap = 2 * (found & inside).sum() / (found.sum() + inside.sum())
    assert overlap > (0.999 if order == (0, 1, 2) and spacing[0] == 2 else 0.85)


def test_a_scan_smaller_than_the_patch_is_padded_with_its_darkest_value(tmp_path):
    path, inside = write(tmp_path / "ct.nii.gz", (14, 12, 6))
    method = Threshold(paired=False, patch=(32, 32, 16))
    labels = predictor(method).predict({"ct": path}).labels["ct"]
    assert np.array_equal(labels == 1, inside)
    assert method.darkest == pytest.approx(-1.4, abs=0.01)  # −100 HU; zero would be 40 HU


def test_unpaired_methods_get_one_scan_at_a_time(tmp_path):
    ct, _ = write(tmp_path / "ct.nii.gz")
    mr, _ = write(tmp_path / "mr.nii.gz", (20, 20, 10), (3.0, 3.0, 5.0))
    method = Threshold(paired=False)
    both = predictor(method).predict({"ct": ct, "mr": mr}).labels
    assert set(method.shown) == {("ct",), ("mr",)}
    alone = predictor(Threshold(paired=False)).predict({"ct": ct}).labels
    assert np.array_equal(both["ct"], alone["ct"])


@pytest.mark.parametrize("batch", [1, 4])
def test_a_second_scan_is_used_where_its_field_of_view_reaches(tmp_path, batch):
    ct, inside = write(tmp_path / "ct.nii.gz", (60, 26, 12))
    mr, _ = write(tmp_path / "mr.nii.gz", (20, 26, 12), origin=(-40, 0, 0))
    method = Threshold(paired=True)
    labels = predictor(method, batch).predict({"ct": ct, "mr": mr}, checked=True).labels
    assert {("ct",), ("ct", "mr"), ("mr", "ct")} <= set(method.shown)
    assert np.array_equal(labels["ct"] == 1, inside)


def test_one_modality_alone_suffices(tmp_path):
    mr, inside = write(tmp_path / "mr.nii.gz")
    method = Threshold(paired=True)
    labels = predictor(method).predict({"mr": mr}).labels
    assert set(method.shown) == {("mr",)} and np.array_equal(labels["mr"] == 1, inside)


def test_stages_are_timed_and_training_mode_is_restored(tmp_path):
    ct, _ = write(tmp_path / "ct.nii.gz")
    method = Threshold(paired=False).train()
    result = predictor(method).predict({"ct": ct})
    assert set(result.seconds) == {"read", "prepare", "segment"}
    assert method.training


def test_batch_size_changes_nothing_with_batch_norm(tmp_path):
    """Predicting moves no running statistics either."""
    ct, _ = write(tmp_path / "ct.nii.gz", (40, 30, 20))
    task = make_task(paired=False, patch=(16, 16, 16))
    method = make_method("sup", task, backbone="universal_unet")
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    grid = read_image(ct).grid
    kinds = Preprocessing(np.eye(3), (2.0, 2.0, 4.0), {"ct": "ct", "mr": "ct"})
    scan = {"ct": kinds.prepare_image(read_image(ct).data, grid, "ct")}
    found = []
    for batch in (1, 3):
        made = TrainedModel(method.train(), kinds, Inference(0.25, batch))
        made.predict_prepared(scan, {"ct": grid})
        method.eval()
        found.append(made.probabilities(scan, "ct"))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4)  # rounding
    assert float(found[0].std()) > 0.01
    assert all(torch.equal(before[name], t) for name, t in method.state_dict().items())
