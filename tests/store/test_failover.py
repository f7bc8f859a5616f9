"""Silos over a store whose servers are replaced: they go on with everything they confirmed, or they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from durum import errors
from durum.client.client import Cluster
from durum.errors import DidRun
from durum.silo.silo import Silo
from tests.support.clusters import Clustered, slot_of
from tests.support.grains import Counter
from tests.support.sentinels import Sentineled
from tests.support.servers import PRODUCTS, Server, binary_of

SYNCED = ("--appendonly", "yes", "--appendfsync", "always")
PATIENCE_S = 30.0
KEYS = 12


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Start servers that belong together."""
    started: list[Any] = []

    def begin(make: Callable[..., Any], *settings: str, **more: Any) -> Any:
        product = PRODUCTS[binary_of("redis") is not None]
        if binary_of(product) is None:
            pytest.skip("no Redis or Valkey here")
        started.append(make(product, settings, **more))
        return started[-1]

    yield begin
    for one in started:
        one.remove()


class Load:
    """Callers that add to counters, each its own, and remember what they were told."""

    def __init__(self, cluster: Cluster, silo: Silo) -> None:
        self._cluster = cluster
        self._silo = silo
        self._store = self.trusted
        self.confirmed = [0] * KEYS
        self.unknown = [0] * KEYS
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def trusted(self) -> str:
        """Who answers as the store, as the silo has last made sure of."""
        return self._silo.life.membership._identity

    async def looked_again(self, ended: asyncio.Task[None]) -> None:
        """Wait until the silo has noticed another store and looked at all it holds, or has ended."""
        async with asyncio.timeout(PATIENCE_S):
            while self.trusted == self._store and not ended.done():
                await asyncio.sleep(0.01)

    @property
    def count(self) -> int:
        """How many calls were answered."""
        return sum(self.confirmed)

    def start(self) -> None:
        """Begin to call."""
        self._tasks = [asyncio.create_task(self._call(n)) for n in range(KEYS)]

    async def more(self, calls: int, ended: asyncio.Task[None]) -> None:
        """Wait until so many more were answered, or the silo has ended."""
        aim = self.count + calls
        async with asyncio.timeout(PATIENCE_S):
            while self.count < aim and not ended.done():
                await asyncio.sleep(0.01)

    async def everywhere(self, ended: asyncio.Task[None]) -> None:
        """Wait until each caller was answered some more, or the silo has ended."""
        aim = [one + 5 for one in self.confirmed]
        async with asyncio.timeout(PATIENCE_S):
            while any(map(int.__lt__, self.confirmed, aim)) and not ended.done():
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Call no more. What is under way is finished, or given up with an unknown outcome."""
        self._stopping = True
        await asyncio.wait(self._tasks, timeout=2)
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def wrong(self) -> list[str]:
        """Counters that do not have what was confirmed, in words."""
        found = []
        for n in range(KEYS):
            value = await self._cluster.actor(Counter, f"k{n}").get()
            if not self.confirmed[n] <= value <= self.confirmed[n] + self.unknown[n]:
                found.append(f"k{n}: {value}, {self.confirmed[n]} and {self.unknown[n]} unknown")
        return found

    async def _call(self, n: int) -> None:
        counter = self._cluster.actor(Counter, f"k{n}")
        while not self._stopping:
            try:
                await counter.add(1)
            except errors.CallError as exc:
                if exc.did_run not in (DidRun.NO, DidRun.ROLLED_BACK):
                    self.unknown[n] += 1
                await asyncio.sleep(0.02)
            except errors.ClusterError:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                self.unknown[n] += 1
                raise
            else:
                self.confirmed[n] += 1
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[tuple[asyncio.Task[None], Load]]:
    """A silo under load: its end, and the load, which knows the silo."""
    silo = Silo(kinds=[Counter], store=url, cluster="shop", create=True, rejoin=False)
    await silo.start()
    ended = asyncio.create_task(silo.run())
    try:
        async with silo.connect() as cluster:
            load = Load(cluster, silo)
            load.start()
            try:
                await load.more(50, ended)
                yield ended, load
            finally:
                await load.stop()
    finally:
        ended.cancel()
        await asyncio.wait([ended])
        await silo.kill()


async def test_silo_goes_on_after_a_promotion_that_lost_nothing(
    start: Callable[..., Any],
) -> None:
    """Another process answers as the store; the silo looks at all it holds, and finds it there."""
    servers: Sentineled = start(Sentineled, *SYNCED, replicas=2)
    async with serving(f"{servers.url}?wait=1") as (ended, load):
        servers.primary.kill()
        await asyncio.to_thread(servers.wait_promoted, servers.primary)
        await load.looked_again(ended)
        await load.everywhere(ended)
        assert not ended.done()
        await load.stop()
        assert await load.wrong() == []


async def test_silo_ends_after_a_promotion_that_lost_writes(start: Callable[..., Any]) -> None:
    """It has told callers what is not true any more; to build upon the rest is not its decision."""
    servers: Sentineled = start(Sentineled, *SYNCED)
    async with serving(servers.url) as (ended, load):
        servers.cut_replication()
        await load.more(100, ended)
        servers.primary.kill()
        await asyncio.to_thread(servers.wait_promoted, servers.primary)
        confirmed = load.count
        with pytest.raises(errors.DataLoss):
            await asyncio.wait_for(asyncio.shield(ended), PATIENCE_S)
        assert load.count - confirmed <= KEYS  # answers that were on their way


async def test_silo_ends_when_the_store_comes_back_without_its_last_writes(
    start: Callable[..., Any],
) -> None:
    """The end of an append-only file may be cut by a power cut; the server loads the rest with a line in
    its log and goes on."""
    server: Server = start(Server, "--appendonly", "yes", "--appendfsync", "everysec", tcp=True)
    server.start()
    async with serving(server.url) as (ended, load):
        server.kill()
        (file,) = (server.folder / "appendonlydir").glob("*.incr.aof")
        with file.open("r+b") as writable:
            writable.truncate(file.stat().st_size * 9 // 10)
        server.start()
        with pytest.raises(errors.DataLoss):
            await asyncio.wait_for(asyncio.shield(ended), PATIENCE_S)
        assert load.count >= 50


async def test_silo_over_a_cluster_goes_on_or_ends_when_a_master_is_replaced(
    start: Callable[..., Any],
) -> None:
    """The master without the membership table: no renewal notices that it is another one."""
    servers: Clustered = start(Clustered, *SYNCED, replicas=True)
    async with serving(servers.url) as (ended, load):
        members = servers.owner(slot_of("shop"))
        dead = next(one for one in servers.masters if one is not members)
        slot = next(
            slot
            for slot in map(slot_of, (f"shop:{n}" for n in range(99)))
            if servers.owner(slot) is dead
        )
        dead.kill()
        await asyncio.to_thread(servers.wait_taken_over, slot, dead)
        await load.looked_again(ended)
        await load.everywhere(ended)
        await load.stop()
        print("ended", ended.done(), load.confirmed, load.unknown)
        if ended.done():
            with pytest.raises(errors.DataLoss):
                await ended
        else:
            assert await load.wrong() == []


async def test_silo_ends_when_a_master_comes_back_empty(start: Callable[..., Any]) -> None:
    """The others' partitions are fine, and still this is an outage for a person to look at."""
    servers: Clustered = start(Clustered)
    silo = Silo(kinds=[Counter], store=servers.url, cluster="shop", create=True)
    with pytest.raises(errors.ConfigError, match="Set appendonly yes"):
        await silo.start()
    for one in servers.masters:
        one.ask("CONFIG", "SET", "appendonly", "yes")  # and what it has is deleted below
    async with serving(servers.url) as (ended, _):
        members = servers.owner(slot_of("shop"))
        gone = next(one for one in servers.masters if one is not members)
        gone.kill()
        for file in (gone.folder / "appendonlydir").iterdir():
            file.unlink()
        gone.start()
        with pytest.raises(errors.DataLoss):
            await asyncio.wait_for(asyncio.shield(ended), PATIENCE_S)
