"""Sentinel: the primary is found, followed when it changes, and what a promotion lost is not hidden."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from durum import errors
from durum.clock import SystemClock
from durum.ids import SystemEntropy
from durum.store import redis_url
from durum.store.protocol import Level, Store
from durum.store.redis_pipe import Endpoint, Pipe
from durum.store.redis_sentinel import Sentinels
from durum.store.urls import open_store
from tests.support.sentinels import NAME, Sentineled
from tests.support.servers import PRODUCTS, binary_of, free_port
from tests.support.services import SILO, Service, row
from tests.support.writers import Writers

SYNCED = ("--appendonly", "yes", "--appendfsync", "always")
TIMEOUT_S = 1.0
ATTEMPTS = 5
Open = Callable[[str], Any]


@pytest.fixture
def servers_of(request: pytest.FixtureRequest) -> Iterator[Callable[..., Sentineled]]:
    """Start a primary, replicas and sentinels of this test's own."""
    started: list[Sentineled] = []

    def start(product: str = "", **more: Any) -> Sentineled:
        product = product or PRODUCTS[binary_of("redis") is not None]
        if binary_of(product) is None:
            pytest.skip(f"{product} is not installed here")
        started.append(Sentineled(product, SYNCED, **more))
        return started[-1]

    yield start
    for one in started:
        one.remove()


@pytest.fixture
async def open_it() -> AsyncIterator[Open]:
    """Open stores that are closed after the test."""
    opened: list[Store] = []

    async def open_one(url: str) -> Store:
        # Servers that have just started may be slower than the limit that the tests go on with. A silo
        # would be started again, so this is.
        for left in reversed(range(ATTEMPTS)):
            try:
                store = await open_store(
                    url,
                    cluster="shop",
                    clock=SystemClock(),
                    entropy=SystemEntropy(),
                    store_timeout_s=TIMEOUT_S,
                )
            except errors.StoreUnavailable:
                if not left:
                    raise
            else:
                opened.append(store)
                return store
        raise AssertionError("it was opened, or that failed")

    yield open_one
    for store in opened:
        await store.close()


async def writers_on(store: Store, partitions: int = 4) -> tuple[Service, Writers]:
    """A service, and writers on all of its partitions."""
    service = await Service.create(store, partitions)
    await store.write_row(service.mark, row(), seen=None, version=0)
    return service, Writers(service, {n: await service.hold(n) for n in range(partitions)})


async def test_killed_primary_is_replaced_under_load_and_nothing_confirmed_is_lost(
    servers_of: Callable[..., Sentineled], open_it: Open
) -> None:
    """With wait=1 that is what D3 promises; unknown outcomes are repeated and count once."""
    # One is promoted, and then the other one confirms.
    servers = servers_of(PRODUCTS[binary_of("valkey") is None], replicas=2)
    store = await open_it(f"{servers.url}?wait=1")
    service, writers = await writers_on(store)
    assert (await store.durability()).level is Level.D3
    before = await store.beat(service.mark, SILO)
    writers.start()
    await writers.more(200)
    servers.primary.kill()
    await asyncio.to_thread(servers.wait_promoted, servers.primary)
    await writers.more(200)
    await writers.stop()
    assert await writers.lost() == []
    assert writers.regressed == []
    assert set(writers.trouble) <= {"applied=None", "applied=False"}
    print("no commit for", writers.gap_s)
    after = await until(lambda: store.beat(service.mark, SILO))
    assert after.identity != before.identity
    assert after.heartbeat > before.heartbeat


async def test_promotion_under_load_without_a_wait_loses_nothing_unnoticed(
    servers_of: Callable[..., Sentineled], open_it: Open
) -> None:
    """What is lost shows in the commit counters; what is not goes on within seconds."""
    servers = servers_of(replicas=2)
    store = await open_it(servers.url)
    _, writers = await writers_on(store)
    assert (await store.durability()).level is Level.D1
    await asyncio.to_thread(servers.wait_replicated)
    writers.start()
    await writers.more(200)
    await asyncio.to_thread(servers.promote)
    await moved_to(servers.now().port, store)
    await writers.more(200)
    await writers.stop()
    lost = await writers.lost()
    print("gap", writers.gap_s, "trouble", writers.trouble, "lost", lost)
    assert not lost or writers.regressed or writers.trouble["Superseded"]


async def test_promotion_of_a_replica_that_lacks_writes_shows(
    servers_of: Callable[..., Sentineled], open_it: Open
) -> None:
    """Whoever kept the counter of commits sees that it went back: silos call it DataLoss."""
    servers = servers_of()
    store = await open_it(servers.url)
    service, writers = await writers_on(store, partitions=1)
    await asyncio.to_thread(servers.wait_replicated)
    writers.start()
    await writers.more(50)
    servers.cut_replication()
    await writers.more(50)
    await writers.stop()
    before = await store.read_table(service.mark)
    confirmed = writers.counters[0]
    servers.primary.kill()
    await asyncio.to_thread(servers.wait_promoted, servers.primary)
    (owner,) = await until(lambda: store.owners(service.mark))
    assert owner.commits < confirmed
    assert await writers.lost() != []
    assert (await store.read_table(service.mark)).identity != before.identity


