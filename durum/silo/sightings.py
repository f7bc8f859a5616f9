"""When this silo first saw each heartbeat of the others. Owns the stopwatches of hold-off and standstill;
knows no rows and no store. All instants are this silo's own boottime.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from durum.config import Lease
from durum.ids import SiloId


class _Sighting:
    """One silo's newest heartbeat."""

    __slots__ = ("first_at", "heartbeat", "still_s")

    def __init__(self, heartbeat: int, now: float) -> None:
        self.heartbeat = heartbeat
        self.first_at = now
        self.still_s = 0.0


class Sightings:
    """Stopwatches, one for each silo ever seen in the table.

    Args:
        settings: see Lease in durum.config.
    """

    def __init__(self, settings: Lease) -> None:
        self._holdoff_s = settings.lease_s * settings.holdoff_factor
        self._stall_s = settings.lease_s * settings.stall_factor
        self._seen: dict[SiloId, _Sighting] = {}
        self._read_at = -math.inf

    def read(self, heartbeats: Mapping[SiloId, int], now: float, *, healthy_gap_s: float) -> None:
        """The table was read.

        Args:
            heartbeats: of all silos in it.
            now: boottime after the read: what we cannot have seen earlier, we count from here.
            healthy_gap_s: a longer pause since the last read, or 0, means that this silo or the store was
                unwell; then nobody's standstill counts and all of them start over, or else a store that
                was away for ten seconds would condemn every silo at once.
        """
        gap = now - self._read_at
        self._read_at = now
        healthy = gap <= healthy_gap_s
        for silo, heartbeat in heartbeats.items():
            seen = self._seen.get(silo)
            if seen is None or seen.heartbeat != heartbeat:
                self._seen[silo] = _Sighting(heartbeat, now)
            else:
                seen.still_s = seen.still_s + gap if healthy else 0.0

    def restart(self, now: float) -> None:
        """Start all stopwatches over: another process answers as the store, and it may lack renewals that
        the one before had confirmed.
        """
        for silo, seen in self._seen.items():
            self._seen[silo] = _Sighting(seen.heartbeat, now)

    def stalled(self, silos: Iterable[SiloId]) -> tuple[SiloId, ...]:
        """Those whose heartbeat has stood still so long that they have surely fenced themselves."""
        return tuple(
            silo
            for silo in silos
            if (seen := self._seen.get(silo)) is not None and seen.still_s >= self._stall_s
        )

    def fenced_at(self, silo: SiloId, now: float) -> float:
        """When a dead silo's lease has surely ended.

        Args:
            silo: one whose row is dead, or was pruned.
            now: one never seen before is first seen now.
        """
        seen = self._seen.get(silo)
        if seen is None:
            seen = self._seen[silo] = _Sighting(-1, now)
        return seen.first_at + self._holdoff_s

    def forget(self, listed: Iterable[SiloId], now: float) -> None:
        """Drop the stopwatches of silos that are no longer listed and whose hold-off is long over."""
        keep = frozenset(listed)
        old = now - 10 * self._holdoff_s
        self._seen = {
            silo: seen for silo, seen in self._seen.items() if silo in keep or seen.first_at > old
        }

    def __repr__(self) -> str:
        return f"<Sightings of {len(self._seen)} silos>"
