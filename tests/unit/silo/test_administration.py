"""What a silo does with operators' requests, the hostile and the untimely among them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

import msgspec
import pytest

import durum
from durum import errors
from durum.client.client import Cluster
from durum.ids import GrainId
from durum.silo.silo import Silo
from durum.store.protocol import Commit
from durum.wire import administration as wire
from durum.wire.messages import Call, Failure, Reply


class Shelf(durum.Actor):
    books: int = 0

    async def put(self, count: int) -> int:
        self.books += count
        return self.books


class Picky(durum.Actor):
    books: int = 0

    async def on_activate(self) -> None:
        if self.books > 1:
            raise ValueError("too many books to wake up")

    async def put(self, count: int) -> int:
        self.books += count
        return self.books


class Tidy(durum.Actor):
    books: int = 0

    async def put(self, count: int) -> int:
        self.books += count
        return self.books

    async def on_deactivate(self, reason: object) -> None:
        _reasons.append(str(reason))
        self.books += 100


_reasons: list[str] = []


@pytest.fixture
async def silos() -> AsyncIterator[list[Silo]]:
    """Two of one cluster, each with its part of the partitions."""
    kinds = [Shelf, Picky, Tidy]
    async with Silo(kinds, "memory:two") as one, Silo(kinds, "memory:two") as other:
        while not (one.statistics().ready and other.statistics().ready):
            await asyncio.sleep(0.01)
        yield [one, other]


@pytest.fixture
async def cluster(silos: list[Silo]) -> AsyncIterator[Cluster]:
    async with silos[0].connect() as one:
        yield one


async def ask(cluster: Cluster, method: str, args: bytes = b"", grain: str = "Shelf/x") -> object:
    """A request as any client could make it."""
    return await cluster.router.relay(Call(0, GrainId(grain), method, args, 5000))


async def test_each_grain_is_looked_at_by_its_owner(silos: list[Silo], cluster: Cluster) -> None:
    """Another silo knows nothing of its activation, and holds no token to read it by."""
    keys = [str(number) for number in range(20)]
    for key in keys:
        await cluster.actor(Shelf, key).put(1)
    found = {key: await cluster.admin.inspect(Shelf, key) for key in keys}
    assert {each.silo for each in found.values()} == {silo.id for silo in silos}
    for key, each in found.items():
        (owner,) = [silo for silo in silos if silo.id == each.silo]
        assert GrainId(f"Shelf/{key}") in owner.life.catalog.activations
        assert each.active == "valid"
    assert await cluster.admin.count(Shelf) == 20
    assert [await cluster.admin.delete(Shelf, key) for key in keys] == [True] * 20
    assert await cluster.admin.count(Shelf) == 0


async def test_every_silo_tells_its_own_counters(silos: list[Silo], cluster: Cluster) -> None:
    """The sum over silos is the cluster's."""
    for key in range(20):
        await cluster.actor(Shelf, str(key)).put(1)
    found = await cluster.admin.silos()
    assert [each.silo for each in found] == sorted(silo.id for silo in silos)
    assert sum(each.wanted for each in found) == 1024
    counters = [each.now for each in found]
    assert sum(now.committed for now in counters if now) == 20
    assert sum(now.activations.get("Shelf", 0) for now in counters if now) == 20


async def test_gateway_clients_may_ask_too(silos: list[Silo]) -> None:
    """An operator's laptop reaches one silo at most."""
    async with durum.connect(silos[0].address, routing="gateway") as cluster:
        for key in range(10):
            await cluster.actor(Shelf, str(key)).put(1)
            assert (await cluster.admin.inspect(Shelf, str(key))).version == 1
        assert await cluster.admin.count(Shelf) == 10


@pytest.mark.parametrize("method", [wire.SCAN, wire.COUNT])
@pytest.mark.parametrize("args", [b"", b"\xc1", b"\x93", b"\x91\x01", b"\xdd\xff\xff\xff\xff"])
async def test_arguments_that_do_not_fit_are_refused(
    cluster: Cluster, method: str, args: bytes
) -> None:
    """Any client may send anything."""
    found = await ask(cluster, method, args)
    assert isinstance(found, Failure)
    assert (found.error, found.did_run) == ("ArgumentError", "no")


@pytest.mark.parametrize("grain", ["Shelf/x", "Nobody/x"])
async def test_requests_that_nobody_knows_are_refused(cluster: Cluster, grain: str) -> None:
    """A newer shell gets an answer from an older silo, and not a broken connection."""
    found = await ask(cluster, "durum.explode", grain=grain)
    assert isinstance(found, Failure)
    assert (found.error, found.did_run) == ("NoSuchMethod", "no")


async def test_a_page_is_bounded_whatever_is_asked_for(cluster: Cluster) -> None:
    """A request for a billion grains must not fill anybody's memory."""
    for key in range(3):
        await cluster.actor(Shelf, str(key)).put(1)
    for limit in (-1, 0):
        found = await ask(cluster, wire.SCAN, wire.encode(wire.Scan("Shelf/", 0, "", limit)))
        assert isinstance(found, Reply)
        assert len(msgspec.msgpack.decode(found.result, type=wire.Page).grains) == 1
    wild = wire.Scan("Shelf/", 2**40, "", 2**40)
    found = await ask(cluster, wire.SCAN, wire.encode(wild))
    assert isinstance(found, Reply)
    assert msgspec.msgpack.decode(found.result, type=wire.Page).grains == ()


