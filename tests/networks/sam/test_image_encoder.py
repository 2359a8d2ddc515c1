"""SAM-Med3D's image encoder against numbers of the original program."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crossvox.networks.sam.image_encoder import SamMed3DEncoder, ViTConfig
from fixtures.attention import padded_attention, windows
from fixtures.golden import Golden, golden, rule_input, rule_state

SMALL, PUBLISHED = 5e-5, 2e-4
GRADIENT = 1e-3


def fixtures(kind: str, holds: str):
    """The files of a kind that hold a certain tensor; of the small ones, others hold weights."""
    found = [pytest.param(f, id=f.path.stem) for f in golden(kind) if holds in f.tensors()]
    missing = pytest.param(None, marks=pytest.mark.skip(f"no fixtures of kind {kind} here"))
    return pytest.mark.parametrize("fixture", found or [missing])


small = fixtures("sam_med3d_image_encoder", "output")
published = fixtures("sam_med3d_vit_b_ori_image_encoder", "stat.output")

NAMES = {
    "img_size": "image",
    "patch_size": "patch",
    "in_chans": "channels_in",
    "embed_dim": "embed",
    "depth": "depth",
    "num_heads": "heads",
    "mlp_ratio": "mlp_ratio",
    "out_chans": "channels_out",
    "qkv_bias": "qkv_bias",
    "use_abs_pos": "absolute_position",
    "use_rel_pos": "relative_position",
    "window_size": "window",
    "global_attn_indexes": "global_blocks",
    "ln_eps": "norm_eps",
}


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def size_of(fixture: Golden) -> ViTConfig:
    """Build an encoder from a configuration in JSON, or in words for the published size."""
    text = fixture.facts["config"]
    if not text.startswith("{"):
        return published_size(text)
    values = {NAMES[key]: value for key, value in fixture.config.items()}
    return ViTConfig(**values | {"global_blocks": tuple(values["global_blocks"])})


def loaded(fixture: Golden) -> SamMed3DEncoder:
    """With the weights of the other file that says the same of itself, or else the rule's."""
    facts, size = fixture.facts, size_of(fixture)
    encoder = SamMed3DEncoder(size, tuple(range(1, size.depth + 1)))
    others = [f for f in golden(facts["kind"]) if f.facts == facts and f.path != fixture.path]
    if others:
        encoder.load_state_dict(others[0].tensors())
    else:
        prefix = facts.get("key_prefix", "image_encoder.")
        encoder.load_state_dict(rule_state(facts["salt"], encoder.state_dict(), prefix))
    return encoder


def image_of(fixture: Golden) -> Tensor:
    """The one in the file, or else the rule's."""
    given = fixture.tensors().get("input")
    return rule_input(fixture.facts["input"], fixture.facts["salt"]) if given is None else given


def watch(encoder: SamMed3DEncoder) -> dict[str, Tensor]:
    """What named modules give out in the next call."""
    seen: dict[str, Tensor] = {}
    for name, module in encoder.named_modules():
        module.register_forward_hook(lambda m, a, out, name=name: seen.update({name: out}))
    return seen


@small
def test_the_original_encoders_numbers_and_gradients_come_out(fixture):
    encoder, expected = loaded(fixture), fixture.tensors()
    seen, image = watch(encoder), image_of(fixture).requires_grad_()
    *_, output = encoder(image)
    close(output, expected["output"], SMALL)
    stages = [n.removeprefix("act.") for n in expected if n.startswith("act.")]
    assert {"patch_embed", "blocks.0", "blocks.0.attn", "neck.3"} <= set(stages)
    for name in stages:
        if name != "blocks.0.attn":
            close(seen[name], expected[f"act.{name}"], SMALL)
    assert fixture.facts["loss_for_grad"] == "output.pow(2).mean()"
    output.pow(2).mean().backward()
    found = {n: p.grad for n, p in encoder.named_parameters()} | {"input": image.grad}
    wanted = [n.removeprefix("grad.") for n in expected if n.startswith("grad.")]
    assert "blocks.0.attn.proj.bias" in wanted
    for name in wanted:
        gradient = expected[f"grad.{name}"]
        close(found[name], gradient, GRADIENT * float(gradient.abs().max()))


