"""The store's clock as this silo reckons it between readings. Owns the reckoning, and notices jumps; knows no
store. All instants are this silo's own boottime.
"""

from __future__ import annotations

from typing import Final

JUMP_S: Final = 2.0
"""A difference between two readings that is no inaccuracy of reading any more."""


class StoreClock:
    """Store time, from readings that each say no more than that it was so between two of our instants."""

    def __init__(self) -> None:
        self._earliest = 0.0
        self._latest = 0.0
        self._known = False

    @property
    def known(self) -> bool:
        """Whether it was ever read."""
        return self._known

    def at(self, now: float) -> float:
        """Store time at an instant, in seconds since 1970. Only after a reading."""
        return self._earliest + now

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
        earliest, latest = time - now, time - sent_at
        if not self._known:
            jump = 0.0
        elif earliest - self._latest > JUMP_S:
            jump = earliest - self._latest
        elif self._earliest - latest > JUMP_S:
            jump = latest - self._earliest
        else:
            jump = 0.0
        self._earliest, self._latest, self._known = earliest, latest, True
        return jump

    def __repr__(self) -> str:
        return f"<StoreClock known={self._known}>"
