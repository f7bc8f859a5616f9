"""This silo's copy of the membership table. Owns reading, changing and checking it; starts no task and
decides nothing about what the rows should say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from durum import errors
from durum.ids import SiloId
from durum.silo.lease import Lease
from durum.silo.patience import answered
from durum.silo.ports import Ports
from durum.silo.regression import lost
from durum.silo.sightings import Sightings
from durum.silo.store_clock import FOLLOW_S, StoreClock
from durum.store.protocol import TableRead
from durum.telemetry import Log
from durum.views import SiloRow, View

Change = Callable[[View], tuple[SiloRow, SiloRow | None] | None]
"""From a view to the row to write and the row it replaces, or None where there is nothing to do."""

_ATTEMPTS: Final = 32
_log = Log("durum.table")


class Table:
    """The newest view, read and changed through one door.

    Args:
        me: this silo.
        ports: see Ports.
        lease: ended where the table turns out to have lost something.
    """

    def __init__(self, me: SiloId, ports: Ports, lease: Lease) -> None:
        self.me: Final = me
        self.sightings: Final = Sightings(ports.config.lease)
        self._mark = ports.mark
        self._store = ports.store
        self._clock = ports.clock
        self._entropy = ports.entropy
        self._lease = lease
        self._limits = ports.config.lease
        self._healthy_gap_s = ports.config.probing.poll_s + ports.config.lease.store_timeout_s
        self.time: Final = StoreClock()
        self._last: TableRead | None = None
        self._view = View(version=-1)
        self._reading = asyncio.Lock()
        self._listeners: list[Callable[[View], None]] = []
        self.on_reading: Callable[[TableRead], None] | None = None
        """Called with each reading, before those who listen for views."""

    @property
    def view(self) -> View:
        """The newest view; version -1 before the first reading."""
        return self._view

    @property
    def identity(self) -> str:
        """Who answered as the store the last time."""
        return "" if self._last is None else self._last.identity

    def heartbeat(self, silo: SiloId) -> int | None:
        """A silo's heartbeat as read last, or None."""
        return None if self._last is None else self._last.heartbeats.get(silo)

    def listen(self, on_view: Callable[[View], None]) -> None:
        """Have a function called with each newer view, in order, at once."""
        self._listeners.append(on_view)

    def store_time(self) -> float:
        """The store's clock as of now, seconds since 1970, as well as this silo can reckon."""
        return self.time.at(self._clock.boottime()) if self.time.known else self._clock.wall()

    def reckoned(self) -> float:
        """A time that the store's clock has surely reached; 0 before the first reading."""
        return self.time.surely(self._clock.boottime()) if self.time.known else 0.0

    def hear_time(self, time: float, asked_at: float, now: float) -> None:
        """The store has told its time. Args: as those of StoreClock.read."""
        ahead_s = self.time.ahead_s
        jump_s = self.time.read(time, asked_at, now)
        if jump_s:
            # No lease and no hold-off is kept by it; what is due or stored until some time of day is.
            _log.error(
                "the store's clock was set",
                silo=self.me,
                by_s=round(jump_s, 1),
                followed_after_s=FOLLOW_S if jump_s > 0 else 0.0,
            )
        elif ahead_s and not self.time.ahead_s:
            _log.warning("the store's clock is followed again", silo=self.me)

    async def read(self) -> View:
        """Read the table anew.

        Raises:
            StoreUnavailable: it cannot be read now.
            DataLoss: it is missing, another service's, or older than what was read before.
        """
        async with self._reading:  # one at a time, so that each is later than the one before
            asked_at = self._clock.boottime()
            read = await answered(
                self._store.read_table(self._mark),
                self._limits.store_timeout_s,
                "read the membership table",
            )
            self._take_in(read, asked_at)
        return self._view

    async def change(self, decide: Change) -> bool:
        """Write one row, as often as it takes against others who write.

        Args:
            decide: asked with the newest view, again after each loss; it must see for itself when the row
                it wanted is there, since a write whose answer was lost looks like one that failed.

        Returns:
            Whether something was written. The view contains it when this returns.

        Raises:
            StoreUnavailable: the store does not answer, or others always came first.
            DataLoss: as in `read`.
        """
        for attempt in range(_ATTEMPTS):
            step = decide(self._view)
            if step is None:
                return False
            row, seen = step
            version = await answered(
                self._store.write_row(self._mark, row, seen=seen, version=self._view.version),
                self._limits.store_timeout_s,
                "write a row of the membership table",
            )
            # Views come from readings only: a dead row and its last heartbeat must be of one instant.
            await self.read()
            if version is not None:
                return True
            await self._clock.sleep(0.02 * self._entropy.fraction() * min(attempt + 1, 8))
        raise errors.StoreUnavailable(
            "the membership table: others changed it at every attempt; it is tried again by itself.",
            applied=False,
        )

    def _take_in(self, read: TableRead, asked_at: float) -> None:
        now = self._clock.boottime()
        if self._last is not None:
            loss = lost(self._last, read)
            if loss:
                self._lease.end()
                raise errors.DataLoss(
                    f"the membership table is older than what this silo has seen: {loss}. Nothing was "
                    "built upon it. Restore the store, or accept the loss and start all silos again."
                )
        ours_works = self._lease.fresh(now, self._limits.renew_s + self._limits.store_timeout_s)
        self.sightings.read(
            read.heartbeats, now, healthy_gap_s=self._healthy_gap_s if ours_works else 0.0
        )
        self._last = read
        self.hear_time(read.time, asked_at, now)
        if self.on_reading is not None:
            self.on_reading(read)
        if read.view.version != self._view.version:
            self._view = read.view
            _log.debug("view changed", version=read.view.version, live=len(read.view.live))
            for on_view in self._listeners:
                on_view(read.view)

    def __repr__(self) -> str:
        return f"<Table version={self._view.version} live={len(self._view.live)}>"
