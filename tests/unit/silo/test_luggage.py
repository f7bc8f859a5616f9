"""What actors take along when they move: values in memory only, used at most once and never relied on."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any

import msgspec
import pytest

from durum import errors
from durum.config import Limits, SiloConfig
from durum.grains.actor import Actor, read_only
from durum.grains.kind import kind_of
from durum.grains.placement import PreferLocal, StatelessWorker
from durum.ids import GrainId, Token, grain_id
from durum.placement.partitions import partition_of
from durum.silo.luggage import Carriage
from durum.wire.messages import Luggage
from tests.support.turns import SMALL, House, simulated

seen: list[str] = []
"""What hooks were called, in order; each test clears it."""
KEYS = [f"k{n}" for n in range(16)]


class Cache(Actor):
    """Counts in memory what it does not mind to lose."""

    kept: int = 0
    _hits: int = 0

    async def on_activate(self) -> None:
        seen.append(f"{self.key} activate {self._hits}")

    async def on_deactivate(self, reason: str) -> None:
        seen.append(f"{self.key} deactivate {reason}")

    async def on_dehydrate(self) -> dict[str, int]:
        seen.append(f"{self.key} dehydrate {self.kept}")
        match self.key:
            case "k1":
                raise ValueError("not today")
            case "k2":
                await asyncio.sleep(100)
            case "k3":
                return {"x" * 2000: 1}
        return {"hits": self._hits}

    async def on_rehydrate(self, value: dict[str, int]) -> None:
        seen.append(f"{self.key} rehydrate {self.kept}")
        self._hits = value["hits"]
        if self.key == "k4":
            raise ValueError("half-way")

    async def hit(self) -> int:
        self._hits += 1
        self.kept += 1
        return self._hits

    @read_only
    async def peek(self) -> tuple[int, int]:
        return self._hits, self.kept


def limited(**limits: float) -> SiloConfig:
    return msgspec.structs.replace(SMALL, limits=msgspec.structs.replace(SMALL.limits, **limits))


async def warmed(house: House, config: SiloConfig = SMALL) -> Any:
    """One silo with sixteen actors, each hit twice."""
    seen.clear()
    await house.start("a", [Cache], config)
    cluster = await house.connect("a")
    for key in KEYS:
        await cluster.actor(Cache, key).hit()
        assert await cluster.actor(Cache, key).hit() == 2
    seen.clear()
    return cluster


def moved_to(host: str, house: House) -> list[str]:
    """Keys whose actors that silo should own."""
    silo = house.silo(host)
    wanted = silo.life.ownership.wanted
    return [key for key in KEYS if wanted(partition_of(grain_id("Cache", key), 8)) == silo.id]


TROUBLED = {"k1", "k2", "k3", "k4"}
"""They cannot take anything along, or use it; see Cache."""


@simulated
async def test_actors_keep_what_is_in_memory_when_a_silo_joins(house: House) -> None:
    """The newcomer activates them before anybody calls, and nobody is served without it."""
    config = limited(luggage_bytes=1000, luggage_s=1.0)
    cluster = await warmed(house, config)
    await house.start("b", [Cache], config)
    await asyncio.sleep(10)
    moved = moved_to("b", house)
    assert len(set(moved) - TROUBLED) > 2
    assert len(set(moved) & TROUBLED) > 1
    begun = {str(grain).partition("/")[2] for grain in house.silo("b").life.catalog.activations}
    assert begun == set(moved) - TROUBLED
    for key in KEYS:
        lost = key in moved and key in TROUBLED
        assert await cluster.actor(Cache, key).peek() == (0 if lost else 2, 2)
    told = house.silo("a").statistics().luggage
    used = house.silo("b").statistics().luggage
    unsent = set(moved) & {"k1", "k2", "k3"}
    assert (told.sent, told.dropped) == (len(moved) - len(unsent), len(unsent))
    assert (used.used, used.dropped) == (len(set(moved) - TROUBLED), int("k4" in moved))
    assert (used.waiting, told.waiting) == (0, 0)


@simulated
async def test_hooks_run_after_the_last_turn_and_before_the_next_ones(house: House) -> None:
    """State first, then what was in memory, then on_activate, which can see what it need not fetch."""
    await warmed(house)
    await house.start("b", [Cache])
    await asyncio.sleep(10)
    key = next(key for key in moved_to("b", house) if key not in TROUBLED)
    assert [line for line in seen if line.startswith(f"{key} ")] == [
        f"{key} deactivate moved",
        f"{key} dehydrate 2",
        f"{key} rehydrate 2",
        f"{key} activate 2",
    ]


@simulated
async def test_calls_during_the_move_find_what_was_taken_along(house: House) -> None:
    """They wait for the partition, and must not slip in before the value."""
    cluster = await warmed(house)
    good = [key for key in KEYS if key not in TROUBLED]
    counts = dict.fromkeys(good, 2)

    async def hit() -> None:
        while True:
            for key in good:
                counts[key] += 1
                assert await cluster.actor(Cache, key).hit() == counts[key]
            await asyncio.sleep(0.001)

    hitting = asyncio.ensure_future(hit())
    await house.start("b", [Cache])
    await asyncio.sleep(10)
    assert not hitting.done(), hitting
    hitting.cancel()
    assert set(moved_to("b", house)) & set(good)


@simulated
async def test_a_silo_that_leaves_sends_everything_ahead(house: House) -> None:
    """As in a rolling restart."""
    await house.start("b", [Cache])
    cluster = await warmed(house)
    await asyncio.sleep(5)
    gone = [key for key in moved_to("b", house) if key not in TROUBLED]
    assert gone
    await house.silos.pop("b").close()
    for key in gone:
        assert await cluster.actor(Cache, key).peek() == (2, 2)


@simulated
async def test_a_crash_loses_what_was_in_memory_and_nothing_else(house: House) -> None:
    """It is best effort: what has to stay belongs into a field."""
    await house.start("b", [Cache])
    cluster = await warmed(house)
    await asyncio.sleep(5)
    gone = moved_to("b", house)
    house.kill("b")
    await asyncio.sleep(10)
    for key in gone:
        assert await cluster.actor(Cache, key).peek() == (0, 2)
    assert not [line for line in seen if "hydrate" in line]


@simulated
async def test_nobody_is_asked_where_nobody_takes_over(house: House) -> None:
    """The last silo of a service, and an actor that falls idle or is put away by itself."""
    cluster = await warmed(house)
    await cluster.admin.deactivate(Cache, "k5")
    await cluster.close()
    house.clusters.remove(cluster)
    await house.silos.pop("a").close()
    assert len(seen) == 16
    assert not [line for line in seen if "hydrate" in line]


@simulated
async def test_a_next_owner_that_does_not_answer_costs_a_limited_time(house: House) -> None:
    """Nothing is worth holding a partition back for long."""
    config = limited(luggage_s=0.5)
    cluster = await warmed(house, config)

    async def nothing(*_: object) -> bool:
        await asyncio.sleep(1000)
        return True

    house.silo("a").life._peers.carry = nothing  # type: ignore[method-assign, assignment]
    await house.start("b", [Cache], config)
    await asyncio.sleep(10)
    moved = moved_to("b", house)
    assert [await cluster.actor(Cache, key).peek() for key in moved] == [(0, 2)] * len(moved)
    found = house.silo("a").statistics().luggage
    assert (found.sent, found.dropped) == (0, len(moved))
    assert house.silo("a").life.catalog.luggage._out.count == 0


@simulated
async def test_count_and_bytes_in_all_are_bounded_at_both_ends(house: House) -> None:
    """A million actors must not fill the memory of whoever takes them over."""
    config = limited(luggage_count=2)
    await warmed(house, config)
    await house.start("b", [Cache], config)
    await asyncio.sleep(10)
    told = house.silo("a").statistics().luggage
    assert told.sent <= 8  # at most two at a time
    assert told.sent + told.dropped == len(moved_to("b", house))
    carriage = house.silo("b").life.catalog.luggage
    values = [(grain_id("Cache", key), b"x" * 10) for key in KEYS]
    for partition in range(8):
        mine = tuple(each for each in values if partition_of(each[0], 8) == partition)
        carriage.arrived(Luggage(0, partition, b"t", mine), trusted=False)
    assert house.silo("b").statistics().luggage.waiting == 2
    await asyncio.sleep(6)
    assert house.silo("b").statistics().luggage.waiting == 0, "not for ever"


@simulated
async def test_what_was_sent_under_another_token_is_not_used(house: House) -> None:
    """Somebody else may have held the partition in between, and its actors gone on there."""
    await warmed(house)
    carriage = house.silo("a").life.catalog.luggage
    grain = grain_id("Cache", "k7")
    partition = partition_of(grain, 8)
    carriage.arrived(Luggage(0, partition, b"old", ((grain, b"1"),)), trusted=False)
    assert carriage.claim(partition, Token(b"new")) == {}
    foreign = GrainId("Cache/elsewhere0")
    while partition_of(foreign, 8) == partition:
        foreign = GrainId(f"{foreign}0")
    carriage.arrived(Luggage(0, partition, b"new", ((grain, b"2"), (foreign, b"3"))), trusted=False)
    (found,) = carriage.claim(partition, Token(b"new")).items()
    assert (found[0], found[1].data) == (grain, b"2")
    assert carriage.claim(partition, Token(b"new")) == {}
    assert carriage.statistics().dropped == 2


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x01", b"\x81\xa4hits\xa1x"])
def test_a_value_that_the_class_cannot_read_leaves_the_actor_cold(data: bytes) -> None:
    """Another release's class may mean something else by it."""

    @simulated
    async def check(house: House) -> None:
        cluster = await warmed(house)
        await cluster.admin.deactivate(Cache, "k7")
        life = house.silo("a").life
        grain = grain_id("Cache", "k7")
        holding = life.ownership.holding(partition_of(grain, 8))
        assert holding is not None
        message = Luggage(0, holding.partition, b"free", ((grain, data),))
        life.catalog.luggage.arrived(message, trusted=False)
        life.catalog.taken(holding.partition, holding.token, Token(b"free"))
        assert await cluster.actor(Cache, "k7").peek() == (0, 2)
        assert life.catalog.luggage.statistics().dropped == 1

    check()


