"""Random orders of calls, ends and withdrawals against what must hold of a mailbox at every instant."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from durum import errors
from durum.ids import GrainId
from durum.silo.mailbox import Mailbox
from durum.wire.messages import Hop

GRAIN = GrainId("player/ann")
LIMIT = 5


@dataclass(eq=False)
class FakeTurn:
    """What the mailbox looks at."""

    number: int
    read_only: bool
    chain: tuple[Hop, ...] = ()
    outer: FakeTurn | None = None
    over: bool = False
    dirty: bool = False

    def uncommitted(self) -> bool:
        return self.dirty


class MailboxMachine(RuleBasedStateMachine):
    """The model: which turns run, which wait, and in which order writers came."""

    def __init__(self) -> None:
        super().__init__()
        self.box: Mailbox[FakeTurn] = Mailbox(GRAIN, limit=LIMIT)
        self.running: dict[int, FakeTurn] = {}
        self.waiting: dict[int, FakeTurn] = {}
        self.ended: set[int] = set()
        self.count = 0

    def _new(self, *, read_only: bool, outer: FakeTurn | None = None) -> FakeTurn:
        self.count += 1
        chain = () if outer is None else (*outer.chain, Hop(GRAIN, outer.number))
        return FakeTurn(self.count, read_only, chain)

    def _admit(self, turn: FakeTurn) -> None:
        try:
            starts = self.box.admit(turn)
        except errors.Overloaded:
            assert len(self.waiting) >= LIMIT
        except errors.Deadlock:
            assert turn.chain
        else:
            (self.running if starts else self.waiting)[turn.number] = turn

    @rule(read_only=st.booleans())
    def call(self, read_only: bool) -> None:
        self._admit(self._new(read_only=read_only))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), calls=st.lists(st.booleans(), min_size=1, max_size=3))
    def call_back(self, data: st.DataObject, calls: list[bool]) -> None:
        outer = data.draw(st.sampled_from(list(self.running.values())))
        for read_only in calls:
            self._admit(self._new(read_only=read_only, outer=outer))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def change_a_field(self, data: st.DataObject) -> None:
        turn = data.draw(st.sampled_from(list(self.running.values())))
        turn.dirty = not turn.read_only and not turn.dirty

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        # The performer holds back the end of a turn that has others inside it.
        free = [turn for turn in self.running.values() if not self.box.has_inside(turn)]
        turn = data.draw(st.sampled_from(free))
        turn.over = True
        self.box.done(turn)
        del self.running[turn.number]
        assert turn.number not in self.ended, "no call runs twice"
        self.ended.add(turn.number)
        self._pump()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        turn = data.draw(st.sampled_from(list(self.waiting.values())))
        assert self.box.withdraw(turn)
        del self.waiting[turn.number]
        self._pump()

    def _pump(self) -> None:
        while (turn := self.box.next()) is not None:
            assert turn.number in self.waiting, "what starts was waiting, and starts once"
            if turn.outer is None:
                line = [t.number for t in self.waiting.values() if t.outer is None]
                assert turn.number == line[0], "first come, first served"
            del self.waiting[turn.number]
            self.running[turn.number] = turn

    @invariant()
    def no_two_writers_nor_a_writer_beside_a_stranger(self) -> None:
        for turn in self.running.values():
            if turn.read_only:
                continue
            around = {hop.turn for hop in turn.chain}
            for other in self.running.values():
                if other is not turn and other.number not in around:
                    inside = {hop.turn for hop in other.chain}
                    assert turn.number in inside, f"{turn} runs beside {other}"

    @invariant()
    def one_turn_runs_inside_another(self) -> None:
        outers = [turn.outer.number for turn in self.running.values() if turn.outer is not None]
        assert len(outers) == len(set(outers))

    @invariant()
    def nothing_is_lost(self) -> None:
        assert list(self.running.values()) == list(self.box.running)
        assert len(self.waiting) == len(self.box)
        assert self.box.idle == (not self.running and not self.waiting)

    @invariant()
    def somebody_runs_while_anybody_waits(self) -> None:
        assert self.running or not self.waiting

    def teardown(self) -> None:
        """Everybody who waits has a turn in the end."""
        while self.running:
            free = [turn for turn in self.running.values() if not self.box.has_inside(turn)]
            assert free
            self.box.done(free[-1])
            del self.running[free[-1].number]
            self._pump()
        assert not self.waiting


MailboxMachine.TestCase.settings = settings(
    max_examples=250, stateful_step_count=30, deadline=None, derandomize=True
)
TestMailbox = MailboxMachine.TestCase
