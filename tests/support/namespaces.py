"""Machines of their own for silos, as network namespaces on this one: wires that a test can cut.

Owns namespaces and addresses; starts what it is told to in them. Needs root and Linux.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from types import TracebackType
from typing import Final, Self

_numbers = itertools.count(os.getpid() % 60)
GATE: Final = "gate"
"""This machine, as the others see it."""
STORE: Final = "store"
"""Another address of this machine, for a store, so that the way to it can be cut alone."""
_HERE: Final = {GATE: 1, STORE: 100}


def why_not() -> str:
    """Why this machine cannot do it; "" where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    if shutil.which("ip") is None:
        return "the ip command is not installed"
    probe = f"durum-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        return "this kernel or container allows no network namespaces"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return ""


class Town:
    """A few machines on one bridge; this one has addresses there too.

    Args:
        names: of the machines.
    """

    def __init__(self, *names: str) -> None:
        number = next(_numbers) % 250
        self._tag = f"du{os.getpid() % 10_000}{number}"
        self._net = f"10.213.{number}"
        self._names = names
        self._stack = contextlib.ExitStack()

    def address(self, name: str) -> str:
        """A machine's IP address."""
        return f"{self._net}.{_HERE.get(name) or 2 + self._names.index(name)}"

    def inside(self, name: str) -> tuple[str, ...]:
        """What to put before a command so that it runs on a machine."""
        return ("ip", "netns", "exec", f"{self._tag}{name}")

    def cut(self, name: str, other: str) -> None:
        """Let nothing through between two machines any more, silently, in either direction."""
        self._each_way("add", name, other)

    def mend(self, name: str, other: str) -> None:
        """Let everything through again."""
        self._each_way("del", name, other)

    def _each_way(self, what: str, name: str, other: str) -> None:
        for here, there in ((name, other), (other, name)):
            if (
                here not in _HERE
            ):  # what this machine sends goes there, and is answered into the dark
                blackhole = ("ip", "route", what, "blackhole", f"{self.address(there)}/32")
                _run(*self.inside(here), *blackhole)

    def __enter__(self) -> Self:
        bridge = f"{self._tag}b"
        try:
            _run("ip", "link", "add", bridge, "type", "bridge")
            self._stack.callback(_run, "ip", "link", "del", bridge)
            for name in _HERE:
                _run("ip", "addr", "add", f"{self.address(name)}/24", "dev", bridge)
            _run("ip", "link", "set", bridge, "up")
            for number, name in enumerate(self._names):
                space, wire = f"{self._tag}{name}", f"{self._tag}{number}"
                _run("ip", "netns", "add", space)
                self._stack.callback(_run, "ip", "netns", "del", space)
                peer = ("peer", "name", "eth0", "netns", space)
                _run("ip", "link", "add", wire, "type", "veth", *peer)
                _run("ip", "link", "set", wire, "master", bridge, "up")
                for command in (
                    ("addr", "add", f"{self.address(name)}/24", "dev", "eth0"),
                    ("link", "set", "eth0", "up"),
                    ("link", "set", "lo", "up"),
                ):
                    _run("ip", "-n", space, *command)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
