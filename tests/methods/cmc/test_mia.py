"""The awareness modules, by their formulas."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from crossvox.methods.cmc.mia import MIA, make_mia
from fixtures.tensors import noise, randomise


@pytest.mark.parametrize("form", ["gate", "danet", "none"])
def test_awareness_starts_as_the_identity(form: str) -> None:
    x = noise(2, 6, 4, 4, 3)
    module = make_mia(form, 6)  # type: ignore[arg-type]
    assert torch.equal(module(x), x)


def test_awareness_is_the_gate_of_its_formula() -> None:
    x, module = noise(2, 4, 4, 4, 3), MIA(4)
    randomise(module)
    h = module.project(x)
    mixed = F.conv3d(torch.cat([x, h], 1), module.mix[0].weight, padding=1)
    mixed = F.instance_norm(mixed, weight=module.mix[1].weight, bias=module.mix[1].bias)
    attention = module.gate(F.leaky_relu(mixed, 0.01)).sigmoid()
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
    with pytest.raises(ValueError, match="gate, danet, none"):
        make_mia("se", 4)  # type: ignore[arg-type]
