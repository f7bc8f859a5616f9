"""Awaits many calls, so many at a time. Knows no connection and no thread."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from durum import errors

T = TypeVar("T")


def check_call(call: object) -> None:
    """Refuse what is no call.

    Raises:
        ArgumentError: it is none.
    """
    if not inspect.iscoroutine(call):
        raise errors.ArgumentError(
            f"expected calls such as alice.deposit(Decimal(10)), got {call!r:.200}; nothing was sent."
        )


def put_away(calls: Iterable[object]) -> None:
    """Close coroutines: those that never began would complain."""
    for call in calls:
        if inspect.iscoroutine(call):
            call.close()


async def outcome(call: Coroutine[Any, Any, T]) -> T | Exception:
    """What a call returns or raises, as a value."""
    try:
        return await call
    except Exception as exc:  # noqa: BLE001 - asked for
        return exc


async def gather(
    calls: Sequence[Coroutine[Any, Any, T]],
    in_flight: int,
    inner: Sequence[Coroutine[Any, Any, Any]] = (),
) -> list[T]:
    """Run all, so many at a time; the first error ends them all.

    Args:
        calls: what to run.
        in_flight: how many at a time.
        inner: coroutines that they would await, to be put away where they never begin.
    """
    results: dict[int, T] = {}
    waiting = iter(enumerate(calls))

    async def work() -> None:
        # All workers draw from one iterator: each takes the next call when it is done with one.
        for index, call in waiting:
            results[index] = await call

    try:
        async with asyncio.TaskGroup() as workers:
            for number in range(min(max(1, in_flight), len(calls))):
                workers.create_task(work(), name=f"gather {number}")
    except BaseExceptionGroup as exc:
        raise exc.exceptions[0] from None
    finally:
        put_away([*calls, *inner])
    return [results[index] for index in range(len(calls))]
