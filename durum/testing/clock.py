"""Simulated hosts' clocks: fast or slow, right or wrong. Owns how one host's time follows the loop's."""

from __future__ import annotations

import asyncio
from typing import Final

from durum.testing import hosts
from durum.testing.loop import SimLoop, SimulationError

EPOCH: Final = 1_700_000_000.0
"""What a right wall clock shows at the start of every run."""


class SimClock:
    """One host's clock. Freezing the host does not stop it.

    Args:
        loop: whose virtual time it follows.
        rate: seconds it counts per true second; real quartz stays well within 0.98 to 1.02.
        wall_offset_s: how far its wall clock is off.
        booted_s: what `boottime` shows at the start of the run. It says nothing about other hosts.
    """

    def __init__(
        self,
        loop: SimLoop,
        rate: float = 1.0,
        wall_offset_s: float = 0.0,
        booted_s: float = 1000.0,
    ) -> None:
        if rate <= 0:
            raise SimulationError(f"rate {rate}: a clock's time goes forward; use a positive rate")
        self._loop: Final = loop
        self._rate = rate
        self._since = loop.time()
        self._counted = booted_s
        self._wall_offset_s = wall_offset_s - booted_s

    @classmethod
    def seeded(cls, loop: SimLoop, host: str) -> SimClock:
        """A clock as a machine might have it, by the loop's seed and the machine's name."""
        chance = loop.randomness(f"clock of {hosts.machine(host)}")
        return cls(
            loop,
            rate=chance.uniform(0.98, 1.02),
            wall_offset_s=chance.choice([0.0, chance.uniform(-2, 2), chance.uniform(-3600, 3600)]),
            booted_s=chance.uniform(10, 1e6),
        )

    @property
    def rate(self) -> float:
        return self._rate

    def set_rate(self, rate: float) -> None:
        """Count faster or slower from now on. A sleep that has begun keeps its end."""
        if rate <= 0:
            raise SimulationError(f"rate {rate}: a clock's time goes forward; use a positive rate")
        self._counted = self.boottime()
        self._since = self._loop.time()
        self._rate = rate

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back. The boot time does not notice."""
        self._wall_offset_s += seconds

    def boottime(self) -> float:
        return self._counted + (self._loop.time() - self._since) * self._rate

    def wall(self) -> float:
        return EPOCH + self._wall_offset_s + self.boottime()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._rate)
