"""What other software makes of an exported run equals what `predict` makes of the run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors import safe_open

from crossvox.cli.main import main
from crossvox.export import onnx as onnx_export
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.prediction.predictor import Predictor
from fixtures.run import refused, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory, paired_files) -> Path:
    return trained(paired_files.path, tmp_path_factory.mktemp("ein Lauf") / "cmc")


@pytest.fixture(scope="module")
def bundle(run) -> Path:
    out = run.parent / "bundle"
    assert main(["export", str(run), "--bundle", str(out)]) == 0
    return out


def test_monai_runs_the_bundle_with_the_same_result(run, bundle, paired_files, tmp_path):
    pytest.importorskip("fire")
    images = paired_files.case("s6").images
    words = [f"--image={m}={path}" for m, path in images.items()]
    assert main(["predict", str(run), *words, "--out", str(tmp_path / "own")]) == 0
    command = [sys.executable, "-m", "monai.bundle", "run"]
    command += ["--config_file", str(bundle / "configs" / "inference.json")]
    command += ["--bundle_root", str(bundle), "--output_dir", str(tmp_path / "monai")]
    command += ["--images", str({m: str(path) for m, path in images.items()})]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    own, other = (sorted((tmp_path / name).iterdir()) for name in ("own", "monai"))
    assert [path.name for path in own] == [path.name for path in other] and len(own) == 5
    for a, b in zip(own, other, strict=True):
        if a.name.endswith(".nii.gz"):
            assert np.array_equal(nib.load(a).dataobj, nib.load(b).dataobj)
        else:
            assert a.read_bytes() == b.read_bytes()


def test_a_bundle_is_a_run_too_and_its_network_is_at_hand(run, bundle, paired_files):
    from monai.bundle import ConfigParser

    image = paired_files.case("s6").images["ct"]
    labels = [Predictor(r).predict({"ct": image}).labels["ct"] for r in (run, bundle / "models")]
    assert np.array_equal(*labels)
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser["bundle_root"] = str(bundle)
    network = parser.get_parsed_content("network_def")
    assert isinstance(network, torch.nn.Module) and network.task.modalities == ("ct", "mr")


def test_a_bundle_says_what_it_is_and_nothing_of_the_training_cases(run, bundle):
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert files == {
        *("configs/metadata.json", "configs/inference.json", "docs/README.md"),
        *("models/config.yaml", "models/plan.json", "models/run.json"),
        "models/checkpoints/best.safetensors",
    }
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    data = metadata["network_data_format"]
    assert set(data["inputs"]) == {"ct", "mr"} and data["outputs"]["pred"]["num_channels"] == 3
    assert data["outputs"]["pred"]["channel_def"]["1"] == "left ball"
    with safe_open(bundle / "models/checkpoints/best.safetensors", "pt") as file:
        names = set(file.keys())
    assert names and all(name.startswith("model/") for name in names)
    for path in bundle.rglob("*.*"):
        if path.suffix in (".json", ".yaml", ".md"):
            text = path.read_text(encoding="utf-8")
            assert str(run.parent) not in text and '"s0"' not in text


def test_a_bundle_says_which_published_weights_it_began_with(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    record = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    facts = {"model": "Known", "licence": "CC BY-NC", "saw": "AMOS", "sha256": "00"}
    record["weights"] = {"ct": {"file": "/home/me/known.pt", **facts}}
    (copy / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert main(["export", str(copy), "--bundle", str(tmp_path / "b")]) == 0
    wanted = {"ct": {"file": "known.pt", **facts}}
    metadata = json.loads((tmp_path / "b/configs/metadata.json").read_text(encoding="utf-8"))
    kept = json.loads((tmp_path / "b/models/run.json").read_text(encoding="utf-8"))
    assert metadata["initial_weights"] == kept["weights"] == wanted


@pytest.mark.parametrize("form", [["--bundle", "b"], ["--onnx", "o.onnx"]])
def test_a_run_of_another_version_is_not_exported(form, run, tmp_path, capsys, monkeypatch):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    record = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    record["versions"]["crossvox"] = "99.0.0"
    (copy / "run.json").write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, "export", copy, *form)
    assert "made by crossvox 99.0.0" in line
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_onnx_gives_torchs_probabilities_for_each_modality(run, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    assert main(["export", str(run), "--onnx", str(tmp_path / "netz.onnx")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("largest difference" in line for line in lines)
    member = Predictor(run, options=Options(threads=1)).models[0]
    patch = member.task.patch
    for modality in ("ct", "mr"):
        path = tmp_path / f"netz_{modality}.onnx"
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        image = np.random.default_rng(5).normal(size=(1, 1, *patch)).astype(np.float32)
        (found,) = session.run(None, {"image": image})
        with torch.no_grad():
            method = member.method.eval()
            logits = method.predict({modality: torch.from_numpy(image)}, [modality])[modality]
        np.testing.assert_allclose(found, logits.softmax(1).numpy(), atol=1e-4)
        props = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        facts = json.loads(props["crossvox"])
        assert facts["classes"] == ["background", "left ball", "right ball"]
        assert facts["preprocessing"]["spacing"] == list(member.task.spacing)
        constants = {"min_kept": 0.7, "decay_mm": 60.0}
        assert facts["postprocessing"] == {"weights": [], "single": [], "offsets": [], **constants}


def test_an_onnx_file_that_differs_from_torch_is_not_written(run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx_export, "_exportable", lambda network: _scaled(network))
    assert main(["export", str(run), "--onnx", str(tmp_path / "n")]) == 1
    assert "differ from torch's" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def _scaled(network):
    network = _EXPORTABLE(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    return network


_EXPORTABLE = onnx_export._exportable


def test_wrong_exports_are_refused(run, tmp_path, capsys, monkeypatch):
    assert "--bundle DIR or --onnx FILE" in refused(capsys, "export", run)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    line = refused(capsys, "export", run, "--bundle", tmp_path / "full")
    assert "holds files already" in line
    assert "holds no run" in refused(capsys, "export", tmp_path, "--bundle", tmp_path / "b")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    line = refused(capsys, "export", run, "--onnx", tmp_path / "n")
    assert "onnxscript" in line and "crossvox[onnx]" in line
    assert {path.name for path in tmp_path.iterdir()} == {"full"}
