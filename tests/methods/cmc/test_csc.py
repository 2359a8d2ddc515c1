"""L_CSC by hand, by its formula, and the degeneracy of eq. 1 as printed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from crossvox.methods.cmc.csc import CSCLoss
from fixtures.tensors import noise

# Three patterns on 2×2×2 positions, centred, orthogonal, of norm 1.
X = torch.tensor([1.0, 1, 1, 1, -1, -1, -1, -1]) / math.sqrt(8)
Y = torch.tensor([1.0, 1, -1, -1, 1, 1, -1, -1]) / math.sqrt(8)


def features(*channels: Tensor) -> Tensor:
    """One row, (1, C, 2, 2, 2)."""
    return torch.stack(channels).view(1, -1, 2, 2, 2).clone()


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Mean cosine of equal channels over 4×4×4 pooled, centred features."""
    rows = [F.adaptive_avg_pool3d(x, 4).flatten(2) for x in (a, b)]
    rows = [x - x.mean(2, keepdim=True) for x in rows]
    return F.cosine_similarity(rows[0], rows[1], dim=2).mean()


def by_the_formula(a: Tensor, b: Tensor, tau: float) -> float:
    """Equation 1 for one row, as a contrast between channels, with numbers of double precision."""
    first, second = ([c.double().flatten() for c in x] for x in (a, b))
    first, second = ([c - c.mean() for c in x] for x in (first, second))
    score = [[math.exp(float(c @ d / (c.norm() * d.norm()) / tau)) for d in second] for c in first]
    own = [row[c] for c, row in enumerate(score)]
    columns = zip(*score, strict=True)
    there = sum(-math.log(hit / sum(row)) for hit, row in zip(own, score, strict=True))
    back = sum(-math.log(hit / sum(column)) for hit, column in zip(own, columns, strict=True))
    return (there + back) / (2 * len(own))


