"""Methods and backbones of other packages."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from crossvox.cli.main import main
from crossvox.config.registry import complete, find_class
from crossvox.errors import UsageError
from crossvox.utils import declared
from fixtures.run import refused, trained

PACKAGE = '''
"""A plug-in."""
from typing import Literal

from crossvox.methods.sup import SupJoint
from crossvox.networks.unet import UNetBackbone

Form = Literal["round", "square"]


class Mine(SupJoint):
    """A method of another package."""

    name = "mine"
    summary = "one that nobody has published"

    def __init__(self, task, backbone, *, strength: float = 0.5, form: Form = "round") -> None:
        """Build it.

        Args:
            strength: of nothing.
            form: of nothing.
        """
        super().__init__(task, backbone)


class Bare(SupJoint):
    def __init__(self, task, backbone, *, strength: float) -> None:
        super().__init__(task, backbone)


class MyBackbone(UNetBackbone):
    """A backbone of another package."""


class Nothing:
    """Neither."""
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package `mypackage 1.2` that offers `mine` and `my_backbone`."""
    folder = tmp_path / "site"
    (folder / "mypackage").mkdir(parents=True)
    (folder / "mypackage" / "__init__.py").write_text(PACKAGE, encoding="utf-8")
    info = folder / "my_package-1.2.dist-info"
    info.mkdir()
    texts = {
        "METADATA": "Metadata-Version: 2.1\nName: my-package\nVersion: 1.2\n",
        "top_level.txt": "mypackage\n",
        "entry_points.txt": "[crossvox.methods]\nmine = mypackage:Mine\n"
        "[crossvox.backbones]\nmy_backbone = mypackage:MyBackbone\n",
    }
    for name, text in texts.items():
        (info / name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("mypackage", None)


def test_entry_points_are_listed_and_their_options_checked(package, capsys) -> None:
    assert main(["list", "methods"]) == 0
    assert "mine           one that nobody has published" in capsys.readouterr().out
    assert main(["list", "backbones"]) == 0
    assert "my_backbone" in capsys.readouterr().out
    for name in ("mine", "mypackage:Mine"):
        assert complete("method", name) == {"name": name, "strength": 0.5, "form": "round"}
        line = refused(capsys, "train", "--method", name, "--method.form", "flat")
        assert "--method.form is 'flat'; expected one of 'round', 'square'" in line
    assert main(["train", "--method", "mypackage:Mine", "--help-all"]) == 0
    assert "method mypackage:Mine: A method of another package" in capsys.readouterr().out


def test_what_does_not_fit_is_refused_in_one_line(package, capsys) -> None:
    with pytest.raises(UsageError, match=r"mypackage:Bare': its option 'strength' has no default"):
        complete("method", "mypackage:Bare")
    with pytest.raises(UsageError, match="Nothing has no name, summary, needs, forward, predict"):
        find_class("method", "mypackage:Nothing")
    with pytest.raises(UsageError, match="Nothing has no encoder, decoder"):
        find_class("backbone", "mypackage:Nothing")
    line = refused(capsys, "train", "--method", "gone_package:Mine")
    assert "gone_package:Mine cannot be imported (No module named 'gone_package')" in line
    assert "mypackage:Gone cannot be imported" in refused(
        capsys, "train", "--method", "mypackage:Gone"
    )


def test_a_run_records_its_plug_ins_and_asks_for_them(
    package, unpaired_files, tmp_path, capsys
) -> None:
    plug_ins = ["--method", "mine", "--backbone", "mypackage:MyBackbone", "--fit.steps", "1"]
    run = trained(unpaired_files.path, tmp_path / "run", *plug_ins)
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert facts["plug_ins"] == {
        "method": {"class": "mypackage:Mine", "distribution": "my-package 1.2"},
        "backbone": {"class": "mypackage:MyBackbone", "distribution": "my-package 1.2"},
    }
    scan = next(iter(unpaired_files.split("test")[0].images.items()))
    predict = ["predict", run, "--image", f"{scan[0]}={scan[1]}", "--out", tmp_path / "out"]
    assert main([str(word) for word in predict]) == 0
    shutil.rmtree(package)
    del sys.modules["mypackage"]
    declared._names.cache_clear()  # another process would not have read it
    for command in (predict, ["train", "--resume", run]):
        line = refused(capsys, *command)
        assert f"{run}: its method mypackage:Mine is not here; it came from my-package 1.2" in line
