"""A cluster: slots move, masters die and come back empty, and every commit is still there once, or missed."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from durum import errors
from durum.clock import SystemClock
from durum.ids import GrainId, SystemEntropy
from durum.store import redis_slots
from durum.store.protocol import Genesis, Level, Store
from durum.store.redis_keys import Keys
from durum.store.urls import open_store
from tests.support.clusters import Clustered, slot_of
from tests.support.sentinels import eventually
from tests.support.servers import PRODUCTS, binary_of
from tests.support.services import ALICE, SILO, Service, commit, row
from tests.support.writers import Writers

SYNCED = ("--appendonly", "yes", "--appendfsync", "always")
TIMEOUT_S = 1.0
PATIENT_S = 20.0
"""Where nothing is to run out: a busy machine is no fault."""
PARTITIONS = 24
Open = Callable[..., Any]


@pytest.fixture
def start() -> Iterator[Callable[..., Clustered]]:
    """Start clusters of this test's own."""
    started: list[Clustered] = []

    def begin(product: str = "", *settings: str, replicas: bool = False) -> Clustered:
        product = product or PRODUCTS[binary_of("redis") is not None]
        if binary_of(product) is None:
            pytest.skip(f"{product} is not installed here")
        started.append(Clustered(product, settings, replicas=replicas))
        return started[-1]

    yield begin
    for one in started:
        one.remove()


@pytest.fixture(scope="module")
def breakable() -> Iterator[Clustered]:
    """A cluster with nothing on disk, whose masters tests may kill, and start again."""
    product = PRODUCTS[binary_of("valkey") is None]
    if binary_of(product) is None:
        pytest.skip(f"{product} is not installed here")
    made = Clustered(product)
    yield made
    made.remove()


@pytest.fixture
def lasting_cluster(lasting: Callable[[str], Any]) -> Clustered:
    """The session's: slots move, and nothing else."""
    found = lasting("valkey-cluster")
    assert isinstance(found, Clustered)
    return found


@pytest.fixture
async def open_it() -> AsyncIterator[Open]:
    """Open stores that are closed after the test."""
    opened: list[Store] = []

    async def open_one(url: str, cluster: str = "shop", timeout_s: float = TIMEOUT_S) -> Store:
        opened.append(
            await open_store(
                url,
                cluster=cluster,
                clock=SystemClock(),
                entropy=SystemEntropy(),
                store_timeout_s=timeout_s,
            )
        )
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


async def writers_on(store: Store) -> tuple[Service, Writers]:
    """A service, and writers on all of its partitions, two grains in each."""
    service = await Service.create(store, PARTITIONS)
    return service, Writers(service, {n: await service.hold(n) for n in range(PARTITIONS)}, 2)


def partition_slot(partition: int, cluster: str = "shop") -> int:
    """The slot of a partition, as the servers reckon it."""
    return slot_of(f"{cluster}:{partition}")


async def until(operation: Callable[[], Any]) -> Any:
    """Ask again until the store is back; each asking is a real operation, so this is no sleep."""
    async with asyncio.timeout(15):
        while True:
            try:
                return await operation()
            except errors.StoreUnavailable:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("key", ["durum:{shop}:members", "a{b}c", "{}a", "a{b", "{a}{b}", "x"])
async def test_slot_is_reckoned_as_the_servers_do(
    key: str, topologies: Callable[[str], str], open_it: Open
) -> None:
    """A wrong one would cost a detour for each command, and then nobody would see why it is slow."""
    store = await open_it(topologies("redis-cluster"))
    pipe = store._pipe.pipes()[0]
    found = await pipe.send(
        ("CLUSTER", "KEYSLOT", key), lambda future, reply: future.set_result(reply)
    )
    assert redis_slots.slot_of(key) == found


