"""Several silos of one service, each a process of its own, for tests that end, stop and cut them off.

Owns the processes and what can be seen of the service from outside; which faults fall, tests decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sqlite3
import threading
from collections import Counter as Tally
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import durum
from durum.cli import init
from durum.client.client import Cluster
from durum.clock import SystemClock
from durum.grains.actor import Actor
from durum.grains.kind import kind_of
from durum.grains.reference import Target
from durum.ids import Address, SiloId, SystemEntropy, split_address
from durum.store.protocol import Store, TableRead
from durum.store.urls import open_store
from durum.views import Status, View
from durum.wire import links
from durum.wire.connection import Connection
from durum.wire.network import TcpNetwork
from tests.support import commands, wire
from tests.support.commands import Running

APP: Final = "tests.support.grains"
PATIENCE_S: Final = 40.0
"""How long anything may take that has to come: far longer than it does, so that only its absence fails."""

T = TypeVar("T")
A = TypeVar("A", bound=Actor)


async def until(holds: Callable[[], Awaitable[T]], what: str = "it") -> T:
    """Ask again until the answer is true, and give it; fail where it never is."""
    async with asyncio.timeout(PATIENCE_S) as limit:
        while not (answer := await holds()):
            await asyncio.sleep(0.03)
            if limit.expired():
                break
        return answer
    raise AssertionError(f"{what} did not come about")


async def appears(path: Path) -> None:
    """Wait for a file that an actor makes."""

    async def exists() -> bool:
        return path.exists()

    await until(exists, f"the file {path.name}")


class Fleet:
    """Silo processes of one service.

    Args:
        home: where they run, and log.
        store: a URL.
        cluster: the service's name.
    """

    def __init__(self, home: Path, store: str, cluster: str = "default") -> None:
        self.home = home
        self.store = store
        self.cluster = cluster
        self.silos: list[Running] = []
        self._stack = contextlib.ExitStack()

    async def create(self) -> None:
        """Create the service's data."""
        await init.create(self.store, cluster=self.cluster)

    def begin(
        self,
        *words: str,
        app: str = APP,
        env: Mapping[str, str] | None = None,
        inside: Sequence[str] = (),
    ) -> Running:
        """Start one silo and wait until it serves."""
        where = ("--store", self.store, "--cluster", self.cluster)
        command = ("silo", app, *where, "--stop-with-parent", *words)
        serving = commands.serving(self.home, *command, env=env, inside=inside)
        silo = self._stack.enter_context(serving)
        self.silos.append(silo)
        return silo

    async def start(
        self,
        count: int = 1,
        *words: str,
        app: str = APP,
        env: Mapping[str, str] | None = None,
        inside: Sequence[str] = (),
    ) -> list[Running]:
        """Start silos at the same time."""

        def one() -> Running:
            return self.begin(*words, app=app, env=env, inside=inside)

        return list(await asyncio.gather(*(asyncio.to_thread(one) for _ in range(count))))

    async def started(self, count: int) -> list[Running]:
        """Create the service, start silos, and wait until they share all partitions."""
        await self.create()
        silos = await self.start(count)
        await self.shared(count)
        return silos

    async def refused(
        self, *words: str, app: str = APP, env: Mapping[str, str] | None = None
    ) -> Any:
        """Start a silo that should not come to serve; return how it ended."""
        where = ("--store", self.store, "--cluster", self.cluster)
        command = ("silo", app, *where, "--stop-with-parent", *words)
        return await asyncio.to_thread(commands.durum, self.home, *command, env=env)

    # Its faults ---------------------------------------------------------------------------------------

    async def kill(self, silo: Running) -> None:
        """End one as a power cut would; return when the process is gone."""
        silo.process.kill()
        await self.ended(silo)

    async def stop(self, silo: Running) -> None:
        """SIGSTOP: it keeps its connections and does nothing.

        Not within a write to an SQLite file: it would keep the file's lock, and all others would have to
        wait until it goes on or is killed. That is a property of SQLite, not what these tests are about.
        """
        silo.process.send_signal(signal.SIGSTOP)
        while not await asyncio.to_thread(_is_writable, self.store):
            self.cont(silo)
            await asyncio.sleep(0.05)
            silo.process.send_signal(signal.SIGSTOP)

    def cont(self, silo: Running) -> None:
        """SIGCONT."""
        silo.process.send_signal(signal.SIGCONT)

    @contextlib.asynccontextmanager
    async def slowed(self, silo: Running, share: float = 0.1) -> AsyncIterator[None]:
        """Let a silo have that share of its time only, in slices of 100 ms, while the block runs.

        From a thread: a busy test must not make the silo slower still. Not on SQLite: see `stop`.
        """
        over = threading.Event()

        def slice_time() -> None:
            while not over.wait(0.1 * share):
                silo.process.send_signal(signal.SIGSTOP)
                over.wait(0.1 * (1 - share))
                silo.process.send_signal(signal.SIGCONT)

        thread = threading.Thread(target=slice_time, name="slices of time")
        thread.start()
        try:
            yield
        finally:
            over.set()
            await asyncio.to_thread(thread.join)

    def terminate(self, silo: Running) -> None:
        """SIGTERM."""
        silo.process.send_signal(signal.SIGTERM)

    async def ended(self, silo: Running) -> int:
        """Wait for a silo's end; its exit code."""
        code = await asyncio.to_thread(silo.wait)
        if silo in self.silos:
            self.silos.remove(silo)
        return code

    # What can be seen of it ---------------------------------------------------------------------------

    def connect(self, *targets: str, **options: Any) -> Cluster:
        """A client; of all running silos unless told otherwise."""
        addresses = [silo.first_line["address"] for silo in self.silos]
        return durum.connect(targets or addresses, cluster=self.cluster, **options)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        """The store, as an operator may look at it."""
        store = await open_store(
            self.store, cluster=self.cluster, clock=SystemClock(), entropy=SystemEntropy()
        )
        try:
            yield store
        finally:
            await store.close()

    async def table(self) -> TableRead:
        """The membership table."""
        async with self.opened() as store:
            genesis = await store.genesis()
            assert genesis is not None
            return await store.read_table(genesis.mark)

    async def view(self) -> View:
        """The newest view."""
        return (await self.table()).view

    async def status(self, silo: Running) -> Status | None:
        """What the table says of a silo."""
        return (await self.view()).status_of(SiloId(silo.first_line["silo"]))

    async def held(self) -> Tally[SiloId | None]:
        """How many partitions each silo holds, by the store's records."""
        async with self.opened() as store:
            genesis = await store.genesis()
            assert genesis is not None
            return Tally(owner.silo for owner in await store.owners(genesis.mark))

    async def shared(self, count: int) -> None:
        """Wait until so many silos are active and hold all partitions in about equal parts."""

        async def fair() -> bool:
            active = {row.silo for row in (await self.view()).active}
            held = await self.held()
            least = sum(held.values()) / (2 * count)
            return len(active) == count and set(held) == active and min(held.values()) > least

        await until(fair, f"{count} silos with their shares")

    async def nobody_evicted(self) -> None:
        """The same silos as ever are active, and none is dead."""
        view = await self.view()
        assert {row.silo for row in view.active} == {
            SiloId(silo.first_line["silo"]) for silo in self.silos
        }
        assert [row for row in view.rows if row.status is Status.DEAD] == []

    def log(self) -> str:
        """What all silos have logged so far."""
        return "\n".join(path.read_text() for path in sorted(self.home.glob("log-*")))

    def close(self) -> None:
        """End all silos at once."""
        for silo in self.silos:
            silo.process.send_signal(signal.SIGCONT)
        self._stack.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            print(self.log()[-20_000:])  # shown by pytest beside the failure
        self.close()


