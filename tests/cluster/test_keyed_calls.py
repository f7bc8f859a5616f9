"""Clients that lose patience and repeat calls under their keys, while all silos are killed in turn: every
effect is there exactly once, and every repeat hears what the first would have.

DURUM_KEYED_CALLS=20000 makes as many calls, a quarter of them on one actor.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import Counter as Tally
from typing import Final

import pytest

import durum
from durum import errors
from durum.client.client import Cluster
from durum.errors import DidRun
from tests.support.fleet import Fleet
from tests.support.grains import Counter

CALLS: Final = int(os.environ.get("DURUM_KEYED_CALLS", "1500"))
CALLERS: Final = 16 if CALLS < 10_000 else 64
ACTORS: Final = max(20, CALLS // 40)
BETWEEN_KILLS: Final = CALLS // 10
PAUSE_S: Final = 0.04
RETRY_S: Final = 0.01
PATIENCE_S: Final = (0.02, 0.1, 0.5, 2.0)
HOT: Final = "hot"


class Impatient:
    """Callers, and what they were told.

    Args:
        cluster: whom to call through.
        seed: decides who is called, and when patience ends.
    """

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.answers: dict[str, list[int]] = {}
        self.forgotten: Tally[str] = Tally()
        self.passed: Tally[str] = Tally()
        self.attempts = 0
        self.made = 0
        self.over = False
        self._random = random.Random(seed)
        self._numbers = itertools.count()

    async def call(self) -> None:
        """Call until told to stop."""
        while not self.over:
            number = next(self._numbers)
            self.made += 1
            if number % 4 == 3:
                await self._add(HOT, f"add {number}")
            elif number % 5 == 4:
                await self._pass_on(number)
            else:
                await self._add(f"counter-{self._random.randrange(ACTORS)}", f"add {number}")
            await asyncio.sleep(PAUSE_S)

    async def go_on(self, calls: int) -> None:
        """Return when so many more have been begun."""
        goal = self.made + calls
        while self.made < goal:
            await asyncio.sleep(0.01)

    async def _add(self, key: str, under: str) -> None:
        answer = await self._repeat(key, under)
        if answer is None:
            self.forgotten[key] += 1
            return
        self.answers.setdefault(key, []).append(answer)
        if self._random.random() < 0.1:
            again = await self._repeat(key, under)
            assert again in (answer, None), "a repeat hears what the first heard"

    async def _repeat(self, key: str, under: str) -> int | None:
        """An answer; None where the actor knows only that it ran."""
        while True:
            try:
                return await self._keyed(key, under).add(1)
            except errors.ReplyForgotten:
                return None
            except errors.CallError as exc:
                await self._retry(exc)

    async def _pass_on(self, number: int) -> None:
        """A call under a key whose actor makes another one under a key."""
        key, to = (f"{who}-{self._random.randrange(ACTORS)}" for who in ("courier", "target"))
        self.passed[key] += 1
        self.passed[to] += 1
        while True:
            try:
                await self._keyed(key, f"pass {number}").pass_on(to, 1, f"passed {number}")
            except errors.ReplyForgotten:
                return
            except errors.CallError as exc:
                await self._retry(exc)
            else:
                return

    def _keyed(self, key: str, under: str) -> Counter:
        self.attempts += 1
        timeout = self._random.choice(PATIENCE_S)
        counter = self.cluster.actor(Counter, key)
        return durum.options(counter, timeout=timeout, idempotency_key=under)

    async def _retry(self, error: errors.CallError) -> None:
        expected = errors.CallTimeout | errors.CommitFailed | errors.SiloLost | errors.Overloaded
        assert isinstance(error, expected), error
        assert error.did_run is not DidRun.YES
        await asyncio.sleep(RETRY_S)

    async def check(self) -> None:
        """Compare what was told with what is there."""
        for key in self.answers.keys() | self.forgotten.keys():
            told, lost = self.answers.get(key, []), self.forgotten[key]
            final = await self.cluster.actor(Counter, key).get()
            assert final == len(told) + lost, f"{key}: every effect once"
            assert len(set(told)) == len(told), f"{key}: each call heard its own reply"
            assert not told or max(told) <= final
        for key, count in self.passed.items():
            assert await self.cluster.actor(Counter, key).get() == count, key


@pytest.mark.timeout(120 if CALLS < 10_000 else 1800)
@pytest.mark.parametrize("fleet", ["sqlite", "valkey"], indirect=True)
async def test_keyed_calls_of_impatient_clients_take_effect_once_while_silos_are_killed(
    fleet: Fleet,
) -> None:
    """What a key is for: whoever has no answer repeats the call, and nobody pays twice."""
    silos = await fleet.started(3)
    async with fleet.connect() as cluster, asyncio.TaskGroup() as callers:
        calls = Impatient(cluster, seed=7)
        for number in range(CALLERS):
            callers.create_task(calls.call(), name=f"caller {number}")
        for silo in silos:
            await calls.go_on(BETWEEN_KILLS)
            await fleet.kill(silo)
            await calls.go_on(BETWEEN_KILLS)
            await fleet.start()
            await fleet.shared(3)
        while calls.made < CALLS:
            await asyncio.sleep(0.1)
        calls.over = True
    async with fleet.connect() as cluster:
        calls.cluster = cluster
        await calls.check()
    assert calls.attempts > calls.made, "nobody was impatient"
    print(
        f"{calls.made} calls, {calls.attempts} attempts, {sum(calls.forgotten.values())} forgotten"
    )
