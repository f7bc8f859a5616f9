"""Silos that stop for a while and go on as if nothing had happened: they must not change anything."""

from __future__ import annotations

import asyncio
import os

import pytest

import durum
from durum import errors
from durum.cli import exits
from durum.errors import DidRun
from durum.ids import GrainId, SiloId, grain_id
from durum.views import Status
from durum.wire.connection import LinkBroken
from durum.wire.messages import AnyMessage, Call, Failure, Moved
from tests.support.commands import Running
from tests.support.fleet import Fleet, appears, keys_at, raw_link, until
from tests.support.grains import Counter
from tests.support.load import load, read

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

ADD_ONE = b"\x91\x01"
NOTHING = b"\x90"


@pytest.mark.parametrize("fleet", ["sqlite", "valkey"], indirect=True)
async def test_stopped_silo_changes_nothing_when_it_wakes_up(fleet: Fleet) -> None:
    """It cannot know that its partitions have moved. Calls that waited in its sockets all the while
    must neither commit nor be answered from what it remembers.
    """
    silos = await fleet.started(3)
    async with fleet.connect() as cluster, load(cluster, keyed=True) as calls:
        mine = keys_at(cluster, Counter, silos[0])
        keys = [next(mine) for _ in range(30)]
        for key in keys:
            await cluster.actor(Counter, key).add(1)
        async with raw_link(silos[0], cluster=fleet.cluster) as (link, _):
            await fleet.stop(silos[0])
            queued = [
                link.request(Call(link.next_id(), grain(key), *what, timeout_ms=600_000))
                for key in keys
                for what in (("get", NOTHING), ("add", ADD_ONE), ("get", NOTHING))
            ]
            await calls.all_answer()
            for key in keys:
                counter = durum.options(cluster.actor(Counter, key), idempotency_key="ten")
                assert await counter.add(10) == 11
            fleet.cont(silos[0])
            assert await fleet.ended(silos[0]) == exits.DECLARED_DEAD
            outcomes = await asyncio.gather(*queued, return_exceptions=True)
        assert [one for one in outcomes if not harmless(one)] == []
        for key in keys:
            assert await cluster.actor(Counter, key).get() == 11


def grain(key: str) -> GrainId:
    return grain_id("Counter", key)


def harmless(outcome: AnyMessage | BaseException) -> bool:
    """Whether it is neither a value nor a claim to have run."""
    if isinstance(outcome, Failure):
        return outcome.did_run in {DidRun.NO, DidRun.ROLLED_BACK}
    return isinstance(outcome, Moved | LinkBroken)


async def test_stop_of_three_seconds_evicts_nobody(sqlite_fleet: Fleet) -> None:
    """A page fault storm, a slow disk, a live migration: moving everything would be worse."""
    fleet = sqlite_fleet
    silos = await fleet.started(3)
    version = (await fleet.view()).version
    async with fleet.connect() as cluster, load(cluster) as calls:
        await fleet.stop(silos[0])
        await asyncio.sleep(3)  # the fault itself
        fleet.cont(silos[0])
        await renewed(fleet, silos[0])
        await calls.all_answer()
    assert calls.failures == []
    view = await fleet.view()
    assert {row.silo for row in view.active} == {SiloId(one.first_line["silo"]) for one in silos}
    # Suspicions may have come and gone; nobody was declared dead.
    assert [row for row in view.rows if row.status is Status.DEAD] == []
    assert view.version >= version


async def renewed(fleet: Fleet, silo: Running, times: int = 2) -> None:
    """Wait until a silo has renewed its lease."""
    name = SiloId(silo.first_line["silo"])
    before = (await fleet.table()).heartbeats[name]

    async def later() -> bool:
        return (await fleet.table()).heartbeats[name] >= before + times

    await until(later, f"renewals of {name}")


@pytest.mark.parametrize("fleet", ["valkey"], indirect=True)
async def test_silo_whose_loop_is_held_is_fenced(fleet: Fleet) -> None:
    """An actor that blocks stops its silo's probes and renewals; its own write then comes too late."""
    silos = await fleet.started(3)
    gate = fleet.home / "gate"
    async with fleet.connect() as cluster, load(cluster, keyed=True) as calls:
        key = next(keys_at(cluster, Counter, silos[0]))
        blocked = asyncio.create_task(
            durum.options(cluster.actor(Counter, key), timeout=60).hold_loop(str(gate))
        )
        try:
            await appears(fleet.home / "gate-began")
            assert await read(cluster.actor(Counter, key)) == 0
            with pytest.raises(errors.SiloLost) as caught:
                await blocked
            assert caught.value.did_run is DidRun.MAYBE
        finally:
            gate.touch()
        assert await fleet.ended(silos[0]) == exits.DECLARED_DEAD
        await calls.all_answer()
        assert await cluster.actor(Counter, key).get() == 0
    assert "the event loop is held" in fleet.log()


@pytest.mark.parametrize("fleet", ["valkey"], indirect=True)
async def test_silo_with_a_tenth_of_its_time_evicts_nobody(fleet: Fleet) -> None:
    """A limit on its CPU, or a noisy neighbour. Its own lateness must not make it vote against those who are
    well; whether it stays itself is up to what it still manages to do.
    """
    slow, *well = await fleet.started(3)
    async with fleet.connect() as cluster, load(cluster, keyed=True) as calls:
        async with fleet.slowed(slow):
            # Longer than it takes to suspect and to vote somebody out.
            await asyncio.sleep(float(os.environ.get("DURUM_FAULTS_SLOW_S", "10")))
        for silo in well:
            assert await fleet.status(silo) is Status.ACTIVE
        await calls.all_answer()
    calls.only_typed()
    if await fleet.status(slow) is Status.DEAD:
        assert await fleet.ended(slow) == exits.DECLARED_DEAD


async def test_stopped_silo_is_replaced_at_its_address(sqlite_fleet: Fleet) -> None:
    """A supervisor that thinks it dead starts another at once; the old one must not come back."""
    fleet = sqlite_fleet
    await fleet.create()
    (old,) = await fleet.start()
    async with fleet.connect() as cluster:
        assert await cluster.actor(Counter, "one").add(1) == 1
    await fleet.stop(old)
    (new,) = await fleet.start(1, "--advertise", old.first_line["address"])
    assert await fleet.status(old) is Status.DEAD
    fleet.cont(old)
    assert await fleet.ended(old) == exits.DECLARED_DEAD
    assert await fleet.status(new) is Status.ACTIVE
