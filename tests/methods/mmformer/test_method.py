"""Tests specific to mmFormer; those for all methods are in tests/methods/test_contract.py."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from crossvox.batch import LabelledView
from crossvox.errors import UsageError
from crossvox.losses.supervised import supervised_loss
from crossvox.methods.mmformer.method import MMFormer, draw_subsets
from crossvox.methods.mmformer.network import MMFormerNet, MMFormerSize, TokenBlock
from fixtures.methods import awake, crops, gradients, labels, make_batch, make_method, make_task

SMALL = {"width": 4, "embed": 16, "heads": 2, "mlp_ratio": 2}
THREE = make_task(("t1", "t1c", "flair"), paired=True, registered=True)


def small(task, **options) -> MMFormer:
    return awake(make_method("mmformer", task, **SMALL, **options))  # type: ignore[return-value]


def mask(*rows: tuple[int, ...]) -> Tensor:
    return torch.tensor(rows).bool()


def test_it_has_the_published_size_less_what_the_original_never_uses():
    """36.65 and 21.60 million with a 1³ convolution per modality, 512 → 128, that it never uses."""
    for modalities, classes, published in ((4, 3, 36.65), (2, 13, 21.60)):
        task = dataclasses.replace(
            make_task(
                tuple(f"m{i}" for i in range(modalities)), tuple(f"c{i}" for i in range(classes))
            ),
            patch=(128, 128, 128),
            strides=((1, 1, 1), *((2, 2, 2),) * 4),
            kernels=((3, 3, 3),) * 5,
        )
        with torch.device("meta"):
            net = MMFormerNet(task, MMFormerSize(width=8, embed=512))
        found = sum(p.numel() for p in net.parameters()) + modalities * 512 * 128
        assert found / 1e6 == pytest.approx(published, abs=0.02)
        assert [tuple(p.shape) for p in net.positions] == [(1, 512, 8, 8, 8)] * modalities


def test_attention_by_hand():
    """Queries and keys 0, values the tokens: each gets the mean of those that are attended to.

    Tokens normed to (1, −1), (−1, 1), (1, −1); the keys are the first two, whose mean is 0, or
    the first and third, whose mean is (1, −1).
    """
    block = TokenBlock(embed=2, heads=1, mlp_ratio=1, dropout=0.0)
    with torch.no_grad():
        for p in block.parameters():
            p.zero_()
        block.norm.weight.fill_(1)
        block.qkv.weight[4:] = torch.eye(2)
        block.project[0].weight.copy_(torch.eye(2))
    x = torch.tensor([[[3.0, 1.0], [0.0, 4.0], [7.0, 5.0]]])
    nowhere = torch.zeros(1, 3, 2)
    torch.testing.assert_close(block(x, nowhere, mask((1, 1, 0))), x, atol=1e-4, rtol=0)
    expected = x + torch.tensor([1.0, -1.0])
    torch.testing.assert_close(block(x, nowhere, mask((1, 0, 1))), expected, atol=1e-4, rtol=0)
    third = x + torch.tensor([1.0, -1.0]) / 3
    torch.testing.assert_close(block(x, nowhere), third, atol=1e-4, rtol=0)


def test_tokens_keep_their_modality_and_their_place():
    """With blocks that change nothing, what is joined on channels is what was embedded."""
    net = small(THREE).net
    net.within = nn.ModuleList(Unchanged() for _ in range(3))
    net.across = Unchanged()
    features = {m: net.encode(m, crops(2, m)) for m in range(3)}
    tokens = net._attend(features, torch.ones(2, 3, dtype=torch.bool))
    for m in range(3):
        torch.testing.assert_close(tokens[m], net.embed[m](features[m][-1]))
    placed = mask((1, 1, 0), (0, 1, 1))
    joined = net._side_by_side(tokens, placed)
    for row in range(2):
        for m, part in enumerate(joined[row].split(SMALL["embed"])):
            expected = tokens[m][row] if placed[row, m] else torch.zeros_like(part)
            assert torch.equal(part, expected)


class Unchanged(nn.Module):
    def forward(self, tokens: Tensor, positions: Tensor, keys: Tensor | None = None) -> Tensor:
        return tokens


def test_what_is_absent_has_no_say_and_what_is_present_has():
    net = small(THREE).net.double()
    features = {m: net.encode(m, crops(2, m).double()) for m in range(3)}
    changed = {**features, 1: [f + 1 for f in net.encode(1, crops(2, 9).double())]}
    present = mask((1, 0, 1), (1, 1, 1))
    before, after = (net.fuse(f, present, present) for f in (features, changed))
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a[0], b[0], rtol=0, atol=1e-12)
        assert not torch.allclose(a[1], b[1])
    without = net.fuse(
        {m: features[m] for m in (0, 2)}, present[:1].expand(2, 3), present[:1].expand(2, 3)
    )
    torch.testing.assert_close(without[0][0], before[0][0], rtol=0, atol=1e-12)


def test_where_scans_are_not_registered_companions_only_speak_through_attention():
    net = small(make_task(paired=True)).net.double()
    features = {m: net.encode(m, crops(1, m).double()) for m in range(2)}
    both, ct, mr = mask((1, 1)), mask((1, 0)), mask((0, 1))
    alone, helped, placed = (
        net.fuse(features, *masks)[0] for masks in ((ct, ct), (both, ct), (both, both))
    )
    assert not torch.allclose(alone, helped) and not torch.allclose(helped, placed)
    method = small(make_task(paired=True))
    images = {"ct": crops(1, 0), "mr": crops(1, 1)}
    found = method.predict(images)
    assert not torch.allclose(found["ct"], found["mr"])
    assert not torch.allclose(found["ct"], method.predict({"ct": images["ct"]})["ct"])
    net = method.net
    encoded = {m: net.encode(m, x) for m, x in enumerate(images.values())}
    torch.testing.assert_close(net.fuse(encoded, both, mr)[0], found["mr"])


@pytest.mark.parametrize("known", [{"registered": True}, {"aligned": True}])
def test_scans_that_lie_over_each_other_have_one_segmentation(known):
    task = dataclasses.replace(make_task(THREE.modalities, paired=True), **known)
    found = small(task).predict({"t1": crops(1, 0), "flair": crops(1, 1)})
    assert set(found) == {"t1", "flair"} and torch.equal(found["t1"], found["flair"])


def test_subsets_are_drawn_evenly_from_what_exists():
    torch.manual_seed(0)
    exists = mask((1, 0, 1), (0, 1, 0), (1, 1, 1)).repeat(2000, 1)
    drawn = draw_subsets(exists)
    assert not (drawn & ~exists).any() and drawn.any(1).all()
    codes = (drawn * torch.tensor([1, 2, 4])).sum(1).view(-1, 3)
    for row, subsets in enumerate(({1, 4, 5}, {2}, {1, 2, 3, 4, 5, 6, 7})):
        counts = codes[:, row].bincount(minlength=8)
        assert set(counts.nonzero().flatten().tolist()) == subsets
        share = counts[sorted(subsets)] / 2000
        assert float((share - 1 / len(subsets)).abs().max()) < 0.04


def test_subsets_may_have_to_hold_one():
    torch.manual_seed(0)
    exists = mask((1, 0, 1)).repeat(2000, 1)
    drawn = draw_subsets(exists, keep=2)
    assert drawn[:, 2].all() and not drawn[:, 1].any()
    assert float(drawn[:, 0].float().mean()) == pytest.approx(0.5, abs=0.05)


def test_the_loss_is_the_sum_of_its_parts_and_weights_count():
    task = make_task()
    for separate, deep in ((1.0, 1.0), (0.5, 0.0)):
        method = small(task, separate=separate, deep=deep)
        parts = method(make_batch(task), 0.0)
        assert set(parts) == {"loss", "sup", "separate", "deep"}
        expected = parts["sup"] + separate * parts["separate"] + deep * parts["deep"]
        torch.testing.assert_close(parts["loss"], expected)


def test_parts_are_of_what_they_say():
    """One modality: "sup" of the finest logits, "separate" of its own, "deep" of the coarser."""
    task = make_task(("ct",))
    method = small(task, balance=0.0)
    batch = make_batch(task)
    view, parts = batch.labelled["ct"], method(batch, 0.0)
    features = {0: method.net.encode(0, view.images["ct"])}
    there = torch.ones(2, 1, dtype=torch.bool)
    finest, *coarser = method.net.fuse(features, there, there)
    assert [x.shape[2:] for x in coarser] == [(8, 8, 8), (4, 4, 4)]
    torch.testing.assert_close(parts["sup"], supervised_loss(finest, view.label))
    own = supervised_loss(method.net.separate(features[0]), view.label)
    torch.testing.assert_close(parts["separate"], own)
    deep = torch.zeros(())
    for x in coarser:
        p = nn.functional.interpolate(x.softmax(1), task.patch, mode="trilinear")
        deep = deep + supervised_loss(p.log(), view.label)
    torch.testing.assert_close(parts["deep"], deep)


def test_separate_losses_reach_the_encoders_that_a_label_is_true_of():
    for known, reached in (
        ({}, {"0"}),
        ({"registered": True}, {"0", "1"}),
        ({"aligned": True}, {"0", "1"}),
    ):
        task = dataclasses.replace(make_task(paired=True), **known)
        method = small(task)
        batch = make_batch(task)
        del batch.labelled["mr"]
        found = gradients(method, method(batch, 0.0)["separate"])
        encoders = {n.split(".")[2] for n, g in found.items() if g and n.startswith("net.encoders")}
        assert encoders == reached
        others = {n.split(".")[1] for n, g in found.items() if g}
        assert others == {"encoders", "separate_up", "separate_head"}


def test_unpaired_modalities_teach_the_parts_they_share():
    task = make_task()
    method = small(task)
    batch = make_batch(task)
    del batch.labelled["mr"]
    found = gradients(method, method(batch, 0.0)["loss"])
    for part in ("across", "up", "separate_up", "fusions"):
        assert any(g for n, g in found.items() if n.startswith(f"net.{part}."))
    for part in ("encoders", "within", "embed", "positions"):
        assert not any(g for n, g in found.items() if n.startswith(f"net.{part}.1"))


def test_a_view_need_not_name_what_no_row_has():
    task = make_task()
    method, batch = small(task), make_batch(task)
    named = method(batch, 0.0)
    for anchor, view in batch.labelled.items():
        batch.labelled[anchor] = LabelledView(
            {anchor: view.images[anchor]}, {anchor: view.same_subject[anchor]}, view.label
        )
    torch.testing.assert_close(method(batch, 0.0)["loss"], named["loss"])


def test_it_takes_other_crops_than_the_tasks():
    method = small(make_task())
    assert method.predict({"ct": crops(1, 0, (24, 16, 16))})["ct"].shape == (1, 3, 24, 16, 16)
    with pytest.raises(ValueError, match="no multiple of the strides"):
        method.predict({"ct": crops(1, 0, (18, 16, 16))})


def test_it_overfits_one_labelled_case():
    task = make_task(("ct",))
    torch.manual_seed(0)
    method = small(task)
    label = labels(1, 3, 0)
    image = crops(1, 0) + 2 * label.unsqueeze(1)
    batch = make_batch(task, labelled=1, unlabelled=0)
    batch.labelled["ct"] = LabelledView(
        {"ct": image}, {"ct": torch.ones(1, dtype=torch.bool)}, label
    )
    optimiser = torch.optim.AdamW(method.parameters(), lr=1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        method(batch, 0.0)["loss"].backward()
        nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimiser.step()
    found = method.predict({"ct": image})["ct"].argmax(1)
    for c in (1, 2):
        a, b = found == c, label == c
        assert 2 * float((a & b).sum()) / float(a.sum() + b.sum()) > 0.95


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="embed 10 is no multiple of heads 4; nearest is 8"):
        make_method("mmformer", make_task(), embed=10, heads=4)
    for option, value in (("width", 0), ("heads", 0), ("dropout", 2.0), ("balance", math.nan)):
        with pytest.raises(UsageError, match=rf"method\.{option} is {value}"):
            make_method("mmformer", make_task(), **{option: value})
    single = dataclasses.replace(make_task(), strides=((1, 1, 1),), kernels=((3, 3, 3),))
    with pytest.raises(ValueError, match=r"budget\.levels"):
        make_method("mmformer", single, backbone="unet")
