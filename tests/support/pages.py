"""Pages of documentation as programs: files to write, commands to run, outputs to see."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import servers

PATIENCE_S = 30
READY = {("durum", "dev"): "", ("durum", "silo"): "", ("valkey-server",): "Ready to accept"}
"""Commands that stay, and what stands in the line by which they are ready."""

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# (\w+\.py)\n")


@dataclass(frozen=True)
class File:
    """A Python block whose first line is its name, as a comment."""

    name: str
    text: str


@dataclass(frozen=True)
class Snippet:
    """A Python block without a name: it must at least run."""

    text: str


@dataclass(frozen=True)
class Command:
    """A line of a console block that begins with `$`, and what should follow."""

    line: str
    output: str


def steps(text: str) -> Iterator[File | Snippet | Command]:
    """What a page asks its reader to do, in order."""
    for language, body in _BLOCK.findall(text):
        if language == "python":
            named = _NAMED.match(body)
            yield File(named[1], body) if named else Snippet(body)
        elif language == "console":
            for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
                line, _, output = part.partition("\n")
                yield Command(line, output)


class Reader:
    """Somebody who does what a page says, in a directory of their own.

    `durum dev`, `durum silo` and `valkey-server` stay in the background until they are killed (`kill -9 %1`
    and `kill -TERM %1` mean the newest) or the reader leaves; `export NAME=VALUE` holds from then on;
    everything else runs to its end.

    Args:
        home: an empty directory.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._running: list[subprocess.Popen[str]] = []
        binaries = Path(sys.executable).parent
        unset = {"DURUM_STORE", "DURUM_CLUSTER", "DURUM_SECRET", "DURUM_SECRET_FILE"}
        self._env = {
            **{k: v for k, v in os.environ.items() if k not in unset},
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        }

    def do(self, step: File | Snippet | Command) -> None:
        """Do one thing.

        Raises:
            AssertionError: what came is not what the page says.
        """
        match step:
            case File(name, text):
                (self._home / name).write_text(text)
            case Snippet(text):
                exec(compile(text, "<page>", "exec"), {"__name__": "page"})
            case Command(line, output):
                self._run(shlex.split(line, comments=True), output)

    def _run(self, words: list[str], expected: str) -> None:
        stays = [mark for begin, mark in READY.items() if tuple(words[: len(begin)]) == begin]
        if stays and "--help" not in words:
            self._start(words, stays[0])
        elif words[0] == "export":
            self._env |= {name: value for name, _, value in (w.partition("=") for w in words[1:])}
        elif words == ["kill", "-9", "%1"]:
            _end(self._running.pop())
        elif words == ["kill", "-TERM", "%1"]:
            stopped = self._running.pop()
            stopped.terminate()
            assert stopped.wait(PATIENCE_S) == 0, stopped.args
            _end(stopped)
        else:
            done = subprocess.run(
                words,
                cwd=self._home,
                env=self._env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
            came = done.stdout + (f"[{done.returncode}]\n" if done.returncode else "")
            assert _fits(expected, came), (
                f"$ {shlex.join(words)}\n{came}\nthe page says:\n{expected}"
            )

    def _start(self, words: list[str], mark: str) -> None:
        if words[0] == "valkey-server":
            words = [servers.binary_of("valkey") or words[0], *words[1:]]
        log = (self._home / f"silo-{len(self._running)}.log").open("w+")
        with log:
            process = subprocess.Popen(
                words,
                cwd=self._home,
                env=self._env,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                preexec_fn=servers.die_with_parent,  # noqa: PLW1509 - loaded before any fork
            )
            self._running.append(process)
            assert process.stdout is not None
            seen = ""
            while not (line := process.stdout.readline()) or mark not in line:
                seen += line
                if not line:
                    log.seek(0)
                    raise AssertionError(f"$ {shlex.join(words)}\n{seen}{log.read()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for process in self._running:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(PATIENCE_S)
    if process.stdout is not None:
        process.stdout.close()


def _fits(expected: str, came: str) -> bool:
    """Whether the output is what the page says, where `...` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("..."))
    return re.fullmatch(pattern, came.strip(), re.DOTALL) is not None