def test_a_class_with_half_of_the_hooks_is_refused() -> None:
    """What the one returns the other takes; a single one is a mistake."""
    with pytest.raises(errors.ConfigError, match=r"Write on_rehydrate too"):

        class Half(Actor):
            async def on_dehydrate(self) -> int:
                return 1

    with pytest.raises(errors.ConfigError, match=r"Write on_dehydrate too"):

        class Other(Actor):
            async def on_rehydrate(self, value: int) -> None: ...


def test_hooks_have_to_agree_on_a_type_that_can_travel() -> None:
    """Found on import, not while partitions move."""
    with pytest.raises(errors.ConfigError, match="write one type"):

        class Differ(Actor):
            async def on_dehydrate(self) -> int:
                return 1

            async def on_rehydrate(self, value: str) -> None: ...

    with pytest.raises(errors.ConfigError, match="annotate what travels"):

        class Bare(Actor):
            async def on_dehydrate(self):  # type: ignore[no-untyped-def]
                return 1

            async def on_rehydrate(self, value): ...  # type: ignore[no-untyped-def]

    with pytest.raises(errors.ConfigError, match="this hook must be"):

        class Many(Actor):
            async def on_dehydrate(self) -> int:
                return 1

            async def on_rehydrate(self, value: int, other: int) -> None: ...

    with pytest.raises(errors.ConfigError, match="on_dehydrate"):

        class Strange(Actor):
            async def on_dehydrate(self) -> asyncio.Event:
                return asyncio.Event()

            async def on_rehydrate(self, value: asyncio.Event) -> None: ...

    with pytest.raises(errors.ConfigError, match="async def"):

        class Plain(Actor):
            def on_dehydrate(self) -> int:
                return 1

            async def on_rehydrate(self, value: int) -> None: ...


