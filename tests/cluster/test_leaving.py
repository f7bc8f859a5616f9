"""Silos that are told to stop while calls go on: nobody notices, except the operator."""

from __future__ import annotations

import asyncio
import signal

import pytest

import durum
from durum import errors
from durum.cli import exits
from durum.errors import DidRun
from durum.ids import SiloId
from durum.views import Status
from tests.support.fleet import Fleet, appears, keys_at, until
from tests.support.grains import Counter, Slow
from tests.support.load import load


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fleet", ["sqlite", "valkey"], indirect=True)
async def test_rolling_restart_of_three_fails_no_call(fleet: Fleet) -> None:
    """How every release is rolled out. These calls have no keys: none is resent unless it did not run. A
    silo that only has short turns is gone within 2 s.
    """
    loop, took_s = asyncio.get_running_loop(), []
    silos = await fleet.started(3)
    async with fleet.connect() as cluster, load(cluster) as calls:
        for silo in silos:
            began = loop.time()
            fleet.terminate(silo)
            assert await fleet.ended(silo) == exits.CLEAN
            took_s.append(loop.time() - began)
            await calls.all_answer()
            await fleet.start()
            await fleet.shared(3)
            await calls.passes(20)
    print(f"gone after {took_s} s")
    assert sorted(took_s)[1] < 2, "the median: this machine may have had something else to do"
    assert calls.failures == []
    assert "Traceback" not in fleet.log()


async def test_sigterm_moves_everything_before_the_silo_ends(sqlite_fleet: Fleet) -> None:
    """When it has exited nobody has to find out that it is gone: nothing is left to take over."""
    fleet = sqlite_fleet
    silos = await fleet.started(3)
    async with fleet.connect() as cluster, load(cluster) as calls:
        fleet.terminate(silos[0])
        assert await fleet.ended(silos[0]) == exits.CLEAN
        gone = SiloId(silos[0].first_line["silo"])
        assert gone not in await fleet.held()
        row = (await fleet.view()).by_id[gone]
        assert (row.status, row.reason) == (Status.DEAD, "left")
        await calls.all_answer()
    assert calls.failures == []


async def test_sigterm_lets_a_running_turn_end(sqlite_fleet: Fleet) -> None:
    """What runs when the order comes is finished, committed and answered; what waits moves on."""
    fleet = sqlite_fleet
    silos = await fleet.started(2)
    async with fleet.connect() as cluster:
        key = next(keys_at(cluster, Slow, silos[0]))
        slow = durum.options(cluster.actor(Slow, key), timeout=30)
        works = [asyncio.create_task(slow.work()) for _ in range(40)]
        await works[0]
        fleet.terminate(silos[0])
        assert sorted(await asyncio.gather(*works)) == list(range(1, 41))
        assert await fleet.ended(silos[0]) == exits.CLEAN


async def test_second_sigterm_ends_it_at_once_and_what_ran_is_unknown(sqlite_fleet: Fleet) -> None:
    """The operator has decided; its partitions are taken over as after a crash."""
    fleet = sqlite_fleet
    silos = await fleet.started(2)
    async with fleet.connect() as cluster:
        key = next(keys_at(cluster, Counter, silos[0]))
        lingering = asyncio.create_task(cluster.actor(Counter, key).linger(str(fleet.home / "x")))
        await appears(fleet.home / "x-began")
        fleet.terminate(silos[0])

        async def leaving() -> bool:
            return await fleet.status(silos[0]) is Status.LEAVING

        await until(leaving, "the leaving")
        fleet.terminate(silos[0])
        assert await fleet.ended(silos[0]) == -signal.SIGTERM
        with pytest.raises(errors.SiloLost) as caught:
            await lingering
        assert caught.value.did_run is DidRun.MAYBE
        assert await cluster.actor(Counter, key).get() == 0


async def test_newcomer_takes_its_share_while_calls_go_on(sqlite_fleet: Fleet) -> None:
    """Growing a cluster under load is no event for its callers."""
    fleet = sqlite_fleet
    await fleet.started(1)
    async with fleet.connect() as cluster, load(cluster) as calls:
        await fleet.start(2)
        await fleet.shared(3)
        await calls.all_answer()
    assert calls.failures == []
