from __future__ import annotations

import os
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


LIGHT = [
    "--help", "nonsense", "list methods", "list backbones", "list presets", "train --help",
    "train --help-all", "train --fit.stepz 3", "train --data none.json --out o",
    "train --resume none", "check none.json", "prepare none.json --out o",
    "split none.json --out a.json", "convert folders none --out o", "predict --bogus",
    "predict none --image ct=a.nii --out o", "evaluate none --data d --split val --out o",
    "report none --out r.html", "export none --bundle b", "rank-cases none --data d --out o.csv",
    "draft none --data d --out o", "adopt none --data d", "benchmark none.yaml --out o",
    "benchmark --table none", "weights inspect none", "profile predict none --image ct=a.nii",
    "profile memory --data none.json", "demo --bogus",
]  # fmt: skip
"""What needs no network; none of it may wait for the import of one."""


def test_help_lists_and_refusals_wait_for_no_network_nor_prediction_for_training(tmp_path):
    code = (
        "import sys; from crossvox.cli.main import main\n"
        f"for line in {LIGHT!r}:\n"
        "    code = main(line.split())\n"
        "    assert (code == 0) == ('help' in line or line.startswith('list')), line\n"
        "    heavy = {'torch', 'monai', 'lightning_fabric', 'matplotlib'} & sys.modules.keys()\n"
        "    assert not heavy, f'{line} imports {sorted(heavy)}'\n"
        "import crossvox.workflows.prediction.predict\n"
        "from crossvox.config.registry import CLASSES\n"
        "CLASSES['method']['cmc+'], CLASSES['backbone']['unet']\n"
        "heavy = {'monai', 'lightning_fabric', 'matplotlib'} & sys.modules.keys()\n"
        "assert not heavy, f'predict imports {sorted(heavy)}'\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_waiting_threads_soon_sleep_unless_the_user_chose(given, spins):
    code = (
        "import os, sys; from crossvox.cli.main import main\n"
        "assert 'torch' not in sys.modules\n"
        "assert main(['--version']) == 0\n"
        "print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    command, own = [sys.executable, "-c", code], inherited | given
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(spins)


def test_python_m_crossvox_is_the_program():
    command = [sys.executable, "-m", "crossvox", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, "crossvox")


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
