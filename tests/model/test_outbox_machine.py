"""Outboxes, their post and their receivers against a simple model, whatever crashes and however late it
arrives.

One partition sends to a few receivers. The store is a list of rows; owners come and go, with their memory;
deliveries are slow, are lost, and arrive after their sender has died. Each receiver keeps marks as the silo
does. In the end each has had each message once, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from durum.ids import GrainId
from durum.silo.marks import Mark, Marks, Verdict, mark_name, written
from durum.silo.outbox import Outbox, Patience, Room
from durum.store.effects import Posted

RECEIVERS = [GrainId("Cart/a"), GrainId("Cart/b")]
PATIENCE = Patience(1.0, 8.0)
ROW = b"x" * 10
PARTITION = 3


@dataclass
class Delivery:
    """One batch on its way."""

    owner: int
    receiver: GrainId
    rows: list[Posted]
    number: int = 0
    failed: bool = False
    arrived: bool = False


@dataclass
class Receiver:
    """A grain: what it has had, and its marks, both in the store and both by one commit."""

    had: list[tuple[int, bytes]] = field(default_factory=list)
    parts: dict[bytes, bytes] = field(default_factory=dict)
    poisoned: int = 0


class OutboxMachine(RuleBasedStateMachine):
    """See above."""

    def __init__(self) -> None:
        super().__init__()
        self.store: list[Posted] = []
        self.number = 0
        self.epoch = 1
        self.sent: dict[GrainId, list[tuple[int, bytes]]] = {one: [] for one in RECEIVERS}
        self.receivers = {one: Receiver() for one in RECEIVERS}
        self.now = 0.0
        self.unheard: list[list[Posted]] = []  # committed; the owner's memory was not told yet
        self.deliveries: list[Delivery] = []
        self.page: tuple[list[Posted], bool] | None = None  # read, and on its way to the owner
        self.acknowledging: tuple[int, list[int]] | None = None
        self.outbox = self.fresh()

    def fresh(self) -> Outbox:
        return Outbox(PATIENCE, Room(25), pending=bool(self.store))

    # The sender -------------------------------------------------------------------------------------------

    @rule(whom=st.lists(st.sampled_from(RECEIVERS), min_size=1, max_size=3))
    def commit(self, whom: list[GrainId]) -> None:
        """A turn of the partition sends."""
        rows = []
        for receiver in whom:
            self.number += 1
            lineage = b"%16d" % self.epoch
            rows.append(Posted(self.number, self.epoch, lineage, receiver, ROW))
            self.sent[receiver].append((self.number, lineage))
        self.store += rows
        self.unheard.append(rows)

    @rule(which=st.integers(0, 5))
    def hear(self, which: int) -> None:
        """The owner's memory is told of a commit, in any order."""
        if self.unheard:
            self.outbox.post(self.unheard.pop(which % len(self.unheard)))

    @rule(count=st.integers(1, 3))
    def ask(self, count: int) -> None:
        """The owner asks for a page; the store reads it now."""
        after = self.outbox.unread
        if after is not None and self.page is None:
            self.outbox.asked()
            page = [row for row in self.store if row.number > after][:count]
            self.page = page, len(page) < count

    @rule()
    def read(self) -> None:
        """The page comes to the owner."""
        if self.page is not None:
            page, last = self.page
            self.page = None
            self.outbox.read(page, last=last)

    @rule(whom=st.sampled_from(RECEIVERS))
    def commit_elsewhere(self, whom: GrainId) -> None:
        """Somebody else sends by this outbox, and says no more than that he did."""
        self.commit([whom])
        self.unheard.pop()
        self.outbox.doubt()

    @rule()
    def doubt(self) -> None:
        """A commit of unknown fate; or somebody else's."""
        self.outbox.doubt()

    @rule()
    def hurry(self) -> None:
        """The cluster has changed."""
        self.outbox.hurry(self.now)

    @rule()
    def change_owner(self) -> None:
        """The owner dies, with its memory; what it sent is still on its way."""
        self.epoch += 1
        self.unheard = []
        self.page = None
        self.outbox = self.fresh()

    # The way ----------------------------------------------------------------------------------------------

    @rule()
    def send(self) -> None:
        """A batch leaves."""
        batch = self.outbox.next(self.now)
        if batch is not None:
            rows = list(batch.rows) or [
                row
                for row in self.store
                if row.number in batch.numbers and row.receiver == batch.receiver
            ]
            self.deliveries.append(Delivery(self.epoch, batch.receiver, rows))

    @rule(which=st.integers(0, 9), limit=st.integers(0, 3), half=st.booleans())
    def arrive(self, which: int, limit: int, half: bool) -> None:
        """A batch reaches its receiver, whoever sent it; it may fail in the middle."""
        waiting = [each for each in self.deliveries if not each.arrived]
        if not waiting:
            return
        delivery = waiting[which % len(waiting)]
        delivery.arrived = True
        receiver = self.receivers[delivery.receiver]
        name = mark_name(PARTITION, delivery.receiver, delivery.receiver)
        marks = Marks(receiver.parts)  # a new activation each time: only the store counts
        for row in delivery.rows:
            verdict = marks.judge(name, row.epoch, row.lineage, row.number)
            if verdict is Verdict.NEW:
                if limit == 0:
                    delivery.failed = True
                    return
                limit -= 1
                mark = Mark(row.epoch, row.lineage, row.number)
                receiver.had.append((row.number, row.lineage))
                receiver.parts[name] = written(mark)
                marks.took(name, mark)
            delivery.number = row.number
        del half

    @rule(which=st.integers(0, 9))
    def arrive_again(self, which: int) -> None:
        """The network, or an owner that had given up on it, brings the same once more."""
        done = [each for each in self.deliveries if each.arrived]
        if done:
            first = done[which % len(done)]
            self.deliveries.append(Delivery(-1, first.receiver, first.rows))

    @rule(which=st.integers(0, 9), lost=st.booleans())
    def answer(self, which: int, lost: bool) -> None:
        """The sender hears how far it got; or never does, and gives up."""
        own = [each for each in self.deliveries if each.owner == self.epoch]
        if not own:
            return
        delivery = own[which % len(own)]
        if not (delivery.arrived or lost):
            return
        delivery.owner = -1
        if lost or delivery.failed or not delivery.number:
            number = 0 if lost else delivery.number
            counts = delivery.failed and not lost
            self.outbox.failed(
                delivery.receiver, number, "no", counts=counts, now=self.now, fraction=0.5
            )
        else:
            self.outbox.delivered(delivery.receiver, delivery.number)

    @rule(limit=st.integers(1, 4), works=st.booleans())
    def acknowledge(self, limit: int, works: bool) -> None:
        """The owner tells the store what is done."""
        done = list(self.outbox.take_done(limit))
        if works:
            self.store = [row for row in self.store if row.number not in done]
        else:
            self.outbox.give_back(done)

    @rule(seconds=st.floats(0.1, 10.0))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    # The law ----------------------------------------------------------------------------------------------

    @invariant()
    def each_has_had_a_beginning_of_what_was_sent(self) -> None:
        """Once each, in order, nothing left out."""
        for name, receiver in self.receivers.items():
            assert receiver.had == self.sent[name][: len(receiver.had)]

    @invariant()
    def one_batch_is_in_flight_to_each(self) -> None:
        """Of one owner."""
        own = [each.receiver for each in self.deliveries if each.owner == self.epoch]
        assert len(own) == len(set(own))

    @invariant()
    def nothing_is_acknowledged_that_is_not_done(self) -> None:
        """Or it would be lost with its owner."""
        left = {row.number for row in self.store}
        for name, receiver in self.receivers.items():
            for number, _ in self.sent[name][len(receiver.had) :]:
                assert number in left

    def teardown(self) -> None:
        """Let everything go well: all arrives, and the store is empty in the end."""
        for _ in range(100):
            while self.unheard:
                self.hear(0)
            self.read()
            self.ask(3)
            self.read()
            self.now += 10.0
            self.send()
            for _ in range(len(self.deliveries)):
                self.arrive(0, 9, half=False)
                self.answer(0, lost=False)
            self.acknowledge(9, works=True)
            if not self.store and self.outbox.idle:
                break
        for name, receiver in self.receivers.items():
            assert receiver.had == self.sent[name]
        assert self.store == []
        assert self.outbox.idle
        assert len(self.outbox) == 0


