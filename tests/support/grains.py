"""Actors that tests with real processes serve: small, and easy to check from outside."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import durum
from durum import Actor, read_only


class Broke(Exception):
    """An exception of a user's, with more to it than a text."""

    def __init__(self, who: str, missing: int) -> None:
        super().__init__(f"{who} lacks {missing}")
        self.who = who
        self.missing = missing


class Counter(Actor):
    """A number that only grows: what was acknowledged has to be in it."""

    value: int = 0

    async def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    @read_only
    async def get(self) -> int:
        return self.value

    async def add_slowly(self, amount: int, seconds: float) -> int:
        self.value += amount
        await asyncio.sleep(seconds)
        return self.value

    async def linger(self, mark: str) -> None:
        """Stay until cancelled, and tell by files named after `mark` when that began and ended."""
        self.value += 1
        Path(f"{mark}-began").touch()
        try:
            await asyncio.Event().wait()
        finally:
            Path(f"{mark}-ended").touch()

    async def hold_loop(self, until: str) -> int:
        """Hold the whole event loop until there is a file of that name, as no actor should."""
        self.value += 1
        Path(f"{until}-began").touch()
        while not Path(until).exists():
            time.sleep(0.01)
        return self.value

    async def spend(self, amount: int) -> None:
        """Change the state, then find that it cannot be."""
        self.value -= amount
        if self.value < 0:
            raise Broke(self.key, -self.value)

    async def pass_on(self, to: str, amount: int, key: str) -> int:
        """Add here and, through a call with a key, at another counter."""

        other = durum.options(self.actor(Counter, to), idempotency_key=key)
        await other.add(amount)
        self.value += amount
        return self.value


class Herald(Actor, durum.Publishes[int]):
    """Numbers what it says: a watcher sees whether one is missing."""

    said: int = 0

    async def say(self) -> int:
        self.said += 1
        self.publish(self.said)
        return self.said


class Listener(Actor):
    """Follows a herald of the same key, and counts what it should have been told of."""

    heard: int = 0
    unsaid: int = 0
    _last: int | None = None

    async def on_activate(self) -> None:
        durum.follow(self.actor(Herald, self.key), self._on_event, keep_alive=True)

    async def _on_event(self, event: int | durum.Gap) -> None:
        if isinstance(event, durum.Gap):
            self._last = None
            return
        self.heard += 1
        self.unsaid += self._last is not None and event != self._last + 1
        self._last = event

    async def get(self) -> tuple[int, int]:
        return self.heard, self.unsaid


class Node(Actor):
    """One of several that call each other."""

    visits: int = 0

    @read_only
    async def seen(self) -> int:
        return self.visits

    async def walk(self, path: list[str]) -> list[str]:
        """Go on to the first of the path; return who was visited, and how often by then."""
        trail = await self.actor(Node, path[0]).walk(path[1:]) if path else []
        self.visits += 1
        return [f"{self.key} {self.visits}", *trail]

    async def walk_changed(self, path: list[str]) -> list[str]:
        """As `walk`, with something uncommitted meanwhile."""
        self.visits += 1
        return await self.actor(Node, path[0]).walk(path[1:])

    async def fail_at(self, path: list[str]) -> None:
        """Let the last of the path fail."""
        self.visits += 1
        if not path:
            raise Broke(self.key, 7)
        await self.actor(Node, path[0]).fail_at(path[1:])

    async def linger_at(self, key: str, mark: str) -> None:
        """Wait for a counter that lingers."""
        self.visits += 1
        await self.actor(Counter, key).linger(mark)


class Strict(Actor, reentrancy="never"):
    """Lets no call in while it waits for its own."""

    async def walk(self, path: list[str]) -> int:
        return 1 + (await self.actor(Strict, path[0]).walk(path[1:]) if path else 0)


class Slow(Actor):
    """Serves fifty calls a second."""

    served: int = 0

    async def work(self) -> int:
        await asyncio.sleep(0.02)
        self.served += 1
        return self.served


class Echo(Actor):
    """Nothing durable: costs no store access."""

    async def same(self, text: str) -> str:
        return text

    async def length(self, text: str) -> int:
        return len(text)

    async def repeated(self, text: str, times: int) -> str:
        return text * times

    async def anything(self, value: Any) -> Any:
        return value


class Guarded(Actor):
    """Has everything that no stranger may reach."""

    secret: str = "a field"
    calls: int = 0

    async def on_activate(self) -> None:
        self._woken = True

    async def _hidden(self) -> str:
        return "hidden"

    async def __spell__(self) -> str:
        return "spell"

    async def shown(self) -> int:
        self.calls += 1
        return self.calls


class Warm(Actor):
    """Has something in memory that is not stored, and takes it along."""

    value: int = 0
    _seen: list[str] = durum.field(default_factory=list)

    async def on_dehydrate(self) -> list[str]:
        return self._seen

    async def on_rehydrate(self, value: list[str]) -> None:
        self._seen = value

    async def see(self, what: str) -> int:
        self.value += 1
        self._seen.append(what)
        return len(self._seen)


class Bell(Actor):
    """Counts the ticks of its reminder, and those that came before their time by this host's clock."""

    last: int = 0
    heard: int = 0
    early: int = 0

    async def begin(self, every: float, count: int) -> None:
        self.remind("tick", every=every, count=count, missed="all")

    @read_only
    async def look(self) -> tuple[int, int, int]:
        return self.last, self.heard, self.early

    async def on_reminder(self, name: str, tick: durum.Tick) -> None:
        self.last = tick.number
        self.heard += 1
        self.early += time.time() < tick.due.timestamp()
