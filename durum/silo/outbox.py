"""What one partition has to deliver, to whom next, and what of it is done. Pure: rows, outcomes and times in,
batches and numbers out. Knows no store, no network and no tasks.

The law: to each receiver one batch is in flight, always from its oldest row, and a row is given out only when
every row before it is known. Rows that its own silo has just committed come in by hand; they wait here until
it is sure that none is missing before them, and where one is, the store is read. Whatever is read twice, or
comes after it was read, is taken once.

A receiver that fails rests a while, longer each time; the others go on. What is done is acknowledged to the
store later, many rows at a time: until then the store would give it again to the partition's next owner, and
the receivers would know it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from durum.ids import GrainId
from durum.store.effects import Posted

BATCH_ROWS: Final = 64
BATCH_BYTES: Final = 256 * 1024
"""A batch ends before the row that would make it larger than this; but it has one at least."""
FRAME_ROOM: Final = 8192
"""What a frame needs besides messages."""
IN_FLIGHT: Final = 64
"""Batches of one partition at a time."""


class Room:
    """Memory for rows that wait, shared by all outboxes of a silo. What finds no room is read again later.

    Args:
        bytes_: how much there is.
    """

    __slots__ = ("left",)

    def __init__(self, bytes_: int) -> None:
        self.left = bytes_


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a receiver rests after a failure. Times in seconds.

    Args:
        first_s: after the first; twice as long after each further one...
        last_s: ... up to this.
    """

    first_s: float
    last_s: float

    def pause_s(self, failures: int, fraction: float) -> float:
        """How long, after so many in a row.

        Args:
            failures: at least one.
            fraction: in [0, 1), for jitter.
        """
        longest: float = min(self.last_s, self.first_s * 2 ** min(failures - 1, 30))
        return longest * (0.5 + fraction / 2)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to deliver to one receiver.

    Args:
        receiver: whom.
        numbers: the rows', ascending.
        rows: the rows, or none where they have to be read again: from the first number on.
        attempt: which attempt this is for the first row, from 1.
    """

    receiver: GrainId
    numbers: tuple[int, ...]
    rows: tuple[Posted, ...]
    attempt: int


class Line:
    """What waits for one receiver.

    Args:
        receiver: whom.

    Attributes:
        waiting: rows by their numbers; only the number where there was no room.
        in_flight: a batch is under way.
        counted: attempts of the first row that failed by its own fault.
        failures: in a row, for whatever reason.
        rests_until: after the last of them.
        why: what the last one said, or "".
    """

    __slots__ = ("counted", "failures", "in_flight", "receiver", "rests_until", "waiting", "why")

    def __init__(self, receiver: GrainId) -> None:
        self.receiver: Final = receiver
        self.waiting: deque[Posted | int] = deque()
        self.in_flight = False
        self.counted = 0
        self.failures = 0
        self.rests_until = 0.0
        self.why = ""

    def __repr__(self) -> str:
        state = " in flight" if self.in_flight else f" failures={self.failures}"
        return f"<Line {self.receiver} waiting={len(self.waiting)}{state}>"


class Outbox:
    """The rows of one partition, under one holding.

    Args:
        patience: see Patience.
        room: see Room.
        pending: the store has rows that were there before this holding.
        frame_bytes: the largest frame.
    """

    def __init__(
        self, patience: Patience, room: Room, *, pending: bool, frame_bytes: int = 4 * 1024 * 1024
    ) -> None:
        self._batch_bytes = min(BATCH_BYTES, frame_bytes - FRAME_ROOM)
        self._patience = patience
        self._room = room
        self._known: int | None = None  # all rows up to here were seen; None: none was read yet
        self._early: dict[int, Posted] = {}  # beyond that, with others missing before them
        self._doubt = pending
        self._doubt_anew = False  # since the page under way was asked for
        self._lines: dict[GrainId, Line] = {}
        self._ready: dict[GrainId, None] = {}  # may go now, first come first
        self._resting: list[tuple[float, int, GrainId]] = []
        self._order = count()
        self._in_flight = 0
        self._waiting = 0
        self._done: list[int] = []

    # What there is ------------------------------------------------------------------------------------

    def post(self, rows: Sequence[Posted]) -> None:
        """Rows that were committed just now, in any order."""
        for row in rows:
            if self._known is None or row.number > self._known:
                self._early[row.number] = row
        self._advance()

    def doubt(self) -> None:
        """There may be rows that nobody has told of."""
        self._doubt = self._doubt_anew = True

    @property
    def unread(self) -> int | None:
        """After which number the store has to be read, or None where all is known."""
        return self._known or 0 if self._doubt or self._early else None

    def asked(self) -> None:
        """A page is asked for after `unread`. Doubts that come before it does are not settled by it."""
        self._doubt_anew = False

    def read(self, rows: Sequence[Posted], *, last: bool) -> None:
        """The page that was asked for.

        Args:
            rows: by their numbers.
            last: nothing came behind them.
        """
        for row in rows:
            if self._known is None or row.number > self._known:
                self._known = row.number
                self._add(row)
        if last:
            self._doubt = self._doubt_anew
            self._known = self._known or 0
        self._early = {n: row for n, row in self._early.items() if n > (self._known or 0)}
        self._advance()

    def _advance(self) -> None:
        while self._known is not None and (row := self._early.pop(self._known + 1, None)):
            self._known += 1
            self._add(row)

    def _add(self, row: Posted) -> None:
        line = self._lines.get(row.receiver)
        if line is None:
            line = self._lines[row.receiver] = Line(row.receiver)
            self._ready[row.receiver] = None
        size = len(row.row)
        if self._room.left >= size:
            self._room.left -= size
            line.waiting.append(row)
        else:
            line.waiting.append(row.number)
        self._waiting += 1

    # What goes out ------------------------------------------------------------------------------------

    def next(self, now: float) -> Batch | None:
        """The next batch to deliver, or None. It is in flight from here on.

        Args:
            now: boottime.
        """
        if self._in_flight >= IN_FLIGHT:
            return None
        while self._resting and self._resting[0][0] <= now:
            _, _, receiver = heapq.heappop(self._resting)
            self._wake(receiver, now)
        if not self._ready:
            return None
        receiver = next(iter(self._ready))
        del self._ready[receiver]
        line = self._lines[receiver]
        line.in_flight = True
        self._in_flight += 1
        return self._batch(line)

    def _wake(self, receiver: GrainId, now: float) -> None:
        line = self._lines.get(receiver)
        if line is not None and not line.in_flight and line.rests_until <= now:
            self._ready[receiver] = None

    def _batch(self, line: Line) -> Batch:
        numbers: list[int] = []
        rows: list[Posted] = []
        size = 0
        # What has failed goes alone: those behind it would travel in vain.
        limit = 1 if line.counted else BATCH_ROWS
        for one in line.waiting:
            if len(numbers) == limit:
                break
            if isinstance(one, int):
                if rows:
                    break
                numbers.append(one)
            else:
                size += len(one.row)
                if len(numbers) > len(rows) or (rows and size > self._batch_bytes):
                    break
                numbers.append(one.number)
                rows.append(one)
        return Batch(line.receiver, tuple(numbers), tuple(rows), line.counted + 1)

    def fitting(self, rows: Sequence[Posted]) -> Sequence[Posted]:
        """The first of some rows: as many as a batch may have."""
        size = 0
        for place, row in enumerate(rows):
            size += len(row.row)
            if place and size > self._batch_bytes:
                return rows[:place]
        return rows

    def delivered(self, receiver: GrainId, number: int) -> None:
        """A batch has come back, and all of it is done that was tried.

        Args:
            receiver: whose.
            number: of the last row that is done, which is at least the first one's; what is behind it goes
                out again at once.
        """
        line = self._back(receiver)
        self._finish(line, number)
        self._settle(line, None)

    def failed(
        self, receiver: GrainId, number: int, why: str, *, counts: bool, now: float, fraction: float
    ) -> float:
        """A batch has come back, and a row of it is not done.

        Args:
            receiver: whose.
            number: of the last row that is done, or 0.
            why: it is not, for people.
            counts: it is that row's own fault.
            now: boottime.
            fraction: in [0, 1), for jitter.

        Returns:
            From when it may be tried again, by boottime.
        """
        line = self._back(receiver)
        self._finish(line, number)
        line.failures += 1
        line.counted += counts
        line.why = why
        line.rests_until = now + self._patience.pause_s(line.failures, fraction)
        self._settle(line, line.rests_until)
        return line.rests_until

    def _back(self, receiver: GrainId) -> Line:
        line = self._lines[receiver]
        line.in_flight = False
        self._in_flight -= 1
        return line

    def _finish(self, line: Line, number: int) -> None:
        """Take out what is done."""
        before = len(line.waiting)
        while line.waiting:
            first = line.waiting[0]
            own = first if isinstance(first, int) else first.number
            if own > number:
                break
            line.waiting.popleft()
            if not isinstance(first, int):
                self._room.left += len(first.row)
            self._done.append(own)
        taken = before - len(line.waiting)
        self._waiting -= taken
        if taken:
            line.counted = line.failures = 0
            line.why = ""

    def _settle(self, line: Line, rests_until: float | None) -> None:
        if not line.waiting:
            del self._lines[line.receiver]
        elif rests_until is None:
            self._ready[line.receiver] = None
        else:
            heapq.heappush(self._resting, (rests_until, next(self._order), line.receiver))

    def hurry(self, now: float) -> None:
        """Things have changed: let those go that rest for no fault of their messages.

        Args:
            now: boottime.
        """
        for line in self._lines.values():
            if line.failures and not line.counted and not line.in_flight:
                line.rests_until = now
                line.failures = 1
                self._ready[line.receiver] = None

    @property
    def next_at(self) -> float | None:
        """When the first that rests may go again, by boottime; None where nobody rests."""
        while self._resting:
            at, _, receiver = self._resting[0]
            line = self._lines.get(receiver)
            if line is not None and not line.in_flight and line.rests_until == at:
                return at
            heapq.heappop(self._resting)
        return None

    # What is done -------------------------------------------------------------------------------------

    @property
    def unacknowledged(self) -> int:
        """How many rows are done, and the store does not know it."""
        return len(self._done)

    def take_done(self, limit: int) -> Sequence[int]:
        """Rows to acknowledge now; give them back where that fails."""
        taken, self._done = self._done[:limit], self._done[limit:]
        return taken

    def give_back(self, numbers: Sequence[int]) -> None:
        """They could not be acknowledged."""
        self._done = [*numbers, *self._done]

    # For people ---------------------------------------------------------------------------------------

    def lines(self) -> Iterator[Line]:
        """Everyone for whom something waits; the oldest line first."""
        return iter(self._lines.values())

    @property
    def idle(self) -> bool:
        """Nothing waits, nothing is unknown, and nothing has to be acknowledged."""
        return not (self._lines or self._done or self._early or self._doubt)

    def close(self) -> None:
        """Give back its room."""
        for line in self._lines.values():
            for row in line.waiting:
                if not isinstance(row, int):
                    self._room.left += len(row.row)
        self._lines.clear()

    def __len__(self) -> int:
        return self._waiting

    def __repr__(self) -> str:
        return (
            f"<Outbox waiting={self._waiting} lines={len(self._lines)} in_flight={self._in_flight}"
            f" resting={len(self._resting)} done={len(self._done)} known={self._known}>"
        )
