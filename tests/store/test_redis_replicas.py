"""Writes that count only once a replica has them: what is waited for, and what is said when none comes."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from durum import errors
from durum.clock import SystemClock
from durum.ids import GrainId, SystemEntropy, Token, hosted_token
from durum.silo.silo import Silo
from durum.store.host_table import Host
from durum.store.protocol import Level, Store, Take
from durum.store.urls import open_store
from tests.support.commands import durum
from tests.support.grains import Counter
from tests.support.sentinels import eventually, replication
from tests.support.servers import PRODUCTS, Server, binary_of
from tests.support.services import ALICE, BOB, SILO, Service, commit, row

SYNCED = ("--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0")
TIMEOUT_S = 0.5


class Pair:
    """A primary and its replica."""

    def __init__(self, product: str) -> None:
        self.primary = Server(product, SYNCED, tcp=True).start()
        of = ("--replicaof", "127.0.0.1", str(self.primary.port))
        self.replica = Server(product, (*SYNCED, *of), tcp=True).start()
        eventually(lambda: replication(self.replica)["master_link_status"] == "up", "replication")
        eventually(lambda: b"state=online" in self.primary.ask("INFO", "replication"), "its state")

    @property
    def url(self) -> str:
        """The primary's, with a wait for the replica."""
        return f"{self.primary.url}?wait=1"

    def remove(self) -> None:
        """End both."""
        self.replica.remove()
        self.primary.remove()


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A primary and its replica, for one test; of the product that it names."""
    product = getattr(request, "param", PRODUCTS[binary_of("redis") is not None])
    if binary_of(product) is None:
        pytest.skip(f"{product} is not installed here")
    made = Pair(product)
    yield made
    made.remove()


both = pytest.mark.parametrize("pair", PRODUCTS, indirect=True)


async def open_url(url: str, **more: Any) -> Store:
    """Open with a short limit."""
    return await open_store(
        url,
        cluster="shop",
        clock=SystemClock(),
        entropy=SystemEntropy(),
        store_timeout_s=TIMEOUT_S,
        **more,
    )


@pytest.fixture
async def service(pair: Pair) -> AsyncIterator[Service]:
    """A service whose writes wait for the replica."""
    store = await open_url(pair.url)
    try:
        async with asyncio.timeout(10):
            made = await until(lambda: Service.create(store))
        yield made
    finally:
        await store.close()


async def until(operation: Callable[[], Any]) -> Any:
    """Ask again until it works: a replica may need a moment for its first confirmation."""
    while True:
        try:
            return await operation()
        except errors.StoreUnavailable:
            await asyncio.sleep(0.02)


async def test_level_follows_from_what_is_waited_for(pair: Pair, service: Service) -> None:
    """A replica that nobody waits for may lack anything; one that is away keeps nothing."""
    waiting = await service.store.durability()
    assert waiting.level is Level.D3
    assert (waiting.unsafe, waiting.warnings) == ((), ())
    assert waiting.facts["replicas"].startswith("1 connected, 1 waited for")
    for url, replicas, level in (
        (pair.primary.url, 0, Level.D2),
        (pair.primary.url, 1, Level.D3),
        (f"{pair.primary.url}?wait=0", 1, Level.D2),
        (f"{pair.primary.url}?wait=2", 0, Level.D2),
    ):
        store = await open_url(url, replicas=replicas)
        assert (await store.durability()).level is level
        await store.close()
    pair.replica.kill()
    eventually(lambda: b"connected_slaves:0" in pair.primary.ask("INFO", "replication"), "its loss")
    alone = await service.store.durability()
    assert alone.level is Level.D2
    assert "Bring replicas back" in alone.warnings[0]


@both
async def test_acknowledged_write_is_on_the_replica(pair: Pair, service: Service) -> None:
    """That is all that D3 is."""
    token = await service.hold()
    for n in range(50):
        state = b"state %d" % n
        await service.store.commit(commit(token, version=n, state=state))
        assert state in pair.replica.ask("HGET", "durum:{shop:0}:g:Account/alice", "d")


async def test_write_without_a_replica_is_unknown_and_counts_once_it_is_back(
    pair: Pair, service: Service
) -> None:
    """The primary has it; whether it is kept, nobody can say yet. Reads go on."""
    token = await service.hold()
    await service.store.write_row(service.mark, row(), seen=None, version=0)
    await service.store.commit(commit(token))
    pair.replica.stop()
    turn = commit(token, version=1, state=b"two")
    for operation in (
        lambda: service.store.commit(turn),
        lambda: service.store.beat(service.mark, SILO),
    ):
        with pytest.raises(errors.StoreUnavailable, match="0 replicas") as caught:
            await operation()
        assert caught.value.applied is None
    assert (await service.store.load(0, token, ALICE)).state == b"two"
    await what_is_read_is_what_was_confirmed(pair, service)
    pair.replica.cont()
    assert (await service.store.commit(turn)).version == 2
    assert (await service.store.owners(service.mark))[0].commits == 2


async def what_is_read_is_what_was_confirmed(pair: Pair, service: Service) -> None:
    """Silos compare readings of the table: what nobody was told may be lost, and must not count as a loss."""
    with pytest.raises(errors.StoreUnavailable, match="0 replicas"):
        await service.store.read_table(service.mark)
    looking = await open_url(pair.url, confirm=False)
    try:
        assert (await looking.read_table(service.mark)).heartbeats == {SILO: 1}
    finally:
        await looking.close()


@both
async def test_repeated_write_is_waited_for_on_a_new_connection_too(
    pair: Pair, service: Service
) -> None:
    """WAIT waits for what its own connection wrote. A repeat must not pass as confirmed by that."""
    token = await service.hold()
    taken = (await service.store.owners(service.mark))[0]
    pair.replica.stop()
    turn = commit(token, state=b"two")
    host = Host(SILO, hosted_token(Token(b"h" * 16), BOB))
    for operation in (
        service.store.commit(turn),
        service.store.place(0, token, BOB, seen=None, host=host),
    ):
        with pytest.raises(errors.StoreUnavailable):
            await operation
    other = await open_url(pair.url)
    try:
        with pytest.raises(errors.StoreUnavailable, match="0 replicas"):
            await other.commit(turn)
        with pytest.raises(errors.StoreUnavailable, match="0 replicas"):
            await other.erase(0, token, ALICE, 1, keep_s=9)
        with pytest.raises(errors.StoreUnavailable, match="0 replicas"):
            await other.take(service.mark, [take_again(taken)])
        with pytest.raises(errors.StoreUnavailable, match="0 replicas"):
            await other.place(0, token, BOB, seen=None, host=host)
        # What only reads waits for nobody, whoever asks.
        assert await other.find_host(0, BOB) == host
        assert (await other.load(0, host.token, BOB)).version == 0
        assert await other.posted(0, token, 0, 9) == []
    finally:
        await other.close()
        pair.replica.cont()


def take_again(owner: Any) -> Any:
    """The take that made an owner record what it is."""
    return Take(
        partition=owner.partition, seen=Token(b"x" * 16), token=owner.token, silo=owner.silo
    )


async def test_writes_of_one_tick_share_a_wait(pair: Pair, service: Service) -> None:
    """Otherwise each would cost a journey of its own; also after the server has forgotten its scripts."""
    token = await service.hold()
    for n in range(3):
        before = waits(pair.primary)
        await asyncio.gather(
            *(service.store.commit(commit(token, grain=GrainId(f"K/{n}.{i}"))) for i in range(100))
        )
        # Refusals of scripts may come in several packets, and what they refused is sent for each.
        assert 1 <= waits(pair.primary) - before <= (10 if n else 1)
        assert len(await service.store.scan(0, "K/", "", 1000)) == 100 * (n + 1)
        pair.primary.ask("SCRIPT", "FLUSH")


def waits(server: Server) -> int:
    """How often WAIT was asked for."""
    answer = server.ask("INFO", "commandstats").decode()
    line = next((one for one in answer.splitlines() if one.startswith("cmdstat_wait:")), "calls=0,")
    return int(line.partition("calls=")[2].partition(",")[0])


async def test_lost_connection_leaves_waiting_writes_unknown(pair: Pair, service: Service) -> None:
    """No caller waits for ever, and none is told that it was kept."""
    token = await service.hold()
    pair.replica.stop()
    writes = [service.store.commit(commit(token, grain=GrainId(f"K/{i}"))) for i in range(10)]
    await asyncio.sleep(0.05)
    pair.primary.kill()
    for answer in await asyncio.gather(*writes, return_exceptions=True):
        assert isinstance(answer, errors.StoreUnavailable)
        assert answer.applied is None
    pair.replica.cont()


async def test_silo_waits_for_replicas_when_they_are_required(pair: Pair) -> None:
    """Whoever demands D3 gets it by this alone, or no silo."""
    store = await open_url(pair.url)
    await until(lambda: Service.create(store))
    await store.close()
    silo = Silo(kinds=[Counter], store=pair.primary.url, cluster="shop", require_durability="D3")
    async with silo:
        assert silo.durability.level is Level.D3
        before = waits(pair.primary)
        async with silo.connect() as cluster:
            await cluster.actor(Counter, "one").add(1)
        assert waits(pair.primary) > before
    pair.replica.kill()
    eventually(lambda: b"connected_slaves:0" in pair.primary.ask("INFO", "replication"), "its loss")
    silo = Silo(kinds=[Counter], store=pair.primary.url, cluster="shop", require_durability="d3")
    with pytest.raises(errors.ConfigError, match=r"D2, D3 is required.*Bring replicas back"):
        await silo.start()


def test_command_refuses_a_store_below_the_level_required(
    tmp_path: pathlib.Path, fresh_server: Callable[..., Server]
) -> None:
    """With the exit code that tells a supervisor that a person must act."""
    server = fresh_server("valkey", "--appendonly", "yes", "--appendfsync", "everysec")
    (tmp_path / "app.py").write_text("import durum\n\nclass A(durum.Actor):\n    x: int = 0\n")
    words = ("silo", "app.py", "--store", server.url, "--require-durability")
    ended = durum(tmp_path, *words, "d2")
    assert ended.code == 78
    assert "D1, D2 is required" in ended.err
