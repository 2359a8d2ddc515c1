"""The U-Net: shapes, memory layout, refused options."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from crossvox.batch import Task, Triple
from crossvox.networks.unet import UNetBackbone
from fixtures.methods import PATCH, crops, make_task
from fixtures.tensors import noise


def task_with(strides: tuple[Triple, ...], patch: Triple = PATCH) -> Task:
    return dataclasses.replace(
        make_task(), strides=strides, kernels=((3, 3, 3),) * len(strides), patch=patch
    )


@pytest.mark.parametrize("rows", [1, 2])
def test_unet_keeps_the_layout_that_is_fast_on_a_cpu(rows: int) -> None:
    backbone = UNetBackbone(make_task(), width=4)
    features = backbone.encoder()(crops(rows, 0))
    assert all(f.is_contiguous(memory_format=torch.channels_last_3d) for f in features)
    assert backbone.decoder(3)(features).is_contiguous()


@pytest.mark.parametrize(
    ("strides", "sizes"),
    [
        (((1, 1, 1), (2, 2, 1), (2, 2, 2)), [(16, 16, 8), (8, 8, 8), (4, 4, 4)]),
        (((2, 2, 1), (2, 2, 2)), [(8, 8, 8), (4, 4, 4)]),
        (((1, 1, 1),), [(16, 16, 8)]),
    ],
)
def test_unet_shapes(strides: tuple[Triple, ...], sizes: list[Triple]) -> None:
    backbone = UNetBackbone(task_with(strides), width=3, convs=(1, 2), max_width=6)
    encoder, decoder = backbone.encoder(), backbone.decoder(5)
    features = encoder(crops(2, 0))
    assert [tuple(f.shape[2:]) for f in features] == sizes
    assert [f.shape[1] for f in features] == encoder.channels == [3, 6, 6][: len(sizes)]
    assert decoder(features).shape == (2, 5, *PATCH)


def test_unet_takes_any_multiple_of_its_strides_and_says_so() -> None:
    backbone = UNetBackbone(make_task(), width=2)
    encoder, decoder = backbone.encoder(), backbone.decoder(2)
    assert decoder(encoder(noise(1, 1, 8, 24, 4))).shape == (1, 2, 8, 24, 4)
    with pytest.raises(ValueError, match=r"no multiple .*\(4, 4, 2\)"):
        encoder(noise(1, 1, 18, 16, 8))
    with pytest.raises(ValueError, match="no multiple"):
        UNetBackbone(task_with(((1, 1, 1), (2, 2, 2)), patch=(15, 16, 8)))


def test_unet_refuses_a_single_voxel_at_the_bottom() -> None:
    with pytest.raises(ValueError, match="single one"):
        UNetBackbone(task_with(((1, 1, 1), (2, 2, 2)), patch=(2, 2, 2)))
    with pytest.raises(ValueError, match="single one"):
        UNetBackbone(make_task()).encoder()(noise(1, 1, 4, 4, 2))


def test_unet_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="all must be > 0"):
        UNetBackbone(make_task(), width=0)
    with pytest.raises(ValueError, match="3 strides but 2 kernels"):
        UNetBackbone(dataclasses.replace(make_task(), kernels=((3, 3, 3),) * 2))


def test_unet_kernels_of_one_do_not_look_across_slices() -> None:
    flat = dataclasses.replace(
        make_task(), strides=((1, 1, 1), (2, 2, 1)), kernels=((3, 3, 1), (3, 3, 1))
    )
    encoder = UNetBackbone(flat, width=4).encoder()
    first = encoder.levels[0][0][0]
    assert first.kernel_size == (3, 3, 1)
    x = crops(1, 0)
    changed = x.clone()
    changed[..., 0] += 1
    before, after = (first(v)[..., 1:] for v in (x, changed))
    assert torch.equal(before, after)


def test_unet_rows_do_not_see_each_other() -> None:
    backbone = UNetBackbone(make_task(), width=4)
    encoder, decoder = backbone.encoder(), backbone.decoder(3)
    x = crops(3, 0)
    torch.testing.assert_close(decoder(encoder(x))[1:2], decoder(encoder(x[1:2])))
