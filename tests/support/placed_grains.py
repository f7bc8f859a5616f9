"""Counters that are placed one by one, for tests with real processes."""

from __future__ import annotations

import os

from durum import Actor, LeastLoaded, OnSilos, PreferLocal, Random
from tests.support.grains import Counter


class Near(Counter, placement=PreferLocal()):
    async def process(self) -> int:
        return os.getpid()


class Anywhere(Counter, placement=Random()):
    async def process(self) -> int:
        return os.getpid()


class Least(Counter, placement=LeastLoaded()):
    async def process(self) -> int:
        return os.getpid()


class Trained(Counter, placement=OnSilos(role="gpu")):
    async def process(self) -> int:
        return os.getpid()


class Caller(Actor):
    async def process(self) -> int:
        return os.getpid()

    async def near(self, key: str) -> int:
        return await self.actor(Near, key).process()
