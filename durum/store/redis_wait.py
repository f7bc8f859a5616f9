"""Answers that count only once replicas have the write too. Owns what is held back meanwhile.

A tick's writes are followed by one WAIT on the same connection, which answers for all of them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from durum.store import redis_errors
from durum.store.redis_line import Command, Entry, Finish

_SHARE = 0.6  # of a command's time limit: WAIT has to answer before the connection is given up


class Held:
    """The finish of one write whose answer waits for its batch."""

    __slots__ = ("_batch", "finish")

    def __init__(self, batch: Batch, finish: Finish) -> None:
        self._batch = batch
        self.finish = finish

    def __call__(self, future: asyncio.Future[Any], reply: Any) -> None:
        self._batch.hold(future, self.finish, reply)


class Batch:
    """The writes of one tick.

    Args:
        replicas: how many must have them.
        timeout_s: a command's time limit.
        url: for messages.
    """

    def __init__(self, replicas: int, timeout_s: float, url: str) -> None:
        self._replicas = replicas
        self._url = url
        self._held: list[tuple[asyncio.Future[Any], Finish, Any]] = []
        self.command: Command = ("WAIT", replicas, int(timeout_s * _SHARE * 1000))

    def covers(self, entry: Entry) -> Entry:
        """The same entry, with its answer held back."""
        future, finish, command = entry
        return future, Held(self, finish), command

    def hold(self, future: asyncio.Future[Any], finish: Finish, reply: Any) -> None:
        """The primary has done it."""
        self._held.append((future, finish, reply))

    def last(self, loop: asyncio.AbstractEventLoop) -> Entry:
        """The entry of the WAIT."""
        waited: asyncio.Future[Any] = loop.create_future()
        waited.add_done_callback(self._settle)
        return waited, _count, self.command

    def _settle(self, waited: asyncio.Future[Any]) -> None:
        error: Exception | None = None
        if waited.cancelled():
            error = redis_errors.broken(self._url, "the store was closed")
        elif waited.exception() is not None:
            # Refused or broken, the writes were done where we asked for them, and that is all we know.
            error = redis_errors.broken(self._url, waited.exception())
        elif waited.result() < self._replicas:
            error = redis_errors.too_few(self._url, waited.result(), self._replicas)
        for future, finish, reply in self._held:
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
                continue
            try:
                finish(future, reply)
            except Exception as exc:  # noqa: BLE001 - it belongs to whoever asked
                future.set_exception(exc)


def _count(future: asyncio.Future[Any], reply: Any) -> None:
    future.set_result(int(reply))
