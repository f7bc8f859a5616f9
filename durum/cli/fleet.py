"""Silo processes that a command starts and, in the end, stops. Owns their lives; knows no actor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from durum import errors

START_WITHIN_S: Final = 20.0
STOP_WITHIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Member:
    """One running silo.

    Args:
        process: its process.
        first_line: what it said of itself: silo, address, durability and so on.
        log: where its standard error goes.
    """

    process: asyncio.subprocess.Process
    first_line: dict[str, object]
    log: Path

    @property
    def address(self) -> str:
        return str(self.first_line["address"])

    @property
    def name(self) -> str:
        return str(self.first_line["silo"])


class Fleet:
    """Silos of one app on one store, each a process of its own on this machine.

    Leaving the context stops them: with SIGTERM where there is time, else with SIGKILL. They also
    stop by themselves when this process is gone, however it went.

    Args:
        arguments: what follows `durum silo`.
        logs: a directory for their logs.
    """

    def __init__(self, arguments: Sequence[str], logs: Path) -> None:
        self._arguments = arguments
        self._logs = logs
        self._members: list[Member] = []
        self._started = 0

    @property
    def members(self) -> Sequence[Member]:
        """Those that run, in the order in which they started."""
        return tuple(m for m in self._members if m.process.returncode is None)

    async def start(self) -> Member:
        """Start one more; it serves when this returns.

        Raises:
            ClusterError: it ended, or said nothing in time. The message has the end of its log.
        """
        self._started += 1
        log = self._logs / f"silo-{self._started}.log"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "durum", "silo", *self._arguments, "--stop-with-parent"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                # Ctrl-C is for us: we decide in which order the silos stop.
                start_new_session=True,
            )
        try:
            member = Member(process, await _first_line(process, log), log)
        except BaseException:
            _signal(process, signal.SIGKILL)
            await process.wait()
            raise
        self._members.append(member)
        return member

    async def kill(self, member: Member) -> None:
        """End one as a power cut would. Returns when the process is gone."""
        _signal(member.process, signal.SIGKILL)
        await member.process.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        processes = [member.process for member in self.members]
        for process in processes:
            _signal(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_WITHIN_S if exc is None else 1.0):
                for process in processes:
                    await process.wait()
        except TimeoutError:
            pass
        finally:
            for process in processes:
                _signal(process, signal.SIGKILL)
        for process in processes:
            await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        # Between its end and our knowing of it there is nobody to get the signal.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def _first_line(process: asyncio.subprocess.Process, log: Path) -> dict[str, object]:
    assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
    try:
        async with asyncio.timeout(START_WITHIN_S):
            line = await process.stdout.readline()
            if not line:
                code = await process.wait()
                raise errors.ClusterError(f"a silo ended with exit code {code}:\n{_tail(log)}")
    except TimeoutError:
        raise errors.ClusterError(
            f"a silo did not start within {START_WITHIN_S:g} s:\n{_tail(log)}"
        ) from None
    first: dict[str, object] = json.loads(line)
    return first


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-12:]) or "  (it logged nothing)"