async def test_requests_at_once_are_bounded(silos: list[Silo], cluster: Cluster) -> None:
    """Each of them may read a thousand partitions."""
    del silos
    found = await asyncio.gather(
        *(ask(cluster, wire.COUNT, wire.encode(wire.Count("Shelf/"))) for _ in range(300))
    )
    errors_ = {each.error for each in found if isinstance(each, Failure)}
    assert any(isinstance(each, Reply) for each in found)
    assert errors_ <= {"Overloaded"}


async def test_grain_that_cannot_wake_up_can_be_deleted(cluster: Cluster) -> None:
    """It is what an operator deletes for."""
    await cluster.actor(Picky, "x").put(5)
    await cluster.admin.deactivate(Picky, "x")
    with pytest.raises(errors.CallError, match="too many books"):
        await cluster.actor(Picky, "x").put(1)
    assert (await cluster.admin.inspect(Picky, "x")).state == {"books": 5}
    assert await cluster.admin.delete(Picky, "x") is True
    assert await cluster.actor(Picky, "x").put(1) == 1


async def test_hook_runs_before_the_deletion_and_keeps_nothing(cluster: Cluster) -> None:
    """What on_deactivate commits goes with the rest."""
    _reasons.clear()
    await cluster.actor(Tidy, "x").put(1)
    assert await cluster.admin.delete(Tidy, "x") is True
    assert _reasons == ["deleted"]
    assert (await cluster.admin.inspect(Tidy, "x")).state is None
    assert await cluster.actor(Tidy, "x").put(1) == 1


async def test_refused_deletion_is_tried_again_and_leaves_the_grain_as_it_was(
    silos: list[Silo], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is full: the operator is told so, and calls go on."""
    await cluster.actor(Shelf, "x").put(3)
    with monkeypatch.context() as patch:
        for silo in silos:
            patch.setattr(silo.life.services.store, "erase", Failing(applied=False))
        with pytest.raises(errors.CallTimeout, match="disk is full"):
            await cluster.router.relay(Call(0, GrainId("Shelf/x"), wire.DELETE, b"", 700))
    assert await cluster.actor(Shelf, "x").put(1) == 4


async def test_deletion_of_unknown_outcome_says_so(
    silos: list[Silo], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator who believes that nothing happened may do the wrong thing next."""
    await cluster.actor(Shelf, "x").put(3)
    with monkeypatch.context() as patch:
        for silo in silos:
            patch.setattr(silo.life.services.store, "erase", Failing(applied=None))
        with pytest.raises(errors.CommitFailed) as caught:
            await cluster.admin.delete(Shelf, "x")
    assert caught.value.did_run == "maybe"
    assert await cluster.admin.delete(Shelf, "x") is True


async def test_deletion_whose_first_answer_was_lost_tells_that_there_was_a_state(
    silos: list[Silo], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second attempt finds nothing left; the operator asked only once."""
    await cluster.actor(Shelf, "x").put(3)
    with monkeypatch.context() as patch:
        for silo in silos:
            store = silo.life.services.store
            patch.setattr(store, "erase", AnswerLost(store.erase))
        assert await cluster.admin.delete(Shelf, "x") is True
    assert (await cluster.admin.inspect(Shelf, "x")).state is None


class Failing:
    """An operation that always fails."""

    def __init__(self, *, applied: Literal[False] | None) -> None:
        self._applied = applied

    async def __call__(self, *_: object, **__: object) -> None:
        raise errors.StoreUnavailable("the disk is full", applied=self._applied)


class AnswerLost:
    """An operation that is done at its first call, and says nothing."""

    def __init__(self, inside: Callable[..., Awaitable[object]]) -> None:
        self._inside = inside
        self._calls = 0

    async def __call__(self, *args: object, **options: object) -> object:
        self._calls += 1
        found = await self._inside(*args, **options)
        if self._calls == 1:
            raise errors.StoreUnavailable("the connection broke", applied=None)
        return found


async def test_state_of_others_is_shown_as_bytes(silos: list[Silo], cluster: Cluster) -> None:
    """What does not decode is not lost: an operator must be able to save it."""
    await cluster.actor(Shelf, "x").put(1)
    found = await cluster.admin.inspect(Shelf, "x")
    (owner,) = [silo for silo in silos if silo.id == found.silo]
    holding = owner.life.ownership.holding(found.partition)
    assert holding is not None
    store = owner.life.services.store
    await cluster.admin.deactivate(Shelf, "x")
    await store.commit(
        Commit(
            partition=found.partition,
            token=holding.token,
            grain=GrainId("Shelf/x"),
            id=b"i" * 16,
            version=found.version,
            state=b"\xc1 not ours",
        )
    )
    found = await cluster.admin.inspect(Shelf, "x")
    assert (found.state, found.undecoded) == (None, b"\xc1 not ours")
    assert await cluster.admin.delete(Shelf, "x") is True
