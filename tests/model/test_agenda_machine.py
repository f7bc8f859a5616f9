"""The wake-ups in memory against the simplest model: a store that has all of them.

Whatever is due in the store is delivered once somebody looks, whatever pages were under way when it was
changed, and nothing is delivered early; memory stays bounded.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from durum.ids import GrainId
from durum.silo import agenda
from durum.silo.agenda import Agenda
from durum.silo.wakeup_rows import Page, Row
from durum.store.effects import WakeUp

PARTITIONS = (0, 1)
GRAINS = st.sampled_from([GrainId(f"Till/{n}") for n in range(6)])
NAMES = st.sampled_from([b"a", b"b"])
DUE = st.one_of(st.integers(0, 30), st.integers(15, 60), st.integers(0, 400))
ROWS, PAGE, AHEAD, AT_ONCE = 4, 2, 20, 3
Key = tuple[GrainId, bytes]


class AgendaMachine(RuleBasedStateMachine):
    """One silo's agenda beside a store of two partitions; all times in milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.store: dict[int, dict[Key, int]] = {p: {} for p in PARTITIONS}
        self.agenda = Agenda(at_once=AT_ONCE, rows=ROWS, page=PAGE, ahead_ms=AHEAD)
        self.pages: list[tuple[Page, list[WakeUp] | None]] = []
        self.out: list[Row] = []
        for partition in PARTITIONS:
            self.agenda.hold(partition, None)

    # The store ----------------------------------------------------------------------------------------

    def found(self, page: Page) -> list[WakeUp]:
        rows = sorted((due, g, n) for (g, n), due in self.store[page.partition].items())
        after = page.after
        return [WakeUp(*row) for row in rows if after is None or row > after][: page.limit]

    @rule(p=st.sampled_from(PARTITIONS), grain=GRAINS, name=NAMES, ahead=DUE)
    def commit(self, p: int, grain: GrainId, name: bytes, ahead: int) -> None:
        self.store[p][grain, name] = self.now + ahead
        self.agenda.put(p, grain, name, self.now + ahead, self.now)

    @rule(p=st.sampled_from(PARTITIONS), grain=GRAINS, name=NAMES)
    def drop(self, p: int, grain: GrainId, name: bytes) -> None:
        self.store[p].pop((grain, name), None)
        self.agenda.remove(p, grain, name)

    @rule(p=st.sampled_from(PARTITIONS), grain=GRAINS, name=NAMES, ahead=DUE, lands=st.booleans())
    def commit_elsewhere(
        self, p: int, grain: GrainId, name: bytes, ahead: int, lands: bool
    ) -> None:
        """By the host of a grain, which only says when it might be."""
        if lands:
            self.store[p][grain, name] = self.now + ahead
        self.agenda.suspect(p, self.now + ahead)

    @rule(p=st.sampled_from(PARTITIONS))
    def take_over(self, p: int) -> None:
        """The partition went and came back."""
        self.agenda.drop(p)
        self.agenda.hold(p, min(self.store[p].values(), default=None))

    # The shell ----------------------------------------------------------------------------------------

    @rule(milliseconds=st.one_of(st.integers(0, 15), st.integers(0, 200)))
    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds

    @rule(at_once=st.booleans())
    def ask(self, at_once: bool) -> None:
        page = self.agenda.read(self.now)
        if page is not None:
            self.pages.append((page, self.found(page) if at_once else None))

    @rule(index=st.integers(0, 5))
    def serve(self, index: int) -> None:
        """The store looks; the answer is on its way."""
        if index < len(self.pages) and self.pages[index][1] is None:
            page = self.pages[index][0]
            self.pages[index] = (page, self.found(page))

    @rule(index=st.integers(0, 5), lost=st.booleans())
    def answer(self, index: int, lost: bool) -> None:
        if index >= len(self.pages):
            return
        page, found = self.pages.pop(index)
        if found is None or lost:
            self.agenda.unread(page, self.now + 5)
        else:
            self.agenda.loaded(page, found, self.now)

    @rule()
    def wake(self) -> None:
        row = self.agenda.next(self.now)
        if row is not None:
            assert row.due_ms <= self.now, "early"
            self.out.append(row)

    @rule(index=st.integers(0, 3), then=st.none() | DUE, fails=st.booleans())
    def tick(self, index: int, then: int | None, fails: bool) -> None:
        """Whoever was woken looks, and commits what is next; or could not be reached."""
        if index >= len(self.out):
            return
        row = self.out.pop(index)
        if fails:
            self.agenda.failed(row, self.now)
        else:
            self._look(row, then)

    def _look(self, row: Row, then: int | None) -> None:
        key, stored = (row.grain, row.name), self.store[row.partition]
        due = stored.get(key)
        if due is not None and due <= self.now:
            if then is None:
                del stored[key]
                self.agenda.remove(row.partition, *key)
                due = None
            else:
                due = stored[key] = self.now + then
                self.agenda.put(row.partition, *key, due, self.now)
        self.agenda.done(row, due, self.now)

    # What holds ---------------------------------------------------------------------------------------

    @invariant()
    def memory_is_bounded(self) -> None:
        assert self.agenda.rows <= 2 * ROWS + 2 * PAGE
        assert self.agenda.out == len(self.out) <= AT_ONCE

    def teardown(self) -> None:
        """In the end nothing due is left: it was read, somebody was woken, and took it away."""
        while self.pages:
            self.serve(0)
            self.answer(0, lost=False)
        for _ in range(400):
            while self.out:
                self._look(self.out.pop(), None)
            while (row := self.agenda.next(self.now)) is not None:
                self.out.append(row)
            while (page := self.agenda.read(self.now)) is not None:
                self.agenda.loaded(page, self.found(page), self.now)
            if not self.out:
                left = [due for rows in self.store.values() for due in rows.values()]
                if not left:
                    return
                wakes = self.agenda.next_ms()
                assert wakes is not None, f"asleep for ever, and {self.store} is there"
                assert wakes <= max(self.now, min(left)) + agenda.AGAIN_MS
                self.now = max(self.now + 1, wakes)
        raise AssertionError(f"not delivered: {self.store}")


AgendaMachine.TestCase.settings = settings(
    max_examples=400, stateful_step_count=50, deadline=None, derandomize=True
)
TestAgenda = AgendaMachine.TestCase