@pytest.mark.parametrize("placement", [StatelessWorker(max_local=2), PreferLocal()])
def test_actors_that_no_partition_carries_cannot_have_them(placement: Any) -> None:
    """Their hooks would never be called."""
    with pytest.raises(errors.ConfigError, match="placed by the hash"):

        class Placed(Actor, placement=placement):
            async def on_dehydrate(self) -> int:
                return 1

            async def on_rehydrate(self, value: int) -> None: ...


def test_nobody_can_call_them() -> None:
    """They are hooks, not methods."""
    assert not {"on_dehydrate", "on_rehydrate"} & set(kind_of(Cache).methods)


def test_pickles_are_opened_from_trusted_links_only() -> None:
    """Opening one runs whatever its maker wished."""
    seen.clear()

    class Pickled(Actor, pickle=True):
        async def on_dehydrate(self) -> set[Any]:
            return {1}

        async def on_rehydrate(self, value: set[Any]) -> None: ...

    kind = kind_of(Pickled)
    assert kind.luggage is not None
    data = kind.luggage.verify({1})

    class Traveller:
        grain = grain_id("Pickled", "p")
        queue = (0, 0)

        def __init__(self) -> None:
            self.kind = kind

        async def run_hook(self, name: str, *args: object) -> None:
            seen.append(f"{name} {args}")

    async def unpack(trusted: bool) -> None:
        carriage = Carriage(Limits(), copy_context())
        carriage._partitions = 8
        partition = partition_of(Traveller.grain, 8)
        message = Luggage(0, partition, b"t", ((Traveller.grain, data),))
        carriage.arrived(message, trusted=trusted)
        (packed,) = carriage.claim(partition, Token(b"t")).values()
        assert await carriage.unpack(Traveller(), packed) is True

    asyncio.run(unpack(False))
    assert seen == []
    asyncio.run(unpack(True))
    assert seen == ["on_rehydrate ({1},)"]
