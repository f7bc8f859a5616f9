"""Bounds on waiting, and the one cause of a group's end."""

from __future__ import annotations

import asyncio

import pytest

from durum import errors
from durum.silo.patience import answered, cause, pause
from durum.testing import loop
from durum.testing.run import run


def test_a_store_that_does_not_answer_counts_as_away() -> None:
    """Whether it did what it was asked nobody knows then."""

    async def main() -> float:
        with pytest.raises(
            errors.StoreUnavailable, match="renew: the store did not answer"
        ) as info:
            await answered(asyncio.Event().wait(), 1.5, "renew")
        assert info.value.applied is None
        return loop.current().time()

    assert run(main(), 1) == 1.5


def test_an_answer_in_time_is_the_answer() -> None:
    """The bound must not change it."""
    assert run(answered(asyncio.sleep(1, "yes"), 1.5, "ask"), 1) == "yes"


def test_a_pause_ends_early_when_its_event_comes() -> None:
    """Hints and gossip cut short the wait for the next poll."""

    async def main() -> list[float]:
        soon, ends = asyncio.Event(), []
        loop.current().call_later(0.5, soon.set)
        await pause(soon, 2.0)
        ends.append(loop.current().time())
        await pause(soon, 2.0)
        ends.append(loop.current().time())
        soon.set()
        await pause(soon, 0.0)
        assert not soon.is_set()
        return ends

    assert run(main(), 1) == [0.5, 2.5]


def test_the_cause_of_a_group_is_its_first_error() -> None:
    """Callers catch DeclaredDead, not a group that holds it."""
    error = errors.DeclaredDead("dead")
    assert cause(BaseExceptionGroup("", [BaseExceptionGroup("", [error]), ValueError()])) is error
