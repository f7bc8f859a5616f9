"""Tasks and futures that are the same from run to run. Owns their numbers; knows no loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any


class SimTask(asyncio.Task[Any]):
    """A task that hashes by its number: asyncio keeps tasks in sets, and memory addresses differ
    from run to run."""

    def __init__(self, number: int, host: str, coro: Any, **options: Any) -> None:
        # Before the real constructor, which already hashes.
        self.number = number
        self.host = host
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self.number


class SimFuture(asyncio.Future[Any]):
    """A future that hashes by its number, as SimTask does."""

    def __init__(self, number: int, host: str, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        self.host = host
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class SimTimer(asyncio.TimerHandle):
    """A timer that fires after those which were set before it for the same instant."""

    __slots__ = ("number",)

    def __init__(
        self,
        number: int,
        when: float,
        callback: Callable[..., object],
        args: Sequence[Any],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.number = number

    def __lt__(self, other: asyncio.TimerHandle) -> bool:
        assert isinstance(other, SimTimer)  # noqa: S101 - this loop makes no others
        return (self.when(), self.number) < (other.when(), other.number)

    __hash__ = asyncio.TimerHandle.__hash__


def where(task: SimTask) -> str:
    """One line on what a task waits for."""
    frames = task.get_stack(limit=1)
    at = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "not started"
    return f"{task.host or 'world'}: {task.get_name()} at {at}"