async def test_each_partition_lies_on_one_master_and_every_master_is_used(
    lasting_cluster: Clustered, open_it: Open
) -> None:
    """All keys of a partition share a slot, so one script may touch them; the load is spread."""
    cluster = lasting_cluster
    service, writers = await writers_on(await open_it(cluster.url))
    writers.start()
    await writers.more(100)
    await writers.stop()
    assert writers.trouble == {}
    owners = set()
    for partition in range(PARTITIONS):
        slot = partition_slot(partition)
        owner = cluster.owner(slot)
        owners.add(owner)
        keys = owner.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)
        for name in ("own", f"g:K/{partition}.0", f"g:K/{partition}.1", "idx"):
            assert f"durum:{{shop:{partition}}}:{name}\r\n".encode() in keys
    assert owners == set(cluster.masters)
    assert len(service.store._pipe.pipes()) == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("product", PRODUCTS)
async def test_slots_move_under_load_and_nothing_is_lost_or_doubled(
    product: str, lasting: Callable[[str], Any], open_it: Open
) -> None:
    """MOVED, ASK and TRYAGAIN say that nothing was done, and the commit finds its way."""
    cluster: Clustered = lasting(f"{product}-cluster")
    service, writers = await writers_on(await open_it(cluster.url, "moving", PATIENT_S))
    writers.start()
    await writers.more(200)
    before = cluster.errors()
    for partition in (0, 1):
        slot = partition_slot(partition, "moving")
        await asyncio.to_thread(move_slowly, cluster, slot, "TRYAGAIN", "ASK")
        await writers.more(100)
    await asyncio.to_thread(move_slowly, cluster, slot_of("moving"))
    (seen,) = [one for one in await service.store.owners(service.mark) if one.partition == 0]
    await writers.stop()
    assert {"MOVED", "ASK", "TRYAGAIN"} <= {str(name) for name in cluster.errors() - before}
    assert writers.trouble == {}
    assert await writers.lost() == []
    assert writers.regressed == []
    assert seen.commits <= writers.counters[0]
    owners = await service.store.owners(service.mark)
    assert [owner.commits for owner in owners] == [writers.counters[n] for n in range(PARTITIONS)]
    await service.store.write_row(service.mark, row(), seen=None, version=0)
    assert (await service.store.beat(service.mark, SILO)).heartbeat == 1


def move_slowly(cluster: Clustered, slot: int, split: str = "", moved: str = "") -> None:
    """Move a slot to the next master, one key at a time.

    Args:
        split: an error to be met before all keys have gone: a commit's keys are in two places then.
        moved: one to be met before the slot itself goes.
    """
    before = cluster.errors()
    source = cluster.owner(slot)
    target = cluster.masters[(cluster.masters.index(source) + 1) % 3]
    cluster.begin_move(slot, target)

    def met(name: str) -> bool:
        return cluster.errors()[name] > before[name]

    if split:
        # The owner record first: from then on no commit has all of its keys in one place.
        cluster.move_one(slot, target, b":own")
        eventually(lambda: met(split), split)
    while cluster.move_keys(slot, target, 1):
        pass
    if moved:
        eventually(lambda: met(moved), moved)
    cluster.end_move(slot, target)


async def test_new_grain_is_made_while_its_slot_moves(
    lasting_cluster: Clustered, open_it: Open
) -> None:
    """Neither side has its key, so neither knows; it is asked again until the slot has arrived."""
    cluster = lasting_cluster
    service = await Service.create(await open_it(cluster.url, "new"), 1)
    token = await service.hold()
    await service.store.commit(commit(token, grain=GrainId("K/old")))
    slot = partition_slot(0, "new")
    target = cluster.masters[(cluster.masters.index(cluster.owner(slot)) + 1) % 3]
    cluster.begin_move(slot, target)
    waiting = service.store.commit(commit(token))
    cluster.move_keys(slot, target, 1)
    await asyncio.sleep(0.1)
    assert not waiting.done()
    cluster.move_keys(slot, target)
    cluster.end_move(slot, target)
    assert (await waiting).version == 1
    assert sorted(await service.store.scan(0, "", "", 9)) == [ALICE, GrainId("K/old")]


