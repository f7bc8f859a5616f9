"""Many operations in one transaction, each succeeding or failing alone. Knows no thread and no loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from durum import errors
from durum.store import sqlite_errors


class Job:
    """One operation on its way through a transaction.

    Args:
        future: where its caller waits; only its own loop's thread sets it.
        function: one of sqlite_tables.
        args: what the function takes after the connection.
        writes: whether it needs the write lock.
    """

    __slots__ = ("args", "error", "function", "future", "result", "writes")

    def __init__(
        self,
        future: asyncio.Future[Any],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        writes: bool,
    ) -> None:
        self.future = future
        self.function = function
        self.args = args
        self.writes = writes
        self.result: Any = None
        self.error: Exception | None = None

    def settle(self) -> None:
        """Tell the caller, unless it has been told that it took too long."""
        if not self.future.done():
            if self.error is None:
                self.future.set_result(self.result)
            else:
                self.future.set_exception(self.error)


class Batch:
    """Runs jobs on one connection.

    Args:
        db: the connection; whoever calls has it for itself.
        url: for messages.
        again: called when another process has the lock; waits a moment and says whether to go on.
    """

    def __init__(self, db: sqlite3.Connection, url: str, again: Callable[[int], bool]) -> None:
        self._db = db
        self._url = url
        self._again = again

    def run(self, jobs: Sequence[Job]) -> None:
        """Give every job its result or error. Returns once all that succeeded is durable."""
        # A job that fails after it began to write takes the transaction with it; the others have
        # told nobody anything yet, so they simply run again without it.
        waiting = list(jobs)
        while waiting:
            spoiler = self._attempt(waiting)
            if spoiler is None:
                return
            waiting.remove(spoiler)

    def _attempt(self, jobs: list[Job]) -> Job | None:
        try:
            self._begin(writes=any(job.writes for job in jobs))
        except sqlite3.Error as exc:
            self._fail(jobs, exc, applied=False)
            return None
        for job in jobs:
            try:
                job.error = None
                job.result = job.function(self._db, *job.args)
            except errors.DurumError as exc:
                job.error = exc  # raised before its first write
            except sqlite3.Error as exc:
                self._rollback()
                if sqlite_errors.spoils_batch(exc):
                    self._fail(jobs, exc, applied=False)
                    return None
                job.error = sqlite_errors.translate(exc, self._url, applied=False)
                return job
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is this caller's alone
                self._rollback()
                job.error = exc
                return job
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as exc:
            self._rollback()
            self._fail(jobs, exc, applied=None)
        return None

    def _begin(self, *, writes: bool) -> None:
        attempt = 0
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            except sqlite3.Error as exc:
                if not sqlite_errors.is_busy(exc) or not self._again(attempt):
                    raise
                attempt += 1
            else:
                return

    def _rollback(self) -> None:
        # SQLite has rolled back by itself after some errors.
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error:
                return

    def _fail(self, jobs: list[Job], exc: sqlite3.Error, *, applied: bool | None) -> None:
        for job in jobs:
            job.error = sqlite_errors.translate(exc, self._url, applied=applied)
