"""Grad-CAM by hand, and features recorded in every method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from crossvox.data.geometry import Grid
from crossvox.data.prepare.preprocess import PreparedScan, Preprocessing
from crossvox.errors import UsageError
from crossvox.inference.attention import AttentionMaps, _recorded_features, grad_cam, strength
from crossvox.inference.model import Inference
from crossvox.inference.slabs import assemble
from crossvox.methods import METHODS
from fixtures.methods import OWN_NETWORKS, PATCH, awake, make_method, make_task


def test_grad_cam_by_hand():
    # Two channels on two voxels; score = 3 a0 − 2 a1 + b0 · b1, so the gradients are
    # (3, −2) and (b1, b0) = (2, −4); their means over space 0.5 and −1.
    a = torch.tensor([1.0, 5.0]).view(1, 1, 2, 1, 1)
    b = torch.tensor([-4.0, 2.0]).view(1, 1, 2, 1, 1)
    features = torch.cat([a, b], 1).requires_grad_()
    f = features[0, :, :, 0, 0]
    score = 3 * f[0, 0] - 2 * f[0, 1] + f[1, 0] * f[1, 1]
    # 0.5 · (1, 5) − 1 · (−4, 2) = (4.5, 0.5)
    assert grad_cam(score, [features]).flatten().tolist() == [4.5, 0.5]
    # −0.5 · … + 1 · … = (−4.5, −0.5): nothing speaks for it.
    assert grad_cam(-score, [features]).flatten().tolist() == [0.0, 0.0]
    unused = torch.ones(1, 3, 2, 1, 1, requires_grad=True)
    assert grad_cam(score, [features, unused]).flatten().tolist() == [4.5, 0.5]


def test_strength_is_the_mean_of_absolute_values_over_all_channels():
    a = torch.tensor([[-3.0], [1.0]]).view(1, 2, 1, 1, 1)
    assert strength([a]).item() == 2.0
    assert strength([a, torch.full((1, 2, 1, 1, 1), 4.0)]).item() == 3.0


@pytest.mark.parametrize("name", METHODS)
def test_the_deepest_features_of_the_scan_are_recorded_in_every_method(name):
    method = make_method(name, make_task(paired=True)).eval()
    images = {m: torch.randn(1, 1, *PATCH) for m in ("ct", "mr")}
    plain = method.predict(images, ["mr"])["mr"]
    with _recorded_features(method, images["mr"]) as seen:
        logits = method.predict(images, ["mr"])["mr"]
    assert torch.equal(logits, plain)
    assert seen.deepest
    # Networks of a method's own need not hand features on to a decoder as lists.
    assert name in OWN_NETWORKS or len(seen.decoded) == len(seen.deepest)
    assert grad_cam(logits[:, 1].sum(), seen.deepest).shape[2:] == seen.deepest[0].shape[2:]
    gradients = torch.autograd.grad(logits.sum(), seen.deepest)
    assert all(g.abs().sum() > 0 for g in gradients)
    # Nothing stays behind.
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in method.modules())


def test_mia_and_fusion_lie_between_the_features_and_the_decoder():
    images = {m: torch.randn(1, 1, *PATCH) for m in ("ct", "mr")}
    same = {}
    for label, options in (("with", {}), ("without", {"mia": "none", "fusion": "none"})):
        # At the start MIA and fusion are the identity.
        method = awake(make_method("cmc", make_task(paired=True), **options)).eval()
        with _recorded_features(method, images["ct"]) as seen:
            method.predict(images, ["ct"])
        same[label] = torch.equal(seen.deepest[0], seen.decoded[0])
    assert same == {"with": False, "without": True}


class Bright(nn.Module):
    """An encoder whose deepest feature is the image, and a decoder of the class "bright"."""

    class Encode(nn.Module):
        channels = [1, 1]

        def forward(self, x):
            return [x, x * 1]

    class Decode(nn.Module):
        def forward(self, features):
            return torch.cat([0.5 - features[-1], features[-1] - 0.5], 1)

    def __init__(self):
        super().__init__()
        self.keeps_largest = False
        self.task = make_task(classes=("bright",))
        self.net = nn.Sequential(self.Encode(), self.Decode())

    def class_weights(self):
        return ()

    def predict(self, images, outputs):
        return {m: self.net(images[m]) for m in outputs}


def slide(method, values):
    affine = np.diag([2.0, 2.0, 4.0, 1.0])
    grid = Grid(values.shape, affine)
    preprocessing = Preprocessing(np.eye(3), (2.0, 2.0, 4.0), {"ct": "ct", "mr": "mr"})
    attention = AttentionMaps(method, preprocessing, Inference(0.0))
    prepared = {"ct": PreparedScan(values, grid, 0.0, np.array([(0, 0, 0), values.shape]))}
    return list(assemble(attention.slabs(prepared, [("ct",)], grid)))


def test_maps_are_bright_on_the_scans_grid_where_the_class_is():
    values = np.zeros((2 * PATCH[0], *PATCH[1:]), np.float32)
    values[3:6, 4:9, 2:5] = 1
    deepest, fed, cam = slide(Bright(), values)
    assert np.allclose(deepest, values, atol=1e-6) and np.allclose(fed, values, atol=1e-6)
    # Of the window with the block, each voxel's gradient is 1: mean n / size, times the image.
    assert np.allclose(cam, values * 45 / np.prod(PATCH), atol=1e-6)
    assert not cam[PATCH[0] :].any()


def test_a_method_without_an_encoder_is_named():
    method = Bright()
    del method.net[0].__class__.channels
    try:
        with pytest.raises(UsageError, match="Bright: no encoder sees the ct image"):
            slide(method, np.ones(PATCH, np.float32))
    finally:
        Bright.Encode.channels = [1, 1]
