"""The mailbox rule, sentence by sentence. Pure: turns are plain values, nothing runs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import pytest

from durum import errors
from durum.ids import GrainId
from durum.silo.mailbox import Mailbox
from durum.wire.messages import Hop

ANN = GrainId("player/ann")
BOB = GrainId("player/bob")
_numbers = count(1)


@dataclass(eq=False)
class FakeTurn:
    """What the mailbox looks at."""

    number: int
    read_only: bool = False
    chain: tuple[Hop, ...] = ()
    outer: FakeTurn | None = None
    over: bool = False
    dirty: bool = False

    def uncommitted(self) -> bool:
        return self.dirty


def writer(*inside: FakeTurn) -> FakeTurn:
    """A turn that may change fields; called, by way of BOB, from inside the turns given."""
    return FakeTurn(next(_numbers), chain=chain(*inside))


def reader(*inside: FakeTurn) -> FakeTurn:
    """A turn that only reads."""
    return FakeTurn(next(_numbers), read_only=True, chain=chain(*inside))


def chain(*turns: FakeTurn) -> tuple[Hop, ...]:
    hops: list[Hop] = []
    for turn in turns:
        hops += [Hop(ANN, turn.number), Hop(BOB, turn.number)]
    return tuple(hops)


def box(
    limit: int = 10, *, reentrant: bool = False, chain_enters: bool = True
) -> Mailbox[FakeTurn]:
    return Mailbox(ANN, limit=limit, reentrant=reentrant, chain_enters=chain_enters)


def finish(mailbox: Mailbox[FakeTurn], turn: FakeTurn) -> list[FakeTurn]:
    """End a turn; what may start because of it."""
    mailbox.done(turn)
    started = []
    while (following := mailbox.next()) is not None:
        started.append(following)
    return started


def test_mailbox_runs_one_writer_at_a_time_in_order_of_arrival() -> None:
    """Two turns that change fields at once would lose one's changes; out of order they would surprise."""
    mailbox, first, second, third = box(), writer(), writer(), writer()
    assert mailbox.idle
    assert mailbox.admit(first)
    assert not mailbox.admit(second)
    assert not mailbox.admit(third)
    assert (mailbox.idle, mailbox.waiting, mailbox.running) == (False, True, (first,))
    assert repr(mailbox) == "<Mailbox player/ann running=1 waiting=2>"
    assert mailbox.next() is None
    assert finish(mailbox, first) == [second]
    assert finish(mailbox, second) == [third]
    assert finish(mailbox, third) == []
    assert mailbox.idle
    assert not mailbox.waiting


def test_mailbox_runs_readers_together() -> None:
    """Reads that exclude one another would make a popular grain slow for no reason."""
    mailbox, first, second = box(), reader(), reader()
    assert mailbox.admit(first)
    assert mailbox.admit(second)
    assert mailbox.running == (first, second)


def test_mailbox_lets_no_reader_run_beside_a_writer() -> None:
    """It would see half of a turn's changes."""
    mailbox, first, second = box(), writer(), reader()
    assert mailbox.admit(first)
    assert not mailbox.admit(second)
    assert finish(mailbox, first) == [second]


def test_mailbox_lets_no_reader_pass_a_waiting_writer() -> None:
    """Under steady reads the writer would otherwise never run."""
    mailbox, reading, writing, late, later = box(), reader(), writer(), reader(), reader()
    assert mailbox.admit(reading)
    assert not mailbox.admit(writing)
    assert not mailbox.admit(late)
    assert not mailbox.admit(later)
    assert finish(mailbox, reading) == [writing]
    assert finish(mailbox, writing) == [late, later]


def test_mailbox_lets_a_waiting_reader_join_readers_once_the_writer_before_it_is_gone() -> None:
    """A withdrawn writer must not hold up those behind it."""
    mailbox, reading, writing, late = box(), reader(), writer(), reader()
    mailbox.admit(reading)
    mailbox.admit(writing)
    mailbox.admit(late)
    assert mailbox.withdraw(writing)
    assert mailbox.next() is late
    assert mailbox.next() is None


def test_mailbox_refuses_calls_beyond_its_limit() -> None:
    """An unbounded queue grows until the process dies; the refusal says that nothing ran and what to do."""
    mailbox = box(limit=2)
    for turn in (writer(), writer(), writer()):
        mailbox.admit(turn)
    with pytest.raises(
        errors.Overloaded, match=r"player/ann has 2 calls waiting \(limit 2\)"
    ) as caught:
        mailbox.admit(writer())
    assert caught.value.did_run is errors.DidRun.NO
    assert len(mailbox) == 2


