"""Nothing is sent or fetched: every command works where a try at the network ends the process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.run import SMALL

GUARD = """
import os, socket, sys

REFUSED = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg",
           "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
           "socket.getnameinfo", "urllib.Request", "http.client.connect"}

def refuse(event, values):
    if event not in REFUSED:
        return
    if getattr(values[0], "family", None) == socket.AF_UNIX:  # within this machine, by a file
        return
    # urllib3 looks on import whether there is IPv6; it is this machine that it asks, and no server.
    if event == "socket.bind" and values[1] == ("::1", 0):
        return
    with open(os.environ["NETWORK_TRIED"], "a") as log:
        print(event, values[1:], file=log)
    os._exit(99)  # an exception could be swallowed

sys.addaudithook(refuse)
"""
"""As `sitecustomize`, it is in every Python process, workers included."""

COMMANDS = """
import sys
from pathlib import Path
from crossvox.cli.main import main
from crossvox.data.phantom import write_phantom

data = str(write_phantom("data", train=3, val=1, test=1, shape=(28, 24, 12)))
given = ["--data", data, "--split", "val"]
small = sys.argv[1:]
for words in (
    ["check", data, "--overlay", "pictures"],
    ["split", data, "--out", "data/other.json", "--val", "1"],
    ["train", "--data", data, "--labelled", "2", "--out", "run", *small],
    ["train", "--resume", "run"],
    ["predict", "run", *given, "--out", "labels", "--save-uncertainty"],
    ["evaluate", "run", *given, "--out", "scores", "--overlays"],
    ["report", "run", "--data", data, "--out", "report.html"],
    ["rank-cases", "run", "--data", data, "--out", "next.csv"],
    ["export", "run", "--bundle", "bundle"],
    ["doctor"],
    ["list", "methods"],
):
    code = main(words)
    if code:
        sys.exit(f"{words} ended with {code}")
print("all done")
"""


def guarded(tmp_path: Path, code: str, *words: str, before: tuple[str, ...] = ()):
    """Run Python code, and whatever it starts, under the guard: (process, what was tried)."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    tried = tmp_path / "tried.txt"
    path = [str(tmp_path / "guard"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "NETWORK_TRIED": str(tried)}
    command = [*before, sys.executable, "-c", code, *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True,
                          timeout=500)  # fmt: skip
    return done, tried.read_text() if tried.exists() else ""


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
        "import urllib.request as r\ntry: r.urlopen('http://127.0.0.1:9')\nexcept Exception: pass",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "import socket; socket.getaddrinfo('localhost', 80)",
        "import subprocess, sys; c = 'import socket; socket.gethostbyname(\"localhost\")'\n"
        "sys.exit(subprocess.call([sys.executable, '-c', c]))",
    ],
)
def test_the_guard_finds_every_way_out(tmp_path: Path, code: str) -> None:
    done, tried = guarded(tmp_path, code)
    assert done.returncode == 99 and tried


def isolated() -> tuple[str, ...]:
    """Return words that run a command in a network without a device; () if not allowed."""
    command = ("unshare", "--user", "--map-root-user", "--net")
    if shutil.which("unshare") is None:
        return ()
    return (
        command if subprocess.run([*command, "true"], capture_output=True).returncode == 0 else ()
    )


def test_no_command_uses_the_network(tmp_path: Path, record_property) -> None:
    words = [*SMALL[:-1], "1", "--method", "cmc"]  # one worker process
    done, tried = guarded(tmp_path, COMMANDS, *words, before=isolated())
    assert tried == "", tried
    assert done.returncode == 0, done.stderr
    assert "all done" in done.stdout
    record_property("commands run without a network", COMMANDS.count("    ["))
    record_property("in a network namespace of their own", bool(isolated()))
