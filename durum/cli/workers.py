"""`durum silo --workers`: several silo processes under one parent. Owns their lives; serves nothing."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from typing import Final

from durum.cli import exits
from durum.ids import Address, split_address
from durum.telemetry import Log

_log = Log("durum.workers")
_FIRST_PAUSE_S: Final = 0.2
_LAST_PAUSE_S: Final = 30.0
_STEADY_S: Final = 60.0
"""A worker that has served so long begins its pauses anew."""


async def run(count: int, listen: str, advertise: str | None, metrics_port: int | None) -> int:
    """Run workers until told to stop, and start anew those that die.

    Args:
        count: how many.
        listen: the first one's address; the others' ports follow.
        advertise: the first one's advertised address, likewise.
        metrics_port: the first one's, likewise.

    Returns:
        The exit code: that of a worker which only a person can mend, else 0.
    """
    words = sys.argv[1:]
    team = _Team(
        [
            _Worker(
                number,
                [*words, *_own_options(number, listen, advertise, metrics_port)],
            )
            for number in range(count)
        ]
    )
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, team.signalled)
    return await team.run()


def _own_options(
    number: int, listen: str, advertise: str | None, metrics_port: int | None
) -> list[str]:
    """What one worker's command line has behind ours: of an option given twice the last one counts."""
    own = ["--workers", "1", "--stop-with-parent", "--listen", _following(listen, number)]
    if advertise is not None:
        own += ["--advertise", _following(advertise, number)]
    if metrics_port is not None:
        own += ["--metrics-port", str(metrics_port + number if metrics_port else 0)]
    return own


def _following(address: str, number: int) -> str:
    host, port = split_address(Address(address))
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port + number if port else 0}"


class _Worker:
    """One process after the other.

    Args:
        number: for logs.
        words: its command line, without the program.
    """

    def __init__(self, number: int, words: Sequence[str]) -> None:
        self._number = number
        self._words = words
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._asked = 0

    def stop(self) -> None:
        """Ask it to drain and leave; the second time order it to end."""
        self._asked += 1
        self._stopping.set()
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)

    async def run(self) -> int:
        """Run it, again and again, until it is stopped.

        Returns:
            Its last exit code.
        """
        loop = asyncio.get_running_loop()
        pause_s = _FIRST_PAUSE_S
        while True:
            began = loop.time()
            # In a session of its own: Ctrl-C is for us, and we tell it once.
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "durum", *self._words, start_new_session=True
            )
            if self._stopping.is_set():
                process.send_signal(signal.SIGTERM)
            code = await process.wait()
            if self._stopping.is_set() or code == exits.CONFIG:
                return code
            if loop.time() - began >= _STEADY_S or code == exits.DECLARED_DEAD:
                pause_s = _FIRST_PAUSE_S
            _log.warning(
                "a worker has ended and is started anew",
                worker=self._number,
                pid=process.pid,
                code=code,
                pause_s=pause_s,
            )
            if await self._stopped_within(pause_s):
                return code
            pause_s = min(_LAST_PAUSE_S, pause_s * 2)

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True


class _Team:
    """All workers."""

    def __init__(self, workers: Sequence[_Worker]) -> None:
        self._workers = workers

    def signalled(self) -> None:
        """Pass a signal on."""
        for worker in self._workers:
            worker.stop()

    async def run(self) -> int:
        """Run all. Where one cannot be mended by starting it anew, stop the others."""
        running = {
            asyncio.create_task(worker.run(), name=f"worker {number}")
            for number, worker in enumerate(self._workers)
        }
        worst = exits.CLEAN
        while running:
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                if task.result() != exits.CLEAN and worst != exits.CONFIG:
                    worst = task.result()
            if running and worst == exits.CONFIG:
                self.signalled()
        return exits.FAILED if worst < 0 else worst