SETTINGS = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = SETTINGS


def _two_in_flight(self: Outbox, receiver: GrainId) -> object:
    line = self._lines[receiver]
    self._in_flight -= 1
    return line


def _next_forgets_flight(self: Outbox, now: float) -> object:
    batch = _next(self, now)
    if batch is not None:
        line = self._lines[batch.receiver]
        line.in_flight = False
        if len(line.waiting) > len(batch.numbers):
            line.waiting.rotate(-len(batch.numbers))
            self._ready[batch.receiver] = None
    return batch


def _done_at_once(self: Outbox, now: float) -> object:
    batch = _next(self, now)
    if batch is not None:
        self._done += batch.numbers
    return batch


def _doubt_settled_by_any_page(self: Outbox) -> None:
    self._doubt = True


def _eager_post(self: Outbox, rows: list[Posted]) -> None:
    for row in rows:
        if self._known is None or row.number > self._known:
            self._known = row.number
            self._add(row)


_next = Outbox.next


MUTANTS: list[tuple[str, type, str, Callable[..., object]]] = [
    ("acknowledged before it is done", Outbox, "next", _done_at_once),
    ("two batches in flight", Outbox, "next", _next_forgets_flight),
    ("rows go out whatever is missing before them", Outbox, "post", _eager_post),
    ("doubts settled by an older page", Outbox, "doubt", _doubt_settled_by_any_page),
    ("no deduplication", Marks, "judge", lambda self, name, epoch, lineage, number: Verdict.NEW),
]


@pytest.mark.parametrize(
    ("owner", "name", "instead"),
    [pytest.param(owner, name, instead, id=what) for what, owner, name, instead in MUTANTS],
)
def test_mutant_is_found(
    owner: type, name: str, instead: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that passes without the mechanism proves nothing."""
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises(Exception, match=r"."):
        run_state_machine_as_test(
            OutboxMachine,
            settings=settings(
                SETTINGS,
                max_examples=600,
                print_blob=False,
                phases=[Phase.generate],
                database=None,
                derandomize=True,
            ),
        )
