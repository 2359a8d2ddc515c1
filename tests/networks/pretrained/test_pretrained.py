"""Weights files: every known layout is read, anything else is refused in one line."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from crossvox.errors import CrossvoxError, DataError, UsageError
from crossvox.networks.pretrained.loading import (
    compare_names,
    fill,
    published_networks,
    read_weights,
    require_backbone,
    share_frozen,
)
from crossvox.networks.universal.unet import UniversalUNetBackbone
from fixtures.golden import rule_state
from fixtures.methods import make_task

OTHERS = {"organ_embedding": torch.zeros(32, 512), "controller.bias": torch.zeros(153)}


def networks(width: int = 2) -> list[nn.Module]:
    task = dataclasses.replace(make_task(), patch=(16, 16, 16))
    backbone = UniversalUNetBackbone(task, width=width, pretrained=True)
    return [backbone.encoder(), backbone.decoder(3)]


def state(width: int = 2) -> dict[str, Tensor]:
    """A U-Net file's own tensors by the rule, without prefix."""
    own = {
        name: part.state_dict()[name] for part in networks(width) for name in part.published_names()
    }
    return rule_state("s", own, "backbone.")


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def wrapped(wrapper: str, tensors: dict[str, Tensor]):
    return {wrapper: tensors, "epoch": 3, "optimizer": {}} if wrapper else tensors


def write(path: Path, content) -> Path:
    torch.save(content, path)
    return path


def file(folder: Path) -> Path:
    return write(folder / "unet.pth", {"net": prefixed("module.backbone.", state())})


