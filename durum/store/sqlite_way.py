"""The way from a caller to the writer and back: what one loop tick asks for goes there together.

Owns what is under way and time limits; knows no operation.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from durum.clock import Clock
from durum.store import sqlite_errors, sqlite_writer
from durum.store.sqlite_batch import Job
from durum.store.sqlite_writer import Writer

_SWEEPS: Final = 4

T = TypeVar("T")


class SqliteWay:
    """Takes operations, and settles a future for each.

    Args:
        writer: runs the operations.
        url: for messages.
        clock: measures time limits.
        store_timeout_s: an operation that takes longer ends in StoreUnavailable.
        inline: whether the writer runs operations before it returns.
    """

    def __init__(
        self, writer: Writer, url: str, *, clock: Clock, store_timeout_s: float, inline: bool
    ) -> None:
        self._writer = writer
        self._url = url
        self._clock = clock
        self._timeout_s = store_timeout_s
        self._inline = inline
        self._loop = asyncio.get_running_loop()
        self._tick: list[Job] = []
        self._pending: deque[tuple[float, list[Job]]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self.closed = False

    def __repr__(self) -> str:
        return f"<SqliteWay {self._url} pending={len(self._pending)} closed={self.closed}>"

    def read(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        """Have a function run that only reads."""
        return self.submit(function, args, writes=False)

    def write(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        """Have a function run that writes."""
        return self.submit(function, args, writes=True)

    def submit(
        self, function: Callable[..., T], args: tuple[object, ...], *, writes: bool
    ) -> asyncio.Future[T]:
        """Have a function run, after all that were submitted before.

        Args:
            function: gets the connection, then the arguments.
            args: those.
            writes: whether it needs the write lock.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        if self.closed:
            future.set_exception(sqlite_errors.closed(self._url, applied=False))
            return future
        job = Job(future, function, args, writes=writes)
        if self._inline:
            self._writer.put([job])
            return future
        if not self._tick:
            self._loop.call_soon(self._flush)
        self._tick.append(job)
        return future

    async def close(self) -> None:
        """Send what was submitted, take nothing more, and close the writer."""
        self._flush()
        self.closed = True
        await self._writer.close()
        for job in (job for _, jobs in self._pending for job in jobs):
            if not job.future.done():
                job.future.set_exception(sqlite_errors.closed(self._url, applied=None))
        self._pending.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _flush(self) -> None:
        jobs, self._tick = self._tick, []
        if not jobs:
            return
        now = self._clock.boottime()
        for start in range(0, len(jobs), sqlite_writer.BATCH_LIMIT):
            part = jobs[start : start + sqlite_writer.BATCH_LIMIT]
            self._pending.append((now, part))
            self._writer.put(list(part))
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._timeout_s / _SWEEPS, self._sweep)

    def _sweep(self) -> None:
        """Tell those who have waited too long. One timer for all: a hung disk is rare."""
        self._sweeper = None
        pending, latest = self._pending, self._clock.boottime() - self._timeout_s
        # The writer settles in order, so the last of a tick tells of all before it.
        while pending and (pending[0][1][-1].future.done() or pending[0][0] <= latest):
            for job in pending.popleft()[1]:
                if not job.future.done():
                    job.future.set_exception(sqlite_errors.late(self._url, self._timeout_s))
        if pending:
            self._sweeper = self._loop.call_later(self._timeout_s / _SWEEPS, self._sweep)
