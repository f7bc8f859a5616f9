"""Processes of one imagined host, for tests whose silos all live in one real process. Owns who has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from itertools import count
from typing import Final

HOST: Final = "imagined"


class ProcessTable:
    """All of them. A silo that is killed here is seen to be gone at once, as on one real host."""

    def __init__(self) -> None:
        self._numbers: Final = count(100)
        self._ended: Final[dict[int, None]] = {}
        self._watches: Final[dict[int, dict[_Watch, None]]] = {}

    def start(self) -> ImaginedProcess:
        """One more."""
        return ImaginedProcess(self, next(self._numbers))

    def end(self, pid: int) -> None:
        """That one is gone; whoever watches it is told."""
        self._ended[pid] = None
        for watch in list(self._watches.pop(pid, {})):
            watch.tell()

    def has_ended(self, pid: int) -> bool:
        """Whether it is gone."""
        return pid in self._ended

    def add(self, pid: int, on_end: Callable[[], None]) -> Callable[[], None]:
        """Tell of its end, also if it has ended already. Returns a function that stops the watch."""
        watch = _Watch(on_end)
        if pid in self._ended:
            watch.tell()
        else:
            self._watches.setdefault(pid, {})[watch] = None

        def stop() -> None:
            self._watches.get(pid, {}).pop(watch, None)

        return stop

    def __repr__(self) -> str:
        return f"<ProcessTable watched={len(self._watches)} ended={len(self._ended)}>"


class ImaginedProcess:
    """The Processes of one silo. Made by ProcessTable.start."""

    def __init__(self, table: ProcessTable, pid: int) -> None:
        self.host: str = HOST
        self.pid: int = pid
        self.started: int = 1
        self._table: Final = table

    def ended(self, pid: int, started: int) -> bool:  # noqa: ARG002 - pids are never used again here
        return self._table.has_ended(pid)

    def watch(
        self,
        pid: int,
        started: int,  # noqa: ARG002
        on_end: Callable[[], None],
    ) -> Callable[[], None]:
        return self._table.add(pid, on_end)


class _Watch:
    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self._context: Context = copy_context()

    def tell(self) -> None:
        asyncio.get_running_loop().call_soon(self._on_end, context=self._context)
