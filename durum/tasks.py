"""A TaskGroup that one method opens and another closes. Owns the tasks of one long-lived object.

`async with TaskGroup()` ties tasks to one function's body; an object that is opened in one place and closed
in another, perhaps by another task, keeps its tasks here instead. Still every task has an owner and a
name, the owner ends only after its last child, and a child that fails ends the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

from durum.telemetry import Log

_log = Log("durum.tasks")


def heed_cancellation() -> None:
    """End this task if it was cancelled, whatever has become of the exception that told it so.

    To be asked after calls of libraries that may lose it: redis-py does while it connects, and a loop around
    that would go on for ever.

    Raises:
        CancelledError: it was.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class TaskOwner:
    """The tasks of one object.

    Args:
        name: for the names of tasks and for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._group = asyncio.TaskGroup()
        self._root: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Make ready to start tasks."""
        opened = asyncio.Event()
        self._root = asyncio.get_running_loop().create_task(
            self._run(opened), name=f"{self._name}: owner"
        )
        await opened.wait()

    def start(
        self, coro: Coroutine[Any, Any, object], name: str, context: Context | None = None
    ) -> asyncio.Task[object]:
        """Start a task that ends with this owner at the latest.

        Args:
            coro: what to run.
            name: what it is, for people.
            context: its context variables; a copy of the caller's where None.
        """
        return self._group.create_task(coro, name=f"{self._name}: {name}", context=context)

    async def close(self, within_s: float = 10.0) -> None:
        """Cancel all tasks and wait for their end. Raises nothing: `wait` tells how they ended.

        Args:
            within_s: tasks that take longer, since their code ignores the cancellation, are left behind.
        """
        root = self._root
        if root is None:
            return
        root.cancel()
        _, late = await asyncio.wait([root], timeout=within_s)
        if late:
            _log.warning("tasks ignore their cancellation and are left behind", owner=self._name)
        elif not root.cancelled():
            root.exception()  # whoever closes need not ask how it ended; asyncio would log that nobody did

    async def wait(self) -> None:
        """Wait until `close`, or until a task has failed.

        Raises:
            Exception: what the first failing task raised.
        """
        if self._root is None:
            return
        await asyncio.wait([self._root])
        self.check()

    def check(self) -> None:
        """Raise what the first failing task raised, if one has."""
        root = self._root
        if root is None or not root.done() or root.cancelled():
            return
        error = root.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is not None:
            raise error

    @property
    def closed(self) -> bool:
        """Whether all tasks have ended."""
        return self._root is not None and self._root.done()

    async def _run(self, opened: asyncio.Event) -> None:
        async with self._group:
            opened.set()
            await asyncio.Event().wait()

    def __repr__(self) -> str:
        state = "new" if self._root is None else "closed" if self.closed else "open"
        return f"<TaskOwner {self._name} {state}>"
