"""Which partition may be served from when."""

from __future__ import annotations

from durum.ids import Token
from durum.silo.holdings import Holding, Holdings, OwnershipStatistics


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def holding(partition: int = 1, serve_from: float = 0.0) -> Holding:
    return Holding(partition, 5, Token(b"t"), serve_from, 9)


def test_a_holding_is_ready_only_from_its_instant_on() -> None:
    """Before it, the one it was taken from may still answer."""
    time = Time()
    held = Holdings(4, time)
    held.put(holding(serve_from=106.0))
    assert held.ready(1) is None
    assert held.get(1) is not None
    assert held.next_ready_in_s() == 6.0
    time.now = 106.0
    assert held.ready(1) is held.get(1)
    assert held.next_ready_in_s() is None


def test_a_draining_holding_is_not_ready() -> None:
    """Nothing new may begin under it."""
    held = Holdings(4, Time())
    held.put(holding())
    one = held.ready(1)
    assert one is not None
    one.draining = True
    assert held.ready(1) is None
    assert held.ready(0) is None


def test_a_dropped_holding_tells_turns_that_still_refer_to_it() -> None:
    """They compare the one they began under."""
    held = Holdings(4, Time())
    held.put(holding())
    assert held.count == 1
    dropped = held.drop(1)
    assert dropped is not None
    assert dropped.draining
    assert held.drop(1) is None
    assert held.count == 0
    assert repr(held) == "<Holdings 0 of 4>"


def test_a_newer_holding_replaces_the_old_one() -> None:
    """A partition is held once, whatever came before."""
    held = Holdings(4, Time())
    held.put(holding())
    newer = holding()
    held.put(newer)
    assert held.all() == [newer]
    assert held.count == 1


async def test_waiters_are_woken_when_a_partition_becomes_ready() -> None:
    """Calls wait for it, they do not fail."""
    held = Holdings(4, Time())
    here, elsewhere, gone = held.waiter(1), held.waiter(2), held.waiter(1)
    gone.cancel()
    held.put(holding())
    assert here.done()
    assert not elsewhere.done()
    held.wake_all()
    assert elsewhere.done()


async def test_waiters_are_not_woken_by_a_holding_that_has_to_wait() -> None:
    """They would only look and wait again."""
    held = Holdings(4, Time())
    waiter = held.waiter(1)
    held.put(holding(serve_from=200.0))
    assert not waiter.done()


def test_a_holding_shows_its_state() -> None:
    """People look at it when calls hang."""
    one = holding()
    assert repr(one) == "<Holding 1 epoch=5 commits=9 waiting>"
    one.ready = True
    assert repr(one) == "<Holding 1 epoch=5 commits=9 ready>"
    one.draining = True
    assert repr(one) == "<Holding 1 epoch=5 commits=9 draining>"


def test_holdings_are_counted_by_state() -> None:
    """Whether a silo is ready, and how far its drain is, is read off these."""
    held = Holdings(4, Time())
    held.put(holding(0))
    held.put(holding(1, serve_from=200.0))
    held.put(holding(2))
    last = held.get(2)
    assert last is not None
    last.draining = True
    assert held.statistics(wanted=2) == OwnershipStatistics(wanted=2, held=3, ready=1, draining=1)
