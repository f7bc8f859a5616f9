"""How long one silo may answer. Owns the instant at which it must stop; knows no store and no timer.

The law: whoever takes over waits 1.05 leases from first seeing our last heartbeat, and a heartbeat is seen
only after the store applied it, which is after we sent it. So a lease that counts from the moment its
renewal was sent has always ended before anybody else begins; one that counts from the answer may not have.
"""

from __future__ import annotations

import math


def counted_from(sent_at: float, answered_at: float) -> float:
    """The instant a renewal counts from.

    Args:
        sent_at: boottime just before the renewal was sent.
        answered_at: boottime at which its answer was read; named here only to be refused.
    """
    del answered_at
    return sent_at


class Lease:
    """The right to answer, by this silo's boottime.

    Args:
        lease_s: L, how long one renewal lasts.
    """

    __slots__ = ("generation", "lease_s", "sent_at", "until")

    def __init__(self, lease_s: float) -> None:
        self.lease_s = lease_s
        self.generation = 0
        """How often it was ended. A renewal that was sent before that does not count after it."""
        self.sent_at = -math.inf
        self.until = -math.inf

    def held(self, now: float) -> bool:
        """Whether a turn may begin, or an answer leave, at this boottime.

        Read the clock for it after the call left its queue: a timer that should have said so may be late.
        """
        return now < self.until

    def renewed(self, sent_at: float, answered_at: float, generation: int = 0) -> None:
        """A renewal succeeded. One that arrives after a later one changes nothing.

        Args:
            sent_at: boottime just before it was sent.
            answered_at: boottime at which its answer was read.
            generation: the lease's when it was sent.
        """
        if generation != self.generation:
            return
        start = counted_from(sent_at, answered_at)
        if start > self.sent_at:
            self.sent_at = start
            self.until = start + self.lease_s

    def end(self) -> None:
        """Stop answering at once. Only a renewal that is sent later begins it anew."""
        self.generation += 1
        self.sent_at = -math.inf
        self.until = -math.inf

    def fresh(self, now: float, within_s: float) -> bool:
        """Whether the last successful renewal was sent this recently: our own way to the store works."""
        return now - self.sent_at <= within_s

    def __repr__(self) -> str:
        return f"<Lease of {self.lease_s} s, until {self.until}>"
