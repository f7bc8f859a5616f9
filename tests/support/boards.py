"""An actor that publishes, and what its watchers do in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from durum.grains.actor import Actor, read_only
from durum.grains.publishing import Publishes
from durum.grains.watching import Watch
from tests.support.turns import House

T = TypeVar("T")


@dataclass
class Move:
    x: int
    y: int = 0


@dataclass
class Reset:
    x: int = 0


class Board(Actor, Publishes[Move | Reset | int]):
    moves: int = 0

    async def move(self, x: int) -> int:
        self.moves += 1
        self.publish(Move(x))
        return self.moves

    async def reset(self) -> None:
        self.moves = 0
        self.publish(Reset())
        self.publish(7)

    async def fail(self) -> None:
        self.publish(Move(99))
        raise ValueError("no")

    async def save_and_fail(self) -> None:
        self.moves += 1
        self.publish(Move(1))
        await self.save()
        self.publish(Move(2))
        raise ValueError("no")

    async def burst(self, count: int) -> None:
        self.moves += count
        for x in range(count):
            self.publish(x)

    async def publish_wrongly(self, what: str) -> None:
        self.moves += 1
        wrong: Any = {"text": "moved", "inside": Move("west"), "large": Move(1)}[what]  # type: ignore[arg-type]
        self.publish(wrong)

    @read_only
    async def look(self) -> int:
        return self.moves

    @read_only
    async def publish_reading(self) -> None:
        self.publish(1)

    async def leave(self) -> None:
        self.deactivate()

    async def on_deactivate(self, reason: str) -> None:
        self.publish(-1)


async def soon(future: Awaitable[T], within_s: float = 5.0) -> T:
    async with asyncio.timeout(within_s):
        return await future


async def take(following: Watch[Any], count: int) -> list[object]:
    return [await soon(anext(following)) for _ in range(count)]


def watchers(house: House, host: str = "a") -> int:
    return house.silo(host).statistics().observers.watchers
