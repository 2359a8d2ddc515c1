"""A run that starts from an earlier one: whose weights, which plan, what is told and recorded."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from crossvox.batch import Task
from crossvox.cli.main import main
from crossvox.config.registry import build_method
from crossvox.config.run_config import RunConfig
from crossvox.config.settings import Settings, parse_settings
from crossvox.data.manifest import load_manifest
from crossvox.data.manifest.selection import Selection
from crossvox.data.prepare.plan import Plan
from crossvox.data.prepare.preprocess import Preprocessing
from crossvox.errors import UsageError
from crossvox.methods import METHODS
from crossvox.methods.base import Method
from crossvox.report.run_page import overview
from crossvox.workflows.prediction.evaluate import evaluation_facts
from crossvox.workflows.prediction.options import Options
from crossvox.workflows.profile import temporary_run
from crossvox.workflows.run import Run
from crossvox.workflows.training.planning import planned_run
from crossvox.workflows.training.start import (
    Start,
    StartReport,
    load_start,
    summarise_start,
    with_start_settings,
)
from fixtures.files.weights import interrupt
from fixtures.methods import OWN_NETWORKS, TINY, make_task
from fixtures.run import refused, same, train_arguments, weights

PAIRED = make_task(paired=True)


def made(name: str, task: Task, seed: int, **backbone: object) -> tuple[Run, Method]:
    """A run of a method that was not trained, with its random weights."""
    options = {"name": "unet", **TINY["unet"], **backbone}
    config = RunConfig(Path("d.json"), Path(name), method={"name": name}, backbone=options)
    kinds = {m: "ct" if m == "ct" else "mr" for m in task.modalities}
    plan = Plan(task, Preprocessing(np.eye(3), task.spacing, kinds))
    torch.manual_seed(seed)
    run = Run(Path(name), config, plan, Selection({}, {}), {})
    return run, build_method(task, config)


def start(
    name: str, task: Task, before: str, earlier: Task, **backbone: object
) -> tuple[Method, Method, StartReport]:
    """Start a method from another; return the two and what became of the tensors."""
    first, method = made(before, earlier, 0)
    given = Start(first, method, Path("best.safetensors"), "", 4)
    run, fresh = made(name, task, 1, **backbone)
    return fresh, method, load_start(fresh, given, run)


def outcomes(report: StartReport, prefix: str = "") -> set[str]:
    return {fate.outcome for name, fate in report.fates.items() if name.startswith(prefix)}


@pytest.mark.parametrize("name", [name for name in METHODS if name not in OWN_NETWORKS])
def test_one_network_becomes_that_of_every_modality(name: str) -> None:
    method, first, report = start(name, PAIRED, "sup_joint", PAIRED)
    found, before = method.state_dict(), first.state_dict()
    taken = {name: fate for name, fate in report.fates.items() if fate.outcome == "taken"}
    assert len(taken) == len(before) * (1 if name == "sup_joint" else 2)
    for tensor, fate in taken.items():
        assert torch.equal(found[tensor], before[fate.source]), tensor
    for role in ("encoder", "decoder"):
        of = [m.roles(k)[role].state_dict() for m, k in ((method, "mr"), (first, "ct"))]
        assert all(torch.equal(of[0][n], of[1][n]) for n in of[1])
    assert outcomes(report) <= {"taken", "new"}


@pytest.mark.parametrize("name", ["uamt", "bcp", "cml", "cmc+"])
def test_teachers_begin_as_copies_of_the_started_networks(name: str) -> None:
    found = start(name, PAIRED, "sup_joint", PAIRED)[0].state_dict()
    pairs = [("teacher.model.", "student.")]
    pairs += [(f"teachers.{i}.model.", f"nets.{i}.") for i in range(2)]
    checked = 0
    for teacher, student in pairs:
        for tensor in [tensor for tensor in found if tensor.startswith(teacher)]:
            assert torch.equal(found[tensor], found[tensor.replace(teacher, student)]), tensor
            checked += 1
    assert checked


@pytest.mark.parametrize(
    ("name", "before"), [(name, name) for name in METHODS] + [("cmc+", "cmc"), ("cmc", "cmc+")]
)
def test_a_method_takes_all_networks_of_its_like(name: str, before: str) -> None:
    method, first, report = start(name, PAIRED, before, PAIRED)
    assert outcomes(report) == {"taken"}
    trained = {n for n, p in method.named_parameters() if p.requires_grad}
    assert trained <= report.fates.keys()
    for tensor, fate in report.fates.items():
        assert torch.equal(method.state_dict()[tensor], first.state_dict()[fate.source]), tensor


@pytest.mark.parametrize("name", ["sup", "cmc+", "mmformer", "efcd"])
def test_classes_are_matched_by_name_and_new_ones_begin_anew(name: str) -> None:
    task = replace(PAIRED, classes=("spleen", "kidney"))
    method, first, report = start(name, task, "sup_joint" if name == "sup" else name, PAIRED)
    part = {n: fate for n, fate in report.fates.items() if fate.outcome == "in part"}
    assert part and {fate.note for fate in part.values()} == {"background, spleen"}
    for tensor, fate in part.items():
        if not tensor.endswith("bias") or "head" not in tensor:
            continue
        now, before = method.state_dict()[tensor], first.state_dict()[fate.source]
        assert torch.equal(now[:2], before[[0, 2]]) and now[2] != before[1]
    assert outcomes(report) == {"taken", "in part"}


def test_a_modality_more_starts_from_a_known_one() -> None:
    """Of the same kind if there is one; what all modalities share begins anew."""
    three = make_task(("t2", "ct", "mr"), paired=True)
    method, first, report = start("cmc", three, "cmc", PAIRED)
    assert report.modalities == {"t2": "mr", "ct": "ct", "mr": "mr"}
    for modality, other in report.modalities.items():
        for role in ("encoder", "awareness", "decoder"):
            now, before = method.roles(modality)[role], first.roles(other)[role]
            for tensor, value in before.state_dict().items():
                assert torch.equal(now.state_dict()[tensor], value), (modality, role, tensor)
    assert outcomes(report, "networks.fusion.") == {"new"}


def test_modalities_are_matched_by_name_and_not_by_their_place() -> None:
    turned = make_task(("mr", "ct"), paired=True)
    method, first, report = start("umml", turned, "umml", PAIRED)
    for m in turned.modalities:
        now, before = (x.roles(m)["decoder"].head.bias for x in (method, first))
        assert torch.equal(now, before)
    assert outcomes(report, "translation.") == {"new"}


def test_one_network_for_all_starts_from_the_first_modality() -> None:
    method, first, report = start("sup_joint", PAIRED, "sup", PAIRED)
    assert outcomes(report) == {"taken"}
    now, before = (x.roles("ct")["decoder"].head.bias for x in (method, first))
    assert torch.equal(now, before)


def test_other_shapes_are_told() -> None:
    deeper = replace(
        PAIRED,
        strides=(*PAIRED.strides, (2, 2, 2)),
        kernels=(*PAIRED.kernels, (3, 3, 3)),
    )
    _, first, report = start("sup", deeper, "sup", PAIRED)
    assert outcomes(report) == {"taken", "other shape", "new"}
    given = Start(made("sup", PAIRED, 0)[0], first, Path("best.safetensors"), "", 4)
    said = "\n".join(summarise_start(given, report))
    assert "sup after 4 steps" in said and "before, " in said and "not in that run" in said


@pytest.mark.parametrize(
    ("name", "before", "backbone"),
    [
        ("mmformer", "sup_joint", {}),
        ("sup", "mmformer", {}),
        ("sup", "sup", {"width": 6}),
    ],
)
def test_a_start_from_which_nothing_fits_is_refused(name, before, backbone) -> None:
    with pytest.raises(UsageError, match=r"no weights that .* take its backbone's options"):
        start(name, PAIRED, before, PAIRED, **backbone)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("starts ü")


@pytest.fixture(scope="module")
def first(places, unpaired_files) -> Path:
    """A trained run of `sup_joint`: one network for both modalities."""
    out = places / "first"
    assert main(train_arguments(unpaired_files.path, out, "--method", "sup_joint")) == 0
    return out


def test_the_plan_is_the_earlier_one_unless_asked_anew(first, unpaired_files, tmp_path):
    plans = {}
    still = ["--fit.lr", "0", "--fit.steps", "1", "--fit.validations", "0"]
    for name, more in (("kept", []), ("anew", ["--replan", "true"])):
        words = ["--start-from", str(first), "--method", "sup", "--budget.patch_voxels", "600"]
        words = train_arguments(unpaired_files.path, tmp_path / name, *words, *more, *still)
        assert main(words) == 0
        plans[name] = json.loads((tmp_path / name / "plan.json").read_text())["task"]
    found, before = weights(tmp_path / "kept"), weights(first, "best")
    name = "0.levels.0.0.0.weight"
    assert torch.equal(found[f"model/nets.1.{name}"], before[f"model/net.{name}"])
    earlier = json.loads((first / "plan.json").read_text())["task"]
    grid = ("patch", "spacing", "strides", "kernels")
    assert {key: plans["kept"][key] for key in grid} == {key: earlier[key] for key in grid}
    assert plans["anew"]["spacing"] != earlier["spacing"]


def test_a_start_is_recorded_and_can_be_repeated_and_resumed(
    first, unpaired_files, tmp_path, monkeypatch, capsys
):
    words = ["--start-from", str(first), "--method", "uamt"]
    straight, out = tmp_path / "straight", tmp_path / "out"
    assert main(train_arguments(unpaired_files.path, straight, *words)) == 0
    saved = yaml.safe_load((straight / "config.yaml").read_text(encoding="utf-8"))
    assert saved["start_from"] == str(first)
    facts = json.loads((straight / "run.json").read_text(encoding="utf-8"))["start"]
    assert (facts["run"], facts["method"], facts["step"]) == (str(first), "sup_joint", 4)
    told = json.loads((straight / "start.json").read_text(encoding="utf-8"))
    assert len(facts["sha256"]) == 64 and told.items() >= facts.items() and told["tensors"]
    assert "tensors taken as they are" in capsys.readouterr().out
    run, words_of = Run.load(straight), "sup_joint after 4 steps"
    assert overview(run, []).facts["started from"] == words_of
    made = evaluation_facts([run], unpaired_files, "val", Options())
    assert made["start"] == words_of
    assert "start" not in evaluation_facts([Run.load(first)], unpaired_files, "val", Options())
    for step in (0, 3):  # before the first checkpoint, and after it
        with monkeypatch.context() as patch:
            interrupt(patch, step)
            assert main(train_arguments(unpaired_files.path, out / str(step), *words)) == 130
        assert main(["train", "--resume", str(out / str(step))]) == 0
        assert same(weights(straight), weights(out / str(step)))


def test_a_run_without_a_checkpoint_needs_the_weights_that_it_began_with(
    first, unpaired_files, places, tmp_path, monkeypatch, capsys
):
    out, moved = tmp_path / "run", tmp_path / "first"
    words = ["--start-from", str(moved), "--method", "sup"]
    other = train_arguments(unpaired_files.path, moved, "--method", "sup_joint", "--seed", "1")
    first.rename(moved)
    try:
        with monkeypatch.context() as patch:
            interrupt(patch, 0)
            assert main(train_arguments(unpaired_files.path, out, *words)) == 130
    finally:
        moved.rename(first)
    assert main(other) == 0
    capsys.readouterr()
    assert main(["train", "--resume", str(out)]) == 1
    assert "not the weights that" in capsys.readouterr().err


def settings(run: Path) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))


STILL = ("--fit.steps", "1", "--fit.validations", "0")


def test_settings_are_the_earlier_runs_unless_given(first, tmp_path) -> None:
    """All that differs is where the run is, and which labels it uses."""
    assert main(["train", "--start-from", str(first), "--out", str(tmp_path / "run"), *STILL]) == 0
    found, before = settings(tmp_path / "run"), settings(first)
    assert found.pop("fit") == before.pop("fit") | {"steps": 1, "validations": 0}
    changed = {name for name in found if found[name] != before[name]}
    assert changed == {"out", "labelled", "start_from"} and found["labelled"] == "all"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--preset", "quick"], {"name": "cmc+", "width": 8, "steps": 400}),
        (["--method", "sup"], {"name": "sup", "width": 4, "steps": 4}),
        (["--fit.steps", "7"], {"name": "sup_joint", "width": 4, "steps": 7}),
    ],
)
def test_what_is_given_comes_before_the_earlier_runs_settings(
    words, expected, first, capsys
) -> None:
    assert main(["train", "--start-from", str(first), *words, "--print_config"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert found["data"] == settings(first)["data"]
    kept = found["method"]["name"], found["backbone"]["width"], found["fit"]["steps"]
    assert kept == tuple(expected.values())


def test_a_class_more_that_some_cases_outline_can_be_added(first, unpaired_files, tmp_path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(unpaired_files.path.parent, folder)
    before = load_manifest(folder / "dataset.json")
    cases = []
    for case in before.cases:
        outlined = case.id in ("ct0", "mr1")
        cases.append(replace(case, annotated=None if outlined else before.classes))
        for file in case.labels.values() if outlined else ():
            image = nib.load(file)
            label = np.asanyarray(image.dataobj).copy()
            label[:3, :3, :3] = 5
            nib.save(nib.Nifti1Image(label, image.affine), file)
    grown = replace(before, labels={"third": 5, **before.labels}, cases=tuple(cases))
    grown.save(folder / "dataset.json")
    words = ["--start-from", str(first), "--data", str(folder / "dataset.json"), *STILL]
    assert main(["train", *words, "--out", str(tmp_path / "run")]) == 0
    told = json.loads((tmp_path / "run" / "start.json").read_text(encoding="utf-8"))["tensors"]
    outcomes = {fate["outcome"] for fate in told.values()}
    assert outcomes == {"taken", "in part"}
    plan = json.loads((tmp_path / "run" / "plan.json").read_text(encoding="utf-8"))
    assert plan["task"]["classes"] == ["third", "left ball", "right ball"]


def test_each_refusal_names_a_command_that_works(first, unpaired_files, tmp_path, capsys) -> None:
    """More labels in the manifest of a run: neither the same --out nor --resume will do."""
    folder, run = tmp_path / "set", tmp_path / "run"
    shutil.copytree(unpaired_files.path.parent, folder)
    data = folder / "dataset.json"
    shutil.copytree(first, run)
    config = settings(first) | {"data": str(data), "out": str(run)}
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    manifest = load_manifest(data)
    replace(manifest, source="with more labels").save(data)
    words = ["train", "--data", data, "--out", run]
    named = [refused(capsys, *words), refused(capsys, *words, "--start-from", run)]
    assert main(["train", "--resume", str(run)]) == 1
    named.append(capsys.readouterr().err)
    assert "--start-from" in refused(capsys, "train", "--resume", run, "--data", data)
    command = f"crossvox train --start-from {run} --data {data} --out {run}-2"
    assert all(command in line for line in named), named
    assert main([*command.split()[1:], *STILL]) == 0
    (run / "checkpoints").rename(run / "gone")
    assert "train anew with another --out" in refused(capsys, *words)


def test_a_run_without_a_best_checkpoint_can_be_started_from(first, tmp_path) -> None:
    run = tmp_path / "stopped"
    shutil.copytree(first, run)
    (run / "checkpoints" / "best.safetensors").unlink()
    assert main(["train", "--start-from", str(run), "--out", str(tmp_path / "run"), *STILL]) == 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["start"]
    assert facts["checkpoint"] == "last.safetensors"


def test_a_run_to_start_from_that_is_no_path_is_refused() -> None:
    with pytest.raises(UsageError, match=r"start_from is \[1\]; expected the path of a run"):
        with_start_settings([Settings({"start_from": [1]})])


def test_profiles_plan_as_the_earlier_run(first) -> None:
    sources = with_start_settings([Settings({"start_from": str(first), "budget.patch": [8, 8, 8]})])
    with temporary_run(parse_settings(*sources)) as config:
        assert planned_run(config).task.patch == Run.load(first).task.patch
        anew = planned_run(replace(config, replan=True)).task.patch
        assert anew == (8, 8, 8)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--start-from", "{gone}"], ["holds no run"]),
        (["--start-from", "{first}", "--backbone", "vnet_ssl"], ["'unet'", "--backbone unet"]),
        (["--replan", "true"], ["--start-from RUN"]),
    ],
)
def test_a_start_that_cannot_be_is_refused_before_anything_is_written(
    words, said, first, unpaired_files, tmp_path, capsys
):
    given = [word.format(first=first, gone=tmp_path / "gone") for word in words]
    line = refused(capsys, *train_arguments(unpaired_files.path, tmp_path / "run", *given))
    assert all(word in line for word in said), line
    assert not (tmp_path / "run").exists()
