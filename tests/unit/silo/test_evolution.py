"""Classes change while their data stays: names by which callers know them, states that nobody can read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from durum import errors
from durum.config import Limits
from durum.grains.actor import Actor, one_way, read_only
from durum.grains.registry import register
from durum.store.protocol import Commit
from tests.support.turns import SMALL, House, outcome, simulated


class Basket(Actor, kind="Cart", aliases=("Basket", "Trolley")):
    lines: int = 0

    async def add(self, lines: int) -> int:
        self.lines += lines
        return self.lines

    @read_only
    async def get(self) -> int:
        return self.lines

    @one_way
    async def drop(self, lines: int) -> None:
        self.lines += lines

    async def feed(self) -> AsyncIterator[int]:
        for n in range(self.lines):
            yield n

    async def ask(self, other: str) -> int:
        return await self.actor(Trolley, other).get()

    async def ask_stream(self, other: str) -> list[int]:
        return [n async for n in self.actor(Trolley, other).feed()]


class Trolley(Actor):
    """What callers of an older release have."""

    lines: int = 0

    async def add(self, lines: int) -> int:
        raise NotImplementedError

    @read_only
    async def get(self) -> int:
        raise NotImplementedError

    @one_way
    async def drop(self, lines: int) -> None:
        raise NotImplementedError

    async def feed(self) -> AsyncIterator[int]:
        yield 0
        raise NotImplementedError


class Pet(Actor):
    name: str = ""

    async def call_it(self, name: str) -> str:
        self.name = name
        return self.name


@simulated
async def test_callers_by_an_old_name_reach_the_same_data(house: House) -> None:
    """A class is renamed in one release and called by its old name until all callers are new."""
    await house.start("a", [Basket])
    await house.start("b", [Basket])
    await asyncio.sleep(5)
    for routing in ("direct", "gateway"):
        cluster = await house.connect("a", routing=routing)
        for n in range(8):
            key = f"{routing}{n}"
            new, old = cluster.actor(Basket, key), cluster.actor(Trolley, key)
            assert await new.add(1) == 1
            assert await old.add(2) == 3
            await old.drop(1)
            await asyncio.sleep(0.1)
            assert await old.get() == await new.get() == 4
            assert [i async for i in old.feed()] == [0, 1, 2, 3]
            assert await new.ask(key) == 4
            assert await new.ask_stream(key) == [0, 1, 2, 3]
    grains = {grain for silo in house.silos.values() for grain in silo.life.catalog.activations}
    assert grains == {f"Cart/{routing}{n}" for routing in ("direct", "gateway") for n in range(8)}
    assert all(house.busy(host) == 0 for host in house.silos)


@simulated
async def test_a_call_by_an_old_name_can_be_cancelled(house: House) -> None:
    """It is passed on, and so has to be its cancellation."""
    await house.start("a", [Basket])
    cluster = await house.connect("a")
    end = await outcome(asyncio.wait_for(cluster.actor(Trolley, "x").get(), 5))
    assert end == 0
    await asyncio.sleep(0.1)
    assert len(house.silo().life._gateway._relay._carried) == 0


def test_an_alias_must_be_nobody_elses_name() -> None:
    """Else callers would reach one or the other, as it happens."""
    with pytest.raises(errors.ConfigError, match="alias 'Trolley'"):
        register([Basket, Trolley])

    class Rival(Actor, aliases=("Trolley",)):
        pass

    with pytest.raises(errors.ConfigError, match="alias 'Trolley'"):
        register([Basket, Rival])
    with pytest.raises(errors.ConfigError, match="no kind name"):

        class Odd(Actor, aliases=("a/b",)):
            pass

    with pytest.raises(errors.ConfigError, match="tuple"):

        class Text(Actor, aliases="ab"):  # type: ignore[arg-type]
            pass


async def corrupt(house: House, pet: Actor, state: bytes) -> None:
    """Write into a grain's record what its class cannot read."""
    target = pet._durum_target  # type: ignore[attr-defined]
    partition = target.hash % SMALL.partitions
    inside = house.store.inside
    genesis = await inside.genesis()
    assert genesis is not None
    owner = (await inside.owners(genesis.mark))[partition]
    record = await inside.load(partition, owner.token, target.grain)
    await inside.commit(
        Commit(
            partition=partition,
            token=owner.token,
            grain=target.grain,
            id=b"corrupt " + record.version.to_bytes(8, "big"),
            version=record.version,
            state=state,
        )
    )


