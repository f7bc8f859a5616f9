"""Ends requests whose time is up, and tells the other side. Knows connections and clocks; no grains."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from durum.client.links import Links
from durum.client.routes import Link
from durum.clock import Clock
from durum.wire.connection import Connection
from durum.wire.messages import AnyMessage, Cancel

_SWEEP_S: Final = 0.1
_IDLE_FRACTION: Final = 0.05
"""Of the usual deadline: so late may a call be that was sent while nothing else was under way."""


class Deadlines:
    """The deadlines of one process's requests.

    Args:
        links: connections.
        clock: for deadlines.
        usual_s: how long requests have that were sent without a timer of their own.

    Attributes:
        timed: those that have one, each by its connection's identity and its own id.
    """

    def __init__(self, links: Links, clock: Clock, usual_s: float) -> None:
        self._links = links
        self._clock = clock
        self._usual_s = usual_s
        self.timed: set[tuple[int, int]] = set()

    async def sweep(self) -> None:
        """Expire requests that were sent without a timer of their own. Runs until cancelled.

        Ids grow, so a mark of the largest id at an instant tells which requests are older than it: the
        hot path pays nothing for its deadline.
        """
        idle_s = max(_SWEEP_S, self._usual_s * _IDLE_FRACTION)
        marks: dict[Connection, deque[tuple[float, int]]] = {}
        while True:
            busy = any(connection.in_flight for connection in self._links.alive)
            await self._clock.sleep(_SWEEP_S if busy else idle_s)
            now = self._clock.boottime()
            for connection in self._links.alive:
                seen = marks.setdefault(connection, deque())
                seen.append((now, connection.next_id()))
                while seen and now - seen[0][0] >= self._usual_s:
                    _, newest = seen.popleft()
                    self._expire_up_to(connection, newest)
            for connection in [c for c in marks if c not in self._links.alive]:
                del marks[connection]

    def _expire_up_to(self, connection: Connection, newest: int) -> None:
        for request, future in connection.pending_up_to(newest):
            if (id(connection), request) not in self.timed:
                expire(future)
                withdraw(connection, request)

    def __repr__(self) -> str:
        return f"<Deadlines timed={len(self.timed)}>"


def expire(future: asyncio.Future[AnyMessage]) -> None:
    """The time of a request is up."""
    if not future.done():
        future.set_exception(TimeoutError())


def withdraw(link: Link, request: int) -> None:
    """Its sender no longer waits for an answer."""
    link.forget(request)
    if not link.closing:
        link.send(Cancel(request))