def test_mailbox_lets_a_call_of_its_own_chain_enter() -> None:
    """Refusing or queueing a call that the running turn waits for would be a deadlock."""
    mailbox, outer, other = box(), writer(), writer()
    inner = writer(outer)
    mailbox.admit(outer)
    mailbox.admit(other)
    assert mailbox.enters(inner)
    assert not mailbox.enters(other)
    assert mailbox.admit(inner)
    assert inner.outer is outer
    assert mailbox.has_inside(outer)
    assert finish(mailbox, inner) == []
    assert not mailbox.has_inside(outer)
    assert finish(mailbox, outer) == [other]


def test_mailbox_nests_in_the_innermost_turn_of_a_chain() -> None:
    """The outermost waits for the inner one; only the inner one waits for this call."""
    mailbox, first = box(), writer()
    second = writer(first)
    third = writer(first, second)
    assert [mailbox.admit(turn) for turn in (first, second, third)] == [True, True, True]
    assert third.outer is second
    assert [finish(mailbox, turn) for turn in (third, second, first)] == [[], [], []]
    assert mailbox.idle


def test_mailbox_runs_one_turn_at_a_time_inside_another() -> None:
    """A turn that calls two others at once gets calls back from both; they are writers like all others."""
    mailbox, outer = box(), writer()
    first, second, third = writer(outer), reader(outer), writer(outer)
    mailbox.admit(outer)
    assert [mailbox.admit(turn) for turn in (first, second, third)] == [True, False, False]
    assert repr(mailbox) == "<Mailbox player/ann running=2 waiting=2>"
    assert mailbox.next() is None
    assert finish(mailbox, first) == [second]
    assert finish(mailbox, second) == [third]
    assert finish(mailbox, third) == []


def test_mailbox_bounds_what_waits_inside_a_turn() -> None:
    """A turn that fans out to ten thousand grains which all call back must not fill memory either."""
    mailbox, outer = box(limit=1), writer()
    mailbox.admit(outer)
    assert [mailbox.admit(writer(outer)) for _ in range(2)] == [True, False]
    refused = writer(outer)
    with pytest.raises(errors.Overloaded):
        mailbox.admit(refused)
    assert refused.outer is None


def test_mailbox_refuses_to_nest_in_a_turn_with_uncommitted_changes() -> None:
    """The nested turn would commit them with its own, and answer by what can still roll back."""
    mailbox, outer = box(), writer()
    outer.dirty = True
    mailbox.admit(outer)
    path = "player/ann -> player/bob -> player/ann"
    with pytest.raises(
        errors.Deadlock, match=f"{path}: .*uncommitted changes: save first"
    ) as caught:
        mailbox.admit(writer(outer))
    assert caught.value.did_run is errors.DidRun.NO
    assert not mailbox.has_inside(outer)


def test_mailbox_asks_again_before_a_turn_that_waited_inside_another() -> None:
    """While one runs inside, its changes are its own and will be committed; the outer turn's come after."""
    mailbox, outer = box(), writer()
    first, second = writer(outer), writer(outer)
    mailbox.admit(outer)
    mailbox.admit(first)
    outer.dirty = True
    assert not mailbox.admit(second)
    assert finish(mailbox, first) == [second]
    refusal = mailbox.refusal(second)
    assert refusal is not None
    assert "uncommitted changes: save first" in str(refusal)
    outer.dirty = False
    assert mailbox.refusal(second) is None
    assert mailbox.refusal(outer) is None


def test_mailbox_refuses_a_call_of_its_chain_at_once_where_the_kind_says_never() -> None:
    """Such a kind's author wants the cycle to be seen, with the chain, and not to be served."""
    mailbox, outer = box(chain_enters=False), writer()
    mailbox.admit(outer)
    with pytest.raises(
        errors.Deadlock, match="player/ann -> player/bob -> player/ann: the first waits"
    ):
        mailbox.admit(reader(outer))


