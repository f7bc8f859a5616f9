"""The embedded store: the store's Protocols on one SQLite file, or in memory.

Owns which function does what is asked, and hints; SQL is in sqlite_tables and its neighbours.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from durum import errors
from durum.clock import Clock
from durum.ids import Entropy, GrainId, SiloId, Token
from durum.store import (
    local_disk,
    sqlite_effects,
    sqlite_errors,
    sqlite_fence,
    sqlite_grains,
    sqlite_hosts,
    sqlite_parts,
    sqlite_schema,
    sqlite_tables,
    sqlite_writer,
)
from durum.store.batches import Batches
from durum.store.effects import Posted, WakeUp, check_wake
from durum.store.host_table import Host, check_place
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
from durum.store.sqlite_way import SqliteWay
from durum.store.sqlite_writer import Writer
from durum.views import SiloRow

_HINT_S: Final = 0.1
PRIVATE: Final = "memory:"


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
        self._way = SqliteWay(
            writer, url, clock=clock, store_timeout_s=store_timeout_s, inline=inline
        )
        self._read = self._way.read
        self._write = self._way.write
        self._submit = self._way.submit
        self._changed: list[asyncio.Event] = []
        self._identity = f"{writer.file[0]}:{writer.file[1]}" if writer.file else url

    def __repr__(self) -> str:
        return f"<SqliteStore {self._way!r}>"

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
        if not self._way.closed:
            for event in self._changed:
                event.set()  # they run once it is closed
            await self._way.close()

    # -- MembershipTable

    async def read_table(self, mark: str) -> TableRead:
        view, heartbeats, loads = await self._read(sqlite_tables.read_table, mark)
        return TableRead(
            view=view,
            heartbeats=heartbeats,
            loads=loads,
            time=self._clock.wall(),
            identity=self._identity,
        )

    async def write_row(
        self, mark: str, row: SiloRow, *, seen: SiloRow | None, version: int
    ) -> int | None:
        written = await self._write(sqlite_tables.write_row, mark, row, seen, version)
        if written is not None:
            for event in self._changed:
                event.set()
        return written

    async def beat(self, mark: str, silo: SiloId, load: int = 0) -> Beat:
        # An open file goes on working after it was deleted or replaced: others would then use
        # another one. Looking at the path is what tells.
        file = self._writer.file
        if file is not None and sqlite_schema.file_identity(self._path) != file:
            raise sqlite_errors.moved(self.url)
        status, heartbeat, version = await self._write(sqlite_tables.beat, mark, silo, load)
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
                while not self._way.closed:
                    await changed.wait()
                    changed.clear()
                    yield
            known = -1
            while not self._way.closed:
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
        return await self._write(sqlite_effects.take, mark, tuple(takes))

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
        return self._read(sqlite_tables.replies, partition, token, grain)

    def commit(self, commit: Commit) -> asyncio.Future[Committed]:
        if len(commit.id) != ID_BYTES:
            raise errors.DurumBug(f"a commit's id has {len(commit.id)} bytes, not {ID_BYTES}.")
        if commit.send or commit.wake or commit.park:
            check_wake(commit.wake)
            return self._write(sqlite_effects.commit, commit)
        function = sqlite_parts.commit if commit.parts or commit.purge else sqlite_tables.commit
        return self._submit(function, (commit,), writes=True)

    def verify(self, partition: int, token: Token) -> asyncio.Future[None]:
        return self._read(sqlite_fence.verify, partition, token)

    def erase(
        self, partition: int, token: Token, grain: GrainId, version: int, *, keep_s: float
    ) -> asyncio.Future[Committed]:
        now = self._clock.wall()
        times = now, now + keep_s
        return self._write(sqlite_grains.erase, partition, token, grain, version, times)

    # -- HostTable

    def find_host(self, partition: int, grain: GrainId) -> asyncio.Future[Host | None]:
        return self._read(sqlite_fence.find_host, partition, grain)

    def place(
        self,
        partition: int,
        token: Token,
        grain: GrainId,
        *,
        seen: Token | None,
        host: Host | None,
    ) -> asyncio.Future[Host | None]:
        check_place(grain, seen, host)
        return self._write(sqlite_hosts.place, partition, token, grain, seen, host)

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

    # -- EffectStore

    def posted(
        self, partition: int, token: Token, after: int, limit: int
    ) -> asyncio.Future[Sequence[Posted]]:
        return self._read(sqlite_effects.posted, partition, token, after, limit)

    def acknowledge(
        self, partition: int, token: Token, numbers: Sequence[int]
    ) -> asyncio.Future[None]:
        return self._write(sqlite_effects.acknowledge, partition, token, numbers)

    def due(
        self,
        partition: int,
        token: Token,
        until_ms: int,
        limit: int,
        after: tuple[int, GrainId, bytes] | None = None,
    ) -> asyncio.Future[Sequence[WakeUp]]:
        return self._read(sqlite_effects.due, partition, token, until_ms, limit, after)

    def letters(self, partition: int, after: bytes, limit: int) -> asyncio.Future[Sequence[Part]]:
        return self._read(sqlite_effects.letters, partition, after, limit)

    def count_letters(self, partition: int) -> asyncio.Future[int]:
        return self._read(sqlite_effects.count_letters, partition)

    # -- Queries

    def scan(
        self, partition: int, prefix: str, after: str, limit: int
    ) -> asyncio.Future[Sequence[GrainId]]:
        return self._read(sqlite_grains.scan, partition, prefix, after, limit)

    def count(self, partition: int, prefix: str) -> asyncio.Future[int]:
        return self._read(sqlite_grains.count, partition, prefix)


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