async def test_move_that_takes_too_long_ends_in_a_clear_answer(
    lasting_cluster: Clustered, open_it: Open
) -> None:
    """It did not run, so whoever asked may ask again."""
    cluster = lasting_cluster
    service = await Service.create(await open_it(cluster.url, "slow"), 1)
    token = await service.hold()
    slot = partition_slot(0, "slow")
    target = cluster.masters[(cluster.masters.index(cluster.owner(slot)) + 1) % 3]
    cluster.begin_move(slot, target)
    with pytest.raises(errors.StoreUnavailable, match="no master of the cluster") as caught:
        await service.store.commit(commit(token))
    assert caught.value.applied is False
    cluster.end_move(slot, target)  # with nothing moved: its keys stay behind, which is a loss
    with pytest.raises(errors.DataLoss):
        await until(lambda: service.store.commit(commit(token)))


async def test_killed_master_is_replaced_under_load(
    start: Callable[..., Clustered], open_it: Open
) -> None:
    """Its partitions stand still for a while, the others' do not; what was confirmed is there or missed."""
    cluster = start("", *SYNCED, replicas=True)
    store = await open_it(cluster.url)
    service, writers = await writers_on(store)
    await store.write_row(service.mark, row(), seen=None, version=0)
    durability = await store.durability()
    assert durability.level is Level.D1
    assert "3 masters" in durability.summary
    before = await store.beat(service.mark, SILO)
    await asyncio.to_thread(cluster.wait_replicated)
    writers.start()
    await writers.more(300)
    slot = partition_slot(0)
    dead = cluster.owner(slot)
    dead.kill()
    elsewhere = next(n for n in range(PARTITIONS) if cluster.owner(partition_slot(n)) is not dead)
    going_on = store.verify(elsewhere, writers._tokens[elsewhere])
    await going_on
    await asyncio.to_thread(cluster.wait_taken_over, slot, dead)
    await writers.more(300)
    await writers.stop()
    lost = await writers.lost()
    print("no commit at all for", writers.gap_s, "trouble", writers.trouble, "lost", lost)
    assert not lost or writers.regressed or writers.trouble["Superseded"]
    assert set(writers.trouble) <= {"applied=None", "applied=False", "Superseded"}
    after = await until(functools.partial(store.beat, service.mark, SILO))
    assert after.identity != before.identity
    # It comes back as a replica of its successor, and nobody is disturbed.
    dead.start()
    await store.owners(service.mark)


async def test_empty_master_is_data_loss_for_its_partitions_only(
    breakable: Clustered, open_it: Open
) -> None:
    """What it had is gone. That must not read as "never written"."""
    cluster = breakable
    store = await open_it(cluster.url)
    service, writers = await writers_on(store)
    writers.start()
    await writers.more(100)
    await writers.stop()
    members = cluster.owner(slot_of("shop"))
    gone = next(one for one in cluster.masters if one is not members)
    before = await store.read_table(service.mark)
    gone.kill()
    gone.start()  # its own file tells it which slots it has, and of their keys it knows nothing
    for partition in range(PARTITIONS):
        operations: tuple[Callable[[], Any], ...] = (
            functools.partial(store.load, partition, writers._tokens[partition], ALICE),
            functools.partial(
                store.commit, commit(writers._tokens[partition], partition=partition)
            ),
        )
        for operation in operations:
            if cluster.owner(partition_slot(partition)) is gone:
                with pytest.raises(errors.DataLoss):
                    await until(operation)
            else:
                await until(operation)
    with pytest.raises(errors.DataLoss):
        await until(lambda: store.owners(service.mark))
    assert (await store.read_table(service.mark)).identity != before.identity
    # Whoever starts anew on it is not told that all is well either.
    other = await open_it(cluster.url)
    assert await other.genesis() == service.genesis
    assert await other.create(service.genesis) == service.genesis
    with pytest.raises(errors.DataLoss):
        await other.owners(service.mark)


