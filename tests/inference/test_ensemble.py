"""Class probabilities of several models and mirror images, averaged on the scan's grid."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from crossvox.batch import Task
from crossvox.data.formats.nifti import Volume
from crossvox.data.geometry import Grid
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.errors import DataError, UsageError
from crossvox.inference.ensemble import Ensemble
from crossvox.inference.model import Inference, TrainedModel
from crossvox.inference.slabs import Slab, assemble, entropy

SHAPE, AFFINE = (18, 14, 9), np.array([[0, 2, 0, 5], [-2, 0, 0, 7], [0, 0, 4, 1], [0, 0, 0, 1.0]])


class Ramp(nn.Module):
    """Class 1's logit is the image plus a ramp along one axis: not the same when mirrored."""

    def __init__(self, slope=0.0, axis=0, classes=("a",), modalities=("ct", "mr"), flips=()):
        super().__init__()
        self.task = Task(
            modalities, classes, (8, 8, 8), (2.0, 2.0, 4.0), ((1, 1, 1),), ((3, 3, 3),), flips=flips
        )
        self.slope, self.axis = slope, axis
        self.keeps_largest = False
        self.shown = 0

    def class_weights(self):
        return ()

    def predict(self, images, outputs=None):
        self.shown += 1
        (name,) = outputs
        x = images[name]
        shape = [1] * 5
        shape[self.axis + 2] = -1
        ramp = torch.linspace(-1, 1, x.shape[self.axis + 2]).view(shape)
        score = x + self.slope * ramp
        return {name: torch.cat([torch.zeros_like(score), score], 1)}


def member(method, spacing=(2.0, 2.0, 4.0), tta=False, frame=None, kind="mr"):
    kinds = dict.fromkeys(method.task.modalities, kind)
    frame = np.eye(3) if frame is None else frame
    return TrainedModel(method, Preprocessing(frame, spacing, kinds), Inference(0.25, 1, tta))


def scan():
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    return Volume(values, Grid(SHAPE, AFFINE))


def channels(ensemble, image=None):
    """Return (C, X, Y, Z) probabilities and the label map."""
    seen: list[Slab] = []
    labels = ensemble.predict({"ct": image or scan()}, {"ct": [seen.append]}).labels["ct"]
    return assemble(seen), labels


def test_probabilities_lie_on_the_scans_own_grid_whatever_the_frame():
    plain, labels = channels(Ensemble([member(Ramp())]))
    assert plain.shape == (2, *SHAPE) and labels.dtype == np.int16
    np.testing.assert_allclose(plain.sum(0), 1, atol=1e-5)
    assert np.array_equal(labels, plain.argmax(0))
    # Every other frame only re-orders the axes: nothing is blurred, all voxels stay.
    for frame in (np.eye(3)[:, [2, 0, 1]], np.diag([1.0, -1.0, 1.0])):
        spacing = (4.0, 2.0, 2.0) if frame[0, 0] == 0 else (2.0, 2.0, 4.0)
        turned, _ = channels(Ensemble([member(Ramp(), spacing, frame=frame)]))
        np.testing.assert_allclose(turned, plain, atol=1e-4)


def blobs():
    """A `Ramp` that finds the class where the image is above 0, and a scan of two bright blocks."""
    values = np.full(SHAPE, -150, dtype=np.float32)  # HU, below the window's middle
    values[:8, :6] = values[12:16, :4] = 200
    method = Ramp()
    method.task = replace(method.task, one_piece=("a",))
    return method, Volume(values, Grid(SHAPE, AFFINE))


def test_only_the_largest_component_stays_if_the_method_or_the_user_says_so():
    method, image = blobs()
    one = member(method, kind="ct")
    probabilities, whole_map = channels(Ensemble([one]), image)
    parts = {}
    for keeps, asked in itertools.product((False, True), ("auto", "always", "never")):
        method.keeps_largest = keeps
        one.inference = replace(one.inference, largest=asked)
        kept, labels = channels(Ensemble([one]), image)
        assert np.array_equal(kept, probabilities)
        parts[keeps, asked] = int(labels.sum())
        prepared = {"ct": one.preprocessing.prepare_image(image.data, image.grid, "ct")}
        assert np.array_equal(one.predict_prepared(prepared, {"ct": image.grid})["ct"], labels)
    both, largest = int(whole_map.sum()), 8 * 6 * SHAPE[2]
    assert both > largest
    assert parts == {
        (False, "auto"): both, (False, "always"): largest, (False, "never"): both,
        (True, "auto"): largest, (True, "always"): largest, (True, "never"): both,
    }  # fmt: skip


