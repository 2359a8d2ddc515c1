"""What `torchrun` makes of a command: its processes, on one host or on two that are simulated."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SCRIPT = str(Path(sys.executable).with_name("crossvox"))


def torchrun(*options: str) -> list[str]:
    """The launcher's words; those of a command of crossvox are to follow."""
    return [sys.executable, "-m", "torch.distributed.run", *options, "--no-python", SCRIPT]


def family(pid: int) -> list[int]:
    """A process and all that it began."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(other for child in children for other in family(int(child)))]


@dataclass(frozen=True)
class Host:
    """A network namespace with one end of a cable, a name and a table of names of its own."""

    name: str
    space: str
    cable: str
    names: Path

    def command(self, words: list[str]) -> list[str]:
        """What runs a command on this host."""
        begin = 'hostname "$0" && mount --bind "$1" /etc/hosts && shift && exec "$@"'
        here = ["unshare", "--mount", "--uts", "sh", "-c", begin, self.name, str(self.names)]
        return ["ip", "netns", "exec", self.space, *here, *words]

    def sent(self) -> int:
        """Bytes that went out on its end of the cable."""
        counter = f"/sys/class/net/{self.cable}/statistics/tx_bytes"
        shown = ["ip", "netns", "exec", self.space, "cat", counter]
        return int(subprocess.check_output(shown, text=True))


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[list[Host]]:
    """Hosts `node1` and `node2`, which can reach each other and nothing else.

    Raises:
        PermissionError: such are not to be had here.
    """
    names = folder / "hosts"
    names.write_text("127.0.0.1 localhost\n10.207.0.1 node1\n10.207.0.2 node2\n")
    # Names of devices hold 15 characters at most, and other tests may have hosts at this time.
    hosts = [
        Host(f"node{i}", f"cv{os.getpid()}-{i}", f"cv{os.getpid()}-{i}", names) for i in (1, 2)
    ]
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        raise PermissionError("no ip or unshare")
    try:
        for host in hosts:
            _ip("netns", "add", host.space)
        one, other = hosts
        _ip("link", "add", one.cable, "netns", one.space, "type", "veth",
            "peer", "name", other.cable, "netns", other.space)  # fmt: skip
        for i, host in enumerate(hosts, start=1):
            _ip("-n", host.space, "address", "add", f"10.207.0.{i}/24", "dev", host.cable)
            for device in (host.cable, "lo"):
                _ip("-n", host.space, "link", "set", device, "up")
        for host in hosts:
            _run(host.command(["true"]))
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "delete", host.space], capture_output=True)


def _ip(*words: str) -> None:
    _run(["ip", *words])


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(f"{' '.join(words)}: {done.stderr.strip()}")
