"""Who runs the batches: one thread for a file or a shared memory, or the caller itself.

Owns the connection's life and the waiting for locks; knows no operation.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Sequence
from typing import Final, Protocol

from durum import errors
from durum.clock import Clock
from durum.ids import Entropy
from durum.store import sqlite_schema
from durum.store.batches import Batches
from durum.store.sqlite_batch import Batch, Job

BATCH_LIMIT: Final = 512
_SHORTEST_S: Final = 0.000_2
_LONGEST_S: Final = 0.01
_BUSY_SHARE: Final = 0.8
"""Of the operation's time, so that a lock held too long is told as such and not as silence."""


class Writer(Protocol):
    """Takes jobs and settles them."""

    file: tuple[int, int] | None
    batches: Batches

    def put(self, jobs: list[Job]) -> None:
        """Run the jobs, in this order, after all that were put before; settle each."""
        ...

    async def close(self) -> None:
        """Finish what was put, then let go of the file."""
        ...


class InlineWriter:
    """Runs each job before `put` returns, on the caller's own thread. For virtual time."""

    def __init__(self, path: str, url: str) -> None:
        self._db, self.file = sqlite_schema.connect(path, url)
        self._batch = Batch(self._db, url, again=lambda _: False)
        self.batches = Batches()

    def put(self, jobs: list[Job]) -> None:
        self._batch.run(jobs)
        self.batches.add(len(jobs))
        for job in jobs:
            job.settle()

    async def close(self) -> None:
        self._db.close()


class ThreadWriter:
    """Runs jobs on a thread of its own, all that have gathered in one transaction.

    Args:
        path: the file, or `:memory:`.
        url: for messages.
        clock: measures how long a lock has been waited for.
        entropy: jitter, so that processes do not wait in step.
        store_timeout_s: how long an operation may take.
    """

    def __init__(
        self, path: str, url: str, *, clock: Clock, entropy: Entropy, store_timeout_s: float
    ) -> None:
        self._path = path
        self._url = url
        self._clock = clock
        self._entropy = entropy
        self._busy_s = store_timeout_s * _BUSY_SHARE
        self._busy_until = 0.0
        self._queue: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._give_up_s = store_timeout_s
        self.file: tuple[int, int] | None = None
        self.batches = Batches()

    async def open(self) -> None:
        """Start the thread and wait until it has the file.

        Raises:
            ConfigError, StoreUnavailable, DataLoss: see sqlite_schema.connect.
        """
        # A daemon, so that a hung disk cannot keep a process from ending.
        threading.Thread(target=self._run, name=f"durum store {self._url}", daemon=True).start()
        await self._opened

    def put(self, jobs: list[Job]) -> None:
        self._queue.put(jobs)

    async def close(self) -> None:
        self._closing.set()
        self._queue.put(None)
        await asyncio.wait([self._ended], timeout=self._give_up_s)

    def _run(self) -> None:
        try:
            db, self.file = sqlite_schema.connect(self._path, self._url)
        except Exception as exc:  # noqa: BLE001 - carried to whoever waits for the opening
            _tell(self._loop, self._opened, exc)
            return
        _tell(self._loop, self._opened)
        try:
            self._work(db)
        finally:
            db.close()
            _tell(self._loop, self._ended)

    def _work(self, db: sqlite3.Connection) -> None:
        batch = Batch(db, self._url, again=self._again)
        while (first := self._queue.get()) is not None:
            jobs, last = self._gather(first)
            # A job whose caller was told that it took too long is not begun any more.
            jobs = [job for job in jobs if not job.future.done()]
            self._busy_until = self._clock.boottime() + self._busy_s
            batch.run(jobs)
            if jobs:
                self.batches.add(len(jobs))
            _settle(jobs)
            if last:
                return

    def _gather(self, jobs: list[Job]) -> tuple[list[Job], bool]:
        while len(jobs) < BATCH_LIMIT:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                return jobs, True
            jobs += more
        return jobs, False

    def _again(self, attempt: int) -> bool:
        longest = min(_LONGEST_S, _SHORTEST_S * 2**attempt)
        # Waiting on the event instead of sleeping: closing ends it.
        closing = self._closing.wait(longest * (0.1 + 0.9 * self._entropy.fraction()))
        return not closing and self._clock.boottime() < self._busy_until


def _tell(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], exc: Exception | None = None
) -> None:
    def settle() -> None:
        if future.done():
            return
        if exc is None:
            future.set_result(None)
        else:
            future.set_exception(exc)

    _call(loop, settle)


def _settle(jobs: Sequence[Job]) -> None:
    # One wake-up for each loop that waits, not one for each job.
    by_loop: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        by_loop.setdefault(job.future.get_loop(), []).append(job)

    for loop, theirs in by_loop.items():

        def settle(theirs: list[Job] = theirs) -> None:
            for job in theirs:
                job.settle()

        _call(loop, settle)


def _call(loop: asyncio.AbstractEventLoop, function: object) -> None:
    try:
        loop.call_soon_threadsafe(function)  # type: ignore[arg-type]
    except RuntimeError:
        return  # that loop was closed; nobody waits there any more


_shared: Final[dict[str, tuple[Writer, bool, int]]] = {}


class SharedMemory:
    """One database in this process's memory, which lives as long as somebody has it open."""

    def __init__(self, name: str, writer: Writer) -> None:
        self._name = name
        self._writer = writer
        self.file: tuple[int, int] | None = None
        self.batches = writer.batches

    def put(self, jobs: list[Job]) -> None:
        self._writer.put(jobs)

    async def close(self) -> None:
        writer, threads, users = _shared[self._name]
        if users > 1:
            _shared[self._name] = (writer, threads, users - 1)
        else:
            del _shared[self._name]
            await writer.close()


def join_memory(name: str, *, threads: bool) -> SharedMemory | None:
    """Join a memory database that is open, or return None.

    Raises:
        ConfigError: it is open in the other mode.
    """
    if name not in _shared:
        return None
    writer, mode, users = _shared[name]
    if mode != threads:
        raise errors.ConfigError(f"memory:{name} is open with threads={mode}. Open it alike.")
    _shared[name] = (writer, mode, users + 1)
    return SharedMemory(name, writer)


async def share_memory(name: str, writer: Writer, *, threads: bool) -> SharedMemory:
    """Let others of this process join a memory database; join theirs if they were faster."""
    other = join_memory(name, threads=threads)
    if other is not None:
        await writer.close()
        return other
    _shared[name] = (writer, threads, 1)
    return SharedMemory(name, writer)