class Levels(Ramp):
    """Class 1 where a CT is above −50 HU, class 2 where it is above 150 HU."""

    def __init__(self, offsets):
        super().__init__(classes=("a", "b"))
        self.task = replace(self.task, one_piece=("b",), offsets=offsets)
        self.keeps_largest = True
        values = np.full(SHAPE, -150, dtype=np.float32)
        values[8:10, 6:8], values[:4, :6], values[14:, 10:] = 50, 200, 200
        self.image = Volume(values, Grid(SHAPE, AFFINE))
        prepared = (
            member(self, kind="ct").preprocessing.prepare_image(values, self.image.grid, "ct").array
        )
        low, middle, high = np.unique(prepared)
        self.first, self.second = (low + middle) / 2, (middle + high) / 2

    def predict(self, images, outputs=None):
        (name,) = outputs
        one = 50 * (images[name] - self.first)
        return {name: torch.cat([0 * one, one, one + 100 * (images[name] - self.second)], 1)}


def test_the_component_that_lies_as_in_the_labels_is_kept_in_every_prediction():
    """Class 2 is expected 7 voxels along the first and 5 along the second axis of the grid."""
    small, large = 4 * 4 * SHAPE[2], 4 * 6 * SHAPE[2]
    for offsets, expected in (
        (((None, None), ((10.0, -14.0, 0.0), None)), small),
        (((None, None), ((14.0, 10.0, 0.0), None)), large),
        ((), large),
    ):
        method = Levels(offsets)
        one = member(method, kind="ct")
        assert one.postprocessing.offsets == offsets
        _, labels = channels(Ensemble([one]), method.image)
        assert (labels == 2).sum() == expected and (labels == 1).any()
        prepared = {
            "ct": one.preprocessing.prepare_image(method.image.data, method.image.grid, "ct")
        }
        assert np.array_equal(
            one.predict_prepared(prepared, {"ct": method.image.grid})["ct"], labels
        )
    method.keeps_largest = False
    assert (channels(Ensemble([one]), method.image)[1] == 2).sum() == small + large


def test_a_class_with_several_components_in_the_labels_keeps_them():
    method, image = blobs()
    method.keeps_largest, method.task = True, replace(method.task, one_piece=())
    _, labels = channels(Ensemble([member(method, kind="ct")]), image)
    assert labels.sum() > 8 * 6 * SHAPE[2]


def test_class_weights_apply_unless_they_are_switched_off():
    method, _ = blobs()
    method.class_weights = lambda: (1.0, 1e-6)  # so little that the class is kept as it is
    one = member(method, kind="ct")
    assert one.postprocessing.weights == Ensemble([one]).postprocessing.weights == (1.0, 1e-6)
    one.inference = replace(one.inference, weigh=False)
    assert one.postprocessing.weights == Ensemble([one]).postprocessing.weights == ()


def test_an_ensemble_drops_components_only_if_all_its_models_do():
    method, image = blobs()
    method.keeps_largest = True
    other, _ = blobs()
    _, labels = channels(Ensemble([member(method, kind="ct"), member(other, kind="ct")]), image)
    assert labels.sum() > 8 * 6 * SHAPE[2]
    other.keeps_largest = True
    _, labels = channels(Ensemble([member(method, kind="ct"), member(other, kind="ct")]), image)
    assert labels.sum() == 8 * 6 * SHAPE[2]


def test_an_ensemble_averages_its_models_probabilities():
    models = [member(Ramp(2.0)), member(Ramp(-1.0, axis=1), (3.0, 3.0, 4.0))]
    single = [channels(Ensemble([m]))[0] for m in models]
    both, labels = channels(Ensemble(models))
    np.testing.assert_allclose(both, (single[0] + single[1]) / 2, atol=1e-6)
    assert np.array_equal(labels, both.argmax(0))
    assert (single[0].argmax(0) != single[1].argmax(0)).any()


def test_models_of_different_orientation_are_averaged_on_the_scans_grid():
    frames = (np.eye(3), np.diag([1.0, -1.0, 1.0]), np.eye(3)[:, [1, 0, 2]] * [1, -1, 1])
    models = [member(Ramp(2.0 * i), frame=frame) for i, frame in enumerate(frames)]
    single = [channels(Ensemble([m]))[0] for m in models]
    for order in ([0, 1, 2], [2, 0, 1]):
        both, _ = channels(Ensemble([models[i] for i in order]))
        np.testing.assert_allclose(both, np.mean(single, 0), atol=1e-6)