async def test_primary_that_slept_through_its_replacement_is_left(
    servers_of: Callable[..., Sentineled], open_it: Open
) -> None:
    """It wakes up, believes itself the primary and takes writes that nobody will keep."""
    servers = servers_of()
    store = await open_it(servers.url)
    _, writers = await writers_on(store)
    await asyncio.to_thread(servers.wait_replicated)
    writers.start()
    await writers.more(50)
    servers.primary.stop()
    await asyncio.to_thread(servers.wait_promoted, servers.primary)
    servers.primary.cont()
    await moved_to(servers.servers[1].port, store)
    await writers.more(50)
    await writers.stop()
    lost = await writers.lost()
    assert not lost or writers.regressed or writers.trouble["Superseded"]


async def test_pipe_leaves_a_primary_that_the_sentinels_name_no_more(
    servers_of: Callable[..., Sentineled], monkeypatch: pytest.MonkeyPatch, open_it: Open
) -> None:
    """Cut off from the sentinels alone, it would go on serving us for ever."""
    servers = servers_of()
    store = await open_it(servers.url)
    other = servers.servers[1]
    other.ask("REPLICAOF", "NO", "ONE")

    async def name_the_other(self: Sentinels) -> tuple[str, int]:
        return "127.0.0.1", other.port

    monkeypatch.setattr(Sentinels, "_primary", name_the_other)
    await moved_to(other.port, store)
    await store.genesis()


async def moved_to(port: int, store: Any) -> None:
    """Wait until all connections are to that server."""
    pipes = store._pipe, store._beats
    async with asyncio.timeout(10):
        while any(pipe.target[1] != port or not pipe.connected for pipe in pipes):
            await asyncio.sleep(0.02)


async def test_latest_promotion_is_believed_and_not_the_first_answer() -> None:
    """A sentinel that is cut off names the old primary for as long as it is."""
    place = redis_url.parse(f"redis+sentinel://a,b,c,d/{NAME}")
    sentinels = Sentinels(place, clock=SystemClock(), store_timeout_s=1.0)
    answers = {
        "a:26379": {"ip": "10.0.0.1", "port": 1, "config-epoch": 3},
        "b:26379": {"ip": "10.0.0.2", "port": 2, "config-epoch": 12},
        "c:26379": {"ip": "10.0.0.1", "port": 1, "config-epoch": 3},
    }

    async def ask(address: str) -> dict[str, Any] | Exception:
        return answers.get(address) or ConnectionRefusedError()

    sentinels._ask = ask  # type: ignore[method-assign]
    await sentinels._tasks.open()
    assert await sentinels._primary() == ("10.0.0.2", 2)
    answers.clear()
    with pytest.raises(errors.StoreUnavailable) as caught:
        await sentinels._primary()
    assert caught.value.applied is False
    await sentinels.close()


async def test_replica_that_the_sentinels_name_is_not_believed(
    lasting: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a promotion's order and its end they may name one that is no primary yet."""
    servers: Sentineled = lasting("valkey-sentinel")
    place = redis_url.parse(servers.url)
    guide = Sentinels(place, clock=SystemClock(), store_timeout_s=1.0)

    async def name_the_replica() -> tuple[str, int]:
        return "127.0.0.1", servers.servers[1].port

    monkeypatch.setattr(guide, "_primary", name_the_replica)
    pipe = Pipe(
        Endpoint(url=place.url),
        (),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        store_timeout_s=1.0,
        guide=guide,
    )
    with pytest.raises(errors.StoreUnavailable, match="no primary"):
        await pipe.open()
    await pipe.close()
    await guide.close()


async def test_wrong_name_and_missing_sentinels_are_told_apart(
    lasting: Callable[[str], Any], open_it: Open
) -> None:
    """One is a setting to correct, the other an outage to wait out."""
    servers: Sentineled = lasting("valkey-sentinel")
    with pytest.raises(errors.ConfigError, match="no sentinel knows 'other'"):
        await open_it(servers.url.replace(f"/{NAME}", "/other"))
    with pytest.raises(errors.StoreUnavailable):
        await open_it(f"redis+sentinel://127.0.0.1:{free_port()}/{NAME}")


async def test_one_sentinel_is_enough_and_it_may_ask_for_a_user_of_its_own(
    servers_of: Callable[..., Sentineled], open_it: Open
) -> None:
    """That one is not the servers', and has but these rights."""
    servers = servers_of()
    left = servers.sentinels[0]
    for sentinel in servers.sentinels[1:]:
        sentinel.kill()
    left.ask(
        *("ACL", "SETUSER", "durum", "on", ">hunter2"),
        *("+sentinel|master", "+subscribe", "resetchannels", "&+switch-master"),
    )
    left.ask("ACL", "SETUSER", "default", "off")
    alone = f"redis+sentinel://127.0.0.1:{left.port}/{NAME}"
    query = "?sentinel_username=durum&sentinel_password="
    for url in (alone, f"{alone}{query}hunter3"):
        with pytest.raises(errors.ConfigError) as caught:
            await open_it(url)
        assert "hunter" not in str(caught.value)
    store = await open_it(f"{servers.url}{query}hunter2")
    await store.genesis()
    assert "hunter" not in repr(store) + store.url + repr(store._guide)


async def until(operation: Callable[[], Any]) -> Any:
    """Ask again until the store is back; each asking is a real operation, so this is no sleep."""
    async with asyncio.timeout(15):
        while True:
            try:
                return await operation()
            except errors.StoreUnavailable:
                await asyncio.sleep(0.02)
