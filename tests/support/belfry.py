"""Actors that set reminders at random and write down what they hear. Owns what must be true of it in the end:
nothing early, nothing lost, and in the durable state each tick once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import durum
from durum import Actor, errors, read_only
from durum.errors import DidRun
from durum.grains import placement
from durum.grains.reminders import Tick
from durum.testing import loop
from tests.support.town import Market, Town

Rung = list[tuple[str, int]]
early: Final[list[str]] = []
"""Ticks that came before the store's clock had reached their due times."""
set_back: Final[list[float]] = []
"""When that clock was set back. A silo knows only once it has read it, or its lease has ended."""
UNKNOWING_S: Final = 7.0
_world: Final[list[tuple[Town, Random]]] = []


class Bell(Actor):
    """Notes each tick; now and then it fails first."""

    rung: Rung = []

    async def set(self, name: str, every: float, count: int, missed: str) -> None:
        if count == 1:
            self.remind(name, delay=every)
        else:
            self.remind(name, every=every, count=count, missed="all" if missed == "all" else "once")

    async def cancel(self, name: str) -> None:
        self.context.reminders.cancel(name)

    @read_only
    async def ring(self) -> tuple[Rung, int]:
        return self.rung, len(await self.context.reminders.list())

    async def on_reminder(self, name: str, tick: Tick) -> None:
        town, chance = _world[0]
        now = town.loop.time()
        unknowing = any(at <= now < at + UNKNOWING_S for at in set_back)
        if town.store_clock.wall() < tick.due.timestamp() and not unknowing:
            early.append(f"{self.key}: {name} {tick.number} at {loop.current().time():.3f}")
        self.rung.append((name, tick.number))
        if chance.random() < 0.1:
            await asyncio.sleep(chance.uniform(0, 0.5))
        if chance.random() < 0.1:
            raise ValueError("not in the mood")


class Chime(Bell, placement=placement.Random()):
    """The same, hosted anywhere."""


class Belfry(Market):
    """What the town's silos host."""

    def kinds(self, machine: str) -> list[type[Actor]]:
        return [Bell, Chime]


@dataclass
class Asked:
    """One reminder that a client has set.

    Args:
        kind, key, name: which.
        count: of its ticks.
        missed: what becomes of those whose time went by.
        ran: whether it was set.
        cancelled: whether it was cancelled, perhaps.
    """

    kind: type[Bell]
    key: str
    name: str
    count: int
    missed: str
    ran: DidRun
    cancelled: bool = False


def enter(town: Town) -> None:
    """Let bells hang here."""
    early.clear()
    set_back.clear()
    _world[:] = [(town, town.loop.randomness("bells"))]


async def set_at_random(
    town: Town, name: str, keys: Sequence[str], until_s: float, asked: list[Asked]
) -> None:
    """Set and cancel reminders, and write down what became of it."""
    chance = town.loop.randomness(name)
    number = 0
    async with town.client(name) as cluster:
        while town.loop.time() < until_s:
            await asyncio.sleep(chance.expovariate(2))
            number += 1
            one = Asked(
                chance.choice([Bell, Bell, Chime]),
                chance.choice(keys),
                f"{name}-{number}",
                chance.choice([1, 1, 4]),
                chance.choice(["all", "once"]),
                DidRun.YES,
            )
            bell = durum.options(cluster.actor(one.kind, one.key), timeout=chance.choice([2, 10]))
            try:
                await bell.set(one.name, chance.uniform(0.5, 8), one.count, one.missed)
            except errors.CallError as exc:
                one.ran = exc.did_run
            asked.append(one)
            if chance.random() < 0.2:
                await asyncio.sleep(chance.uniform(0, 3))
                one.cancelled = True
                with contextlib.suppress(errors.CallError):
                    await bell.cancel(one.name)


async def judge(town: Town, asked: Sequence[Asked], within_s: float) -> list[str]:
    """What is wrong once all that was asked for should have come."""
    rung: dict[tuple[str, str], Rung] = {}
    until = town.loop.time() + within_s
    bells = sorted({(one.kind.__name__, one.key) for one in asked})
    kinds = {kind.__name__: kind for kind in (Bell, Chime)}
    async with town.client("judge") as cluster:
        while True:
            left = 0
            for kind, key in bells:
                ref = durum.options(cluster.actor(kinds[kind], key), timeout=60)
                rung[kind, key], standing = await ref.ring()
                left += standing
            if not left or town.loop.time() > until:
                break
            await asyncio.sleep(5)
    wrong = [f"early: {each}" for each in early]
    wrong += [f"unexpected: {exc!r}" for exc in town.unexpected]
    if left:
        wrong.append(f"{left} reminders stand for ever")
    for one in asked:
        heard = [number for name, number in rung[one.kind.__name__, one.key] if name == one.name]
        wrong += _check(one, heard)
    return wrong


def _check(one: Asked, heard: list[int]) -> list[str]:
    all_of_them = list(range(1, one.count + 1))
    if heard != sorted(set(heard)):
        return [f"{one}: ticks doubled or out of order: {heard}"]
    if one.ran in {DidRun.NO, DidRun.ROLLED_BACK}:
        return [f"{one}: never set, and ticked {heard}"] if heard else []
    if one.cancelled or (one.ran is DidRun.MAYBE and not heard):
        return []
    whole = heard == all_of_them if one.missed == "all" else heard[-1:] == all_of_them[-1:]
    return [] if whole else [f"{one}: ticks lost, it heard {heard}"]
