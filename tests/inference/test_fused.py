"""One label map of all registered scans of a subject, from the mean of their probabilities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from crossvox.batch import FUSED, Task
from crossvox.data.formats.nifti import Volume
from crossvox.data.geometry import Grid
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.errors import UsageError
from crossvox.inference.ensemble import Ensemble
from crossvox.inference.memory import MemoryEstimator
from crossvox.inference.model import Inference, TrainedModel
from crossvox.inference.slabs import Slab, assemble
from crossvox.methods import METHODS
from fixtures.methods import make_method, make_task

SHAPE, AFFINE = (18, 14, 9), np.array([[0, 2, 0, 5], [-2, 0, 0, 7], [0, 0, 4, 1], [0, 0, 0, 1.0]])
MODALITIES = ("flair", "t1ce")
KINDS = dict.fromkeys(MODALITIES, "ct")
GRID = Grid(SHAPE, AFFINE)


class Weighted(nn.Module):
    """The logit of class 1 is the image times a number that each modality has of its own."""

    def __init__(self, factors=(1.0, 3.0), registered=True, paired=True, one_piece=(), weights=()):
        super().__init__()
        self.task = Task(
            MODALITIES, ("a",), (8, 8, 8), (2.0, 2.0, 4.0), ((1, 1, 1),), ((3, 3, 3),),
            paired=paired, registered=registered, one_piece=one_piece,
        )  # fmt: skip
        self.factors = dict(zip(MODALITIES, factors, strict=True))
        self.keeps_largest = bool(one_piece)
        self.weights = weights
        self.calls: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def class_weights(self):
        return self.weights

    def predict(self, images, outputs=None):
        self.calls.append((tuple(sorted(images)), tuple(outputs)))
        return {
            m: torch.cat([torch.zeros_like(images[m]), self.factors[m] * images[m]], 1)
            for m in outputs
        }


def ensemble(*methods, maps=None, tta=False) -> Ensemble:
    preprocessing = Preprocessing(np.eye(3), (2.0, 2.0, 4.0), KINDS)
    models = [TrainedModel(m, preprocessing, Inference(0.25, 1, tta)) for m in methods]
    return Ensemble(models, maps)


def scans(first: Grid = GRID, second: Grid = GRID) -> dict[str, Volume]:
    """Two scans that show different noise, in HU."""
    rng = np.random.default_rng(0)
    return {
        m: Volume(rng.uniform(-150, 240, grid.shape).astype(np.float32), grid)
        for m, grid in zip(MODALITIES, (first, second), strict=True)
    }


def predicted(of: Ensemble, images) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return name → (C, X, Y, Z) probabilities, and name → label map."""
    seen: dict[str, list[Slab]] = {name: [] for name in of.scan_of(images)}
    result = of.predict(images, {name: [slabs.append] for name, slabs in seen.items()})
    assert result.labels.keys() == seen.keys() == result.affines.keys() == result.scans.keys()
    return {name: assemble(slabs) for name, slabs in seen.items()}, result.labels


def test_a_registered_subject_gets_one_map_of_the_mean_probabilities():
    images = scans()
    own, _ = predicted(ensemble(Weighted(), maps="modalities"), images)
    assert list(own) == list(MODALITIES) and not np.allclose(own["flair"], own["t1ce"], atol=0.1)
    fused, labels = predicted(ensemble(Weighted()), images)
    assert list(fused) == [FUSED]
    np.testing.assert_allclose(fused[FUSED], (own["flair"] + own["t1ce"]) / 2, atol=1e-6)
    assert np.array_equal(labels[FUSED], fused[FUSED].argmax(0))


def test_maps_on_one_grid_come_from_one_pass_and_are_those_of_passes_of_their_own():
    images, method = scans(), Weighted()
    together, labels = predicted(ensemble(method, maps="both"), images)
    assert list(labels) == [*MODALITIES, FUSED]
    assert set(method.calls) == {(MODALITIES, MODALITIES)}
    windows = len(method.calls)
    single = TrainedModel(method, Preprocessing(np.eye(3), (2.0, 2.0, 4.0), KINDS), Inference(0.25))
    prepared = {m: single.preprocessing.prepare_image(v.data, v.grid, m) for m, v in images.items()}
    method.calls = []
    for m in MODALITIES:
        apart = assemble(single.slabs(prepared, [(m,)], images[m].grid))
        np.testing.assert_allclose(apart, together[m], atol=1e-5)
    assert len(method.calls) == 2 * windows


def test_a_missing_scan_leaves_the_map_of_the_one_given():
    images = scans()
    own, _ = predicted(ensemble(Weighted(), maps="modalities"), {"t1ce": images["t1ce"]})
    fused, _ = predicted(ensemble(Weighted()), {"t1ce": images["t1ce"]})
    assert list(fused) == [FUSED] and np.array_equal(fused[FUSED], own["t1ce"])