def _is_writable(store: str) -> bool:
    """Whether nobody holds the write lock of an SQLite file for long. Elsewhere there is none."""
    path = store.removeprefix("sqlite:///")
    if path == store:
        return True
    with contextlib.closing(sqlite3.connect(path, timeout=1.0)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        database.execute("ROLLBACK")
        return True


def owner_of(cluster: Cluster, kind: type[Actor], key: str) -> Address | None:
    """Who should own an actor, by what the client was told last."""
    routes = cluster._routes
    return routes.owner(Target(kind_of(kind), key).hash % len(routes.by_partition))


def keys_at(cluster: Cluster, kind: type[Actor], silo: Running, prefix: str = "k") -> Iterator[str]:
    """Keys of actors that a silo owns, without end."""
    address = silo.first_line["address"]
    for number in itertools.count():
        key = f"{prefix}{number}"
        if owner_of(cluster, kind, key) == address:
            yield key


@contextlib.asynccontextmanager
async def raw_link(
    silo: Running, *secrets: bytes, cluster: str = "default"
) -> AsyncIterator[tuple[Connection, wire.Recorder]]:
    """A client's connection to one silo, without a router: what is sent goes there and nowhere else."""
    recorder = wire.Recorder()
    connection = await links.dial(
        TcpNetwork(),
        Address(silo.first_line["address"]),
        wire.client(*secrets, cluster=cluster),
        recorder,
        durum.Limits(),
    )
    try:
        yield connection, recorder
    finally:
        connection.abort()
        await connection.wait_closed()


@contextlib.asynccontextmanager
async def stranger(
    silo: Running,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare socket to a silo."""
    reader, writer = await asyncio.open_connection(
        *split_address(Address(silo.first_line["address"]))
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