async def test_lost_membership_table_is_never_made_anew(
    breakable: Clustered, open_it: Open
) -> None:
    """The other masters still have this service's grains: a new genesis would orphan them."""
    cluster = breakable
    store = await open_it(cluster.url, "orphans")
    service = await until(lambda: Service.create(store, PARTITIONS))
    members = cluster.owner(slot_of("orphans"))
    members.kill()
    members.start()
    with pytest.raises(errors.DataLoss):
        await until(lambda: store.read_table(service.mark))
    assert await until(store.genesis) is None
    another = Genesis(mark="f" * 32, cluster="orphans", partitions=PARTITIONS, ring=1)
    with pytest.raises(errors.DataLoss, match="earlier service"):
        await store.create(another)
    assert await store.genesis() is None


async def test_creation_cut_short_over_slots_is_completed(
    topologies: Callable[[str], str], open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any part of the owner records may be there, on any of the masters."""
    wanted = Genesis(mark="a" * 32, cluster="cut", partitions=PARTITIONS, ring=1)
    store = await open_it(topologies("valkey-cluster"), "cut")
    run, keys = store._run, Keys("cut")

    def cut(name: str, where: tuple[str, ...], args: Any) -> Any:
        if name == "ready" or (name == "own" and where[0] > keys.owner(15)):
            raise errors.StoreUnavailable("cut", applied=None)
        return run(name, where, args)

    monkeypatch.setattr(store, "_run", cut)
    with pytest.raises(errors.StoreUnavailable):
        await store.create(wanted)
    monkeypatch.undo()
    other = await open_it(topologies("valkey-cluster"), "cut")
    assert await other.genesis() is None
    mine = Genesis(mark="b" * 32, cluster="cut", partitions=7, ring=1)
    effective = await other.create(mine)
    assert (effective.mark, effective.partitions) == (wanted.mark, PARTITIONS)
    assert len(await store.owners(wanted.mark)) == PARTITIONS


async def test_cluster_that_is_away_is_found_again_by_the_first_nodes(
    start: Callable[..., Clustered], open_it: Open
) -> None:
    """All connections are gone at once, so the URL's nodes are asked. Until then no caller waits for ever,
    and none hears that something may have run that was never sent."""
    cluster = start("", *SYNCED)
    store, leaving = await open_it(cluster.url), await open_it(cluster.url)
    service, writers = await writers_on(store)
    token = writers._tokens[0]
    await leaving.verify(0, token)
    for master in cluster.masters:
        master.kill()
    for one in (store, leaving):
        with pytest.raises(errors.StoreUnavailable):
            await one.verify(0, token)
    with pytest.raises(errors.StoreUnavailable):
        await open_it(cluster.url)
    waiting = [leaving.commit(commit(token, grain=GrainId(f"K/{n}"))) for n in range(10)]
    await asyncio.sleep(0)
    await leaving.close()
    waiting.append(leaving.commit(commit(token)))
    for answer in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(answer, errors.StoreUnavailable)
        assert answer.applied is False
    for master in cluster.masters:
        master.start()
    assert len(await until(lambda: store.owners(service.mark))) == PARTITIONS


async def test_wrong_kind_of_server_is_named(
    topologies: Callable[[str], str], open_it: Open
) -> None:
    """Both ways round, with the URL to write."""
    url = topologies("valkey-cluster")
    first = url.partition("//")[2].partition(",")[0]
    single = await open_it(f"redis://{first}")
    (unsafe,) = (await single.durability()).unsafe
    assert "redis+cluster://" in unsafe
    with pytest.raises(errors.StoreUnavailable, match=r"redis\+cluster"):
        await asyncio.gather(*(single.verify(n, SystemEntropy().token()) for n in range(9)))
    store = await open_it(topologies("valkey-sentinel"), timeout_s=PATIENT_S)
    host, port = store._pipe.target
    with pytest.raises(errors.ConfigError, match="redis://"):
        await open_it(f"redis+cluster://{host}:{port}")
