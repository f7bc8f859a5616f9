"""The store's clock as this silo reckons it between readings. Owns the reckoning, and which readings to
believe; knows no store. All instants are this silo's own boottime.

What is due is due by the store's time, and somebody may set that clock. Back: then what is due waits with it,
since nothing may be early. Forward, by mistake perhaps: then all that is due in a week would be due at once;
so a silo goes on as if nothing had happened, and follows after ten minutes, or as soon as an operator says
that the new time is right. A silo that starts believes what it reads.
"""

from __future__ import annotations

import math
from typing import Final

JUMP_S: Final = 2.0
"""A difference between two readings that is no inaccuracy of reading any more."""
FOLLOW_S: Final = 600.0
"""A clock that was set forward is followed after so long."""
RATE: Final = 0.02
"""By how much the rates of two hosts' clocks may differ."""


class StoreClock:
    """Store time, from readings that each say no more than that it was so between two of our instants.

    Attributes:
        ahead_s: how far the store's clock is ahead of the time that is believed; 0: not at all.
    """

    __slots__ = ("_ahead_since", "_earliest", "_known", "_latest", "_read_at", "ahead_s")

    def __init__(self) -> None:
        self._earliest = 0.0
        self._latest = 0.0
        self._read_at = 0.0
        self._known = False
        self._ahead_since = math.inf
        self.ahead_s = 0.0

    @property
    def known(self) -> bool:
        """Whether it was ever read."""
        return self._known

    def at(self, now: float) -> float:
        """Store time at an instant, in seconds since 1970. Only after a reading."""
        return self._earliest + now

    def surely(self, now: float) -> float:
        """A time that the store's clock has reached at an instant, whatever the clocks' rates."""
        return self._earliest + now - RATE * (now - self._read_at)

    def read(self, time: float, sent_at: float, now: float) -> float:
        """Take in a reading.

        Args:
            time: what the store said.
            sent_at: when it was asked.
            now: when its answer was read; it may have been given at any instant between the two.

        Returns:
            By how many seconds the clock has been set since the reading before, at the least: below 0 if
            it was set back, 0 if no jump can be told from the two.
        """
        if now < self._read_at:
            return 0.0  # overtaken by one that was asked for later
        earliest, latest = time - now, time - sent_at
        drift = RATE * (now - self._read_at)
        if self._known and earliest - self._latest > JUMP_S + drift:
            return self._read_ahead(earliest, latest, now)
        back = self._known and self._earliest - latest > JUMP_S + drift
        jump = latest - self._earliest if back else 0.0
        self._believe(earliest, latest, now)
        return jump

    def trust(self) -> float:
        """An operator says that a clock which was set forward is right: follow it from the next reading on.

        Returns:
            How far it is ahead, in seconds.
        """
        if self.ahead_s:
            self._ahead_since = -math.inf
        return self.ahead_s

    def _read_ahead(self, earliest: float, latest: float, now: float) -> float:
        """It has been set forward, now or some readings ago."""
        before, self.ahead_s = self.ahead_s, earliest - self._latest
        if now - self._ahead_since >= FOLLOW_S:
            self._believe(earliest, latest, now)
            return 0.0
        self._ahead_since = min(self._ahead_since, now)
        jump = self.ahead_s - before
        return jump if abs(jump) > JUMP_S else 0.0

    def _believe(self, earliest: float, latest: float, now: float) -> None:
        self._earliest, self._latest, self._read_at, self._known = earliest, latest, now, True
        self._ahead_since, self.ahead_s = math.inf, 0.0

    def __repr__(self) -> str:
        return f"<StoreClock known={self._known}>"