@pytest.mark.parametrize("wrapper", ["", "net", "model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_every_wrapping_fills_the_networks(tmp_path, wrapper, prefix):
    others = prefixed("module." if prefix.startswith("module.") else "", OTHERS)
    content = wrapped(wrapper, prefixed(prefix, state()) | others)
    weights = read_weights(write(tmp_path / "a.pth", content))
    assert (weights.key, weights.wrapper, weights.prefix) == ("universal_unet", wrapper, prefix)
    parts = networks()
    report = fill(parts, weights)
    assert len(report.matched) == 104 and not (report.missing or report.misshaped)
    found = {name: tensor for part in parts for name, tensor in part.state_dict().items()}
    for name, tensor in state().items():
        assert torch.equal(found[name], tensor), name


def test_module_may_stand_before_some_names_only(tmp_path):
    mixed = {f"module.{n}" if i % 2 else n: t for i, (n, t) in enumerate(state().items())}
    weights = read_weights(write(tmp_path / "a.pth", mixed | {"epoch": torch.tensor(3)}))
    assert len(fill(networks(), weights).matched) == 104


def test_safetensors_are_known_by_another_name_too(tmp_path):
    for name in ("a.pth", "a.SAFETENSORS"):
        save_file(state(), tmp_path / name)
        assert len(read_weights(tmp_path / name).tensors) == 104


def test_safetensors_and_half_precision_are_read_too(tmp_path):
    halves = {n: t.half() if t.is_floating_point() else t for n, t in state().items()}
    save_file(prefixed("backbone.", halves), tmp_path / "a.safetensors")
    parts = networks()
    fill(parts, read_weights(tmp_path / "a.safetensors"))
    first = parts[0].state_dict()["down_tr64.ops.0.conv1.weight"]
    assert first.dtype == torch.float32
    assert torch.equal(first, halves["down_tr64.ops.0.conv1.weight"].float())


def test_a_training_programs_command_line_and_scores_may_be_in_the_file(tmp_path):
    content = {"net": state(), "args": argparse.Namespace(lr=1e-4, name="x")}
    content |= {"best_dice": np.float64(0.5), "losses": [np.float32(1.0), np.int64(2)]}
    assert read_weights(write(tmp_path / "a.pth", content)).key == "universal_unet"


def test_models_genesis_is_the_same_network_by_another_name(tmp_path):
    extra = {"out_tr.final_conv.weight": torch.zeros(1, 4, 1, 1, 1)}
    content = {"state_dict": prefixed("module.", state() | extra)}
    weights = read_weights(write(tmp_path / "Genesis_Chest_CT.pt", content))
    assert weights.key == "models_genesis" and "without labels" in weights.model.saw
    require_backbone(weights, "universal_unet")
    assert len(fill(networks(), weights).matched) == 104


class Evil:
    def __reduce__(self):
        return (print, ("this must never be printed",))


class Shell:
    def __reduce__(self):
        return (os.system, ("echo this must never be printed",))


SAM2D = {
    "image_encoder.pos_embed": torch.zeros(1, 64, 64, 8),
    "image_encoder.patch_embed.proj.weight": torch.zeros(8, 3, 16, 16),
    "image_encoder.blocks.0.attn.rel_pos_h": torch.zeros(27, 64),
}
FAST = {
    "image_encoder.pos_embed": torch.zeros(1, 8, 8, 8, 8),
    "image_encoder.patch_embed.proj.weight": torch.zeros(8, 1, 16, 16, 16),
    "image_encoder.neck.0.weight": torch.zeros(8, 8, 1, 1, 1),
    "image_encoder.blocks.3.attn.qkv.weight": torch.zeros(24, 8),
}
SWIN = {
    "module.swinViT.patch_embed.proj.weight": torch.zeros(48, 1, 2, 2, 2),
    "module.encoder10.layer.conv1.conv.weight": torch.zeros(8, 8, 3, 3, 3),
}
HEADED = {**SWIN, "module.out.conv.conv.weight": torch.zeros(14, 48, 1, 1, 1)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, ["no named tensors"]),
        ({"net": {}}, ["no named tensors", "'net'"]),
        ([1, 2], ["no named tensors", "model_state_dict"]),
        (torch.zeros(3), ["no named tensors"]),
        ({"net": Evil()}, ["could run any code"]),
        ({"net": {}, "hook": Shell()}, ["could run any code"]),
        ({"a.weight": torch.zeros(3)}, ["a.weight", "no model known", "U-Net"]),
    ],
)  # fmt: skip
def test_other_content_is_refused_and_never_run(tmp_path, capsys, content, words):
    path = write(tmp_path / "x.pth", content)
    with pytest.raises(DataError) as caught:
        read_weights(path)
    line = str(caught.value)
    assert "\n" not in line and all(word in line for word in [str(path), *words]), line
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [Shell(), {"net": Shell()}, {"a": 1}, [b"x" * 999]])
def test_a_pickle_is_refused_in_silence(tmp_path, capfd, content):
    (tmp_path / "x.pth").write_bytes(pickle.dumps(content))
    with warnings.catch_warnings(), pytest.raises(DataError) as caught:
        warnings.simplefilter("error")
        read_weights(tmp_path / "x.pth")
    assert "\n" not in str(caught.value) and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "folder", "absent"])
