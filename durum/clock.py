"""Time as a port. Owns which clock means what; nothing in the core reads another one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol


class Clock(Protocol):
    """One process's time. Tests give each simulated silo its own, fast or slow."""

    def boottime(self) -> float:
        """Seconds that never jump and never stand still, suspended or not. Leases are kept by it."""
        ...

    def wall(self) -> float:
        """Seconds since 1970, as this host believes. For logs and for the embedded store only."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that long by this clock. A late wake-up is possible: read the clock after it."""
        ...


class SystemClock:
    """The host's clocks. CLOCK_BOOTTIME where there is one: CLOCK_MONOTONIC stops in suspend, and a
    silo that slept through its lease must know it."""

    def __init__(self) -> None:
        boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        # Read for every turn, so there is no function of ours around it.
        self.boottime: Callable[[], float] = partial(time.clock_gettime, boot)

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
