"""Which wake-ups one silo has to see to, and when. Pure: store time and news in, what to read and whom to
wake out. Knows no store, no grain's code and no clock.

The store has every wake-up; in memory are those of the next few seconds. The law, for each partition that is
held: whatever the store has and is not in memory is due at `unread` or later, and sorts behind `after`. So
a million wake-ups of next week cost one number for each partition.

A wake-up in memory may be out of date, since it was moved or dropped after it was read: then whoever is woken
finds nothing to do. One that is missing would be lost, so news are always taken as if they were true.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from durum.ids import GrainId, split_grain_id
from durum.silo.wakeup_rows import Held, Page, Row
from durum.store.effects import WakeUp

AHEAD_MS: Final = 5_000
"""Wake-ups are read so long before they are due."""
PAGE: Final = 256
ROWS: Final = 20_000
"""Wake-ups in memory, more or less: a page is begun while there are fewer."""
_FIRST_PAUSE_MS: Final = 100
_LAST_PAUSE_MS: Final = 5_000
_ATTEMPTS: Final = 10
"""So often in a row somebody is woken in vain before the wake-up is left in the store for a while."""
AGAIN_MS: Final = 60_000
UNHOSTED_MS: Final = 300_000
"""So long no wake-up of a kind is tried that nobody hosts."""


class Agenda:
    """The wake-ups of one silo.

    Args:
        at_once: how many may be out at once.
        rows, page, ahead_ms: see above.
    """

    def __init__(
        self, *, at_once: int, rows: int = ROWS, page: int = PAGE, ahead_ms: int = AHEAD_MS
    ) -> None:
        self._at_once: Final = at_once
        self._limit: Final = rows
        self._page: Final = page
        self._ahead_ms: Final = ahead_ms
        self._held: dict[int, Held] = {}
        self._reads: list[tuple[int, int, int]] = []  # when to read, partition, stamp
        self._due: list[tuple[int, int, Row]] = []  # when to try, a number, row; some are stale
        self._serial = 0
        self._pages = 0
        self._unhosted: dict[str, int] = {}
        self.rows = 0
        """In memory now."""
        self.out = 0
        """On their way now."""

    # Partitions ---------------------------------------------------------------------------------------

    def hold(self, partition: int, earliest_ms: int | None) -> None:
        """A partition is served from now on.

        Args:
            partition: which.
            earliest_ms: when the store's first wake-up of it is due; None: there is none.
        """
        self.drop(partition)
        held = self._held[partition] = Held(partition, earliest_ms)
        self._schedule(held)

    def drop(self, partition: int) -> None:
        """A partition is not served any more. What is on its way stays so."""
        held = self._held.pop(partition, None)
        if held is not None:
            self.rows -= len(held.rows)
            held.rows.clear()

    # News ---------------------------------------------------------------------------------------------

    def put(self, partition: int, grain: GrainId, name: bytes, due_ms: int, now_ms: int) -> None:
        """A wake-up was set."""
        held = self._held.get(partition)
        if held is None:
            return
        row = held.rows.get((grain, name))
        if row is None:
            self._keep_or_leave(held, grain, name, due_ms, now_ms)
        elif row.out:
            row.told, row.then_ms = True, due_ms
        elif row.due_ms != due_ms:
            self._forget(held, row)
            self._keep_or_leave(held, grain, name, due_ms, now_ms)

    def doubt(self, partition: int, grain: GrainId, name: bytes, due_ms: int, now_ms: int) -> None:
        """A wake-up may have been set, now or later; or the one before it stands, which is not put off."""
        held = self._held.get(partition)
        if held is None:
            return
        row = held.rows.get((grain, name))
        if row is None:
            self._keep_or_leave(held, grain, name, due_ms, now_ms)
            return
        if not row.out and due_ms < row.due_ms:
            self._forget(held, row)
            self._keep_or_leave(held, grain, name, due_ms, now_ms)
        self._leave(held, max(due_ms, row.due_ms))

    def remove(self, partition: int, grain: GrainId, name: bytes) -> None:
        """A wake-up was dropped."""
        held = self._held.get(partition)
        row = None if held is None else held.rows.get((grain, name))
        if held is None or row is None:
            return
        if row.out:
            row.told, row.then_ms = True, None
        else:
            self._forget(held, row)

    def suspect(self, partition: int, due_ms: int) -> None:
        """There may be a wake-up due then that nobody has told of."""
        held = self._held.get(partition)
        if held is not None:
            self._leave(held, due_ms)

    def suspect_all(self) -> None:
        """There may be wake-ups anywhere that nobody has told of."""
        for held in self._held.values():
            self._leave(held, 0)

    # Reading ------------------------------------------------------------------------------------------

    def read(self, now_ms: int) -> Page | None:
        """A page that is to be read now, or None. It is under way until `loaded` or `unread`."""
        while self._reads and self._reads[0][0] <= now_ms:
            if self.rows + self._pages * self._page >= self._limit:
                return None
            _, partition, stamp = heapq.heappop(self._reads)
            held = self._held.get(partition)
            if held is None or held.stamp != stamp or held.reading:
                continue
            if held.again_ms is not None and held.again_ms <= now_ms:
                held.again_ms, held.unread, held.after = None, 0, None
            if held.unread is None or held.unread > now_ms + self._ahead_ms:
                self._schedule(held)
                continue
            held.reading = True
            self._pages += 1
            return Page(held, now_ms + self._ahead_ms, self._page)
        return None

    def loaded(self, page: Page, found: Sequence[WakeUp], now_ms: int) -> None:
        """A page was read."""
        self._pages -= 1
        held = page.held
        if self._held.get(page.partition) is not held:
            return
        held.reading = False
        held.after, held.unread = page.after, None
        for each in found:
            if each.due_ms > page.until_ms:
                held.unread = each.due_ms
                break
            held.after = (each.due_ms, each.grain, each.name)
            self._take_in(held, each, now_ms)
        else:
            if len(found) >= page.limit:
                held.unread = found[-1].due_ms
        heard, held.heard = held.heard, None
        if heard is not None:
            held.lower(heard)
        self._schedule(held)

    def unread(self, page: Page, again_ms: int) -> None:
        """A page could not be read; try again then."""
        self._pages -= 1
        held = page.held
        if self._held.get(page.partition) is not held:
            return
        held.reading = False
        held.not_before = again_ms
        heard, held.heard = held.heard, None
        if heard is not None:
            held.lower(heard)
        self._schedule(held)

    def _take_in(self, held: Held, found: WakeUp, now_ms: int) -> None:
        row = held.rows.get((found.grain, found.name))
        if row is not None:
            if not row.out and found.due_ms < row.due_ms:
                self._forget(held, row)  # one of the two is old; who is woken too early finds out
                self._keep(held, found.grain, found.name, found.due_ms)
            return
        if self._unhosted and self._is_unhosted(found.grain, now_ms):
            self._look_again(held, now_ms + UNHOSTED_MS)
            return
        self._keep(held, found.grain, found.name, found.due_ms)

    def _is_unhosted(self, grain: GrainId, now_ms: int) -> bool:
        return self._unhosted.get(split_grain_id(grain)[0], 0) > now_ms

    # Waking -------------------------------------------------------------------------------------------

    def next(self, now_ms: int) -> Row | None:
        """A wake-up that is due, or None. It is out until `done` or `failed`."""
        while self._due and self._due[0][0] <= now_ms and self.out < self._at_once:
            row = heapq.heappop(self._due)[2]
            if self._is_current(row):
                row.out = True
                self.out += 1
                return row
        return None

    def done(self, row: Row, then_ms: int | None, now_ms: int) -> None:
        """Somebody was woken.

        Args:
            row: by which.
            then_ms: when the same wake-up is due again; None: never.
            now_ms: now.
        """
        self.out -= 1
        held = self._taken_back(row)
        if held is None:
            return
        self._forget(held, row)
        due_ms = row.then_ms if row.told else then_ms
        if due_ms is not None:
            self._keep_or_leave(held, row.grain, row.name, due_ms, now_ms)

    def failed(self, row: Row, now_ms: int, *, unhosted: bool = False) -> None:
        """Nobody could be woken.

        Args:
            row: by which.
            now_ms: now.
            unhosted: no silo hosts the kind.
        """
        self.out -= 1
        held = self._taken_back(row)
        if held is None:
            return
        row.attempts += 1
        if unhosted:
            self._unhosted[split_grain_id(row.grain)[0]] = now_ms + UNHOSTED_MS
            self._forget(held, row)
            self._look_again(held, now_ms + UNHOSTED_MS)
        elif row.attempts >= _ATTEMPTS:
            self._forget(held, row)
            self._look_again(held, now_ms + AGAIN_MS)
        elif row.told:
            self._forget(held, row)
            if row.then_ms is not None:
                self._keep_or_leave(held, row.grain, row.name, row.then_ms, now_ms)
        else:
            pause_ms = min(_LAST_PAUSE_MS, _FIRST_PAUSE_MS * 2**row.attempts)
            row.at_ms = now_ms + pause_ms
            self._push(row)

    def next_ms(self) -> int | None:
        """When there is something to do, unless news come before; None: then only."""
        while self._due and not self._is_current(self._due[0][2]):
            heapq.heappop(self._due)
        times = []
        if self._due and self.out < self._at_once:
            times.append(self._due[0][0])
        if self._reads and self.rows + self._pages * self._page < self._limit:
            times.append(self._reads[0][0])
        return min(times, default=None)

    # Inside -------------------------------------------------------------------------------------------

    def _is_current(self, row: Row) -> bool:
        held = self._held.get(row.partition)
        return held is not None and held.rows.get((row.grain, row.name)) is row and not row.out

    def _taken_back(self, row: Row) -> Held | None:
        """A row is not out any more. Its partition, where that is still held as it was."""
        row.out = False
        held = self._held.get(row.partition)
        return held if held is not None and held.rows.get((row.grain, row.name)) is row else None

    def _keep_or_leave(
        self, held: Held, grain: GrainId, name: bytes, due_ms: int, now_ms: int
    ) -> None:
        if due_ms <= now_ms + self._ahead_ms and self.rows < 2 * self._limit:
            self._keep(held, grain, name, due_ms)
        else:
            self._leave(held, due_ms)

    def _keep(self, held: Held, grain: GrainId, name: bytes, due_ms: int) -> None:
        row = held.rows[grain, name] = Row(held.partition, grain, name, due_ms)
        self.rows += 1
        self._push(row)

    def _push(self, row: Row) -> None:
        self._serial += 1
        heapq.heappush(self._due, (row.at_ms, self._serial, row))

    def _forget(self, held: Held, row: Row) -> None:
        del held.rows[row.grain, row.name]
        self.rows -= 1

    def _leave(self, held: Held, due_ms: int) -> None:
        """Leave a wake-up in the store until its time comes near."""
        if held.reading:
            held.heard = due_ms if held.heard is None else min(held.heard, due_ms)
            return
        before = held.unread
        held.lower(due_ms)
        if held.unread != before:
            self._schedule(held)

    def _look_again(self, held: Held, at_ms: int) -> None:
        if held.again_ms is None or at_ms < held.again_ms:
            held.again_ms = at_ms
            if not held.reading:
                self._schedule(held)

    def _schedule(self, held: Held) -> None:
        held.stamp += 1
        times = [] if held.unread is None else [held.unread - self._ahead_ms]
        if held.again_ms is not None:
            times.append(held.again_ms)
        if times:
            when = max(min(times), held.not_before)
            heapq.heappush(self._reads, (when, held.partition, held.stamp))

    def __repr__(self) -> str:
        return f"<Agenda partitions={len(self._held)} rows={self.rows} out={self.out}>"
