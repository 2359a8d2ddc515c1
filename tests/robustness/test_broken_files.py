"""Broken and hostile files, kind by kind: one message that names the file, exit code 1 or 2."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time

import pytest

from crossvox.cli.main import main
from crossvox.data.formats.nifti import read_image
from crossvox.errors import DataError
from fixtures.broken.nifti import PACKED, PLAIN
from fixtures.broken.text import CONFIGS, MANIFESTS
from fixtures.broken.weights import WEIGHTS
from fixtures.files.data import scan, write_dataset, write_nifti
from fixtures.run import train_arguments

SCANS = [(".nii", kind) for kind in PLAIN] + [(".nii.gz", kind) for kind in PACKED]


def refused(capsys, *argv: object) -> str:
    """Return the command's message; its exit code must be 1 or 2, and no exception may escape."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) in (1, 2)
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    return said.out + said.err


@pytest.fixture
def data(tmp_path):
    write_dataset(tmp_path / "data", {"train": 2, "val": 1}, ("ct",), ".nii")
    return tmp_path / "data" / "dataset.json"


def broken_scan(folder, suffix, kind):
    sound = write_nifti(folder / "sound.nii", scan(1)).read_bytes()
    path = folder / f"broken{suffix}"
    path.write_bytes((PLAIN if suffix == ".nii" else PACKED)[kind](sound))
    return path


@pytest.mark.parametrize(("suffix", "kind"), SCANS)
def test_a_broken_scan_is_refused_by_the_reader(tmp_path, suffix, kind):
    path = broken_scan(tmp_path, suffix, kind)
    with pytest.raises(DataError) as caught:
        read_image(path)
    said = str(caught.value)
    assert path.name in said and ";" in said and "\n" not in said


@pytest.mark.parametrize(("suffix", "kind"), SCANS)
def test_a_broken_scan_is_reported_by_check(tmp_path, capsys, data, suffix, kind):
    path = broken_scan(data.parent, suffix, kind)
    text = data.read_text().replace("images/train0_ct.nii", path.name)
    data.write_text(text)
    assert path.name in refused(capsys, "check", data)


def test_a_file_that_inflates_on_and_on_behind_its_voxels(tmp_path, capsys, data):
    """The checksum at the end is looked for, but not for ever."""
    sound = write_nifti(tmp_path / "sound.nii", scan(1))
    path = data.parent / "long.nii.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(sound.read_bytes())
        for _ in range(64):
            file.write(bytes(1 << 22))
    with pytest.raises(DataError, match="behind the voxels"):
        read_image(path)
    data.write_text(data.read_text().replace("images/train0_ct.nii", path.name))
    began = time.perf_counter()
    assert "behind the voxels" in refused(capsys, "check", data)
    assert time.perf_counter() - began < 60


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path, capsys, data):
    os.mkfifo(data.parent / "pipe.nii")
    with pytest.raises(DataError, match="no regular file"):
        read_image(data.parent / "pipe.nii")
    data.write_text(data.read_text().replace("images/train0_ct.nii", "pipe.nii"))
    assert "no regular file" in refused(capsys, "check", data)


LIMITED = """
import resource, sys
from pathlib import Path
from crossvox.data.formats.nifti import read_image
from crossvox.errors import DataError
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 2**28, held + 2**28))
for name in sys.argv[1:]:
    try:
        read_image(Path(name))
    except DataError as error:
        print(error)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux")
def test_false_sizes_take_no_memory(tmp_path):
    """Within 256 MiB over what the interpreter has, every false promise is told by name."""
    kinds = [pair for pair in SCANS if "along" in pair[1] or "bomb" in pair[1]]
    paths = []
    for number, pair in enumerate(kinds):
        (tmp_path / str(number)).mkdir()
        paths.append(broken_scan(tmp_path / str(number), *pair))
    done = subprocess.run([sys.executable, "-c", LIMITED, *map(str, paths)],
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""
    assert len(done.stdout.splitlines()) == len(paths) >= 5


@pytest.mark.parametrize("kind", MANIFESTS)
@pytest.mark.parametrize("command", ["check", "train"])
def test_a_broken_manifest(tmp_path, capsys, data, kind, command):
    data.write_bytes(MANIFESTS[kind](data.read_bytes()))
    out = tmp_path / "run"
    argv = ["check", data] if command == "check" else train_arguments(data, out)
    said = refused(capsys, *argv)
    assert "dataset.json" in said or "train0" in said or "nowhere" in said, said
    assert not out.exists()


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_broken_configuration(tmp_path, capsys, data, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "c.yaml"
    config.write_bytes(CONFIGS[kind])
    said = refused(capsys, *train_arguments(data, tmp_path / "run", "--config", config))
    assert said.strip() and not (tmp_path / "run").exists() and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("make", WEIGHTS)
@pytest.mark.parametrize("action", ["inspect", "convert"])
def test_weights_that_are_broken_or_hostile(tmp_path, capsys, make, action):
    path, proof = tmp_path / "w.pth", tmp_path / "ran"
    make(path, proof)
    more = ["--out", tmp_path / "o.safetensors"] if action == "convert" else []
    assert "w.pth: " in refused(capsys, "weights", action, path, *more)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.pth"]


@pytest.mark.parametrize("make", WEIGHTS)
def test_no_training_starts_from_them(tmp_path, capsys, data, make):
    path, proof = tmp_path / "w.pth", tmp_path / "ran"
    make(path, proof)
    arguments = train_arguments(data, tmp_path / "run", "--weights", path)
    assert "w.pth: " in refused(capsys, *arguments)
    assert not proof.exists() and not (tmp_path / "run").exists()


def test_the_kinds_are_many(record_property):
    kinds = {"scans": SCANS, "manifests": MANIFESTS, "configurations": CONFIGS, "weights": WEIGHTS}
    for name, found in kinds.items():
        record_property(f"kinds of broken {name}", len(found))
    assert len(SCANS) + len(MANIFESTS) + len(CONFIGS) + len(WEIGHTS) >= 100
