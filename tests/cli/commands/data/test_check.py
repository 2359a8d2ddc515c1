from __future__ import annotations

import json

from crossvox.cli.main import main


def test_check_reports_and_exits_by_severity(unpaired_files, tmp_path, capsys):
    assert main(["check", str(unpaired_files.path)]) == 0
    broken = tmp_path / "broken ü.json"
    unpaired_files.save(broken)
    text = broken.read_text(encoding="utf-8")
    broken.write_text(text.replace("s2 ctü.nii.gz", "gone.nii.gz"), encoding="utf-8")
    report = tmp_path / "report.json"
    rooted = ("--root", str(unpaired_files.path.parent))
    capsys.readouterr()
    assert main(["check", str(broken), *rooted, "--json", str(report)]) == 1
    assert "gone.nii.gz" in capsys.readouterr().out
    problems = json.loads(report.read_text())["problems"]
    assert [(p["severity"], p["case"], p["modality"]) for p in problems] == [("error", "ct2", "ct")]
