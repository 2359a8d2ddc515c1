"""The examples of docs/guides/library.md run as they stand there."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import crossvox
from crossvox.utils.palette import class_rgb
from crossvox.workflows.show import Picture
from fixtures.paths import ROOT
from fixtures.run import trained

GUIDE = ROOT / "docs" / "guides" / "library.md"


@pytest.fixture(scope="module")
def place(tmp_path_factory, unpaired_files) -> Path:
    """A folder with the files that the examples name."""
    folder = tmp_path_factory.mktemp("library")
    trained(unpaired_files.path, folder / "runs" / "first")
    (folder / "scan.nii.gz").symlink_to(unpaired_files.case("ct6").images["ct"])
    shutil.copytree(unpaired_files.path.parent, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def no_widgets(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipyniivue", None)


def test_the_examples_run_one_after_the_other(place, monkeypatch, no_widgets):
    monkeypatch.chdir(place)
    found: dict = {}
    for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S):
        exec(compile(block, str(GUIDE), "exec"), found)
    probabilities = found["probabilities"]
    assert np.array_equal(found["labels"], probabilities.argmax(0))
    assert np.array_equal(found["affine"], found["image"].affine)
    assert found["uncertainty"].shape == found["image"].shape
    assert found["loss"].isfinite()
    # Every module of the training example took part in it.
    for part in found["parts"]:
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())


def test_importing_it_waits_for_nothing_heavy():
    code = (
        "import sys, crossvox; crossvox.__version__; "
        "heavy = {'torch', 'numpy', 'monai', 'nibabel', 'matplotlib'} & set(sys.modules); "
        "print(heavy or 'light')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "light", done.stderr


def test_every_public_name_is_there_and_documented():
    for name in crossvox.__all__:
        value = getattr(crossvox, name)
        assert name == "__version__" or (value.__doc__ or "").strip(), name
    assert set(crossvox.__all__) == set(dir(crossvox))
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|.*\|$", GUIDE.read_text(), re.M)))
    assert set(listed) >= set(crossvox.__all__) - {
        *("__version__", "CrossvoxError", "DataError", "UsageError")
    }
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = crossvox.nonsense


def test_type_checkers_see_every_public_name():
    tree = ast.parse(Path(crossvox.__file__).read_text(encoding="utf-8"))
    (block,) = [
        n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    ]
    shown = {
        alias.asname: getattr(importlib.import_module(node.module), alias.name)
        for node in block.body
        for alias in node.names
    }
    assert shown == {n: getattr(crossvox, n) for n in crossvox.__all__ if n != "__version__"}


def test_a_case_is_shown_as_a_picture_without_widgets(unpaired_files, no_widgets):
    shown = crossvox.show(unpaired_files.case("ct6"))
    assert isinstance(shown, Picture) and shown._repr_png_().startswith(b"\x89PNG")
    texts = [text.get_text() for legend in shown.figure.legends for text in legend.get_texts()]
    assert texts == ["label 3", "label 9"]  # the ids of the case's own label file
    # Names go with ids, in whichever order: colours and names are the classes', not the ids'.
    named = crossvox.show(
        {"mr": unpaired_files.case("mr6").images["mr"]},
        {"mr": unpaired_files.case("mr6").labels["mr"]},
        classes={"right ball": 9, "left ball": 3},
    )
    texts = [text.get_text() for legend in named.figure.legends for text in legend.get_texts()]
    assert texts == ["right ball", "left ball"]
    assert crossvox.show({"ct": (np.random.rand(9, 9, 9), np.eye(4))})._repr_png_()


def test_with_ipyniivue_a_widget_holds_scan_and_coloured_labels(monkeypatch, unpaired_files):
    class NiiVue:
        def load_volumes(self, volumes):
            self.given = volumes
            self.volumes = [types.SimpleNamespace(set_colormap_label=self._keep) for _ in volumes]

        def _keep(self, table):
            self.table = table

    monkeypatch.setitem(sys.modules, "ipyniivue", types.SimpleNamespace(NiiVue=NiiVue))
    values, labels = np.random.rand(5, 6, 7).astype(np.float32), np.zeros((5, 6, 7), np.int16)
    labels[1:3, 2:4, 3:5] = 2
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    widget = crossvox.show({"ct": (values, affine)}, {"ct": labels}, classes=("a", "b"))
    scan, overlay = (nib.Nifti1Image.from_bytes(volume["data"]) for volume in widget.given)
    assert np.array_equal(scan.get_fdata(dtype=np.float32), values)
    assert np.array_equal(overlay.dataobj, labels) and np.array_equal(overlay.affine, affine)
    colours = list(zip(*(widget.table[c] for c in "RGB"), strict=True))
    assert colours[1:] == [class_rgb(1), class_rgb(2)]
    assert widget.table["labels"] == ["background", "a", "b"]
    indices = crossvox.show(
        unpaired_files.case("ct6"), classes={"right ball": 9, "left ball": 3}
    ).given[1]
    shown = np.asarray(nib.Nifti1Image.from_bytes(indices["data"]).dataobj)
    ids = np.asarray(nib.load(unpaired_files.case("ct6").labels["ct"]).dataobj)
    assert np.array_equal(shown, np.select([ids == 9, ids == 3], [1, 2]))


def test_what_cannot_be_shown_is_refused(unpaired_files):
    case = unpaired_files.case("ct6")
    with pytest.raises(crossvox.UsageError, match="'mr'; choose from ct"):
        crossvox.show(case, modality="mr")
    with pytest.raises(crossvox.UsageError, match="which id is which"):
        crossvox.show(case, classes=("left ball", "right ball"))
    with pytest.raises(crossvox.DataError, match="labels of shape"):
        crossvox.show(case, {"ct": np.zeros((3, 3, 3), int)})
