"""Messages and keyed calls while one silo after another is killed: every effect once, and the order of each
pair kept.

`DURUM_FAULTS_TELLS=50000` makes it 50,000 messages among 500 actors and 20,000 calls, 5,000 of one actor.
"""

from __future__ import annotations

import asyncio
import os
import time
from random import Random
from typing import Final

import pytest

from durum import errors
from tests.support.fleet import PATIENCE_S, Fleet
from tests.support.impatience import HOT, Crowd
from tests.support.tellers import Books, told, wrong

APP: Final = "tests.support.tellers"
TELLS: Final = int(os.environ.get("DURUM_FAULTS_TELLS", "2500"))
LONG: Final = TELLS > 5000
KILLS: Final = 4
"""At least: it goes on as long as calls do."""


async def kill_in_turn(
    fleet: Fleet, crowd: Crowd, calling: asyncio.Task[None], random: Random
) -> int:
    """Kill the oldest silo and start another, over and over, while there are calls; how many were killed."""
    killed = 0
    while not calling.done():
        # Sometimes once partitions have come to rest, sometimes while they still move to the newcomer.
        goal = crowd.ended + random.randrange(10, 100)
        while crowd.ended < goal and not calling.done():
            await asyncio.sleep(0.01)
        await fleet.kill(fleet.silos[0])
        killed += 1
        crowd.enough = killed >= KILLS
        await start(fleet)
        if random.random() < 0.7:
            await fleet.shared(3)
    return killed


async def start(fleet: Fleet, count: int = 1) -> None:
    """Start silos, as a supervisor does: one that found no store, since the machine is busy, once more."""
    goal = len(fleet.silos) + count
    for attempt in range(5):
        try:
            await fleet.start(goal - len(fleet.silos), "--log-level", "warning", app=APP)
        except AssertionError as exc:
            if attempt == 4 or "ended with 75" not in str(exc):
                raise
        if len(fleet.silos) == goal:
            return


async def arrived(fleet: Fleet) -> None:
    """Return once no outbox holds anything, so that nothing can come any more."""
    empty, least, since = 0, None, time.monotonic()
    while empty < 2:  # a message on its way may have caused another behind the eye's back
        left = await waiting(fleet)
        empty = 0 if left else empty + 1
        if least is None or left < least:
            least, since = left, time.monotonic()
        assert time.monotonic() - since < PATIENCE_S, f"{left} messages do not arrive"
        await asyncio.sleep(0.2)


async def waiting(fleet: Fleet) -> int:
    """How many messages lie in outboxes. A partition that moves just now may have one."""
    async with fleet.opened() as store:
        genesis = await store.genesis()
        assert genesis is not None
        owners = await store.owners(genesis.mark)
        pages = [store.posted(one.partition, one.token, 0, 10_000) for one in owners]
        letters = [store.count_letters(one.partition) for one in owners]
        assert sum(await asyncio.gather(*letters)) == 0, "there are dead letters"
        found = await asyncio.gather(*pages, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException) and not isinstance(each, errors.Superseded):
            raise each
    return sum(1 if isinstance(each, BaseException) else len(each) for each in found)


@pytest.mark.timeout(1200 if LONG else 60)
@pytest.mark.parametrize("fleet", ["sqlite", "valkey"], indirect=True)
async def test_every_effect_comes_once_and_in_order_whoever_is_killed(fleet: Fleet) -> None:
    """The promise that flows will stand upon, with everything at once: turns that tell, messages that tell,
    clients that tell, clients that call again before they were answered, and nobody stays alive for long."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}, {TELLS} messages")
    random = Random(seed)
    await fleet.create()
    await start(fleet, 3)
    await fleet.shared(3)
    began = time.monotonic()
    async with fleet.connect() as one, fleet.connect() as two, fleet.connect() as three:
        pause_s = 0.0 if LONG else 0.03
        crowd = Crowd((one, two, three), tells=TELLS, pause_s=pause_s, random=random)
        async with asyncio.TaskGroup() as tasks:
            calling = tasks.create_task(crowd.run(*((96, 16, 32) if LONG else (8, 2, 2))))
            killing = tasks.create_task(kill_in_turn(fleet, crowd, calling, random))
        called_s = time.monotonic() - began
        await arrived(fleet)
        took_s = time.monotonic() - began
        books = await crowd.books()
    calls = sum(map(len, crowd.calls.values()))
    print(
        f"{told(books)} messages among {len(crowd.keys)} actors, {calls} calls, {len(crowd.calls[HOT])} of"
        f" one; {killing.result()} kills in {took_s:.1f} s (calls {called_s:.1f} s),"
        f" {(told(books) + calls) / took_s:.0f} turns/s; {crowd.attempts} attempts, {crowd.gave_up} given up,"
        f" failures {dict(crowd.failures)}, {calls - len(crowd.answers)} answers forgotten"
    )
    assert told(books) >= TELLS
    assert list(wrong(books, crowd.told, crowd.calls, crowd.answers)) == []


def test_the_arithmetic_sees_what_is_wrong() -> None:
    """A checker that finds everything right proves nothing: each kind of wrong is seen, and only that."""
    right = {
        "a": Books(sent={"b": 3}, done=[7, 5]),
        "b": Books(got={"a": [1, 2, 3], "client": [1]}),
    }
    clients, calls, answers = {"client": {"b": 1}}, {"a": [5, 7]}, {7: 1, 5: 2}
    assert list(wrong(right, clients, calls, answers)) == []
    for got in ([1, 2], [1, 2, 2, 3], [2, 1, 3], [1, 3, 2], [1, 2, 3, 4], []):
        books = {**right, "b": Books(got={"a": got, "client": [1]})}
        assert len(list(wrong(books, clients, calls, answers))) == 1, got
    assert list(wrong(right, {}, calls, answers)) != []
    assert list(wrong(right, clients, {"a": [5, 7, 9]}, answers)) != []
    assert list(wrong(right, clients, {"a": [5]}, answers)) != []
    assert list(wrong(right, clients, calls, {7: 1, 5: 1})) != []
    doubled = {**right, "a": Books(sent={"b": 3}, done=[7, 5, 5])}
    assert list(wrong(doubled, clients, calls, answers)) != []
