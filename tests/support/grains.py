"""Actors that tests with real processes serve: small, and easy to check from outside."""

from __future__ import annotations

import asyncio

import durum
from durum import Actor, read_only


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

    async def pass_on(self, to: str, amount: int, key: str) -> int:
        """Add here and, through a call with a key, at another counter."""

        other = durum.options(self.actor(Counter, to), idempotency_key=key)
        await other.add(amount)
        self.value += amount
        return self.value


class Echo(Actor):
    """Nothing durable: costs no store access."""

    async def same(self, text: str) -> str:
        return text
