"""A real Redis or Valkey under silos that is restarted, stopped, busy, or cuts its connections."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import durum
from durum import errors
from durum.errors import DidRun
from tests.support.fleet import Fleet
from tests.support.grains import Counter
from tests.support.load import load
from tests.support.servers import Server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


async def test_restarts_of_a_store_that_syncs_lose_nothing(own: Fleet, server: Server) -> None:
    """Each time another process answers with the same data: it is checked, and trusted again, within 3 s."""
    loop, away_s = asyncio.get_running_loop(), []
    await own.started(3)
    async with own.connect() as cluster, load(cluster) as plain, load(cluster, keyed=True) as keyed:
        for _ in range(5):
            server.kill()
            server.start()
            began = loop.time()
            await plain.all_answer()
            away_s.append(loop.time() - began)
            await keyed.passes(10)
    print(f"served again after {away_s} s")
    assert sorted(away_s)[2] < 3, "the median: this machine may have had something else to do"
    plain.only_typed()
    await own.nobody_evicted()
    assert [silo.process.poll() for silo in own.silos] == [None] * 3


async def test_store_that_stops_for_twenty_seconds(own: Fleet, server: Server) -> None:
    """Far longer than every lease: all silos fence themselves, none stops, none is taken for dead, and what
    was sent before still runs when the store wakes up: once, or not at all.
    """
    await own.started(3)
    async with own.connect() as cluster, load(cluster) as plain, load(cluster, keyed=True) as keyed:
        server.stop()
        counter = durum.options(cluster.actor(Counter, "while stopped"), timeout=12)
        with pytest.raises(errors.CallError) as caught:
            await counter.add(1)
        assert caught.value.did_run is not DidRun.YES
        with pytest.raises(errors.CallTimeout) as refused:
            # By now the leases have lapsed: not even a reading is answered from memory.
            await durum.options(cluster.actor(Counter, "plain-0"), timeout=8).get()
        assert refused.value.did_run is DidRun.NO
        server.cont()
        await plain.all_answer()
        await keyed.all_answer()
        assert await counter.get() in (0, 1)
    plain.only_typed()
    await own.nobody_evicted()
    assert "declared dead" not in own.log()


async def test_lost_scripts_and_cut_connections_change_nothing(own: Fleet, server: Server) -> None:
    """Every 100 ms for three seconds: scripts are loaded again, connections opened again, and whatever was
    under way is asked about before it is sent again.
    """
    await own.started(3)
    async with own.connect() as cluster, load(cluster) as plain, load(cluster, keyed=True) as keyed:
        for _ in range(30):
            server.ask("SCRIPT", "FLUSH")
            server.ask("CLIENT", "KILL", "TYPE", "normal")
            await asyncio.sleep(0.1)  # the pace of the fault
        await plain.all_answer()
        await keyed.all_answer()
    plain.only_typed()
    await own.nobody_evicted()


async def test_store_that_is_busy_for_three_seconds(own: Fleet, server: Server) -> None:
    """Somebody's slow script: everything waits, nothing is evicted, nothing is doubled."""
    await own.started(3)
    async with own.connect() as cluster, load(cluster) as plain, load(cluster, keyed=True) as keyed:
        busy = (
            "local t = redis.call('TIME') local e = t[1] * 1000000 + t[2] + 3000000 "
            "while true do local n = redis.call('TIME') "
            "if n[1] * 1000000 + n[2] > e then return 1 end end"
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.to_thread(server.ask, "EVAL", busy, 0, timeout_s=10)
        await plain.all_answer()
        await keyed.all_answer()
    plain.only_typed()
    await own.nobody_evicted()
