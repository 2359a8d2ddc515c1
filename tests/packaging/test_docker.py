"""The Dockerfile copies what there is; where a daemon answers, the image runs the demonstration."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.paths import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    copied = [w for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.M) for w in line.split()[:-1]]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[1] == "*"
    for name in copied:
        assert (ROOT / name).exists() and f"!{name}" in ignored, name


def test_its_extras_and_commands_exist() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.search(r"^ARG EXTRAS=(.+)$", DOCKERFILE, re.M)[1].split(","):
        assert re.search(rf"^{extra} = \[", pyproject, re.M)
    assert 'crossvox = "crossvox.cli.main:main"' in pyproject
    assert 'ENTRYPOINT ["crossvox"]' in DOCKERFILE


def has_docker() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True).returncode == 0


@pytest.mark.slow
def test_the_image_runs_the_demonstration_without_a_network(tmp_path: Path) -> None:
    if not has_docker():
        pytest.skip("no docker daemon answers")
    subprocess.run(["docker", "build", "--tag", "crossvox:test", str(ROOT)], check=True)
    user, volume = f"{os.getuid()}:{os.getgid()}", f"{tmp_path}:/work"
    run = ["docker", "run", "--rm", "--network", "none", "--user", user, "--volume", volume]
    demo = ["crossvox:test", "demo", "--out", "phantom", "--steps", "10"]
    subprocess.run([*run, "--shm-size", "2g", *demo], check=True)
    assert (tmp_path / "phantom" / "scores.md").stat().st_size > 0
