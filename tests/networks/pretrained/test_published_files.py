"""Full-size stand-ins for the published files, written by a program next to the fixtures."""

from __future__ import annotations

import functools
import importlib

import pytest
import torch

from crossvox.batch import Task
from crossvox.networks import BACKBONES
from crossvox.networks.pretrained.loading import fill, read_weights, require_backbone
from fixtures.golden import FOLDER, rule_tensor

STAND_INS = {
    "sam": ("sam_med3d", 189, 135),
    "sam-args": ("sam_med3d", 189, 135),
    "unet": ("universal_unet", 104, 13),
    "unet-single": ("universal_unet", 104, 13),
    "swin": ("universal_swinunetr", 149, 0),
    "swin-backbone": ("universal_swinunetr", 149, 13),
}
PROGRAM = FOLDER.parent / "fake_ckpt.py"


@pytest.fixture(scope="module")
def program():
    """Two kinds hold the same hundred million values each, which are made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PROGRAM.parent)
        module = importlib.import_module(PROGRAM.stem)
    module.table = functools.lru_cache(maxsize=1)(module.table)
    yield module
    module.table.cache_clear()


@pytest.mark.skipif(not PROGRAM.exists(), reason="the program that writes stand-ins is not here")
@pytest.mark.parametrize("kind", STAND_INS)
def test_stand_ins_of_the_published_files_load_in_full_size(kind, program, tmp_path):
    file, (backbone, count, others) = tmp_path / f"{kind}.pth", STAND_INS[kind]
    torch.save(program.make(kind, "any salt"), file)
    found = read_weights(file)
    file.unlink()
    require_backbone(found, backbone)
    assert found.others == others
    task = Task(("a",), ("b",), (96, 96, 96), (1, 1, 1), ((1, 1, 1),), ((3, 3, 3),))
    with torch.device("meta"):  # random first values would take longer than the test
        made = BACKBONES[backbone](task, pretrained=True)
        parts = [made.encoder(), made.decoder(3)]
    parts = [part.to_empty(device="cpu") for part in parts]
    report = fill(parts, found)
    assert len(report.matched) == count and not report.missing
    # Without a prefix of its own, what else is in the file counts as not used.
    swin = backbone == "universal_swinunetr"
    assert len(report.unexpected) == (21 - others if swin else 0)
    name = {
        "sam_med3d": "blocks.7.mlp.lin2.weight",
        "universal_unet": "up_tr64.up_conv.bias",
        "universal_swinunetr": "decoder1.conv_block.conv3.conv.weight",
    }
    state = {n: t for part in parts for n, t in part.state_dict().items()}
    tensor = state[name[backbone]]
    prefix = "image_encoder." if backbone == "sam_med3d" else "backbone."
    expected = rule_tensor("any salt", prefix + name[backbone], tensor.shape)
    assert torch.equal(tensor, expected)
