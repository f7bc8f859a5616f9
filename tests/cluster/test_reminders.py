"""Reminders through kill -9 of real silos: each comes, in the state once, and not before its time."""

from __future__ import annotations

import asyncio

from tests.support.fleet import Fleet, until
from tests.support.grains import Bell

COUNT = 60
TICKS = 5


async def test_kills_of_silos_lose_and_double_no_reminder(fleet: Fleet) -> None:
    """Three silos are killed and started again one after the other, while reminders of all their actors tick.

    A tick whose silo dies comes again at the next one; what it did before that was never committed.
    """
    silos = await fleet.started(3)
    keys = [f"bell-{number}" for number in range(COUNT)]
    async with fleet.connect() as cluster:
        await asyncio.gather(*(cluster.actor(Bell, key).begin(1.5, TICKS) for key in keys))
        for silo in silos:
            await asyncio.sleep(1.0)
            await fleet.kill(silo)
            await fleet.start()

        async def all_rung() -> bool:
            rung = await asyncio.gather(*(cluster.actor(Bell, key).look() for key in keys))
            return all(number >= TICKS for number, _, _ in rung)

        await until(all_rung, "all ticks")
        for key in keys:
            last, heard, early = await cluster.actor(Bell, key).look()
            assert (last, heard, early) == (TICKS, TICKS, 0)
        assert [each async for each in cluster.admin.reminders.every(Bell)] == []
