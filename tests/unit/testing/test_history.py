"""Histories: what counts as done, as not done, and as unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from itertools import pairwise

import pytest

from durum import errors
from durum.errors import DidRun
from durum.testing import loop
from durum.testing.history import UNKNOWN, History
from durum.testing.run import run


async def give(value: int) -> int:
    await asyncio.sleep(1)
    return value


async def fail(error: Exception) -> int:
    raise error


async def recorded(history: History, reply: Awaitable[int]) -> int:
    return await history.call("k", "add", 1, reply, client="c")


def test_history_keeps_order_where_time_does_not_tell() -> None:
    """On virtual time a call may begin in the very instant in which the one before it ended."""

    async def main() -> None:
        history = History()
        for value in range(3):
            await recorded(history, give(value))
        found = history.operations()
        assert [one.result for one in found] == [0, 1, 2]
        assert all(a.returned < b.called for a, b in pairwise(found))
        assert list(history.by_key()) == ["k"]
        assert repr(history) == "<History ended=3 unknown=0>"

    run(main(), 1)


@pytest.mark.parametrize(
    ("error", "left"),
    [
        (errors.Overloaded("full"), 0),
        (errors.SiloLost("gone", DidRun.ROLLED_BACK), 0),
        (errors.SiloLost("gone"), 1),
        (errors.CallTimeout("late"), 1),
        (ValueError("the method's own"), 0),
    ],
)
def test_history_leaves_out_only_what_surely_did_nothing(error: Exception, left: int) -> None:
    """A call taken for failed that had run would make a right history look wrong."""

    async def main() -> None:
        history = History()
        with pytest.raises(type(error)):
            await recorded(history, fail(error))
        found = history.operations()
        assert len(found) == left
        assert all(one.result is UNKNOWN and not one.known for one in found)

    run(main(), 1)


def test_history_counts_a_killed_clients_call_as_unknown() -> None:
    """It was sent; whether it ran, only the silo knows."""

    async def main() -> None:
        history = History()
        running = loop.current()
        running.start("client", recorded(history, give(1)))
        await asyncio.sleep(0.5)
        running.kill("client")
        await asyncio.sleep(5)
        assert [repr(one.result) for one in history.operations()] == ["UNKNOWN"]

    run(main(), 1)


def test_history_counts_a_cancelled_call_as_unknown() -> None:
    """Cancelling stops the waiting, not always the call."""

    async def main() -> None:
        history = History()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await recorded(history, give(1))
        assert len(history.operations()) == 1

    run(main(), 1)
