"""L_CAC by hand, by its formula, and the degeneracy of eq. 3 as printed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch import multiprocessing as mp

from crossvox.losses.distributed import gather_rows
from crossvox.methods.cmc.cac import CACForm, CACLoss, dice_similarity
from fixtures.processes.process_group import one_of_two, threads_of_groups
from fixtures.tensors import noise


def logits_of(p: Tensor) -> Tensor:
    """Logits (U, K + 1, …) whose foreground probabilities are p (U, K, …)."""
    background = 1 - p.sum(dim=1, keepdim=True)
    return torch.cat([background, p], dim=1).clamp_min(1e-12).log()


def in_line(*rows: list[float]) -> Tensor:
    """Logits of a single organ whose probabilities along a line of voxels are given per row."""
    return logits_of(torch.tensor(rows).view(len(rows), 1, -1, 1, 1))


LEFT, RIGHT, HALF = [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]


def test_dice_similarity_by_hand() -> None:
    p = torch.tensor([[LEFT, HALF], [HALF, [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    similarity, defined = dice_similarity(p)
    assert float(similarity[0, 0]) == pytest.approx(1)
    # First class 2·0.5/(1 + 0.5); the second is there in one only and scores 0.
    assert float(similarity[0, 1]) == pytest.approx((2 / 3 + 0) / 2, rel=1e-4)
    # Only the first class is there in row 1 or 2.
    assert float(similarity[1, 2]) == pytest.approx(0, abs=1e-4)
    assert defined.tolist() == [[True] * 3, [True] * 3, [True, True, False]]


def test_a_class_is_there_above_a_thousandth_of_the_crop() -> None:
    for share, there in ((1e-3, False), (1.01e-3, True)):
        _, defined = dice_similarity(torch.full((1, 1, 8), share))
        assert bool(defined) is there


def by_the_formula(a: Tensor, b: Tensor, tau: float) -> float:
    """NT-Xent over the predictions of a and b (U, K, positions), in plain loops."""
    rows = [*a.double(), *b.double()]

    def similarity(p: Tensor, q: Tensor) -> float:
        dice = [2 * float(c @ d) / float(c @ c + d @ d) for c, d in zip(p, q, strict=True)]
        return sum(dice) / len(dice)

    losses = []
    for i, row in enumerate(rows):
        positive = rows[(i + len(a)) % len(rows)]
        rivals = [math.exp(similarity(row, x) / tau) for x in rows if x is not row]
        losses.append(math.log(sum(rivals)) - similarity(row, positive) / tau)
    return sum(losses) / len(losses)


def test_equals_the_formula_written_out() -> None:
    a, b = noise(3, 4, 4, 3, 2), noise(3, 4, 4, 3, 2, seed=1)
    p, q = (x.double().softmax(dim=1)[:, 1:].flatten(2) for x in (a, b))
    expected = by_the_formula(p, q, 0.2)
    assert float(CACLoss()([a, b])) == pytest.approx(expected, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(CACLoss()([a, b])) == pytest.approx(expected, rel=1e-5)


def test_hand_worked_nt_xent() -> None:
    loss = CACLoss(tau=0.5)
    agree = loss([in_line(LEFT, RIGHT), in_line(LEFT, RIGHT)])
    assert float(agree) == pytest.approx(-math.log(math.e**2 / (math.e**2 + 2)), rel=1e-4)
    crossed = loss([in_line(LEFT, RIGHT), in_line(RIGHT, LEFT)])
    assert float(crossed) == pytest.approx(-math.log(1 / (math.e**2 + 2)), rel=1e-4)


def test_a_single_crop_falls_back_to_one_minus_the_similarity() -> None:
    assert float(CACLoss()([in_line(LEFT), in_line(HALF)])) == pytest.approx(1 / 3, rel=1e-4)


def test_is_the_mean_over_pairs_of_modalities() -> None:
    a, b, c = (noise(2, 3, 4, 4, 4, seed=s) for s in range(3))
    loss = CACLoss()
    expected = float(loss([a, b]) + loss([a, c]) + loss([b, c])) / 3
    assert float(loss([a, b, c])) == pytest.approx(expected, rel=1e-5)


def test_crops_in_which_nothing_is_predicted_are_skipped() -> None:
    empty = [0.0, 0.0]
    loss = CACLoss(tau=0.5)
    # The third crop has no organ in either modality: neither a positive nor, to another empty
    # prediction, a rival; the others see it as two predictions unlike their own.
    a, b = (in_line(LEFT, RIGHT, empty).requires_grad_() for _ in range(2))
    value = loss([a, b])
    value.backward()
    expected = -math.log(math.e**2 / (math.e**2 + 4))
    assert float(value.detach()) == pytest.approx(expected, rel=1e-4)
    nothing = in_line(empty, empty).requires_grad_()
    value = loss([nothing, nothing])
    value.backward()
    assert float(value.detach()) == 0
    assert nothing.grad is not None
    assert bool(nothing.grad.isfinite().all())


def test_two_empty_predictions_are_no_rivals() -> None:
    empty = [0.0, 0.0]
    value = CACLoss()([in_line(empty, empty), in_line(LEFT, RIGHT)])
    # All similarities are 0. An empty prediction has its positive and the other crop's organ to
    # tell apart, the two others have three predictions each.
    assert float(value) == pytest.approx((math.log(2) + math.log(3)) / 2, rel=1e-3)


def test_unregistered_predictions_are_compared_by_region_not_by_voxel() -> None:
    a, b = (3 * noise(2, 3, 16, 8, 8, seed=s) for s in (0, 1))
    jittered = b.view(2, 3, 8, 2, 8, 8).flip(3).reshape(b.shape)  # swapped within 2×1×1 cells
    loss = CACLoss()
    assert float(loss([a, jittered])) == pytest.approx(float(loss([a, b])), rel=1e-4)
    assert float(loss([a, jittered], True)) != pytest.approx(float(loss([a, b], True)), rel=1e-4)


def test_rows_that_are_not_registered_are_pooled_among_those_that_are() -> None:
    a, b = (3 * noise(2, 3, 16, 8, 8, seed=s) for s in (0, 1))
    loss = CACLoss()
    everyone, nobody = (True, True), (False, False)
    assert float(loss([a, b], everyone)) == pytest.approx(float(loss([a, b], True)), rel=1e-5)
    assert float(loss([a, b], nobody)) == pytest.approx(float(loss([a, b])), rel=1e-3)


def positive_similarity(a: Tensor, b: Tensor) -> float:
    p = [x.softmax(1)[:, 1:].flatten(2) for x in (a, b)]
    similarity, _ = dice_similarity(torch.cat(p))
    return float(similarity.diagonal(len(a)).mean())


@pytest.mark.parametrize("crops", [1, 2, 3])
def test_a_gradient_step_raises_the_similarity_from_both_sides(crops: int) -> None:
    a, b = (2 * noise(crops, 3, 8, 8, 8, seed=s) for s in (0, 1))
    for mine, other in ((a, b), (b, a)):
        x = mine.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(CACLoss()([x, other]), x)
        assert float(gradient.abs().sum()) > 0
        moved = mine - 500 * gradient
        assert positive_similarity(moved, other) > positive_similarity(a, b)


def test_negatives_push_other_crops_apart() -> None:
    a = in_line(LEFT, LEFT)
    apart = CACLoss()([in_line(LEFT, RIGHT), in_line(LEFT, RIGHT)])
    assert float(CACLoss()([a, a])) > float(apart)


def test_literal_form_is_blind_to_how_similar_the_predictions_are() -> None:
    """Equation 3 as printed is least whenever all crops are equally similar, much or little."""
    literal = CACLoss(form="literal")
    a = in_line(LEFT, RIGHT)
    much, little = in_line([0.9, 0.1], [0.1, 0.9]), in_line([0.1, 0.9], [0.9, 0.1])
    for b in (much, little):
        b.requires_grad_()
        loss = literal([a, b])
        assert float(loss.detach()) == pytest.approx(2 * math.log(2), rel=1e-5)
        (gradient,) = torch.autograd.grad(loss, b)
        assert float(gradient.abs().max()) < 1e-6
        (gradient,) = torch.autograd.grad(CACLoss()([a, b]), b)
        assert float(gradient.abs().max()) > 1e-3
    # Raising the agreement of one crop is punished.
    uneven = torch.cat([much[:1], little[1:]])
    assert float(literal([a, uneven]).detach()) > 2 * math.log(2) + 0.05
    single = in_line([0.3, 0.4]).requires_grad_()
    loss = literal([in_line(LEFT), single])
    (gradient,) = torch.autograd.grad(loss, single)
    assert float(loss.detach()) == 0
    assert float(gradient.abs().max()) == 0


def test_refuses_an_unknown_form() -> None:
    with pytest.raises(ValueError, match="nt-xent, literal"):
        CACLoss(form="dice")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["nt-xent", "literal"])
def test_crops_are_compared_where_the_logits_are(form: CACForm) -> None:
    """Tensors of the device `meta` have no values, and do not mix with those of another."""
    a, b = noise(3, 3, 4, 4, 4), noise(3, 3, 4, 4, 4, seed=1)
    loss = CACLoss(form=form)
    expected = float(loss([a, b]))
    with torch.device("meta"):  # where tensors land that are sent nowhere
        assert float(loss([a, b])) == expected


def test_gathering_on_one_process_changes_nothing() -> None:
    x = noise(2, 3)
    assert gather_rows(x) is x


def _networks() -> list[torch.nn.Conv3d]:
    torch.manual_seed(0)
    return [torch.nn.Conv3d(1, 3, 3, padding=1) for _ in range(2)]


def _loss(networks: list[torch.nn.Conv3d], rows: slice) -> Tensor:
    return CACLoss()([net(noise(4, 1, 6, 6, 6, seed=7)[rows]) for net in networks])


def _one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    networks, whole = _networks(), _networks()
    with one_of_two(rank, folder):
        loss = _loss(networks, slice(2 * rank, 2 * rank + 2))
        loss.backward()
        found = [loss.detach()]
        for p in (p for net in networks for p in net.parameters()):
            assert p.grad is not None
            dist.all_reduce(p.grad)
            found.append(p.grad / 2)
    assert not threads_of_groups()
    expected = _loss(whole, slice(0, 4))
    expected.backward()
    torch.testing.assert_close(found[0], expected.detach())
    wanted = [p.grad for net in whole for p in net.parameters()]
    torch.testing.assert_close(found[1:], wanted)


def test_two_processes_train_as_one_with_the_whole_batch(tmp_path: Path) -> None:
    mp.spawn(_one_rank, args=(str(tmp_path),), nprocs=2)
