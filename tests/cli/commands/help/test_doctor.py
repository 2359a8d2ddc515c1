from __future__ import annotations

from importlib import metadata

from crossvox.cli.main import main


def test_doctor_says_how_to_get_what_is_not_installed(monkeypatch, capsys):
    def version(package):
        if package in ("highdicom", "nibabel"):
            raise metadata.PackageNotFoundError
        return "1.2.3"

    monkeypatch.setattr(metadata, "version", version)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (optional,), (needed,) = ([x for x in lines if name in x] for name in ("highdicom", "nibabel"))
    assert "only needed for DICOM" in optional and "pip install 'crossvox[dicom]'" in optional
    assert needed.startswith("missing: nibabel; pip install 'nibabel>=")
    named = {line.split()[0] for line in lines if line.endswith(" 1.2.3")}
    assert {
        "torch",
        "jsonargparse",
        "onnx",
        "fire",
        "tensorboard",
        "ipyniivue",
    } <= named and "ruff" not in named


def test_doctor_runs_where_crossvox_is_not_installed(monkeypatch, capsys):
    def requires(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "requires", requires)
    assert main(["doctor"]) == 0
    assert "missing: crossvox is not installed here" in capsys.readouterr().out


def test_doctor_names_versions_and_what_is_missing(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "torch" in text and "cores" in text and "missing" in text
