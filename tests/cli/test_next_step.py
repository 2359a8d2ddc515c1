"""The last lines of a command hold a command that runs as it stands."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

from crossvox.cli.main import main
from crossvox.cli.next_step import after_training, next_step
from fixtures.run import train_arguments


def pasted(text: str) -> list[str]:
    """The words of the command below the last line that begins with "next"."""
    lines = text.rstrip("\n").splitlines()
    assert lines[-2].startswith("next: ") and lines[-1].startswith("  crossvox ")
    return shlex.split(lines[-1])[1:]


def test_each_command_leads_to_the_next(unpaired_files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(train_arguments(unpaired_files.path, Path("my runs/first"))) == 0
    said = capsys.readouterr().out
    plan = json.loads(Path("my runs/first/plan.json").read_text(encoding="utf-8"))
    for modality, own in plan["ceiling"].items():
        assert own["scans"] == 2
        kept = ", ".join(f"{name} {dice:.3f}" for name, dice in own["dice"].items())
        assert f"ceiling      {modality}: {kept}\n" in said
    assert "\ncurve        unknown" in said
    command = pasted(said)
    assert command[:2] == ["evaluate", "my runs/first"] and "val" in command
    assert main([*command, "--checkpoint", "last"]) == 0
    command = pasted(capsys.readouterr().out)
    assert command[0] == "report" and "last" in command
    assert main(command) == 0 and Path("my runs/first/val/report.html").exists()


def test_without_labels_to_score_the_scans_are_segmented(unpaired_files):
    bare = replace(
        unpaired_files, cases=tuple(replace(case, labels={}) for case in unpaired_files.cases)
    )
    said = after_training(Path("run"), Path("d.json"), bare, Path("/data"))
    command = pasted(said)
    assert command[:2] == ["predict", "run"] and command[4:8] == [
        "--root", "/data", "--split", "test"
    ]  # fmt: skip


def test_where_nothing_is_set_aside_the_scans_to_label_next_are_drafted(unpaired_files):
    first, *others = unpaired_files.split("train")
    train = replace(unpaired_files, cases=(first, *(replace(c, labels={}) for c in others)))
    command = pasted(after_training(Path("run"), Path("d.json"), train, None))
    assert command == ["draft", "run", "--data", "d.json", "--out", "run/drafts"]


def test_paths_below_the_working_folder_are_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = next_step("look", "report", tmp_path / "a b", "--out", Path("/else/x.html"))
    assert said == "next: look\n  crossvox report 'a b' --out /else/x.html"
