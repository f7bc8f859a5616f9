"""The wake-ups of one partition that are in memory. Owns the form of what is known; the agenda decides."""

from __future__ import annotations

from typing import Final

from durum.ids import GrainId

Cursor = tuple[int, GrainId, bytes]


class Row:
    """One wake-up in memory.

    Args:
        partition, grain, name: which.
        due_ms: when it is due.

    Attributes:
        at_ms: when it may be tried.
        attempts: how often it was tried in vain.
        out: somebody is being woken by it.
        told: its due time was changed meanwhile...
        then_ms: ... to this; None: dropped.
        guest: its grain was not in memory before.
    """

    __slots__ = (
        *("at_ms", "attempts", "due_ms", "grain", "guest", "name"),
        *("out", "partition", "then_ms", "told"),
    )

    def __init__(self, partition: int, grain: GrainId, name: bytes, due_ms: int) -> None:
        self.partition: Final = partition
        self.grain: Final = grain
        self.name: Final = name
        self.due_ms = due_ms
        self.at_ms = due_ms
        self.attempts = 0
        self.out = False
        self.guest = False
        self.told = False
        self.then_ms: int | None = None

    def __repr__(self) -> str:
        return f"<Row {self.grain} {self.name!r} {self.due_ms}{' out' if self.out else ''}>"


class Page:
    """Wake-ups that are to be read.

    Args:
        partition: of which.
        after: those behind this; None: all.
        until_ms: only those due by then are kept.
        limit: at most so many.
    """

    __slots__ = ("after", "held", "limit", "partition", "until_ms")

    def __init__(self, held: Held, until_ms: int, limit: int) -> None:
        self.held: Final = held
        self.partition: Final = held.partition
        self.after: Final = held.after
        self.until_ms: Final = until_ms
        self.limit: Final = limit

    def __repr__(self) -> str:
        return f"<Page of {self.partition} after {self.after}>"


class Held:
    """One partition. The law is its first two attributes'."""

    __slots__ = (
        *("after", "again_ms", "heard", "not_before", "partition"),
        *("reading", "rows", "stamp", "unread"),
    )

    def __init__(self, partition: int, earliest_ms: int | None) -> None:
        self.partition: Final = partition
        self.unread = earliest_ms
        self.after: Cursor | None = None
        self.rows: dict[tuple[GrainId, bytes], Row] = {}
        self.reading = False
        self.heard: int | None = None  # of news while a page is being read
        self.not_before = 0
        self.again_ms: int | None = None  # when all is read again
        self.stamp = 0

    def lower(self, due_ms: int) -> None:
        """Something due then may be in the store, and is not in memory."""
        if self.unread is None or due_ms < self.unread:
            self.unread = due_ms
        if self.after is not None and due_ms <= self.after[0]:
            self.after = (due_ms, GrainId(""), b"")
