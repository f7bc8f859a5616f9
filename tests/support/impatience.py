"""Clients that do not wait: they give up, call again under the same key, by another way, or twice at once.
Owns who calls whom, and the record of it; what is right in the end, tellers.py knows.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from random import Random
from typing import Final, TypeVar

import durum
from durum import errors
from durum.client.client import Cluster
from tests.support.tellers import Books, Teller

HOT: Final = "hot"
TIMEOUT_S: Final = 20.0
_PATIENCE_S: Final = (0.02, 0.1, 0.5, 3.0)
T = TypeVar("T")


class Crowd:
    """All of them.

    Args:
        ways: clients of the service; each call goes by any of them.
        tells: how many messages there shall be at least.
        pause_s: between the calls of one caller.
        random: see there.

    Attributes:
        attempts: how many calls and tells were sent, repeats included.
        ended: how many were answered.
        failures: what callers were told, by its kind.
    """

    def __init__(
        self, ways: Sequence[Cluster], *, tells: int, pause_s: float, random: Random
    ) -> None:
        self._ways = ways
        self._tells = tells
        self._pause_s = pause_s
        self._random = random
        self.keys: Final = [f"teller-{number}" for number in range(max(30, tells // 100))]
        self.calls: Final[dict[str, list[int]]] = defaultdict(list)
        self.answers: Final[dict[int, int]] = {}
        self.told: Final[dict[str, dict[str, int]]] = {}
        self.attempts = self.ended = self.gave_up = 0
        self.failures: Final[Tally[str]] = Tally()
        self.enough = False
        self._numbers = itertools.count()

    async def run(self, callers: int, hot: int, tellers: int) -> None:
        """Call until it is enough: three calls in ten tell three others, one goes to one actor, and one
        message in ten is a client's.

        Args:
            callers, hot, tellers: how many of each kind there are.
        """
        spreads, single, own = (iter(range(self._tells * share // 10)) for share in (3, 1, 1))
        async with asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(self._again(spreads, self._spread))
            for _ in range(hot):
                tasks.create_task(self._again(single, self._hot))
            for number in range(tellers):
                name = f"client-{number}"
                self.told[name] = {}
                tasks.create_task(self._again(own, functools.partial(self._tell, name)))

    async def _again(self, left: Iterator[int], one: Callable[[], Awaitable[None]]) -> None:
        while next(left, None) is not None or not self.enough:
            await one()
            self.ended += 1
            await asyncio.sleep(self._pause_s)

    async def _spread(self) -> None:
        call, key = next(self._numbers), self._random.choice(self.keys)
        receivers = self._random.sample(self.keys, 2)
        further = self._random.choice(self.keys)
        self.calls[key].append(call)
        await self._answered(call, key, receivers, further)

    async def _hot(self) -> None:
        call = next(self._numbers)
        self.calls[HOT].append(call)
        await self._answered(call, HOT, [], "")

    async def _answered(self, call: int, key: str, receivers: list[str], further: str) -> None:
        def once(way: Cluster) -> Awaitable[int]:
            teller = durum.options(
                way.actor(Teller, key), idempotency_key=f"call {call}", timeout=TIMEOUT_S
            )
            return teller.spread(call, receivers, further)

        place = await self._insist(once)
        if place is not None:
            self.answers[call] = place

    async def _tell(self, name: str) -> None:
        """One message; the next only when this one is accepted, so that there is an order to keep."""
        receiver = self._random.choice(self.keys)
        number = self.told[name].get(receiver, 0) + 1

        def once(way: Cluster) -> Awaitable[None]:
            key = f"{name} {number}"
            teller = durum.options(
                way.actor(Teller, receiver), idempotency_key=key, timeout=TIMEOUT_S
            )
            return way.tell(teller.take, name, number, "")

        await self._insist(once)
        self.told[name][receiver] = number

    async def _insist(self, once: Callable[[Cluster], Awaitable[T]]) -> T | None:
        """Try until it is answered; None where the answer is that it ran, and no more than that."""
        for attempt in itertools.count():
            patience_s = _PATIENCE_S[min(attempt, 3)] * (0.5 + self._random.random())
            tries = [self._random.choice(self._ways)]
            if self._random.random() < 0.1:
                tries.append(self._random.choice(self._ways))
            self.attempts += len(tries)
            try:
                async with asyncio.timeout(patience_s):
                    answers = await asyncio.gather(*map(once, tries), return_exceptions=True)
            except TimeoutError:
                self.gave_up += 1
                continue
            good = [answer for answer in answers if not isinstance(answer, BaseException)]
            assert all(answer == good[0] for answer in good), f"one key, two answers: {good}"
            if good:
                return good[0]
            for answer in answers:
                if isinstance(answer, errors.ReplyForgotten):
                    return None
                if isinstance(answer, BaseException):
                    self._note(answer)
            await asyncio.sleep(0.02)
        raise AssertionError

    def _note(self, failure: BaseException) -> None:
        """Only what a call may say is a failure; all else ends the test."""
        if not isinstance(failure, errors.CallError):
            raise failure
        self.failures[type(failure).__name__] += 1

    async def books(self) -> dict[str, Books]:
        """What all tellers say in the end."""
        found: dict[str, Books] = {}
        keys = [*self.keys, HOT]
        for first in range(0, len(keys), 50):
            some = keys[first : first + 50]
            asked = (self._ways[0].actor(Teller, key).books() for key in some)
            found.update(zip(some, await asyncio.gather(*asked), strict=True))
        return found
