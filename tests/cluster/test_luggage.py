"""What actors have in memory travels with them between real processes."""

from __future__ import annotations

import pytest

from durum.cli import exits
from tests.support.fleet import Fleet, owner_of
from tests.support.grains import Warm

KEYS = [f"k{n}" for n in range(60)]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fleet", ["sqlite", "valkey"], indirect=True)
async def test_memory_travels_when_a_third_silo_joins_and_when_it_leaves(fleet: Fleet) -> None:
    """Twice over the wire, and each actor still knows all that it has seen; no call fails meanwhile."""
    await fleet.started(2)
    async with fleet.connect() as cluster:
        for key in KEYS:
            assert await cluster.actor(Warm, key).see("first") == 1
        before = {key: owner_of(cluster, Warm, key) for key in KEYS}
        (third,) = await fleet.start()
        await fleet.shared(3)
        for key in KEYS:
            assert await cluster.actor(Warm, key).see("second") == 2
        after = {key: owner_of(cluster, Warm, key) for key in KEYS}
        assert third.first_line["address"] in after.values()
        assert after != before
        fleet.terminate(third)
        assert await fleet.ended(third) == exits.CLEAN
        for key in KEYS:
            assert await cluster.actor(Warm, key).see("third") == 3
    assert "Traceback" not in fleet.log()