@small
def test_the_original_attention_comes_out_window_by_window(fixture):
    """Ours has the rows of real tokens; those of padding come from the reference in loops."""
    encoder, expected = loaded(fixture), fixture.tensors()
    attention, seen, inputs = encoder.blocks[0].attn, watch(encoder), []
    attention.register_forward_hook(lambda m, args, out: inputs.append(args[0]))
    with torch.no_grad():
        encoder(image_of(fixture))
        every = padded_attention(attention, inputs[0])
    rows, found = expected["act.blocks.0.attn"], seen["blocks.0.attn"]
    sides = rows.shape[1:4]
    real = windows(torch.ones_like(found), sides) > 0
    close(windows(found, sides)[real], rows[real], SMALL)
    close(every, rows, SMALL)


def published_size(text: str) -> ViTConfig:
    """From `img_size=128 patch=16 … global=[2,5,8,11] rel_pos abs_pos qkv_bias … LN eps=1e-6`."""
    words = text.split()
    given = dict(word.split("=", 1) for word in words if "=" in word)
    return ViTConfig(
        image=int(given["img_size"]),
        patch=int(given["patch"]),
        embed=int(given["embed"]),
        depth=int(given["depth"]),
        heads=int(given["heads"]),
        mlp_ratio=float(given["mlp"]),
        window=int(given["window"]),
        global_blocks=tuple(json.loads(given["global"])),
        channels_out=int(given["out_chans"]),
        qkv_bias="qkv_bias" in words,
        norm_eps=float(given["eps"]),
        absolute_position="abs_pos" in words,
        relative_position="rel_pos" in words,
    )


@published
def test_the_published_size_gives_the_original_numbers(fixture):
    encoder, expected = loaded(fixture), fixture.tensors()
    seen = watch(encoder)
    with torch.no_grad():
        *_, output = encoder(image_of(fixture))
        grid = encoder._positions(seen["patch_embed"].shape[1:4])
    stages = [n.removeprefix("probe.") for n in expected if n.startswith("probe.")]
    assert len(stages) == 1 + encoder.config.depth
    for name in stages:
        close(seen[name][0, 1, 2, 3, :48], expected[f"probe.{name}"], PUBLISHED)
        close(summary(seen[name]), expected[f"stat.{name}"], PUBLISHED)
    close(output[:, ::8], expected["output.ch_stride8"], PUBLISHED)
    close(summary(output), expected["stat.output"], PUBLISHED)
    rows = output.transpose(0, 1).flatten(1)
    statistics = torch.stack([rows.mean(1), rows.std(1, correction=0)])
    close(statistics, expected["output.chanstat"], PUBLISHED)
    if (probe := expected.get("pos_embed_resampled.probe")) is not None:
        close(grid[0, ..., : probe.shape[-1]], probe, 1e-6)


def summary(x: Tensor) -> Tensor:
    return torch.stack([x.mean(), x.std(correction=0), x.min(), x.max()]).double()


SIZE = ViTConfig(
    image=16, patch=4, embed=12, depth=3, heads=2, window=3, global_blocks=(2,), channels_out=8
)


def tiny(size: ViTConfig = SIZE, *, reduction: int = 0, seed: int = 0) -> SamMed3DEncoder:
    """A small encoder with no parameter zero but the adapters'."""
    encoder = SamMed3DEncoder(size, (1, 3), reduction)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in encoder.named_parameters():
            if ".adapter." not in name:
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return encoder


def image(*size: int) -> Tensor:
    return torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(1))


