"""EFCD's layers by hand, against Dempster's rule step by step, and at their limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from crossvox.losses.supervised import supervised_loss
from crossvox.methods.efcd.evidential import CAP, GAIN, ContextualDiscounting, EvidentialLayer


def layer_of(
    prototypes: list[list[float]], memberships: list[list[float]], alpha: float, gamma2: float
) -> EvidentialLayer:
    layer = EvidentialLayer(len(prototypes[0]), len(prototypes))
    with torch.no_grad():
        layer.prototypes.copy_(torch.tensor(prototypes))
        layer.memberships.copy_(torch.tensor(memberships))
        layer.alpha.fill_(math.log(alpha / (CAP - alpha)))
        layer.gamma.fill_(math.sqrt(gamma2))
    return layer


def voxel(*values: float) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1, 1)


def ignorance(log_contour: Tensor) -> Tensor:
    """Return m_Ω: a contour is m_k + m_Ω, and Σ m_k + m_Ω = 1."""
    return (log_contour.exp().sum(1) - 1) / (log_contour.shape[1] - 1)


def test_hand_worked_values() -> None:
    # x is on the first prototype and 2 from the second: d = (0, 2), so with α = γ² = 0.5
    # s = (0.5, 0.5/e = 0.18394); b = (1, 0), (1, 2) gives u = (1, 0), (0.2, 0.8).
    # q₀ = 1 · (1 − 0.8 · 0.18394) = 0.85285, q₁ = 0.5 · (1 − 0.2 · 0.18394) = 0.48161,
    # q_Ω = 0.5 · (1 − 0.18394) = 0.40803, N = q₀ + q₁ − q_Ω = 0.92642.
    layer = layer_of([[0.0, 0.0], [2.0, 0.0]], [[1.0, 0.0], [1.0, 2.0]], 0.5, 0.5)
    found = layer(voxel(0.0, 0.0)).exp().flatten().tolist()
    assert found == pytest.approx([0.85285 / 0.92642, 0.48161 / 0.92642], rel=1e-4)
    assert ignorance(layer(voxel(0.0, 0.0))).item() == pytest.approx(0.40803 / 0.92642, rel=1e-4)


def test_closed_form_is_dempsters_rule_one_prototype_after_the_other() -> None:
    torch.manual_seed(0)
    layer, x = EvidentialLayer(3, 7), torch.randn(2, 3, 2, 3, 2)
    mass, omega = torch.zeros(2, 3, 2, 3, 2), torch.ones(2, 1, 2, 3, 2)
    for i in range(7):
        apart = x - layer.prototypes[i].view(1, 3, 1, 1, 1)
        distance = apart.square().sum(1, keepdim=True) / 2
        s = CAP * layer.alpha[i].sigmoid() * (-layer.gamma[i].square() * distance).exp()
        u = layer.memberships[i].square().view(1, 3, 1, 1, 1)
        u = u / u.sum()
        mass = mass * (u * s + 1 - s) + u * s * omega
        omega = omega * (1 - s)
        total = mass.sum(1, keepdim=True) + omega
        mass, omega = mass / total, omega / total
    torch.testing.assert_close(layer(x).exp(), mass + omega)
    torch.testing.assert_close(ignorance(layer(x)), omega[:, 0])


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3, 1e8])
def test_finite_with_gradient_however_far_the_features(scale: float) -> None:
    layer = EvidentialLayer(4, 100)
    x = (scale * torch.ones(1, 4, 2, 2, 2)).requires_grad_()
    log_contour = layer(x)
    log_contour.sum().backward()
    assert torch.isfinite(log_contour).all() and (log_contour <= 1e-6).all()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all()


def test_recomputing_for_the_gradient_changes_nothing() -> None:
    torch.manual_seed(0)
    layer, x = EvidentialLayer(3, 4), torch.randn(1, 3, 2, 2, 2)
    with torch.no_grad():
        without = layer(x)
    assert torch.equal(layer(x).detach(), without)


def test_starts_with_features_meaning_classes() -> None:
    for classes, prototypes in ((3, 20), (14, 20), (5, 5)):
        layer = EvidentialLayer(classes, prototypes)
        x = 2 * torch.eye(classes).view(classes, classes, 1, 1, 1)
        assert layer(x).argmax(1).flatten().tolist() == list(range(classes))


def discounting_of(reliability: list[list[float]]) -> ContextualDiscounting:
    layer = ContextualDiscounting(len(reliability), len(reliability[0]), 0.5)
    unit = ContextualDiscounting(1, 1, 0.9).logits.item() / math.log(9)
    with torch.no_grad():
        layer.logits.copy_(unit * torch.tensor(reliability).logit())
    return layer


def test_discounting_and_fusion_by_hand() -> None:
    # pl' = 1 − β + β pl: (0.5 + 0.5 · 0.8, 0.1 + 0.9 · 0.2) = (0.9, 0.28) and
    # (0.2 + 0.8 · 0.5, 0.6 + 0.4 · 1) = (0.6, 1); the product (0.54, 0.28) gives 0.54/0.82.
    layer = discounting_of([[0.5, 0.9], [0.8, 0.4]])
    one, two = layer(voxel(0.8, 0.2).log(), 0), layer(voxel(0.5, 1.0).log(), 1)
    assert one.exp().flatten().tolist() == pytest.approx([0.9, 0.28])
    assert two.exp().flatten().tolist() == pytest.approx([0.6, 1.0])
    fused = (one + two).softmax(1).flatten().tolist()
    assert fused == pytest.approx([0.54 / 0.82, 0.28 / 0.82])


def test_an_unreliable_source_says_nothing_and_a_reliable_one_all() -> None:
    layer = discounting_of([[1e-6, 1 - 1e-6]])
    found = layer(voxel(0.3, 0.3).log(), 0).exp().flatten().tolist()
    assert found == pytest.approx([1.0, 0.3], abs=1e-5)
    assert torch.isfinite(layer(voxel(-1e4, -1e4), 0)).all()


def test_a_source_that_says_anything_loses_its_say() -> None:
    torch.manual_seed(0)
    label, noise = torch.randint(3, (2, 1, 6, 6, 6)).unbind()
    layer = ContextualDiscounting(2, 3, 0.9)
    contours = [
        (0.05 + 0.95 * torch.nn.functional.one_hot(x, 3)).movedim(-1, 1).log()
        for x in (label, noise)
    ]
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(40):
        optimiser.zero_grad()
        fused = torch.stack([layer(c, i) for i, c in enumerate(contours)]).sum(0)
        supervised_loss(fused, label).backward()
        optimiser.step()
    right, wrong = (GAIN * layer.logits).sigmoid().detach()
    assert (right > 0.95).all() and (wrong < 0.5).all()