def test_mirror_images_are_averaged_along_the_tasks_axes_only():
    image = Volume(np.ones(SHAPE, np.float32), Grid(SHAPE, np.diag([2.0, 2.0, 4.0, 1.0])))
    image.data[4:9, 4:9, 3:6] = 2
    method = Ramp(3.0, axis=0, flips=(0, 2))
    plain, _ = channels(Ensemble([member(method)]), image)
    windows = method.shown
    mirrored, labels = channels(Ensemble([member(method, tta=True)]), image)
    assert method.shown - windows == 4 * windows
    assert np.array_equal(labels, mirrored.argmax(0))
    # Averaging over both directions takes the ramp's one-sidedness away …
    upside = channels(Ensemble([member(Ramp(-3.0, axis=0, flips=(0, 2)), tta=True)]), image)[0]
    np.testing.assert_allclose(mirrored, upside, atol=1e-6)
    assert np.abs(plain - mirrored).max() > 0.1
    # … but not along an axis on which left and right would change places.
    kept, _ = channels(Ensemble([member(Ramp(3.0, axis=1, flips=(0, 2)), tta=True)]), image)
    sided, _ = channels(Ensemble([member(Ramp(3.0, axis=1))]), image)
    np.testing.assert_allclose(kept, sided, atol=1e-6)


def test_uncertainty_is_the_entropy_of_the_mean_probabilities():
    models = [member(Ramp(2.0)), member(Ramp(-1.0, axis=1))]
    probabilities, _ = channels(Ensemble(models))
    found = Ensemble(models).predict({"ct": scan()}, uncertainty=True).uncertainty
    assert np.array_equal(found["ct"], entropy(probabilities)) and found["ct"].max() > 0.5
    assert Ensemble(models).predict({"ct": scan()}).uncertainty == {}


def test_an_array_with_its_affine_gives_the_result_of_a_volume():
    image = scan()
    labels = channels(Ensemble([member(Ramp())]))[1]
    result = Ensemble([member(Ramp())]).predict({"ct": (image.data, AFFINE)})
    assert np.array_equal(result.labels["ct"], labels)
    assert np.array_equal(result.affines["ct"], AFFINE)


def test_other_types_than_scans_are_refused() -> None:
    for one in (None, 3, (np.zeros((3, 4, 5)),), (np.zeros((3, 4, 5)), None)):
        with pytest.raises(DataError, match=r"array with its affine|expected"):
            Ensemble([member(Ramp())]).predict({"ct": one})


@pytest.mark.parametrize(
    "array, affine, words",
    [
        (np.zeros((3, 4)), np.eye(4), "expected"),
        (np.zeros((3, 4, 5)), np.eye(3), "expected"),
        (np.full((3, 4, 5), np.nan), np.eye(4), "NaN or Inf"),
        ("scan", "affine", "array with its affine"),
        ([[[1, 2], [3]]], np.eye(4), "array with its affine"),
        (np.zeros((3, 4, 5)), np.diag([0.0, 0, 0, 1]), "singular affine"),
        (np.zeros((3, 4, 5)), np.full((4, 4), np.nan), "NaN or Inf"),
    ],
)
def test_arrays_that_cannot_be_scans_are_refused(array, affine, words):
    with pytest.raises(DataError, match=words):
        Ensemble([member(Ramp())]).predict({"ct": (array, affine)})


def test_models_of_different_classes_or_modalities_are_refused():
    with pytest.raises(UsageError, match="classes a in one, b in another"):
        Ensemble([member(Ramp()), member(Ramp(classes=("b",)))])
    with pytest.raises(UsageError, match="modalities"):
        Ensemble([member(Ramp()), member(Ramp(modalities=("ct",)))])
    turned = Ramp(modalities=("mr", "ct"))
    assert len(Ensemble([member(Ramp()), member(turned)]).models) == 2


def test_unknown_and_missing_modalities_are_refused():
    ensemble = Ensemble([member(Ramp())])
    with pytest.raises(UsageError, match="'pet' is none of this run's; choose from ct, mr"):
        ensemble.predict({"pet": scan()})
    with pytest.raises(UsageError, match="no image"):
        ensemble.predict({})
