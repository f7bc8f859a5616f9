"""The embedded store: the store's Protocols on one SQLite file, or in memory.

Owns the way from a caller to the writer and back, and time limits; SQL is in sqlite_tables. What one
loop tick asks for goes to the writer together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, TypeVar

from durum import errors
from durum.clock import Clock
from durum.ids import Entropy, GrainId, SiloId, Token
from durum.store import (
    local_disk,
    sqlite_errors,
    sqlite_grains,
    sqlite_parts,
    sqlite_schema,
    sqlite_tables,
    sqlite_writer,
)
from durum.store.batches import Batches
from durum.store.parts import Part
from durum.store.protocol import (
    ID_BYTES,
    Beat,
    Commit,
    Committed,
    Durability,
    Genesis,
    Level,
    Owner,
    Record,
    TableRead,
    Take,
)
from durum.store.sqlite_batch import Job
from durum.store.sqlite_writer import Writer
from durum.views import SiloRow

_HINT_S: Final = 0.1
_SWEEPS: Final = 4
PRIVATE: Final = "memory:"

T = TypeVar("T")


class SqliteStore:
    """All Protocols of the store on SQLite. Made by `open_file` and `open_memory`.

    Args:
        writer: runs the operations.
        path: the file, or `:memory:`.
        url: how it was opened.
        cluster: the service's name; a file holds one service.
        clock: store time is this host's wall clock.
        store_timeout_s: an operation that takes longer ends in StoreUnavailable.
        inline: whether the writer runs operations before it returns.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        path: str,
        url: str,
        cluster: str,
        clock: Clock,
        store_timeout_s: float,
        inline: bool,
    ) -> None:
        self.url = url
        self.shared = path != sqlite_schema.MEMORY
        self._writer = writer
        self._path = path
        self._cluster = cluster
        self._clock = clock
        self._timeout_s = store_timeout_s
        self._inline = inline
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._tick: list[Job] = []
        self._pending: deque[tuple[float, list[Job]]] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._changed: list[asyncio.Event] = []
        self._identity = f"{writer.file[0]}:{writer.file[1]}" if writer.file else url

    def __repr__(self) -> str:
        return f"<SqliteStore {self.url} pending={len(self._pending)} closed={self._closed}>"

    # -- Service

    async def create(self, genesis: Genesis) -> Genesis:
        return await self._write(sqlite_tables.create, genesis)

    async def genesis(self) -> Genesis | None:
        return await self._read(sqlite_tables.read_genesis, self._cluster)

    def batches(self) -> Batches:
        return self._writer.batches

    async def durability(self) -> Durability:
        if not self.shared:
            return Durability(
                level=Level.D0,
                summary="In this process's memory: all is lost when the process ends.",
            )
        warning = local_disk.warning(self._path)
        unsafe = local_disk.unsafe(self._path)
        return Durability(
            level=Level.D2,
            summary="SQLite file, synced at each commit: nothing acknowledged is lost while the "
            "disk keeps what it has synced.",
            unsafe=(unsafe,) if unsafe else (),
            warnings=(warning,) if warning else (),
            facts=sqlite_schema.FACTS,
        )

    async def close(self) -> None:
        if self._closed:
            return
        self._flush()
        self._closed = True
        for event in self._changed:
            event.set()
        await self._writer.close()
        for job in (job for _, jobs in self._pending for job in jobs):
            if not job.future.done():
                job.future.set_exception(sqlite_errors.closed(self.url, applied=None))
        self._pending.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # -- MembershipTable

    async def read_table(self, mark: str) -> TableRead:
        view, heartbeats = await self._read(sqlite_tables.read_table, mark)
        return TableRead(
            view=view, heartbeats=heartbeats, time=self._clock.wall(), identity=self._identity
        )

    async def write_row(
        self, mark: str, row: SiloRow, *, seen: SiloRow | None, version: int
    ) -> int | None:
        written = await self._write(sqlite_tables.write_row, mark, row, seen, version)
        if written is not None:
            for event in self._changed:
                event.set()
        return written

    async def beat(self, mark: str, silo: SiloId) -> Beat:
        # An open file goes on working after it was deleted or replaced: others would then use
        # another one. Looking at the path is what tells.
        file = self._writer.file
        if file is not None and sqlite_schema.file_identity(self._path) != file:
            raise sqlite_errors.moved(self.url)
        status, heartbeat, version = await self._write(sqlite_tables.beat, mark, silo)
        return Beat(
            status=status,
            heartbeat=heartbeat,
            version=version,
            time=self._clock.wall(),
            identity=self._identity,
        )

    async def hints(self) -> AsyncIterator[None]:
        changed = asyncio.Event()
        self._changed.append(changed)
        try:
            if self.url == PRIVATE:
                while not self._closed:
                    await changed.wait()
                    changed.clear()
                    yield
            known = -1
            while not self._closed:
                try:
                    version = await self._read(sqlite_tables.table_version)
                except errors.StoreError:
                    version = known
                if version != known:
                    known = version
                    yield
                await self._clock.sleep(_HINT_S)
        finally:
            self._changed.remove(changed)

    # -- PartitionTable

    async def owners(self, mark: str) -> Sequence[Owner]:
        return await self._read(sqlite_tables.owners, mark)

    async def take(self, mark: str, takes: Sequence[Take]) -> Sequence[Owner]:
        return await self._write(sqlite_tables.take, mark, tuple(takes))

    # -- TurnStore

    def load(
        self, partition: int, token: Token, grain: GrainId, *, raise_version: bool = False
    ) -> asyncio.Future[Record]:
        return self._submit(
            sqlite_tables.load, (partition, token, grain, raise_version), writes=raise_version
        )

    def replies(
        self, partition: int, token: Token, grain: GrainId
    ) -> asyncio.Future[dict[bytes, bytes]]:
        return self._submit(sqlite_tables.replies, (partition, token, grain), writes=False)

    def commit(self, commit: Commit) -> asyncio.Future[Committed]:
        if len(commit.id) != ID_BYTES:
            raise errors.DurumBug(f"a commit's id has {len(commit.id)} bytes, not {ID_BYTES}.")
        function = sqlite_parts.commit if commit.parts or commit.purge else sqlite_tables.commit
        return self._submit(function, (commit,), writes=True)

    def verify(self, partition: int, token: Token) -> asyncio.Future[None]:
        return self._submit(sqlite_tables.verify, (partition, token), writes=False)

    def erase(
        self, partition: int, token: Token, grain: GrainId, version: int, *, keep_s: float
    ) -> asyncio.Future[Committed]:
        now = self._clock.wall()
        args = partition, token, grain, version, (now, now + keep_s)
        return self._submit(sqlite_grains.erase, args, writes=True)

    # -- PartStore

    def load_parts(
        self,
        partition: int,
        token: Token,
        grain: GrainId,
        names: Sequence[bytes],
        *,
        contents: bool = True,
    ) -> asyncio.Future[Mapping[bytes, bytes]]:
        return self._read(sqlite_parts.load, partition, token, grain, names, contents)

    def scan_parts(
        self, partition: int, token: Token, grain: GrainId, prefix: bytes, after: bytes, limit: int
    ) -> asyncio.Future[Sequence[Part]]:
        return self._read(sqlite_parts.scan, partition, token, grain, (prefix, after), limit)

    # -- Queries

    def scan(
        self, partition: int, prefix: str, after: str, limit: int
    ) -> asyncio.Future[Sequence[GrainId]]:
        return self._read(sqlite_grains.scan, partition, prefix, after, limit)

    def count(self, partition: int, prefix: str) -> asyncio.Future[int]:
        return self._read(sqlite_grains.count, partition, prefix)

    # -- the way to the writer

    def _read(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        return self._submit(function, args, writes=False)

    def _write(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        return self._submit(function, args, writes=True)

    def _submit(
        self, function: Callable[..., T], args: tuple[object, ...], *, writes: bool
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self._loop.create_future()
        if self._closed:
            future.set_exception(sqlite_errors.closed(self.url, applied=False))
            return future
        job = Job(future, function, args, writes=writes)
        if self._inline:
            self._writer.put([job])
            return future
        if not self._tick:
            self._loop.call_soon(self._flush)
        self._tick.append(job)
        return future

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
                    job.future.set_exception(sqlite_errors.late(self.url, self._timeout_s))
        if pending:
            self._sweeper = self._loop.call_later(self._timeout_s / _SWEEPS, self._sweep)


async def open_file(
    path: str,
    *,
    cluster: str,
    clock: Clock,
    entropy: Entropy,
    store_timeout_s: float = 1.5,
    threads: bool = True,
) -> SqliteStore:
    """Open a file, which several processes may do at once. Its folder is made where missing.

    Args:
        path: where it is.
        cluster: the service's name.
        clock: see SqliteStore.
        entropy: jitter between processes that wait for the file's lock.
        store_timeout_s: see SqliteStore.
        threads: False runs every operation at once, on the caller's thread.

    Raises:
        ConfigError: it belongs to another program, or to a newer Durum.
        StoreUnavailable: it cannot be opened.
        DataLoss: it is damaged.
    """
    url = f"sqlite:///{path}"
    writer: Writer
    if threads:
        writer = await _thread(path, url, clock, entropy, store_timeout_s)
    else:
        writer = sqlite_writer.InlineWriter(path, url)
    return SqliteStore(
        writer,
        path=path,
        url=url,
        cluster=cluster,
        clock=clock,
        store_timeout_s=store_timeout_s,
        inline=not threads,
    )


async def open_memory(
    name: str = "",
    *,
    cluster: str,
    clock: Clock,
    entropy: Entropy,
    store_timeout_s: float = 1.5,
    threads: bool = True,
) -> SqliteStore:
    """Open a database in memory.

    Args:
        name: all who open the same name in this process share it, until the last one closes it;
            "" is private.
        cluster: the service's name.
        clock: see SqliteStore.
        entropy: see open_file.
        store_timeout_s: see SqliteStore.
        threads: False runs every operation at once, on the caller's thread.
    """
    url = f"memory:{name}"
    writer: Writer | None = sqlite_writer.join_memory(name, threads=threads)
    if writer is None:
        if threads:
            writer = await _thread(sqlite_schema.MEMORY, url, clock, entropy, store_timeout_s)
        else:
            writer = sqlite_writer.InlineWriter(sqlite_schema.MEMORY, url)
        if name:
            writer = await sqlite_writer.share_memory(name, writer, threads=threads)
    return SqliteStore(
        writer,
        path=sqlite_schema.MEMORY,
        url=url,
        cluster=cluster,
        clock=clock,
        store_timeout_s=store_timeout_s,
        inline=not threads,
    )


async def _thread(
    path: str, url: str, clock: Clock, entropy: Entropy, store_timeout_s: float
) -> Writer:
    writer = sqlite_writer.ThreadWriter(
        path, url, clock=clock, entropy=entropy, store_timeout_s=store_timeout_s
    )
    await writer.open()
    return writer
