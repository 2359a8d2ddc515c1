from __future__ import annotations

import subprocess
import sys

import pytest

from crossvox.cli.commands.help import doctor
from crossvox.cli.main import COMMANDS, main
from crossvox.errors import DataError
from crossvox.methods import METHODS
from crossvox.networks import BACKBONES
from fixtures.run import refused


def test_without_arguments_it_lists_all_commands(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


def test_the_overview_and_wrong_commands_do_not_wait_for_torch():
    code = (
        "import sys; from crossvox.cli.main import main; main(['--help']); main(['nonsense']); "
        "main(['list', 'presets']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "command", [*COMMANDS, "profile train", "profile load", "profile memory", "profile predict"]
)
def test_help_of_every_command_succeeds(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    assert "usage: crossvox" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], ["unknown command 'trian'", "train"]),
        (["list", "methoods"], ["methods", "backbones", "presets"]),
        (["train", "--method", "cmcc"], ["'cmcc'", *METHODS]),
        (["train", "--backbone", "vit"], ["'vit'", *BACKBONES]),
        (["train", "--preset", "tpu"], ["'tpu'", "cpu", "gpu", "paper"]),
        (["prepare", "d.json", "--preset", "tpu"], ["'tpu'", "cpu", "gpu", "paper"]),
        (["train", "--fit.stpes", "3"], ["--fit.stpes", "--fit.steps"]),
        (["train", "--method", "sup", "--method.tau_csc", "1"], ["--method.tau_csc"]),
        (["train", "--fit.steps", "many"], ["--fit.steps", "int", "many"]),
        (["train", "--fit.optimizer", "sgd"], ["--fit.optimizer", "'adam'", "'adamw'"]),
        (["train", "--fit.steps", "0"], ["fit.steps", "at least 1"]),
        (["train", "--out", "o"], ["--data is missing"]),
        (["train", "--data"], ["--data"]),
        (["train", "--resume", "run", "--seed", "1"], ["--resume"]),
        (["train", "--resume", "nowhere"], ["nowhere holds no run"]),
        (["predict", "nowhere", "--image", "ct=a.nii", "--out", "o"], ["nowhere holds no run"]),
        (["predict", "run", "--image", "a.nii", "--out", "o"], ["MODALITY=FILE"]),
        (["predict", "run", "--out", "o"], ["--image", "--data"]),
        (["evaluate", "run", "--data", "d", "--out", "o"], ["--split is missing"]),
        (["predict", "run", "--out", "o", "--checkpoint", "x"], ["'best'", "'last'"]),
        (["profile", "sleep"], ["train", "load", "predict"]),
        (["demo"], ["--out is missing"]),
    ],
)  # fmt: skip
def test_wrong_requests_get_one_line_with_the_choices(argv, words, capsys):
    data = ["--data", "d", "--out", "o"] if argv == ["train", "--fit.steps", "0"] else []
    line = refused(capsys, *argv, *data)
    assert all(word in line for word in words), line


def test_failures_interruptions_and_defects_have_their_own_ends(monkeypatch, capsys):
    def command(error: BaseException):
        def run(argv):
            raise error

        return run

    monkeypatch.setattr(doctor, "doctor_command", command(DataError("a.nii: broken; mend it")))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "crossvox: error: a.nii: broken; mend it\n"
    monkeypatch.setattr(doctor, "doctor_command", command(KeyboardInterrupt()))
    assert main(["doctor"]) == 130
    monkeypatch.setattr(doctor, "doctor_command", command(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])
