"""Silos on machines of their own whose wires are cut: from each other, or from the store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import durum
from durum import errors
from durum.cli import exits
from durum.ids import SiloId
from durum.views import Status
from tests.support import namespaces
from tests.support.apart import SECRET, begin, fleet_in
from tests.support.fleet import Fleet, keys_at, until
from tests.support.grains import Counter
from tests.support.load import load, read
from tests.support.namespaces import GATE, STORE, Town

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


@pytest.fixture
def town() -> Iterator[Town]:
    """Three machines; the store and the callers are at the gate."""
    reason = namespaces.why_not()
    if reason:
        pytest.skip(reason)
    with Town("a", "b", "c") as town:
        yield town


@pytest.fixture
def fleet_apart(town: Town, tmp_path: Path) -> Iterator[Fleet]:
    """A service whose store all machines reach."""
    with fleet_in(town, tmp_path) as fleet:
        yield fleet


async def test_cut_between_two_silos_is_survived_by_all(town: Town, fleet_apart: Fleet) -> None:
    """Both reach the store, the third and all callers. They stay; calls between their actors take another
    way or fail typed, and nothing is served twice.
    """
    fleet = fleet_apart
    silos = await begin(fleet, town, "a", "b", "c")
    async with (
        fleet.connect(secret=SECRET) as cluster,
        load(cluster) as plain,
        load(cluster, keyed=True) as keyed,
    ):
        town.cut("a", "b")
        there = next(keys_at(cluster, Counter, silos["a"], "from"))
        target = next(keys_at(cluster, Counter, silos["b"], "to"))

        async def noticed() -> bool:
            return "reached only through others" in fleet.log()

        await until(noticed, "the notice")
        await plain.all_answer()
        await keyed.all_answer()
        calling = durum.options(cluster.actor(Counter, there), timeout=3)
        with contextlib.suppress(errors.CallError):
            await calling.pass_on(target, 1, "across")
        town.mend("a", "b")
        fresh = durum.options(cluster.actor(Counter, there), timeout=25, idempotency_key="again")
        await fresh.pass_on(target, 1, "across")
        assert await read(cluster.actor(Counter, target)) == 1
    plain.only_typed()


async def test_two_silos_that_are_cut_from_each_other_do_not_both_stay(
    town: Town, fleet_apart: Fleet
) -> None:
    """Each sees the other die, and both reach the store, which lets one of them come first. The other learns
    it from there, and what it would have served is served by the winner: everything, and once.
    """
    fleet = fleet_apart
    silos = await begin(fleet, town, "a", "b")
    async with (
        fleet.connect(secret=SECRET) as cluster,
        load(cluster) as plain,
        load(cluster, keyed=True) as keyed,
    ):
        town.cut("a", "b")

        async def decided() -> bool:
            return len((await fleet.view()).active) == 1

        await until(decided, "the decision")
        await plain.all_answer()
        await keyed.all_answer()
        (left,) = (await fleet.view()).active
        winner, loser = sorted(silos.values(), key=lambda one: one.first_line["silo"] != left.silo)
        assert await fleet.ended(loser) == exits.DECLARED_DEAD
        assert winner.process.poll() is None
        assert set(await fleet.held()) == {left.silo}
        town.mend("a", "b")
        name = next(name for name, silo in silos.items() if silo is loser)
        await fleet.start(
            1,
            *("--listen", f"{town.address(name)}:7600"),
            env={"DURUM_SECRET": SECRET},
            inside=town.inside(name),
        )
        await fleet.shared(2)
    plain.only_typed()


async def test_silo_cut_from_the_store_and_all_others_is_replaced_and_stops(
    town: Town, fleet_apart: Fleet
) -> None:
    """Its cable is pulled. It must have refused by the end of its lease, before anybody else answers for its
    actors, and stop once it hears what became of it.
    """
    fleet = fleet_apart
    silos = await begin(fleet, town, "a", "b", "c")
    async with fleet.connect(secret=SECRET) as cluster, load(cluster, keyed=True) as calls:
        key = next(keys_at(cluster, Counter, silos["a"]))
        assert await cluster.actor(Counter, key).add(1) == 1
        for other in (GATE, STORE, "b", "c"):
            town.cut("a", other)
        await calls.all_answer()
        moved = durum.options(cluster.actor(Counter, key), timeout=30, idempotency_key="moved")
        assert await moved.add(1) == 2
        assert await fleet.status(silos["a"]) is Status.DEAD
        for other in (GATE, STORE, "b", "c"):
            town.mend("a", other)
        assert await fleet.ended(silos["a"]) == exits.DECLARED_DEAD
        assert await read(cluster.actor(Counter, key)) == 2


async def test_silo_cut_from_the_store_only_refuses_and_is_replaced(
    town: Town, fleet_apart: Fleet
) -> None:
    """It answers every probe and every caller, and yet may not serve: what it holds can be taken any time."""
    fleet = fleet_apart
    silos = await begin(fleet, town, "a", "b", "c")
    async with fleet.connect(secret=SECRET) as cluster, load(cluster, keyed=True) as calls:
        keys = keys_at(cluster, Counter, silos["a"])
        mine = [next(keys) for _ in range(10)]
        for key in mine:
            await cluster.actor(Counter, key).add(1)
        town.cut("a", STORE)
        await calls.all_answer()
        answers = await asyncio.gather(
            *(
                durum.options(cluster.actor(Counter, key), timeout=30, idempotency_key="moved").add(
                    1
                )
                for key in mine
            )
        )
        assert answers == [2] * len(mine)
        assert SiloId(silos["a"].first_line["silo"]) not in await fleet.held()
        town.mend("a", STORE)
        assert await fleet.ended(silos["a"]) == exits.DECLARED_DEAD
