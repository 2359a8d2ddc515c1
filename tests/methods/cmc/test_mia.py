"""The awareness modules, by their formulas."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from crossvox.config.presets import load_preset
from crossvox.methods.cmc.mia import MIA, make_mia
from crossvox.networks import BACKBONES
from fixtures.methods import make_task
from fixtures.tensors import noise, randomise


@pytest.mark.parametrize("form", ["gate", "softmax", "danet", "none"])
def test_awareness_starts_as_the_identity(form: str) -> None:
    x = noise(2, 6, 4, 4, 3)
    module = make_mia(form, 6)  # type: ignore[arg-type]
    assert torch.equal(module(x), x)


@pytest.mark.parametrize("form", ["gate", "softmax"])
def test_awareness_is_the_gate_of_its_formula(form: str) -> None:
    x, module = noise(2, 8, 4, 4, 3), make_mia(form, 8, 2)  # type: ignore[arg-type]
    assert isinstance(module, MIA)
    randomise(module)
    h = module.project(x)
    mixed = F.conv3d(torch.cat([x, h], 1), module.mix[0].weight, padding=1)
    mixed = F.instance_norm(mixed, weight=module.mix[1].weight, bias=module.mix[1].bias)
    scores = module.gate(F.leaky_relu(mixed, 0.01))
    attention = scores.sigmoid() if form == "gate" else 4 * scores.softmax(dim=1)
    torch.testing.assert_close(module(x), x + module.close(attention * h))
    assert not torch.allclose(module(x), x)


def test_channel_attention_by_hand() -> None:
    module = make_mia("danet", 2)
    with torch.no_grad():
        module.gamma.fill_(2.0)
    x = torch.tensor([1.0, 0, 0, 1]).view(1, 2, 2, 1, 1)  # E = identity, max E − E = 1 − identity
    same = 1 / (1 + torch.e)
    expected = x + 2 * (same * x + (1 - same) * x.flip(1))
    torch.testing.assert_close(module(x), expected)


def test_unknown_awareness_is_refused() -> None:
    with pytest.raises(ValueError, match="gate, softmax, danet, none"):
        make_mia("se", 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", ["quick", "cpu", "gpu", "paper", "paper-unet", "paper-sam"])
def test_awareness_is_small_beside_the_networks(preset: str) -> None:
    """Two modules hold at most 15 % of two encoders and two decoders; the paper gives no size."""
    values = load_preset(preset)
    options = {key: value for key, value in values["backbone"].items() if key != "name"}
    levels = values["budget"]["levels"]
    task = dataclasses.replace(
        make_task(patch=(96, 96, 96)),
        strides=((1, 1, 1),) + ((2, 2, 2),) * (levels - 1),
        kernels=((3, 3, 3),) * levels,
    )
    with torch.device("meta"):
        made = BACKBONES[values["backbone"]["name"]](task, **options)
        encoder, decoder = made.encoder(), made.decoder(task.n_classes)
        module = make_mia("gate", encoder.channels[-1])
    own, networks = (sum(p.numel() for n in nets for p in n.parameters())
                     for nets in ([module], [encoder, decoder]))  # fmt: skip
    assert 0.01 * networks < own <= 0.15 * networks