def test_scans_on_other_grids_are_fused_on_the_grid_of_the_first():
    coarse = Grid((9, 7, 9), AFFINE @ np.array(
        [[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 1, 0], [0, 0, 0, 1]]
    ))  # fmt: skip
    values = np.full(SHAPE, -150, np.float32)
    values[4:10, 4:10, 2:7] = 240
    pooled = values.reshape(9, 2, 7, 2, 9).mean((1, 3))
    images = {"flair": Volume(values, GRID), "t1ce": Volume(pooled, coarse)}
    for order in (MODALITIES, MODALITIES[::-1]):
        of = ensemble(Weighted(), maps="both")
        given = {m: images[m] for m in order}
        result = of.predict(given)
        assert result.scans == {**{m: m for m in order}, FUSED: order[0]}
        for name, m in result.scans.items():
            assert result.labels[name].shape == images[m].data.shape
            assert np.array_equal(result.affines[name], images[m].grid.affine)
        assert np.array_equal(result.labels[FUSED] == 1, images[order[0]].data > 0)
        assert len(of.passes({m: v.grid for m, v in given.items()})) == 2


def test_where_a_scan_does_not_reach_the_others_outputs_are_averaged():
    # Along the third axis, the second scan has only the first planes.
    images = scans(Grid((18, 14, 16), AFFINE), Grid((18, 14, 6), AFFINE))
    fused, _ = predicted(ensemble(Weighted()), images)
    own, _ = predicted(ensemble(Weighted(), maps="modalities"), {"flair": images["flair"]})
    method = Weighted()
    predicted(ensemble(method), images)
    assert {images for images, _ in method.calls} == {("flair",), MODALITIES}
    assert np.allclose(fused[FUSED][..., -1], own["flair"][..., -1], atol=1e-6)


def test_weights_and_the_one_part_rule_apply_to_the_mean():
    values = np.full(SHAPE, -150, np.float32)
    values[:8, :6] = values[12:16, :4] = 240
    image = Volume(values, GRID)
    images = dict.fromkeys(MODALITIES, image)
    whole = ensemble(Weighted()).predict(images).labels[FUSED]
    kept = ensemble(Weighted(one_piece=("a",))).predict(images).labels[FUSED]
    assert whole[12:16, :4].all() and not kept[12:16, :4].any() and kept[:8, :6].all()
    noise = scans()
    plain, labels = predicted(ensemble(Weighted()), noise)
    weighted, fewer = predicted(ensemble(Weighted(weights=(1.0, 0.9))), noise)
    assert np.array_equal(weighted[FUSED], plain[FUSED])
    product = plain[FUSED] * np.array([1, 0.9]).reshape(2, 1, 1, 1)
    assert (
        np.array_equal(fewer[FUSED], product.argmax(0)) and fewer[FUSED].sum() < labels[FUSED].sum()
    )


def test_an_ensemble_fuses_the_mean_of_its_members():
    images, factors = scans(), ((1.0, 3.0), (-2.0, 0.5))
    members = [predicted(ensemble(Weighted(f)), images)[0][FUSED] for f in factors]
    both, _ = predicted(ensemble(*map(Weighted, factors)), images)
    np.testing.assert_allclose(both[FUSED], sum(members) / 2, atol=1e-6)


@pytest.mark.parametrize("maps", ["fused", "both"])
@pytest.mark.parametrize("given", [{"registered": False}, {"paired": False}])
def test_scans_that_are_not_registered_get_no_fused_map(maps, given):
    assert ensemble(Weighted(**given)).maps == "modalities"
    assert ensemble(Weighted(), Weighted(**given)).maps == "modalities"
    with pytest.raises(UsageError, match=r"not registered.*leave --fused out") as error:
        ensemble(Weighted(**given), maps=maps)
    assert "\n" not in str(error.value)


def test_maps_that_are_made_together_take_more_memory():
    grids = dict.fromkeys(MODALITIES, Grid((256, 256, 64), AFFINE))
    peaks = {
        maps: MemoryEstimator(ensemble(Weighted(), maps=maps)).peak(grids)
        for maps in ("fused", "both")
    }
    assert peaks["both"] > peaks["fused"] + 2 * 2 * 256 * 256 * 64


@pytest.mark.parametrize("name", METHODS)
def test_the_map_of_every_method_is_that_of_its_modalities_mean(name):
    task = replace(make_task(MODALITIES, paired=True, registered=True), spacing=(2.0, 2.0, 4.0))
    method = make_method(name, task)
    grid = Grid((20, 16, 8), np.diag([2.0, 2.0, 4.0, 1.0]))
    images = scans(grid, grid)
    for given in (images, {"t1ce": images["t1ce"]}):
        probabilities, labels = predicted(ensemble(method, maps="both"), given)
        mean = sum(probabilities[m] for m in given) / len(given)
        np.testing.assert_allclose(probabilities[FUSED], mean, atol=1e-5)
        assert np.array_equal(predicted(ensemble(method), given)[1][FUSED], labels[FUSED])
        apart = ensemble(method, maps="modalities").predict(given).labels
        assert all(np.array_equal(apart[m], labels[m]) for m in given)