def test_damaged_files_are_refused_in_one_line(tmp_path, name, damage):
    path = tmp_path / name
    if name.endswith("pth"):
        write(path, {"net": state()})
    else:
        save_file(state(), path)
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "absent":
        path.write_bytes(
            {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello\n"}[damage]
        )
    with pytest.raises(DataError) as caught:
        read_weights(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_runs_own_checkpoint_is_no_publication(tmp_path):
    save_file(state(), tmp_path / "last.safetensors", metadata={"crossvox": "{}"})
    with pytest.raises(DataError, match="--resume"):
        read_weights(tmp_path / "last.safetensors")


@pytest.mark.parametrize(
    ("content", "backbone", "words"),
    [
        (SAM2D, "sam_med3d", ["SAM, for 2-D", "sam_med3d_turbo.pth"]),
        (FAST, "sam_med3d", ["FastSAM3D", "sam_med3d_turbo.pth"]),
        (SWIN, "universal_unet", ["SwinUNETR", "--backbone universal_swinunetr"]),
        (HEADED, "universal_swinunetr", ["not the Universal Model's", "own file"]),
        (None, "unet", ["'unet'", "--backbone universal_unet"]),
        (None, "sam_med3d", ["'sam_med3d'", "--backbone universal_unet"]),
    ],
)
def test_another_model_is_refused_with_what_would_work(tmp_path, content, backbone, words):
    path = write(tmp_path / "x.pth", state() if content is None else content)
    with pytest.raises(UsageError) as caught:
        require_backbone(read_weights(path), backbone)
    line = str(caught.value)
    assert "\n" not in line and all(word in line for word in words), line


def broken(name: str):
    tensors = state()
    if name == "another width":
        tensors = state(width=3)
    elif name.startswith("missing "):
        del tensors[name.removeprefix("missing ")]
    elif name == "sparse":
        tensors["up_tr64.up_conv.weight"] = tensors["up_tr64.up_conv.weight"].to_sparse()
    elif name in ("int32", "complex64"):
        dtype = getattr(torch, name)
        tensors["up_tr64.up_conv.weight"] = tensors["up_tr64.up_conv.weight"].to(dtype)
    else:
        tensors["up_tr64.up_conv.weight"][0, 0, 0, 0, 0] = float("nan")
    return tensors


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("another width", ["mis-shaped", "found ", "expected ", "default options"]),
        *(
            (f"missing {name}", ["103 of 104", f"1 missing ({name})"])
            for name in ("down_tr256.ops.1.conv1.weight", "down_tr64.ops.0.conv1.weight")
        ),
        *(
            (name, ["up_tr64.up_conv.weight", name, "not of plain real numbers"])
            for name in ("int32", "complex64")
        ),
        ("not a number", ["up_tr64.up_conv.weight", "not finite"]),
    ],
)
def test_what_matches_too_little_changes_nothing(tmp_path, name, words):
    weights = read_weights(write(tmp_path / "x.pth", broken(name)))
    parts = networks()
    before = copy.deepcopy([part.state_dict() for part in parts])
    with pytest.raises(CrossvoxError) as caught:
        fill(parts, weights)
    line = str(caught.value)
    assert "\n" not in line and all(word in line for word in words), line
    for part, old in zip(parts, before, strict=True):
        assert all(torch.equal(t, old[n]) for n, t in part.state_dict().items())


def test_a_sparse_tensor_is_refused_as_it_takes_its_memory_when_copied(tmp_path):
    with pytest.raises(DataError, match=r"up_tr64\.up_conv\.weight' claims .* plain tensors"):
        read_weights(write(tmp_path / "x.pth", broken("sparse")))


def test_a_file_without_up_path_or_statistics_is_taken_and_reported(tmp_path):
    kept = {n: t for n, t in state().items() if n.startswith("down_tr") and "running" not in n}
    weights = read_weights(write(tmp_path / "x.pth", kept | {"extra.bias": torch.zeros(1)}))
    parts = networks()
    assert str(compare_names(parts, weights)) == str(report := fill(parts, weights))
    assert len(report.missing) == 104 - len(kept) and report.unexpected == {"extra.bias"}
    assert "1 not used (extra.bias)" in str(report)


def test_networks_without_a_publication_are_left_alone(tmp_path):
    weights = read_weights(file(tmp_path))
    plain, parts = nn.Linear(2, 2), networks()
    assert list(published_networks(nn.ModuleList([plain, *parts]))) == parts
    with pytest.raises(DataError, match="0 of 0"):
        fill([plain], weights)


def test_equal_frozen_tensors_become_one_and_others_do_not():
    encoder = networks()[0]
    other = copy.deepcopy(encoder)
    with torch.no_grad():
        other.down_tr64.ops[0].conv1.bias.fill_(1.0)  # differs: stays its own
    before = {name: t.clone() for name, t in other.state_dict().items()}
    for _ in range(2):  # the second time nothing is left to do
        share_frozen([encoder, other])
        assert all(torch.equal(before[name], t) for name, t in other.state_dict().items())
        pairs = zip(encoder.named_parameters(), other.named_parameters(), strict=True)
        for (name, p), (_, q) in pairs:
            shared = not p.requires_grad and name != "down_tr64.ops.0.conv1.bias"
            assert (p is q) is shared, name


def test_networks_of_which_nothing_is_trained_share_nothing():
    """A teacher's networks start equal, and each follows its own student."""
    teacher = networks()[0].requires_grad_(False)
    other = copy.deepcopy(teacher)
    share_frozen([teacher, other])
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in other.parameters()}
