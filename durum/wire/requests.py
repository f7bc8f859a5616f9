"""Requests under way in both directions. Owns who waits for which answer; knows no frames and no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from durum.wire.messages import AnyMessage, Call, HandOver, Luggage, Open, Probe

Request = Call | Probe | HandOver | Open | Luggage


class LinkBroken(ConnectionError):
    """The connection ended before the answer came.

    Args:
        message: what happened.
        sent: False where the request never left this process, so it did not run.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Requests:
    """What a connection waits for, and what the other side waits for.

    `pending` and `owed` are used directly on the hot path.
    """

    __slots__ = ("_waiting", "owed", "pending", "watched")

    def __init__(self) -> None:
        self.pending: dict[int, asyncio.Future[AnyMessage]] = {}
        """Own requests: id to who waits for the answer."""
        self.owed: set[int] = set()
        """Ids of the other side's requests that have no answer yet."""
        self.watched = False
        """Somebody acts once nothing is in flight, so settle() is to be called after each change."""
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def idle(self) -> bool:
        """Nothing is in flight in either direction."""
        return not (self.pending or self.owed)

    async def wait_idle(self) -> None:
        """Wait until nothing is in flight, or the connection has ended."""
        if not self.idle:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            self.watched = True
            await waiter

    def settle(self) -> bool:
        """Tell those who wait, if nothing is in flight; return whether that is so."""
        if not self.idle:
            return False
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
        return True

    def refuse(self, request: Request, error: Exception) -> None:
        """A request could not be sent."""
        future = self.pending.pop(request.id, None)
        if future is not None and not future.done():
            future.set_exception(error)

    def fail(self, unsent: Iterable[AnyMessage], who: str, error: Exception | None) -> None:
        """The connection has ended: fail everything.

        Args:
            unsent: messages that never left.
            who: the other side, for people.
            error: why it ended, where that is known.
        """
        kept = {message.id for message in unsent if isinstance(message, Request)}
        pending, self.pending = self.pending, {}
        self.owed = set()
        why = "it was closed." if error is None else f"{error}"
        for request, future in pending.items():
            if future.done():
                continue
            sent = request not in kept
            when = "after the request was sent" if sent else "before the request was sent"
            broken = LinkBroken(f"the connection to {who} ended {when}: {why}", sent=sent)
            broken.__cause__ = error
            future.set_exception(broken)
