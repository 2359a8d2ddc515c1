"""Published weights on the command line: shown, converted, and the start of a run."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from crossvox.cli.main import main
from crossvox.evaluation.scores import read_cases
from crossvox.networks.pretrained.loading import read_weights
from fixtures.files.weights import CROP, UNET, VIT, arguments, interrupt, published
from fixtures.golden import FOLDER, rule_tensor
from fixtures.run import refused, same, weights

PROGRAM = FOLDER.parent / "fake_ckpt.py"
"""Writes stand-ins of the published files in full size."""


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weights ü")


@pytest.fixture(scope="module")
def unet(places) -> Path:
    return published(places / "unet.pth", "universal_unet")


@pytest.fixture(scope="module")
def vit(places) -> Path:
    return published(places / "sam_med3d_turbo.pth", "sam_med3d")


@pytest.mark.parametrize(
    ("backbone", "method"), [("universal_unet", "cmc"), ("sam_med3d", "cmc"), ("sam_med3d", "cmc+")]
)
def test_train_resume_predict_and_evaluate_from_published_weights(
    backbone, method, places, paired_files, monkeypatch, capsys
):
    """And the file is needed no more once there is a checkpoint."""
    file = published(places / f"{backbone}.pth", backbone)
    network = UNET if backbone == "universal_unet" else VIT
    given = [*network, "--weights", file, "--budget.patch", "[32, 32, 32]", "--method", method]
    data, straight = paired_files.path, places / f"{backbone} {method} straight"
    assert main(arguments(data, straight, *given)) == 0
    said = capsys.readouterr().out
    assert "AMOS" in said and " tensors match" in said
    facts = json.loads((straight / "run.json").read_text())["weights"]["all"]
    assert facts["file"] == str(file) and len(facts["sha256"]) == 64
    assert "AMOS" in facts["saw"] and facts["licence"]
    out = places / f"{backbone} {method} interrupted"
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        assert main(arguments(data, out, *given)) == 130
    file.unlink()
    assert main(["train", "--resume", str(out)]) == 0
    assert same(weights(straight), weights(out))
    before = (out / "checkpoints" / "best.safetensors").read_bytes()
    scan = paired_files.case("s6").images["ct"]
    for folder in ("one", "two"):
        words = ["predict", str(out), f"--image=ct={scan}", "--out", str(places / folder)]
        assert main(words) == 0
    (one,), (two,) = ((places / folder).glob("*.nii.gz") for folder in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    scores = places / f"{backbone} {method} scores"
    words = ["evaluate", str(out), "--data", str(data), "--split", "val", "--out", str(scores)]
    assert main(words) == 0 and len(read_cases(scores / "cases.csv")) == 4
    summary = json.loads((scores / "summary.json").read_text(encoding="utf-8"))
    assert "AMOS" in summary["run"]["weights"]["all"]
    assert summary["run"]["backbone"]["name"] == backbone
    assert (out / "checkpoints" / "best.safetensors").read_bytes() == before
    for path in (*places.glob("one/*"), *places.glob("two/*")):
        path.unlink()


def test_frozen_tensors_stay_as_published_and_are_stored_once(places, vit, paired_files):
    """Neither steps nor weight decay touch them; what is trained moves apart."""
    out = places / "frozen"
    options = [*VIT, "--weights", vit, "--fit.weight_decay", "0.5", "--fit.optimizer", "adamw"]
    assert main(arguments(paired_files.path, out, *options, "--fit.validations", "0")) == 0
    with safe_open(out / "checkpoints" / "last.safetensors", "pt") as file:
        aliases = json.loads(file.metadata()["crossvox"])["aliases"]
    found = weights(out)
    name = "blocks.0.attn.qkv.weight"
    expected = rule_tensor(
        "s", f"image_encoder.{name}", found[f"model/networks.encoders.0.{name}"].shape
    )
    assert torch.equal(found[f"model/networks.encoders.0.{name}"], expected)
    assert aliases[f"model/networks.encoders.1.{name}"] == f"model/networks.encoders.0.{name}"
    assert f"model/networks.encoders.1.{name}" not in found
    trained = [found[f"model/networks.encoders.{i}.blocks.0.mlp.lin1.weight"] for i in range(2)]
    mlp = rule_tensor("s", "image_encoder.blocks.0.mlp.lin1.weight", trained[0].shape)
    assert not torch.equal(*trained) and not torch.equal(trained[0], mlp)


def test_every_modality_may_have_a_file_of_its_own(places, unet, unpaired_files, tmp_path):
    other = published(tmp_path / "mr.pth", "universal_unet", "t")
    words = [*UNET, "--weights.ct", unet, f"--weights.mr={other}"]
    frozen = ["--fit.lr", "0", "--fit.steps", "1", "--fit.validations", "0"]
    for method in ("cmc", "sup"):
        out = tmp_path / method
        assert main(arguments(unpaired_files.path, out, *words, *frozen, "--method", method)) == 0
        name = "down_tr64.ops.0.conv1.weight"
        for i, salt in enumerate(("s", "t")):
            key = f"networks.encoders.{i}.{name}" if method == "cmc" else f"nets.{i}.0.{name}"
            found = weights(out)[f"model/{key}"]
            assert torch.equal(found, rule_tensor(salt, f"backbone.{name}", found.shape))
    saved = yaml.safe_load((tmp_path / "cmc" / "config.yaml").read_text(encoding="utf-8"))
    assert saved["weights"] == {"ct": str(unet), "mr": str(other)}
    facts = json.loads((tmp_path / "cmc" / "run.json").read_text())["weights"]
    assert facts.keys() == {"ct", "mr"} and facts["ct"]["sha256"] != facts["mr"]["sha256"]
    again = ["train", "--config", tmp_path / "cmc" / "config.yaml", "--out", tmp_path / "again"]
    assert main([str(word) for word in again]) == 0
    assert same(weights(tmp_path / "cmc"), weights(tmp_path / "again"))


def test_modalities_start_alike_from_one_file_in_what_is_new_too(unet, unpaired_files, tmp_path):
    still = ["--fit.lr", "0", "--fit.steps", "1", "--fit.validations", "0"]
    out = tmp_path / "run"
    assert main(arguments(unpaired_files.path, out, *UNET, "--weights", unet, *still)) == 0
    with safe_open(out / "checkpoints" / "last.safetensors", "pt") as file:
        aliases = json.loads(file.metadata()["crossvox"])["aliases"]
    found = weights(out)
    found |= {name: found[first] for name, first in aliases.items()}
    for part in ("encoders", "decoders"):
        first = [
            n for n in found if n.startswith(f"model/networks.{part}.0.") and "running" not in n
        ]
        assert first
        for name in first:
            assert torch.equal(found[name], found[name.replace(f"{part}.0.", f"{part}.1.")]), name


def test_a_run_that_came_to_no_checkpoint_needs_the_same_file_again(
    unet, unpaired_files, tmp_path, monkeypatch, capsys
):
    file, out = tmp_path / "w.pth", tmp_path / "run"
    file.write_bytes(unet.read_bytes())
    with monkeypatch.context() as patch:
        interrupt(patch, 0)
        assert main(arguments(unpaired_files.path, out, *UNET, "--weights", file)) == 130
    assert not (out / "checkpoints" / "last.safetensors").exists()
    published(file, "universal_unet", "another")
    capsys.readouterr()
    assert main(["train", "--resume", str(out)]) == 1
    assert "not the weights that" in capsys.readouterr().err
    file.write_bytes(unet.read_bytes())
    assert main(["train", "--resume", str(out)]) == 0


def test_what_is_not_in_the_file_has_a_rate_of_its_own(
    places, vit, unpaired_files, tmp_path, monkeypatch
):
    """Also after an interruption, when the file is gone."""
    file, once = places / "vit_once.pth", ["--fit.steps", "1", "--fit.validations", "0"]
    file.write_bytes(vit.read_bytes())
    words = [*VIT, "--weights", file, "--fit.lr", "0", "--fit.new_lr", "0.001"]
    started = tmp_path / "started"
    assert main(arguments(unpaired_files.path, started, *words[:-1], "0", *once)) == 0
    first = weights(started)
    straight, out = tmp_path / "straight", tmp_path / "run"
    for run in (straight, out):
        with monkeypatch.context() as patch:
            if run == out:
                interrupt(patch, 3)
            assert main(arguments(unpaired_files.path, run, *words)) == (130 if run == out else 0)
    file.unlink()
    assert main(["train", "--resume", str(out)]) == 0
    last = weights(out)
    assert same(last, weights(straight))
    moved = {name for name in last if not torch.equal(last[name], first[name])}
    encoder = {name for name in last if name.startswith("model/networks.encoders.0.")}
    assert {name for name in moved & encoder if "adapter" not in name} == set()
    assert any("adapter" in name for name in moved & encoder)
    assert any(name.startswith("model/networks.decoders.0.") for name in moved)


def test_a_preset_of_published_weights_starts_without_them_only_if_told_to(
    unpaired_files, tmp_path, capsys
):
    out = tmp_path / "run"
    small = ["--budget.spacing", "null", "--fit.validations", "0", "--inference.overlap", "0"]
    few = [*UNET[2:], *CROP, *small, "--fit.steps", "1", "--compute.workers", "0"]
    words = arguments(unpaired_files.path, out, "--preset", "paper-unet", *few)
    line = refused(capsys, *words)
    assert "paper-unet" in line and "--weights FILE" in line and "--allow-random" in line
    assert not out.exists()
    assert main([*words, "--allow-random"]) == 0
    said = capsys.readouterr().out
    assert "start from random numbers" in said and "encoders" in said and "mias" in said
    assert yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))["allow_random"]
    facts = json.loads((out / "run.json").read_text())
    assert facts["weights"] == {}
    assert facts["parameters"].keys() == {"encoders", "mias", "fusion", "decoders"}
    # What has no published weights needs none.
    for name, more in (("own", ["--method", "mmformer"]), ("other", ["--backbone", "unet"])):
        assert main([*arguments(unpaired_files.path, tmp_path / name, "--preset", "paper-unet",
                                *more, *CROP, *small, "--fit.steps", "1")]) == 0  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not PROGRAM.exists(), reason="the program that writes stand-ins is not here")
@pytest.mark.parametrize(
    ("kind", "name"),
    [("unet", "down_tr64.ops.0.conv1.weight"), ("sam", "blocks.0.mlp.lin1.weight")],
)
def test_the_papers_presets_train_from_stand_ins_of_full_size(
    kind, name, unpaired_files, tmp_path, monkeypatch
):
    """Published values move by 1e-5, new ones by 1e-4: Adam's first step is its rate."""
    monkeypatch.syspath_prepend(PROGRAM.parent)
    program = importlib.import_module(PROGRAM.stem)
    file, out = tmp_path / "weights.pth", tmp_path / "run"
    torch.save(program.make(kind, "s"), file)
    words = ["train", "--data", unpaired_files.path, "--labelled", "2", "--out", out,
             "--preset", f"paper-{kind}", "--weights", file, "--fit.steps", "1",
             "--fit.validations", "0", "--sampling.labelled", "1", "--sampling.unlabelled", "1",
             "--compute.devices", "1", "--compute.workers", "0"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    assert config["budget"]["patch"] == [96, 96, 96] and config["method"]["name"] == "cmc"
    found = weights(out)
    moved = found[f"model/networks.encoders.0.{name}"]
    prefix = {"unet": "backbone", "sam": "image_encoder"}[kind]
    start = rule_tensor("s", f"{prefix}.{name}", moved.shape)
    assert 0 < (moved - start).abs().max() < 1.1e-5
    assert 0 < found["model/networks.fusion.layers.0.close.weight"].abs().max() < 1.1e-4


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--weights", "{unet}", "--method", "mmformer"], 2, ["mmformer", "leave --weights out"]),
        (["--weights", "gone.pth", *UNET], 1, ["gone.pth", "no such file"]),
        (["--weights", "{unet}"], 2, ["'unet'", "--backbone universal_unet"]),
        (["--weights", "{unet}", *VIT], 2, ["'sam_med3d'", "--backbone universal_unet"]),
        (["--weights", "{vit}", *UNET], 2, ["'universal_unet'", "--backbone sam_med3d"]),
        (["--weights.pet", "{unet}", *UNET], 2, ["no modality 'pet'", "ct, mr"]),
        (["--weights.ct", "{unet}", *UNET], 2, ["--weights.mr is missing", "--weights FILE"]),
        (["--weights.ct", "--seed", "1"], 2, ["--weights", "expected one argument"]),
        (["--weights.ct=a", "--weights", "b"], 2, ["either --weights FILE"]),
        (["--weights", "{unet}", "--backbone", "universal_unet", "--backbone.width", "3"], 1,
         ["mis-shaped", "found 2", "expected 3"]),
        (["--weights.ct={unet}", "--weights.mr={unet}", *UNET, "--method", "sup_joint"], 2,
         ["sup_joint", "one --weights FILE"]),
        (["--weights.ct={unet}", "--weights.mr={unet}", *UNET, "--method.shared_encoder", "true"],
         2, ["cmc", "one --weights FILE"]),
        ([*UNET, "--budget.patch", "[30,32,32]"], 2, ["multiples of 8", "nearest is (32, 32, 32)"]),
        ([*UNET, "--budget.patch", "[8,8,8]"], 2, ["nearest is (16, 16, 16)"]),
        ([*VIT, "--budget.patch", "[32,32,16]"], 2, ["cube", "nearest is (24, 24, 24)"]),
        ([*UNET, "--budget.patch", "[8,8,16]"], 2, ["2 positions, fewer than 8", "larger patch"]),
        ([*VIT, "--backbone.heads", "5"], 2, ["embed 12", "nearest is 10"]),
        ([*UNET, "--backbone.norm", "layer"], 2, ["--backbone.norm", "instance"]),
        (["--backbone.pretrained", "true", *UNET], 2, ["--backbone.pretrained"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_written(
    capsys, unpaired_files, tmp_path, unet, vit, options, code, words
):
    given = [word.format(unet=unet, vit=vit) for word in options]
    capsys.readouterr()
    assert main(arguments(unpaired_files.path, tmp_path / "runs" / "run", *given)) == code
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and all(word in line for word in words), line
    assert not list(tmp_path.glob("runs/run"))


def test_a_yaml_file_may_name_the_weights(unet, unpaired_files, tmp_path, capsys):
    for i, text in enumerate((f"weights: {unet}", f"weights: {{ct: {unet}, pet: {unet}}}")):
        file = tmp_path / f"{i}.yaml"
        file.write_text(f"{text}\nbackbone: {{name: universal_unet, width: 2}}\n", encoding="utf-8")
        words = arguments(unpaired_files.path, tmp_path / f"run{i}", "--config", file)
        more = ["--fit.steps", "1", "--fit.validations", "0"]
        if i:
            assert "no modality 'pet'" in refused(capsys, *words, *more)
        else:
            assert main([*words, *more]) == 0
            facts = json.loads((tmp_path / "run0" / "run.json").read_text())
            assert facts["weights"].keys() == {"all"}


def test_a_planned_crop_suits_the_backbone(unpaired_files, tmp_path, capsys):
    for options in (UNET, VIT):
        words = arguments(unpaired_files.path, tmp_path / options[1], *options)
        place = words.index("--budget.patch")
        words[place : place + 2] = ["--budget.patch_voxels", "30000", "--fit.steps", "1"]
        assert main([*words, "--fit.validations", "0"]) == 0
    plan = json.loads((tmp_path / "sam_med3d" / "plan.json").read_text())["task"]
    assert plan["patch"] == [24, 24, 24] and len(plan["strides"]) == 1
    out = ["--backbone", "sam_med3d", "--out", str(tmp_path / "store")]
    assert main(["prepare", str(unpaired_files.path), *out]) == 0
    assert "patch        32 × 32 × 32 voxels" in capsys.readouterr().out


def test_inspect_says_what_a_file_is(unet, tmp_path, capsys):
    assert main(["weights", "inspect", str(unet)]) == 0
    text = capsys.readouterr().out
    for words in ("Universal Model, U-Net", "under 'net'", "'module.backbone.'", "mis-shaped",
                  "CC BY-NC-ND", "AMOS", "--backbone universal_unet --weights"):  # fmt: skip
        assert words in text
    other = {
        "swinViT.patch_embed.proj.weight": torch.zeros(48, 1, 2, 2, 2),
        "encoder10.layer.conv1.conv.weight": torch.zeros(8, 8, 3, 3, 3),
        "out.conv.conv.weight": torch.zeros(14, 48, 1, 1, 1),
    }
    torch.save(other, tmp_path / "s.pth")
    assert main(["weights", "inspect", str(tmp_path / "s.pth")]) == 0
    assert "no backbone takes it" in capsys.readouterr().out
    name = "down_tr64.ops.0.conv1.weight"
    torch.save({n: t for n, t in read_weights(unet).tensors.items() if n != name}, tmp_path / "a")
    assert main(["weights", "inspect", str(tmp_path / "a")]) == 0
    text = capsys.readouterr().out
    assert f"1 missing ({name})" in text and "none without the encoder's 1 missing" in text
    (tmp_path / "x.pth").write_bytes(unet.read_bytes()[:1000])
    assert main(["weights", "inspect", str(tmp_path / "x.pth")]) == 1


def test_convert_writes_safetensors_that_load_the_same(unet, tmp_path, capsys):
    out = tmp_path / "ü" / "unet.safetensors"
    assert main(["weights", "convert", str(unet), "--out", str(out)]) == 0
    first, second = read_weights(unet), read_weights(out)
    assert second.key == first.key and same(first.tensors, second.tensors)
    with safe_open(out, "pt") as file:
        facts = file.metadata()
    assert (
        facts["source"] == "unet.pth" and "AMOS" in facts["saw"] and "BY-NC-ND" in facts["licence"]
    )
    assert load_file(out).keys() == first.tensors.keys()
    assert ".safetensors" in refused(
        capsys, "weights", "convert", unet, "--out", tmp_path / "a.pth"
    )
    (tmp_path / "folder.safetensors").mkdir()
    folder = ["--out", tmp_path / "folder.safetensors"]
    assert "must name a .safetensors file" in refused(capsys, "weights", "convert", unet, *folder)
    assert "is the file" in refused(capsys, "weights", "convert", out, "--out", out)
    assert "inspect, convert" in refused(capsys, "weights", "show")
    assert "--out is missing" in refused(capsys, "weights", "convert", unet)


def test_a_run_from_two_files_goes_on_as_if_it_had_not_stopped(
    vit, unpaired_files, tmp_path, monkeypatch
):
    """Frozen tensors that differ between the modalities stay apart."""
    other = published(tmp_path / "mr.pth", "sam_med3d", "t")
    words = [*VIT, f"--weights.ct={vit}", f"--weights.mr={other}", "--fit.validations", "0"]
    assert main(arguments(unpaired_files.path, tmp_path / "straight", *words)) == 0
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        assert main(arguments(unpaired_files.path, tmp_path / "run", *words)) == 130
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert same(weights(tmp_path / "straight"), weights(tmp_path / "run"))