async def stored(house: House, pet: Actor) -> bytes | None:
    target = pet._durum_target  # type: ignore[attr-defined]
    inside = house.store.inside
    genesis = await inside.genesis()
    assert genesis is not None
    owner = (await inside.owners(genesis.mark))[target.hash % SMALL.partitions]
    partition = target.hash % SMALL.partitions
    return (await inside.load(partition, owner.token, target.grain)).state


@pytest.mark.parametrize("state", [b"\xc1 nonsense", msgspec.msgpack.encode({"": 1, "name": 7})])
def test_a_state_that_cannot_be_read_is_quarantined(state: bytes) -> None:
    """One bad record must cost neither its bytes nor its neighbours, and must not storm the store."""

    @simulated
    async def quarantined(house: House) -> None:
        cluster = await house.open([Pet])
        bad, good = cluster.actor(Pet, "bad"), cluster.actor(Pet, "good")
        await corrupt(house, bad, state)
        end = await outcome(bad.call_it("rex"))
        assert isinstance(end, errors.Quarantined)
        assert end.did_run is errors.DidRun.NO
        assert "bytes are untouched" in str(end)
        loads = len([each for each in house.operations if each.name == "load"])
        for _ in range(20):
            assert isinstance(await outcome(bad.call_it("rex")), errors.Quarantined)
        assert len([each for each in house.operations if each.name == "load"]) == loads
        assert await good.call_it("tom") == "tom"
        assert await stored(house, bad) == state
        assert house.busy() == 0
        await corrupt(house, bad, msgspec.msgpack.encode({"": 1, "name": "mended"}))
        await asyncio.sleep(11)
        assert await bad.call_it("rex") == "rex"

    quarantined()


@simulated
async def test_too_many_actors_put_the_longest_idle_away(house: House) -> None:
    """Memory is bounded by how many are in use, not by how many were ever called."""
    config = msgspec.structs.replace(SMALL, limits=Limits(activations=20))
    cluster = await house.open([Pet, Basket], config)
    pets = [cluster.actor(Pet, f"p{n}") for n in range(60)]
    busy = asyncio.ensure_future(anext(stream := cluster.actor(Basket, "busy").feed(), None))
    await busy
    for n, pet in enumerate(pets):
        await pet.call_it(f"n{n}")
        await pets[0].call_it("first")
        await asyncio.sleep(1.2)
    catalog = house.silo().life.catalog
    assert len(catalog) <= 21
    assert "Pet/p0" in catalog.activations
    assert "Pet/p59" in catalog.activations
    assert "Pet/p1" not in catalog.activations
    assert await pets[1].call_it("again") == "again"
    del stream


@simulated
async def test_busy_actors_are_never_put_away(house: House) -> None:
    """Above the limit with nothing idle, there are just more than that."""
    config = msgspec.structs.replace(SMALL, limits=Limits(activations=5))
    cluster = await house.open([Basket], config)
    baskets = [cluster.actor(Basket, f"b{n}") for n in range(12)]
    for basket in baskets:
        await basket.add(100)
    streams = [basket.feed() for basket in baskets]
    for stream in streams:
        assert await anext(stream) == 0
    await asyncio.sleep(2)
    assert len(house.silo().life.catalog) == 12
    assert [await anext(stream) for stream in streams] == [1] * 12
    del stream, streams
    await asyncio.sleep(1)
    assert len(house.silo().life.catalog) <= 5
