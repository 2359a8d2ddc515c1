"""The wheel alone, in an environment of its own that can reach no network, shows the demonstration.

The dependencies come from the environment of the tests; of crossvox it sees the wheel only, whose
missing files (presets, schemas, templates) would show here and nowhere else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from fixtures.paths import ROOT

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "src")
NO_NETWORK = """\
import socket

def refuse(*args, **kwargs):
    raise OSError("a program asked for the network")

def guarded(method):
    # Processes of one command may talk to each other.
    local = getattr(socket, "AF_UNIX", None)
    return lambda self, *given: (method if self.family == local else refuse)(self, *given)

for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
socket.getaddrinfo = refuse
"""
DEMO = (
    *("demo", "--out", "demo", "--steps", "2", "--train", "3", "--test", "1"),
    *("--shape", "[28, 22, 12]", "--labelled", "1"),
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            skip = shutil.ignore_patterns("*.egg-info", "__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=skip)
        else:
            shutil.copy(ROOT / name, source / name)
    words = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    pip("wheel", *words, str(source))
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """An interpreter that has the wheel and the dependencies, and no network."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    found = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip("--python", str(found), "install", "--quiet", "--no-index", "--no-deps", str(wheel))
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([str(found), "-c", code], text=True).strip())
    # A folder that a .pth file names is searched last, and the .pth files in it are not read: an
    # editable crossvox of the tests' environment stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    (site / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    return found


def pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, env=clean())


def run(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *words],
        cwd=folder,
        env=clean(),
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )


def clean() -> dict[str, str]:
    """The environment without what would lead to this tree's sources."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


def test_the_wheel_holds_the_package_its_data_and_its_licence(wheel) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src").rglob("*")}
    wanted = {
        name
        for name in package
        if name.startswith("crossvox/") and name.endswith((".py", ".yaml", ".json", ".typed"))
    }
    assert wanted <= names
    assert {n for n in names if n.split("/")[0] not in ("crossvox", names_of(wheel))} == set()
    assert any(name.endswith("licenses/LICENSE") for name in names)


def names_of(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name}-{version}.dist-info"


def test_the_environment_holds_the_wheel_and_no_network(python, tmp_path) -> None:
    where = run(python, tmp_path, "-c", "import crossvox; print(crossvox.__file__)").stdout
    assert str(python.parents[1]) in where
    tried = run(python, tmp_path, "-c", "import socket; socket.create_connection(('::1', 9))")
    assert tried.returncode and "asked for the network" in tried.stderr


def test_the_demonstration_runs_from_the_wheel_without_a_network(
    python, tmp_path, record_property
) -> None:
    main = "import sys; from crossvox.cli.main import main; sys.exit(main())"
    done = run(python, tmp_path, "-c", main, *DEMO)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "demo" / "predictions" / "cmc+").glob("*.nii.gz"))
    files = sum(path.is_file() for path in tmp_path.rglob("*"))
    record_property("files that the wheel's demo wrote without a network", files)