def test_mailbox_nests_a_writer_in_a_reader_only_where_no_other_turn_reads() -> None:
    """Other readers would see fields change under them in the middle of a turn."""
    mailbox, outer, other = box(), reader(), reader()
    mailbox.admit(outer)
    mailbox.admit(other)
    with pytest.raises(errors.Deadlock, match="@read_only turns run beside the one that waits"):
        mailbox.admit(writer(outer))
    assert mailbox.admit(reader(outer))
    mailbox.done(other)
    assert not mailbox.admit(writer(outer)), "one at a time"


def test_mailbox_lets_no_reader_in_while_a_writer_waits_inside_another() -> None:
    """It would run beside that writer as soon as its time comes."""
    mailbox, outer = box(), reader()
    first, second, stranger, behind = reader(outer), writer(outer), reader(), reader()
    mailbox.admit(outer)
    mailbox.admit(first)
    assert not mailbox.admit(second)
    assert not mailbox.admit(stranger)
    assert not mailbox.admit(behind)
    assert mailbox.next() is None
    assert finish(mailbox, first) == [second]
    assert mailbox.next() is None
    assert finish(mailbox, second) == [stranger, behind]


def test_mailbox_does_not_nest_in_a_turn_whose_code_is_over() -> None:
    """It waits for nothing any more: a late call of one of its tasks takes its place in line."""
    mailbox, outer = box(), writer()
    mailbox.admit(outer)
    outer.over = outer.dirty = True
    late = writer(outer)
    assert not mailbox.enters(late)
    assert not mailbox.admit(late)
    assert finish(mailbox, outer) == [late]


def test_mailbox_does_not_nest_in_a_turn_that_has_ended() -> None:
    """The chain names turns; one that is not running here holds nothing."""
    mailbox, gone, running = box(), writer(), writer()
    mailbox.admit(running)
    assert not mailbox.admit(writer(gone))


def test_mailbox_takes_turns_inside_another_into_the_line_when_that_one_ends_first() -> None:
    """They were admitted, so they must run; but nobody they ran inside is left."""
    mailbox, outer, other = box(), writer(), writer()
    running, waiting, also = writer(outer), writer(outer), writer(outer)
    for turn in (outer, other, running, waiting, also):
        mailbox.admit(turn)
    assert finish(mailbox, outer) == []
    assert (running.outer, waiting.outer) == (None, None)
    assert finish(mailbox, running) == [waiting]
    assert finish(mailbox, waiting) == [also]
    assert finish(mailbox, also) == [other]


def test_mailbox_drops_what_is_withdrawn_and_never_what_runs() -> None:
    """A cancelled call must not run later; a running one is not the mailbox's to stop."""
    mailbox, outer, waiting = box(), writer(), writer()
    first, second = writer(outer), writer(outer)
    for turn in (outer, waiting, first, second):
        mailbox.admit(turn)
    assert not mailbox.withdraw(outer)
    assert not mailbox.withdraw(first)
    assert mailbox.withdraw(second)
    assert not mailbox.withdraw(second), "it is gone already"
    assert mailbox.withdraw(waiting)
    assert not mailbox.withdraw(waiting)
    assert finish(mailbox, first) == []
    assert not mailbox.withdraw(second), "nor is anything left inside the outer one"
    assert (mailbox.runs(outer), mailbox.runs(first), mailbox.runs(waiting)) == (True, False, False)


def test_mailbox_gives_out_what_waits_in_line_and_inside_turns() -> None:
    """Whoever moves elsewhere takes along what did not run; what runs stays to its end."""
    mailbox, outer, *line = box(), writer(), writer(), writer()
    inside = [writer(outer) for _ in range(3)]
    for turn in (outer, *line, *inside):
        mailbox.admit(turn)
    assert list(mailbox.take_nested()) == inside[1:]
    assert [turn.outer for turn in inside] == [outer, None, None]
    assert list(mailbox.take_waiting()) == line
    assert mailbox.running == (outer, inside[0])
    assert finish(mailbox, inside[0]) == []
    assert finish(mailbox, outer) == []
    assert mailbox.idle


def test_mailbox_of_a_reentrant_kind_starts_everything_at_once() -> None:
    """Such kinds interleave freely; that is what their authors asked for."""
    mailbox = box(limit=1, reentrant=True)
    turns = [writer(), writer(), reader(), writer()]
    turns.append(writer(turns[0]))
    assert all(mailbox.admit(turn) for turn in turns)
    assert turns[-1].outer is None
    for turn in turns:
        assert finish(mailbox, turn) == []
    assert mailbox.idle
