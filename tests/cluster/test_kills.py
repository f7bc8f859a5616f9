"""kill -9 of silos under load: nothing acknowledged is lost, nothing is doubled, all is served again."""

from __future__ import annotations

import pytest

import durum
from durum import errors
from durum.errors import DidRun
from tests.support.fleet import Fleet, keys_at
from tests.support.grains import Counter
from tests.support.load import load


async def test_kill_of_one_of_three_loses_and_doubles_nothing(fleet: Fleet) -> None:
    """The first thing that anybody tries. A caller learns what is unknown; with a key nothing is."""
    silos = await fleet.started(3)
    async with (
        fleet.connect() as cluster,
        load(cluster) as plain,
        load(cluster, keyed=True) as keyed,
    ):
        await fleet.kill(silos[0])
        await plain.all_answer()
        await keyed.all_answer()
    assert keyed.failures == []
    assert {type(failure) for failure in plain.failures} <= {errors.SiloLost}
    assert {failure.did_run for failure in plain.failures} <= {DidRun.MAYBE}


async def test_client_whose_only_address_is_killed_goes_on(sqlite_fleet: Fleet) -> None:
    """It was given one address of many; it has heard of the others since."""
    silos = await sqlite_fleet.started(3)
    async with sqlite_fleet.connect(silos[1].first_line["address"]) as cluster:
        key = next(keys_at(cluster, Counter, silos[1]))
        assert await cluster.actor(Counter, key).add(1) == 1
        await sqlite_fleet.kill(silos[1])
        assert await cluster.actor(Counter, key).add(1) == 2
        assert silos[1].first_line["address"] not in cluster.silos


async def test_kill_of_the_last_one_ends_calls_typed(sqlite_fleet: Fleet) -> None:
    """Where nobody is left a call ends by its deadline all the same, and says that it did not run."""
    (silo,) = await sqlite_fleet.started(1)
    async with sqlite_fleet.connect() as cluster:
        await cluster.actor(Counter, "one").add(1)
        await sqlite_fleet.kill(silo)
        with pytest.raises(errors.CallTimeout) as caught:
            await durum.options(cluster.actor(Counter, "one"), timeout=1.0).add(1)
        assert caught.value.did_run is DidRun.NO
        await sqlite_fleet.start()
        async with sqlite_fleet.connect() as again:
            assert await again.actor(Counter, "one").get() == 1


async def test_all_killed_at_once_and_started_again_keep_all(sqlite_fleet: Fleet) -> None:
    """A power cut in the rack: the state is in the store, and the dead are found dead by the living."""
    silos = await sqlite_fleet.started(3)
    keys = [f"key-{number}" for number in range(20)]
    async with sqlite_fleet.connect() as cluster:
        for key in keys:
            await cluster.actor(Counter, key).add(5)
    for silo in silos:
        silo.process.kill()
    for silo in silos:
        await sqlite_fleet.ended(silo)
    await sqlite_fleet.start(2)
    async with sqlite_fleet.connect() as cluster:
        assert [await cluster.actor(Counter, key).get() for key in keys] == [5] * len(keys)


async def test_silo_killed_while_it_joins_harms_nobody(sqlite_fleet: Fleet) -> None:
    """Partitions on their way to a newcomer come back, however far they had come."""
    await sqlite_fleet.started(2)
    async with sqlite_fleet.connect() as cluster, load(cluster) as calls:
        (newcomer,) = await sqlite_fleet.start()
        await sqlite_fleet.kill(newcomer)
        await calls.all_answer()
        await sqlite_fleet.shared(2)
