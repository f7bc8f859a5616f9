"""Silos that host different kinds, or different versions of one: every grain is on a silo that knows it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from durum import errors
from durum.config import SiloConfig
from durum.grains.actor import Actor, one_way
from durum.grains.placement import OnSilos, PreferLocal, StatelessWorker
from durum.grains.reference import options
from durum.ids import GrainId
from durum.placement.partitions import partition_of
from durum.testing.hosts import current, machine
from tests.support.turns import House, outcome, simulated


class Shop(Actor):
    sold: int = 0

    async def sell(self) -> str:
        self.sold += 1
        return machine(current())

    async def total(self) -> int:
        return self.sold

    @one_way
    async def note(self) -> None:
        self.sold += 100


class Desk(Actor):
    async def sell(self, shop: str) -> str:
        return await self.actor(Shop, shop).sell()

    async def local(self, key: str) -> tuple[str, str]:
        return machine(current()), await self.actor(Near, key).where()


class Near(Actor, placement=PreferLocal()):
    async def where(self) -> str:
        return machine(current())


class Cut(Actor, placement=StatelessWorker()):
    async def work(self) -> str:
        return machine(current())


class Train(Actor, placement=OnSilos(role="gpu")):
    async def where(self) -> str:
        return machine(current())


class Ledger(Actor, kind="Ledger", version=1):
    lines: int = 0

    async def write(self) -> tuple[str, int]:
        self.lines += 1
        return machine(current()), self.lines


class NewLedger(Actor, kind="Ledger", version=2):
    lines: int = 0
    pages: int = 0

    async def write(self) -> tuple[str, int]:
        self.lines += 1
        self.pages += 1
        return machine(current()), self.lines


def records(house: House, kind: str, keys: Sequence[str]) -> dict[str, str]:
    """Which keys are hosted by themselves, and where."""
    return {
        key: host
        for host, silo in house.silos.items()
        for key in keys
        if f"{kind}/{key}" in silo.life.catalog.guests._here
    }


@simulated
async def test_every_kind_is_reached_wherever_its_partition_is(house: House) -> None:
    """An owner that does not host the kind finds it a silo that does, one for all calls."""
    await house.start("a", [Desk])
    await house.start("b", [Shop])
    await house.start("c", [Shop])
    await asyncio.sleep(5)
    cluster = await house.connect("a", "b", "c")
    keys = [f"s{n}" for n in range(24)]
    for key in keys:
        places = {await cluster.actor(Shop, key).sell() for _ in range(3)}
        assert len(places) == 1
        assert places <= {"b", "c"}
        assert await cluster.actor(Desk, key).sell(key) in places
        await cluster.actor(Shop, key).note()
        await asyncio.sleep(0.1)
        assert await cluster.actor(Shop, key).total() == 104
    assert set(records(house, "Shop", keys).values()) == {"b", "c"}
    far = await house.connect("a", host="far", routing="gateway")
    for key in keys:
        assert await far.actor(Shop, key).total() == 104


@simulated
async def test_an_owner_that_hosts_the_kind_serves_it_without_a_record(house: House) -> None:
    """Where all is as usual, nothing is looked up."""
    await house.start("a", [Shop])
    await house.start("b", [Shop, Desk])
    await asyncio.sleep(5)
    cluster = await house.connect("a", "b")
    seen = len(house.operations)
    for n in range(12):
        await cluster.actor(Shop, f"s{n}").sell()
    names = {operation.name for operation in house.operations[seen:]}
    assert not names & {"place", "find_host"}


@simulated
async def test_it_stays_with_its_host_until_it_is_put_away_even_if_the_owner_learns_the_kind(
    house: House,
) -> None:
    """Partitions that move to a silo with the kind must not be served twice: the store says so."""
    await house.start("b", [Shop])
    await house.start("a", [Desk])
    await asyncio.sleep(5)
    cluster = await house.connect("a", "b")
    keys = [f"s{n}" for n in range(24)]
    for key in keys:
        assert await cluster.actor(Shop, key).sell() == "b"
    hosted = records(house, "Shop", keys)
    assert hosted
    silo = house.silos.pop("a")
    await house.loop.start("a", silo.close())
    await house.start("d", [Shop, Desk])
    await asyncio.sleep(5)
    fresh = await house.connect("b", "d", host="fresh")
    for key in keys:
        where = await fresh.actor(Shop, key).sell()
        if key in hosted:
            assert where == "b"
        assert await fresh.actor(Shop, key).total() == 2
        if key in hosted:
            assert await fresh.admin.deactivate(Shop, key)
    assert not records(house, "Shop", keys)
    places = {await fresh.actor(Shop, key).sell() for key in hosted}
    assert "d" in places, "the owner serves it again, as it does all others"
    assert not records(house, "Shop", keys)


@simulated
async def test_a_host_that_dies_gives_way_to_the_owner_that_knows_the_kind(house: House) -> None:
    """The record of the dead one is taken away first."""
    await house.start("b", [Shop])
    await house.start("a", [Desk])
    await asyncio.sleep(5)
    cluster = await house.connect("a", "b")
    keys = [f"s{n}" for n in range(24)]
    for key in keys:
        await cluster.actor(Shop, key).sell()
    hosted = records(house, "Shop", keys)
    await house.start("d", [Shop, Desk])
    silo = house.silos.pop("a")
    await house.loop.start("a", silo.close())
    house.kill("b")
    await asyncio.sleep(0.5)
    for key in hosted:
        assert await cluster.actor(Shop, key).sell() == "d"
        assert await cluster.actor(Shop, key).total() == 2
    assert not records(house, "Shop", keys)


@simulated
async def test_a_newer_class_takes_over_and_the_older_one_leaves_its_grains_to_it(
    house: House,
) -> None:
    """A rolling upgrade: what the new class has written is never given to the old one."""
    await house.start("a", [Ledger])
    await house.start("b", [Ledger])
    await asyncio.sleep(5)
    cluster = await house.connect("a", "b")
    keys = [f"l{n}" for n in range(24)]
    for key in keys:
        await cluster.actor(Ledger, key).write()
    await house.start("n", [NewLedger])
    await asyncio.sleep(5)
    moved = [key for key in keys if (await cluster.actor(Ledger, key).write())[0] == "n"]
    assert 0 < len(moved) < len(keys), "the new silo owns its share"
    await house.start("m", [NewLedger])
    await asyncio.sleep(5)
    silo = house.silos.pop("n")
    await house.loop.start("n", silo.close())
    # Some of its partitions are the old silos' now, and the newer state is not for them to read.
    for key in moved:
        assert await cluster.actor(Ledger, key).write() == ("m", 3)
    assert records(house, "Ledger", moved)
    for host in ("a", "b"):
        silo = house.silos.pop(host)
        await house.loop.start(host, silo.close())
    for key in keys:
        assert (await cluster.actor(Ledger, key).write())[1] == (4 if key in moved else 3)


@simulated
async def test_placed_kinds_go_to_the_newest_class_only(house: House) -> None:
    """Else a grain that was put away could come back where its state cannot be read."""

    class Old(Actor, kind="Any", version=1, placement=PreferLocal()):
        async def where(self) -> str:
            return machine(current())

    class New(Actor, kind="Any", version=2, placement=PreferLocal()):
        async def where(self) -> str:
            return machine(current())

    await house.start("a", [Old])
    await house.start("n", [New])
    await asyncio.sleep(5)
    cluster = await house.connect("a", "n")
    for key in range(12):
        assert await cluster.actor(Old, str(key)).where() == "n"


@simulated
async def test_a_silo_of_weight_0_hosts_what_asks_for_its_role_and_nothing_else(
    house: House,
) -> None:
    """So a machine with a GPU is kept for what needs it."""
    kinds = [Shop, Near, Desk, Train]
    await house.start("a", kinds)
    await house.start("g", kinds, SiloConfig(partitions=8, weight=0, roles=("gpu",)))
    await asyncio.sleep(5)
    cluster = await house.connect("a", "g")
    for n in range(12):
        assert await cluster.actor(Train, f"t{n}").where() == "g"
        assert await cluster.actor(Shop, f"s{n}").sell() == "a"
        assert await cluster.actor(Near, f"n{n}").where() == "a"


@simulated
async def test_a_caller_that_does_not_host_the_kind_is_not_where_it_goes(house: House) -> None:
    """Near as far as that is possible: the owner, or any that hosts it."""
    await house.start("a", [Desk])
    await house.start("b", [Near])
    await asyncio.sleep(5)
    cluster = await house.connect("a", "b")
    for n in range(12):
        assert await cluster.actor(Desk, f"d{n}").local(f"k{n}") == ("a", "b")


@simulated
async def test_a_gateway_finds_stateless_workers_that_it_does_not_host(house: House) -> None:
    """No record is kept of them: any silo that hosts the kind will do."""
    await house.start("a", [Desk])
    await house.start("b", [Cut])
    await asyncio.sleep(5)
    far = await house.connect("a", host="far", routing="gateway")
    seen = len(house.operations)
    for n in range(8):
        assert await far.actor(Cut, f"c{n}").work() == "b"
    names = {operation.name for operation in house.operations[seen:]}
    assert not names & {"place", "find_host"}


@simulated
async def test_a_kind_that_nobody_hosts_is_refused_at_once(house: House) -> None:
    """Waiting would help nobody: the name is wrong, or its silos were never started."""
    await house.start("a", [Desk])
    cluster = await house.connect("a")
    began = house.loop.time()
    for key in ("x", "y", "z"):
        end = await outcome(cluster.actor(Shop, key).sell())
        assert isinstance(end, errors.NoSuchKind)
        assert end.did_run == "no"
    assert house.loop.time() - began < 1


@simulated
async def test_a_kind_whose_only_silo_is_restarted_is_waited_for(house: House) -> None:
    """A rolling restart of a small fleet fails no call."""
    await house.start("a", [Desk])
    await house.start("b", [Shop])
    await asyncio.sleep(5)
    cluster = await house.connect("a", "b")
    for n in range(8):
        await cluster.actor(Shop, f"s{n}").sell()
    silo = house.silos.pop("b")
    await house.loop.start("b", silo.close())
    calls = [asyncio.ensure_future(cluster.actor(Shop, f"s{n}").sell()) for n in range(8)]
    await asyncio.sleep(3)
    assert not any(call.done() for call in calls)
    await house.start("b#2", [Shop])
    assert await asyncio.gather(*calls) == ["b"] * 8
    for n in range(8):
        assert await cluster.actor(Shop, f"s{n}").total() == 2


@simulated
async def test_a_kind_that_has_just_come_is_known_at_once(house: House) -> None:
    """Whoever waits until the new silo has started may call it the next moment."""
    await house.start("a", [Desk])
    cluster = await house.connect("a")
    await asyncio.sleep(1)
    assert isinstance(await outcome(cluster.actor(Shop, "s").sell()), errors.NoSuchKind)
    await asyncio.sleep(0.1)
    for n in range(5):
        await house.start(f"b{n}", [Shop])
        assert await options(cluster.actor(Shop, f"s{n}"), timeout=5).sell()


@simulated
async def test_data_of_a_kind_that_nobody_hosts_any_more_can_be_looked_at(house: House) -> None:
    """Also where the record of its last host is still there."""
    await house.start("a", [Desk])
    await house.start("b", [Shop])
    await asyncio.sleep(5)
    cluster = await house.connect("a", "b")
    keys = [f"s{n}" for n in range(12)]
    for key in keys:
        await cluster.actor(Shop, key).sell()
    (key, *_) = records(house, "Shop", keys)
    house.kill("b")
    await asyncio.sleep(0.5)  # requests under way have an unknown outcome
    found = await cluster.admin.inspect(Shop, key)
    assert found.state is not None
    assert await cluster.admin.delete(Shop, key)
    grain = GrainId(f"Shop/{key}")
    assert await house.store.host("x").find_host(partition_of(grain, 8), grain) is None
