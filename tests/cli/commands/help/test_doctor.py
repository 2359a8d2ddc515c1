from __future__ import annotations

from importlib import metadata

from crossvox.cli.main import main


def test_doctor_says_what_optional_packages_are_for(monkeypatch, capsys):
    def version(package):
        if package == "highdicom":
            raise metadata.PackageNotFoundError
        return "1.2.3"

    monkeypatch.setattr(metadata, "version", version)
    assert main(["doctor"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "highdicom" in line]
    assert "only needed for DICOM SEG" in line and "crossvox[dicom]" in line


def test_doctor_names_versions_and_what_is_missing(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "torch" in text and "cores" in text and "missing" in text