def test_has_the_published_parameters():
    with torch.device("meta"):
        encoder, adapted = SamMed3DEncoder(ViTConfig()), SamMed3DEncoder(ViTConfig(), (), 16)
    state = encoder.state_dict()
    assert len(state) == 189
    assert sum(t.numel() for t in state.values()) == 92_924_928
    assert {int(t.shape[0]) for n, t in state.items() if "rel_pos" in n} == {15, 27}
    assert adapted.published_names() == list(state)
    encoder.freeze("paper")
    frozen = sum(p.numel() for p in encoder.parameters() if not p.requires_grad)
    assert frozen == 31_941_120


def test_fresh_adapters_change_no_bit():
    plain, adapted = tiny(), tiny(reduction=4)
    assert any(".adapter." in name for name in adapted.state_dict())
    for a, b in zip(plain(image(16, 16, 16)), adapted(image(16, 16, 16)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [(16, 16, 16), (24, 24, 24), (8, 8, 8)])
def test_gives_image_taps_and_neck(size):
    encoder, x = tiny(), image(*size)
    features = encoder(x)
    tokens = tuple(n // 4 for n in size)
    assert [tuple(f.shape[2:]) for f in features] == [size, tokens, tokens, tokens]
    assert [f.shape[1] for f in features] == encoder.channels == [1, 12, 12, 8]
    assert features[0] is x
    torch.testing.assert_close(encoder.neck(features[2]), features[3])


def test_positions_of_another_crop_lie_between_those_of_the_grid():
    encoder = tiny(dataclasses.replace(SIZE, textbook_rel_pos=True))
    with torch.no_grad():
        encoder.pos_embed.copy_(torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 4, 4, 4, 12))
        grid = encoder._positions((4, 2, 3))
    assert grid.shape == (1, 4, 2, 3, 12)
    torch.testing.assert_close(grid[0, 2, :, 1, 5], torch.tensor([0.5, 2.5]))
    assert encoder(image(16, 8, 12))[-1].shape == (2, 8, 4, 2, 3)


def test_crops_of_any_shape_without_global_blocks_or_with_the_textbooks_positions():
    for change in ({"global_blocks": ()}, {"textbook_rel_pos": True}, {"relative_position": False}):
        encoder = tiny(dataclasses.replace(SIZE, **change))
        assert encoder(image(12, 8, 16))[-1].shape == (2, 8, 3, 2, 4)


@pytest.mark.parametrize(
    ("crop", "nearest"), [((16, 16, 12), "(16, 16, 16)"), ((15, 15, 15), "(16, 16, 16)")]
)
def test_refuses_other_crops_with_the_nearest_that_works(crop, nearest):
    with pytest.raises(ValueError, match=re.escape(f"nearest is {nearest}")):
        tiny()(image(*crop))


def test_rows_do_not_see_each_other():
    encoder, x = tiny(reduction=2), image(16, 16, 16)
    for both, one in zip(encoder(x), encoder(x[1:]), strict=True):
        torch.testing.assert_close(both[1:], one)


@pytest.mark.parametrize("form", ["paper", "all_but_adapter", "none"])
def test_what_is_frozen_gets_no_update_and_no_decay(form):
    encoder = tiny(reduction=4)
    encoder.freeze("all_but_adapter")  # each form says all, whatever came before
    encoder.freeze(form)
    before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    trained = [p for p in encoder.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        sum(f.pow(2).mean() for f in encoder(image(16, 16, 16))[1:]).backward()
        optimiser.step()
    moved = {n for n, p in encoder.named_parameters() if not torch.equal(p, before[n])}
    frozen = {
        "none": lambda n: False,
        "paper": lambda n: re.search(r"^pos_embed|^patch_embed|\.attn\.", n),
        "all_but_adapter": lambda n: "adapter" not in n,
    }[form]
    assert moved == {n for n in before if not frozen(n)}


def test_trains_from_random_weights():
    """It learns to return a smoothed image."""
    torch.manual_seed(0)
    encoder, x = SamMed3DEncoder(SIZE, (), 4), image(16, 16, 16)
    head = nn.Linear(8, 1)
    target = F.avg_pool3d(x, 4)
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=0.01)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = (head(encoder(x)[-1].movedim(1, -1)).movedim(-1, 1) - target).pow(2).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
