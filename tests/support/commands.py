"""The durum command as tests run it: a process in a directory, what it said, and how it ended."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 40
ROOT = Path(__file__).parents[2]
_logs = itertools.count(1)


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(**more: str) -> Mapping[str, str]:
    """Ours, without settings that the developer may have for Durum, and with the checkout importable."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DURUM_")}
    return {**ours, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1", **more}


def durum(home: Path, *words: str, env: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "durum", *words],
        cwd=home,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@dataclass
class Running:
    """A silo that serves, or a command that has begun to talk."""

    process: subprocess.Popen[str]
    first_line: dict[str, Any]
    log: Path

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that other processes bring about; fail where it does not come."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


@contextmanager
def talking(
    home: Path, *words: str, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a command beside the test, until it ends or the block does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "durum", *words],
        cwd=home,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


@contextmanager
def serving(
    home: Path, *words: str, env: Mapping[str, str] | None = None, inside: Sequence[str] = ()
) -> Iterator[Running]:
    """Run a silo (`dev hello.py`, `silo hello.py ...`) until the block ends, or it does.

    Args:
        home: where.
        words: the command's.
        env: more of the environment.
        inside: a command that replaces itself by the silo, as `ip netns exec` does.
    """
    log = home / f"log-{next(_logs)}"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*inside, sys.executable, "-m", "durum", *words],
            cwd=home,
            env=environment(**(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"it ended with {process.wait(PATIENCE_S)}:\n{log.read_text()}"
        yield Running(process, json.loads(line), log)
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        process.stdout.close()
