"""`durum dev --reload`: one silo process, started anew when its source changes. Owns the watching.

A new process each time, since Python cannot take back what a module has done.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from durum.cli import exits

_LOOK_S: Final = 0.3
_STOP_WITHIN_S: Final = 5.0
_LEFT_OUT: Final = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})


def root_of(app: str) -> Path:
    """The directory whose sources an app is made of."""
    path = Path(app)
    if path.suffix == ".py" or path.is_file():
        return path.resolve().parent
    return Path.cwd()


def sources(root: Path) -> Mapping[Path, int]:
    """All Python files under a directory, with the time of their last change in nanoseconds."""
    return dict(_sources(root))


def _sources(root: Path) -> Iterator[tuple[Path, int]]:
    try:
        found = sorted(root.iterdir())
    except OSError:
        return
    for path in found:
        if path.name.startswith(".") or path.name in _LEFT_OUT:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _sources(path)
        elif path.suffix == ".py":
            try:
                yield path, path.stat().st_mtime_ns
            except OSError:
                continue  # gone meanwhile, which is a change as well


async def run(app: str, words: Sequence[str]) -> int:
    """Run `durum dev` in a process of its own, and another one after each change.

    Args:
        app: what it serves.
        words: the command line, without the program.

    Returns:
        The exit code of the last one.
    """
    reloader = _Reloader(app, words)
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, reloader.stop)
    return await reloader.run()


class _Reloader:
    def __init__(self, app: str, words: Sequence[str]) -> None:
        self._root = root_of(app)
        self._words = [*words, "--no-reload", "--stop-with-parent"]
        self._stopping = asyncio.Event()
        self._address: str | None = None

    def stop(self) -> None:
        """End with the process that runs now."""
        self._stopping.set()

    async def run(self) -> int:
        while True:
            before = await asyncio.to_thread(sources, self._root)
            process = await self._start()
            telling = asyncio.create_task(self._tell(process), name="first line")
            ended = asyncio.create_task(process.wait(), name="silo ended")
            changed = asyncio.create_task(self._changed(before), name="source changed")
            stopping = asyncio.create_task(self._stopping.wait(), name="told to stop")
            try:
                await asyncio.wait([ended, changed, stopping], return_when=asyncio.FIRST_COMPLETED)
                if ended.done() and not stopping.done():
                    say(f"the silo ended with code {ended.result()}; waiting for a change")
                    await asyncio.wait([changed, stopping], return_when=asyncio.FIRST_COMPLETED)
                code = await self._end(process, ended)
                await telling
            finally:
                telling.cancel()
                changed.cancel()
                stopping.cancel()
            if self._stopping.is_set():
                return code
            say(f"{changed.result().name} has changed; starting anew")

    async def _start(self) -> asyncio.subprocess.Process:
        own = [] if self._address is None else ["--listen", self._address]
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "durum", *self._words, *own),
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us
        )

    async def _tell(self, process: asyncio.subprocess.Process) -> None:
        """Pass on what it says of itself."""
        assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
        while line := (await process.stdout.readline()).decode():
            click.echo(line, nl=False)
            if self._address is None:
                # The same address from here on, so that clients need not be started anew too.
                self._address = str(json.loads(line)["address"])

    async def _changed(self, before: Mapping[Path, int]) -> Path:
        while True:
            await asyncio.sleep(_LOOK_S)
            now = await asyncio.to_thread(sources, self._root)
            if now != before:
                return min(path for path, _ in set(now.items()) ^ set(before.items()))

    async def _end(self, process: asyncio.subprocess.Process, ended: asyncio.Task[int]) -> int:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait([ended], timeout=_STOP_WITHIN_S)
        if process.returncode is None:
            process.kill()
        code = await ended
        return exits.FAILED if code < 0 else code


def say(text: str) -> None:
    """Tell whoever is at the terminal."""
    click.echo(click.style(text, fg="cyan"), err=True)
