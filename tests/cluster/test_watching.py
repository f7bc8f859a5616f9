"""Watches of clients and actors while silos are killed: an event is missing only where a Gap stands."""

from __future__ import annotations

import asyncio
import contextlib

import durum
from durum import Gap, errors
from durum.client.client import Cluster
from tests.support.fleet import Fleet
from tests.support.grains import Herald, Listener

KEYS = tuple(f"herald-{number}" for number in range(12))


class Watched:
    """What one watcher was told."""

    def __init__(self) -> None:
        self.told: list[int | Gap] = []
        self.begun = asyncio.Event()

    async def watch(self, cluster: Cluster, key: str) -> None:
        async with cluster.watch(cluster.actor(Herald, key)) as events:
            self.begun.set()
            async for event in events:
                self.told.append(event)

    def check(self) -> None:
        """Nothing twice, nothing out of order, and nothing missing that was not said to be."""
        last: int | None = None
        seen = [event for event in self.told if not isinstance(event, Gap)]
        assert seen == sorted(set(seen))
        for event in self.told:
            if isinstance(event, Gap):
                last = None
            else:
                assert last in (None, event - 1), f"{event} after {last}, and no gap"
                last = event


async def heard_more(watched: dict[str, Watched], events: int) -> None:
    """Return when each watcher was told so many more."""
    goals = {key: len(each.told) + events for key, each in watched.items()}
    async with asyncio.timeout(30):
        while any(len(watched[key].told) < goal for key, goal in goals.items()):
            await asyncio.sleep(0.02)


async def speak(cluster: Cluster, key: str) -> None:
    herald = durum.options(cluster.actor(Herald, key), timeout=5)
    while True:
        with contextlib.suppress(errors.CallError):
            await herald.say()
        await asyncio.sleep(0.02)


async def test_event_is_missing_only_where_a_gap_stands_whoever_is_killed(
    sqlite_fleet: Fleet,
) -> None:
    """Whoever keeps a picture by events must know when to look anew; else it is wrong for ever."""
    silos = await sqlite_fleet.started(3)
    watched = {key: Watched() for key in KEYS}
    async with (
        sqlite_fleet.connect() as speaking,
        sqlite_fleet.connect() as direct,
        sqlite_fleet.connect(silos[2].first_line["address"], routing="gateway") as gateway,
        asyncio.TaskGroup() as group,
    ):
        tasks = []
        for number, key in enumerate(KEYS):
            through = gateway if number % 2 else direct
            tasks.append(group.create_task(watched[key].watch(through, key)))
            await watched[key].begun.wait()
            await speaking.actor(Listener, key).get()
            tasks.append(group.create_task(speak(speaking, key)))
        for silo in silos[:2]:
            await heard_more(watched, 10)
            await sqlite_fleet.kill(silo)
            await sqlite_fleet.start()
            await sqlite_fleet.shared(3)
        await heard_more(watched, 20)
        for key in KEYS:
            heard, unsaid = await durum.options(speaking.actor(Listener, key), timeout=20).get()
            assert heard > 0
            assert unsaid == 0
        for task in tasks:
            task.cancel()
    assert any(Gap(None, "moved") in each.told for each in watched.values())
    for each in watched.values():
        each.check()
