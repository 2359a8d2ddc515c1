from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest
import yaml

from crossvox.cli.commands import doctor
from crossvox.cli.main import COMMANDS, main
from crossvox.cli.run_options import read_run_options
from crossvox.config.presets import presets
from crossvox.config.run_config import RunConfig
from crossvox.config.settings import parse_settings
from crossvox.errors import DataError
from crossvox.methods import METHODS
from crossvox.networks import BACKBONES
from fixtures.run import refused


def parsed(*argv: str):
    given, _ = read_run_options("train", "", list(argv), lambda parser: None)
    return RunConfig.from_dict(parse_settings(*given) | {"data": "d", "out": "o"})


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


@pytest.mark.parametrize("command", [*COMMANDS, "profile train", "profile load", "profile predict"])
def test_help_of_every_command_succeeds(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    assert "usage: crossvox" in capsys.readouterr().out


def test_help_shows_the_presets_defaults_and_docstrings(capsys):
    main(["train", "--preset", "paper", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    words = "base learning rate, scaled by `schedule` and `warmup`."
    assert f"--fit.lr LR {words} (type: float, default: 0.0001)" in text
    assert "weight of CSC at the end of training" in text


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fit: {stepz: 3}", ["fit.stepz", "fit.steps"]),
        ("sead: 3", ["sead", "seed"]),
        ("fit: 3", ["'fit' is 3"]),
        ("seed: many", ["seed", "int", "many"]),
        ("method: cmcc", ["'cmcc'", *METHODS]),
        ("method: {name: sup, alpha: 1}", ["method.alpha"]),
        ("- seed", ["key: value"]),
        ("a: [", ["not a YAML file"]),
    ],
)
def test_wrong_configuration_files_are_named(text, words, tmp_path, capsys):
    file = tmp_path / "mein ü.yaml"
    file.write_text(text, encoding="utf-8")
    line = refused(capsys, "train", "--config", file)
    assert all(word in line for word in words), line


def test_a_missing_configuration_file_is_named(capsys):
    assert "nope.yaml: cannot read" in refused(capsys, "train", "--config", "nope.yaml")


def test_command_line_wins_over_file_and_file_over_preset(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("labelled: 2\nfit: {lr: 1e-4, steps: 7}\nbackbone: {width: 5}")
    config = parsed("--fit.steps", "9", "--config", str(file), "--preset", "gpu")
    assert (config.fit.steps, config.fit.lr, config.backbone["width"]) == (9, 1e-4, 5)
    assert (config.labelled, config.preset) == ("2", "gpu")
    assert config.budget.patch_voxels == parsed("--preset", "gpu").budget.patch_voxels


def test_the_preset_named_in_a_file_counts(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("preset: paper")
    assert parsed("--config", str(file)).budget.patch == (96, 96, 96)


def test_another_method_drops_the_files_options_of_the_old_one(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("method: {name: cmc, alpha: 0.7}\nbackbone: {width: 5}")
    assert parsed("--config", str(file)).method["alpha"] == 0.7
    config = parsed("--config", str(file), "--method", "sup")
    assert config.method["name"] == "sup" and "alpha" not in config.method
    assert config.backbone["width"] == 5


def test_options_of_methods_and_backbones_are_typed():
    config = parsed("--method=cmc", "--method.shared_encoder", "true", "--backbone.width", "6")
    assert config.method["shared_encoder"] is True and config.backbone["width"] == 6


def test_print_config_gives_a_file_that_config_takes(tmp_path, capsys):
    assert main(["train", "--method", "sup_joint", "--seed", "4", "--print_config"]) == 0
    text = capsys.readouterr().out
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert parsed("--config", str(file)) == parsed("--method", "sup_joint", "--seed", "4")
    assert set(yaml.safe_load(text)) >= {"method", "backbone", "budget", "fit", "seed", "preset"}


@pytest.mark.parametrize(
    ("what", "names"), [("methods", METHODS), ("backbones", BACKBONES), ("presets", presets())]
)
def test_list_has_one_line_for_each(what, names, capsys):
    assert main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(names)
    assert all(len(line.split()) > 2 for line in lines)


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


def test_prepare_fills_a_store_and_prints_the_plan(unpaired_files, tmp_path, capsys):
    store = tmp_path / "an ü store"
    argv = ["prepare", str(unpaired_files.path), "--out", str(store)]
    assert main([*argv, "--budget.spacing", "[4, 4, 4]"]) == 0
    text = capsys.readouterr().out
    assert "4.00 × 4.00 × 4.00 mm" in text and "ct: 5 training images" in text
    assert len(list(store.glob("images/*/*.b2nd"))) == 14
    assert len(list(store.glob("labels/*/*.b2nd"))) == 14
    assert main([*argv, "--budget.spacing", "[5, 5, 5]"]) == 2
    assert "prepared at (4.0, 4.0, 4.0) mm" in capsys.readouterr().err
