"""Actors that are placed one by one, on silos that are processes: where they go, and what becomes of them
when processes end.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally

import pytest

import durum
from durum import errors
from durum.cli import exits
from durum.errors import DidRun
from tests.support.fleet import Fleet
from tests.support.load import load
from tests.support.placed_grains import Anywhere, Caller, Least, Near, Trained

PLACED = "tests.support.placed_grains"


async def trio(fleet: Fleet) -> None:
    """Three silos, one of them with a role."""
    await fleet.create()
    await asyncio.gather(
        fleet.start(2, app=PLACED), fleet.start(1, "--role", "gpu", "--role", "eu", app=PLACED)
    )
    await fleet.shared(3)


@pytest.mark.parametrize("fleet", ["sqlite", "valkey"], indirect=True)
async def test_each_strategy_places_as_it_says(fleet: Fleet) -> None:
    """On every kind of store, through real connections and the command line's own options."""
    await trio(fleet)
    processes = {silo.process.pid for silo in fleet.silos}
    roles = {row.silo: row.roles for row in (await fleet.view()).active}
    (gpu,) = [
        silo.process.pid for silo in fleet.silos if roles[silo.first_line["silo"]] == ("gpu", "eu")
    ]
    async with fleet.connect() as cluster:
        for n in range(12):
            caller = cluster.actor(Caller, f"c{n}")
            assert await caller.near(f"c{n}") == await caller.process()
            assert await cluster.actor(Trained, f"t{n}").process() == gpu
        anywhere = [await cluster.actor(Anywhere, f"a{n}").process() for n in range(40)]
        assert set(anywhere) == processes
        least = Tally([await cluster.actor(Least, f"l{n}").process() for n in range(40)])
        assert set(least) == processes
        again = [await cluster.actor(Anywhere, f"a{n}").process() for n in range(40)]
        assert again == anywhere


@pytest.mark.timeout(120)
@pytest.mark.parametrize("fleet", ["sqlite", "valkey"], indirect=True)
async def test_kill_of_a_host_loses_and_doubles_nothing(fleet: Fleet) -> None:
    """It is the host of some actors and the owner of others; both kinds are served again elsewhere."""
    await trio(fleet)
    victim = fleet.silos[0]
    async with (
        fleet.connect() as cluster,
        load(cluster, kind=Least) as plain,
        load(cluster, keyed=True, kind=Anywhere) as keyed,
    ):
        hosts = [await cluster.actor(Least, key).process() for key in plain.keys]
        assert victim.process.pid in hosts
        await fleet.kill(victim)
        await plain.all_answer()
        await keyed.all_answer()
        after = [await cluster.actor(Least, key).process() for key in plain.keys]
        for before, now in zip(hosts, after, strict=True):
            assert now == before or before == victim.process.pid
        assert victim.process.pid not in after
    assert keyed.failures == []
    assert {type(failure) for failure in plain.failures} <= {errors.SiloLost}
    assert {failure.did_run for failure in plain.failures} <= {DidRun.MAYBE}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fleet", ["sqlite", "valkey"], indirect=True)
async def test_rolling_restart_fails_no_call_of_a_placed_actor(fleet: Fleet) -> None:
    """Each silo lets go of its own before it leaves; none of these calls has a key."""
    await fleet.create()
    await fleet.start(3, app=PLACED)
    await fleet.shared(3)
    silos = list(fleet.silos)
    async with (
        fleet.connect() as cluster,
        load(cluster, kind=Least) as calls,
        load(cluster, kind=Near) as near,
    ):
        for silo in silos:
            fleet.terminate(silo)
            assert await fleet.ended(silo) == exits.CLEAN
            await calls.all_answer()
            await near.all_answer()
            await fleet.start(1, app=PLACED)
            await fleet.shared(3)
            await calls.passes(20)
    assert calls.failures == near.failures == []
    assert "Traceback" not in fleet.log()


async def test_calls_wait_for_the_only_silo_with_a_role(sqlite_fleet: Fleet) -> None:
    """It is restarted, as every silo is one day; and where it never comes, the error says what is missing."""
    fleet = sqlite_fleet
    await trio(fleet)
    async with fleet.connect() as cluster:
        trained = cluster.actor(Trained, "t")
        pid = await trained.process()
        (gpu,) = [silo for silo in fleet.silos if silo.process.pid == pid]
        await trained.add(1)
        fleet.terminate(gpu)
        assert await fleet.ended(gpu) == exits.CLEAN
        with pytest.raises(errors.CallTimeout, match="in the role 'gpu'") as caught:
            await durum.options(trained, timeout=2.0).add(1)
        assert caught.value.did_run is DidRun.NO
        waiting = asyncio.ensure_future(trained.add(1))
        await asyncio.sleep(1)
        assert not waiting.done()
        await fleet.start(1, "--role", "gpu", app=PLACED)
        assert await waiting == 2
