"""Counters of connections and servers at one moment, for people, pages and tests. Pure values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatistics:
    """One connection's.

    Args:
        sent: messages sent.
        received: messages received.
        writes: how often something was written.
        received_frames: frames received.
        sent_bytes: bytes written.
        received_bytes: bytes received.
        in_flight: own requests without an answer.
        owed: the other side's requests without an answer.
        unread_bytes: what this process still holds, since the other side does not read faster.
    """

    sent: int
    received: int
    writes: int
    received_frames: int
    sent_bytes: int
    received_bytes: int
    in_flight: int
    owed: int
    unread_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """One server's.

    Args:
        connections: open now, strangers included.
        accepted: that passed the handshake and have ended.
        turned_away: that did not pass it.
    """

    connections: int
    accepted: int
    turned_away: int
