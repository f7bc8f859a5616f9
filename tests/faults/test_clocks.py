"""Wall clocks that are wrong, and that somebody sets while silos run: no lease and no fence trusts them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import durum
from durum.cli import exits
from tests.support import skews
from tests.support.commands import Running
from tests.support.fleet import Fleet, until
from tests.support.grains import Counter
from tests.support.load import load
from tests.support.servers import Server, binary_of
from tests.support.skews import WallClock
from tests.support.stores import ALWAYS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

HOUR_S = 3600
DAY_S = 24 * HOUR_S


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    """One that a test sets."""
    reason = skews.why_not()
    if reason:
        pytest.skip(reason)
    return WallClock(tmp_path, "one")


@pytest.fixture
def server(clock: WallClock) -> Iterator[Server]:
    """A store on a host with that clock."""
    if binary_of("valkey") is None:
        pytest.skip("valkey is not installed here")
    server = Server("valkey", ALWAYS, env=clock.environment)
    try:
        yield server.start()
    finally:
        server.remove()


async def alarmed(fleet: Fleet, silos: list[Running], times: int) -> None:
    """Wait until each silo has told so often that the store's clock was set."""

    async def told() -> bool:
        logs = [silo.log.read_text() for silo in silos]
        return all(log.count("the store's clock was set") >= times for log in logs)

    await until(told, f"{times} alarms of each silo")


async def test_store_and_silos_whose_clocks_are_hours_apart(
    clock: WallClock, server: Server, tmp_path: Path
) -> None:
    """The store's clock jumps an hour ahead, then two back; of the silos, one is an hour early and one late
    all the time. Nobody fails, nobody is taken for dead, and a person is told.
    """
    early, late = WallClock(tmp_path, "early"), WallClock(tmp_path, "late")
    early.set(HOUR_S)
    late.set(-HOUR_S)
    async with Fleet(tmp_path, server.url) as fleet:
        await fleet.create()
        await fleet.start(1)
        await fleet.start(1, env=early.environment)
        await fleet.start(1, env=late.environment)
        await fleet.shared(3)
        silos = list(fleet.silos)
        async with (
            fleet.connect() as cluster,
            load(cluster) as plain,
            load(cluster, keyed=True) as keyed,
        ):
            for times, seconds in enumerate((HOUR_S, -HOUR_S), 1):
                clock.set(seconds)
                await alarmed(fleet, silos, times)
                await plain.all_answer()
                await keyed.all_answer()
        assert plain.failures == keyed.failures == []
        await fleet.nobody_evicted()


async def test_host_whose_clock_is_set_back_a_day_between_two_runs(
    clock: WallClock, tmp_path: Path
) -> None:
    """On SQLite the host's clock is the store's. First it jumps under silos, an hour each way, then it is a
    day behind when all of them start again: they do start, under newer generations, and the key of a call
    that was made "tomorrow" is still known.
    """
    async with Fleet(tmp_path, f"sqlite:///{tmp_path}/service.db") as fleet:
        await fleet.create()
        silos = await fleet.start(2, env=clock.environment)
        await fleet.shared(2)
        async with fleet.connect() as cluster, load(cluster) as calls:
            for times, seconds in enumerate((HOUR_S, -HOUR_S, 0), 1):
                clock.set(seconds)
                await alarmed(fleet, silos, times)
                await calls.all_answer()
            once = durum.options(cluster.actor(Counter, "once"), idempotency_key="7")
            assert await once.add(1) == 1
        assert calls.failures == []
        await fleet.nobody_evicted()
        for silo in silos:
            fleet.terminate(silo)
            assert await fleet.ended(silo) == exits.CLEAN
        clock.set(-DAY_S)
        address = silos[0].first_line["address"]
        (again,) = await fleet.start(1, "--listen", address, env=clock.environment)
        assert generation(again) > generation(silos[0])
        await fleet.shared(1)
        async with fleet.connect() as cluster:
            once = durum.options(cluster.actor(Counter, "once"), idempotency_key="7")
            assert await once.add(1) == 1
            assert await cluster.actor(Counter, "once").add(1) == 2


def generation(silo: Running) -> int:
    """Which of the silos that have had its address it is: the later, the greater."""
    return int(silo.first_line["silo"].rpartition("@")[2])
