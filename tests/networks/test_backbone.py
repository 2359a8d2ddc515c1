"""The contract of backbones, run over every registered one."""

from __future__ import annotations

from crossvox.networks import BACKBONES
from fixtures.methods import CROPS, CUBE, TINY, crops, make_task


def test_every_registered_backbone_keeps_the_contract() -> None:
    for name, kind in BACKBONES.items():
        patch = CROPS.get(name, CUBE)
        backbone = kind(make_task(patch=patch), **TINY[name])
        encoder, decoder = backbone.encoder(), backbone.decoder(3)
        features = encoder(crops(2, 0, patch))
        assert [f.shape[1] for f in features] == encoder.channels
        assert decoder(features).shape == (2, 3, *patch)
        again = [p.data_ptr() for p in backbone.encoder().parameters()]
        assert not set(again) & {p.data_ptr() for p in encoder.parameters()}
