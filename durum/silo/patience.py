"""What a silo's loops share: bounds on waiting, and the one cause of a group's end. Knows no feature."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from durum import errors

Answer = TypeVar("Answer")


async def answered(awaitable: Awaitable[Answer], within_s: float, what: str) -> Answer:
    """Await the store, but not for ever.

    Args:
        awaitable: an operation on the store.
        within_s: one that takes longer has failed; a write's fate is then unknown.
        what: the operation, for the message.

    Raises:
        StoreUnavailable: no answer in time, or the store's own refusal.
    """
    try:
        async with asyncio.timeout(within_s):
            return await awaitable
    except TimeoutError as exc:
        raise errors.StoreUnavailable(
            f"{what}: the store did not answer within {within_s} s; it is tried again by itself."
        ) from exc


async def pause(soon: asyncio.Event, seconds: float) -> None:
    """Wait until the event is set or the time is over, and clear it."""
    if seconds > 0:
        try:
            async with asyncio.timeout(seconds):
                await soon.wait()
        except TimeoutError:
            pass
    soon.clear()


def cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What the first failing task of a group raised: `except*` would hand its callers a group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