def test_equals_the_formula_written_out_and_minds_no_order_of_the_modalities() -> None:
    a, b = noise(3, 5, 4, 3, 2), noise(3, 5, 4, 3, 2, seed=1)
    expected = sum(by_the_formula(x, y, 0.1) for x, y in zip(a, b, strict=True)) / 3
    assert float(CSCLoss(form="infonce")([a, b])) == pytest.approx(expected, rel=1e-5)
    assert float(CSCLoss(form="infonce")([b, a])) == pytest.approx(expected, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(CSCLoss(form="infonce")([a, b], True)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("registered", [False, True])
def test_hand_worked_values(registered: bool) -> None:
    a, tau = features(X, Y), 0.5
    loss = CSCLoss(tau)
    aligned = -math.log(math.e**2 / (math.e**2 + 1))
    swapped = -math.log(1 / (math.e**2 + 1))
    assert float(loss([a, features(X, Y)], registered)) == pytest.approx(aligned, rel=1e-5)
    assert float(loss([a, features(Y, X)], registered)) == pytest.approx(swapped, rel=1e-5)
    opposite = -math.log(math.e**-2 / (math.e**-2 + 1))
    assert float(loss([a, features(-X, -Y)], registered)) == pytest.approx(opposite, rel=1e-5)


def test_is_the_mean_over_rows_and_over_pairs_of_modalities() -> None:
    a, b, c = features(X, Y), features(Y, X), features(X, -Y)
    loss = CSCLoss(form="infonce")
    two = loss([torch.cat([a, a]), torch.cat([b, c])])
    assert float(two) == pytest.approx(float(loss([a, b]) + loss([a, c])) / 2)
    three = loss([a, b, c])
    expected = float(loss([a, b]) + loss([a, c]) + loss([b, c])) / 3
    assert float(three) == pytest.approx(expected)


def test_does_not_mind_brightness_and_contrast_of_a_channel() -> None:
    a, b = noise(2, 5, 4, 4, 4), noise(2, 5, 4, 4, 4, seed=1)
    loss = CSCLoss()
    assert float(loss([3 * a + 7, b])) == pytest.approx(float(loss([a, b])), rel=1e-4)


def test_unregistered_features_are_compared_by_region_not_by_voxel() -> None:
    a, b = noise(1, 6, 8, 8, 8), noise(1, 6, 8, 8, 8, seed=1)
    jittered = b.view(1, 6, 4, 2, 8, 8).flip(3).reshape(b.shape)  # swapped within 2×1×1 cells
    loss = CSCLoss()
    assert float(loss([a, jittered])) == pytest.approx(float(loss([a, b])), rel=1e-4)
    assert float(loss([a, jittered], True)) != pytest.approx(float(loss([a, b], True)), rel=1e-2)


def test_rows_that_are_not_registered_are_pooled_among_those_that_are() -> None:
    a, b = noise(2, 6, 8, 8, 8), noise(2, 6, 8, 8, 8, seed=1)
    loss = CSCLoss(form="infonce")
    mixed = loss([a, b], (True, False))
    expected = float(loss([a[:1], b[:1]], True) + loss([a[1:], b[1:]], False)) / 2
    assert float(mixed) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("registered", [False, True])
def test_refuses_fewer_than_eight_positions(registered: bool) -> None:
    a = noise(1, 4, 7, 1, 1)
    with pytest.raises(ValueError, match="fewer than 8"):
        CSCLoss()([a, a], registered)


def test_what_all_crops_have_in_common_is_not_compared() -> None:
    a, b = noise(3, 5, 4, 4, 4), noise(3, 5, 4, 4, 4, seed=1)
    common = [100 * noise(1, 5, 4, 4, 4, seed=s) for s in (2, 3)]
    loss, plain = CSCLoss(), CSCLoss(form="infonce")
    expected = float(plain([a - a.mean(0, keepdim=True), b - b.mean(0, keepdim=True)]))
    assert float(loss([a, b])) == pytest.approx(expected, rel=1e-5)
    assert float(loss([a + common[0], b + common[1]])) == pytest.approx(expected, rel=1e-3)
    assert float(loss([a[:1], b[:1]])) == pytest.approx(float(plain([a[:1], b[:1]])), rel=1e-5)


def test_crops_of_other_subjects_keep_what_they_have_in_common() -> None:
    a, b = noise(3, 5, 4, 4, 4), noise(3, 5, 4, 4, 4, seed=1)
    loss, plain = CSCLoss(), CSCLoss(form="infonce")
    two = [x - x[:2].mean(0, keepdim=True) for x in (a, b)]
    expected = float(plain([torch.cat([x[:2], y[2:]]) for x, y in zip(two, (a, b), strict=True)]))
    assert float(loss([a, b], one_subject=(True, True, False))) == pytest.approx(expected, rel=1e-5)
    for rows in ((True, False, False), (False, False, False)):
        found = float(loss([a, b], one_subject=rows))
        assert found == pytest.approx(float(plain([a, b])), rel=1e-5)


def test_refuses_an_unknown_form() -> None:
    with pytest.raises(ValueError, match="content, infonce, literal"):
        CSCLoss(form="simclr")  # type: ignore[arg-type]


def test_a_gradient_step_raises_the_similarity_from_both_sides() -> None:
    a, b = noise(2, 8, 6, 6, 4), noise(2, 8, 6, 6, 4, seed=1)
    for mine, other in ((a, b), (b, a)):
        x = mine.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(CSCLoss()([x, other]), x)
        assert float(similarity(mine - 20 * gradient, other)) > float(similarity(a, b)) + 0.01


def test_finds_matching_channels_better_than_shuffled_ones() -> None:
    a = noise(2, 8, 8, 8, 8)
    b = a + 0.3 * noise(2, 8, 8, 8, 8, seed=1)
    assert float(CSCLoss()([a, b])) < float(CSCLoss()([a, b.roll(1, 0)]))


def test_a_flat_channel_gives_no_exploding_gradient() -> None:
    a = noise(1, 4, 4, 4, 4)
    a[:, 0] = 3.0
    a.requires_grad_()
    (gradient,) = torch.autograd.grad(CSCLoss()([a, noise(1, 4, 4, 4, 4, seed=1)]), a)
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().max()) < 1e4


@pytest.mark.parametrize("registered", [False, True])
def test_literal_form_takes_the_cosines_of_the_features_as_they_are(registered: bool) -> None:
    """They are neither centred nor pooled."""
    a, b = noise(2, 5, 8, 6, 5) + 1, noise(2, 5, 8, 6, 5, seed=1)
    s = F.cosine_similarity(a.flatten(2), b.flatten(2), dim=2)
    expected = float((s.logsumexp(1, keepdim=True) - s).sum(1).mean())
    assert float(CSCLoss(form="literal")([a, b], registered)) == pytest.approx(expected, rel=1e-5)


def test_literal_form_is_blind_to_how_similar_the_channels_are() -> None:
    """Equation 1 as printed is least whenever all similarities are equal, high or low."""
    literal, channels = CSCLoss(form="literal"), 2
    a = features(X, Y)
    for angle in (0.1, 1.4):  # every channel turned away from its counterpart by this angle
        turned = features(
            math.cos(angle) * X + math.sin(angle) * Y, math.cos(angle) * Y - math.sin(angle) * X
        ).requires_grad_()
        loss = literal([a, turned])
        assert float(loss.detach()) == pytest.approx(channels * math.log(channels), rel=1e-5)
        (gradient,) = torch.autograd.grad(loss, turned)
        assert float(gradient.abs().max()) < 1e-6
        (gradient,) = torch.autograd.grad(CSCLoss()([a, turned]), turned)
        assert float(gradient.abs().max()) > 1e-4
    # One channel agreeing perfectly is worse, to this form, than none of them.
    assert float(literal([a, features(X, X)])) > float(literal([a, features(Y, X)]))


@pytest.mark.parametrize("registered", [False, True])
def test_memory_is_linear_in_voxels_at_the_deepest_features_of_96_cubed(registered: bool) -> None:
    channels, voxels = 512, 6**3
    a, b = (noise(1, channels, 6, 6, 6, seed=s).requires_grad_() for s in (0, 1))
    kept: list[int] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        CSCLoss()([a, b], registered).backward()
    assert max(kept) <= max(channels * voxels, channels**2)
    assert sum(kept) <= 20 * (channels * voxels + channels**2)


def pattern(seed: int, rows: int = 2) -> Tensor:
    """Features of `rows` crops, (rows, 16, 4, 4, 4)."""
    return noise(rows, 16, 4, 4, 4, seed=seed)


def test_controls_tell_positions_from_content() -> None:
    """Positions: what all crops show. Content: what two modalities of one crop show."""
    csc, chance = CSCLoss(form="infonce"), math.log(16)
    own, position, content = (pattern(k) for k in (0, 1, 2))
    position = position[:1].expand_as(position)
    found = {}
    for name, (common, shared) in {
        "neither": (0 * position, 0 * content),
        "positions": (position, 0 * content),
        "content": (0 * position, content),
        "both": (position, content),
    }.items():
        pair = [3 * (common + shared) + 0.3 * own, 3 * (common + shared) + 0.3 * own.flip(1)]
        found[name] = {"csc": float(csc(pair)), "loss": float(CSCLoss()(pair))} | {
            k: float(v) for k, v in csc.controls(pair).items()
        }
    low, high = 0.3, 0.9 * chance
    assert all(value > high for value in found["neither"].values())
    positions, content_only, both = found["positions"], found["content"], found["both"]
    assert positions["csc"] < low and positions["csc_shuffled"] < low
    assert positions["csc_content"] > high and positions["loss"] > high
    assert content_only["csc"] < low and content_only["csc_content"] < low
    assert content_only["csc_shuffled"] > high and content_only["loss"] < low
    assert both["csc"] < low and both["csc_content"] < low and both["loss"] < low
    assert low < both["csc_shuffled"] < content_only["csc_shuffled"]


def test_controls_need_two_rows_and_make_no_graph() -> None:
    csc, pair = CSCLoss(), [pattern(0).requires_grad_(), pattern(1).requires_grad_()]
    assert csc.controls([f[:1] for f in pair]) == {}
    for registered in (False, True, (True, False)):
        controls = csc.controls(pair, registered)
        assert all(not value.requires_grad and value.isfinite() for value in controls.values())
    both = csc.controls(pair, (True, True))
    assert both == csc.controls(pair, True)
