"""Lets idle activations go. Owns the coarse clock by which they are idle; a busy one is never collected."""

from __future__ import annotations

from typing import Final

from durum.silo.catalog import Catalog
from durum.silo.reason import Reason
from durum.silo.services import Services

_TICKS: Final = 100
"""So finely the shortest time until collection is told."""
_TICK_S: Final = 1.0
_FILL: Final = 0.95
"""Of the limit: so far activations are reduced where there are too many."""
_SHED_PAUSE_S: Final = 0.05
_CHUNK: Final = 500  # activations looked at between two looks of the loop at everything else


class Collector:
    """Deactivates what nobody called for its kind's `idle_after`.

    Args:
        catalog: what is alive.
        services: the silo's.
    """

    def __init__(self, catalog: Catalog, services: Services) -> None:
        self._catalog = catalog
        self._services = services
        self._began = services.clock.boottime()
        self.collected = 0
        self.shedded = 0

    async def run(self) -> None:
        """Look at all activations, over and over, a few at a time. Runs until cancelled."""
        clock, load = self._services.clock, self._services.load
        looked = 0
        while True:
            await clock.sleep(max(_TICK_S, self._shortest_idle_s() / _TICKS))
            self._tell_time()
            every = max(1, int(self._shortest_idle_s() / _TICK_S / 8))
            if load.tick - looked >= every:
                looked = load.tick
                await self.look()

    def _tell_time(self) -> None:
        self._services.load.tick = int((self._services.clock.boottime() - self._began) / _TICK_S)

    async def look(self) -> None:
        """Look at all activations once."""
        default_s = self._services.config.limits.idle_after_s
        tick = self._services.load.tick
        for index, activation in enumerate(self._catalog.all(), 1):
            idle_after_s = activation.kind.options.idle_after_s or default_s
            if (tick - activation.used) * _TICK_S >= idle_after_s and activation.idle:
                self.collected += 1
                self._catalog.retire(activation, Reason.IDLE)
            if index % _CHUNK == 0:
                await self._services.clock.sleep(0)

    async def shed(self) -> None:
        """Put the longest idle away whenever there are too many activations. Runs until cancelled."""
        services, crowded = self._services, self._catalog.crowded
        while True:
            await crowded.wait()
            crowded.clear()
            self._tell_time()  # finely now, so that the longest idle can be told
            limit = services.config.limits.activations
            excess = len(self._catalog.activations) - int(limit * _FILL)
            if excess > 0:
                idle = [one for one in self._catalog.activations.values() if one.idle]
                for activation in sorted(idle, key=lambda one: one.used)[:excess]:
                    self.shedded += 1
                    self._catalog.retire(activation, Reason.CROWDED)
            await services.clock.sleep(_SHED_PAUSE_S)
            if len(self._catalog.activations) > limit:
                crowded.set()

    def _shortest_idle_s(self) -> float:
        limits = self._services.config.limits
        kinds = self._catalog.kinds.values()
        return min(
            [limits.idle_after_s, *(k.options.idle_after_s or limits.idle_after_s for k in kinds)]
        )

    def __repr__(self) -> str:
        return f"<Collector collected={self.collected}>"
