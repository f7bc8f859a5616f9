"""Streams from silos, at their receiver: items as they arrive, credit for more, and how they end. Knows no
routes: which connection leads to a grain, it is told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from durum import errors
from durum.client.deadlines import Deadlines, withdraw
from durum.client.delivery import Delivery
from durum.client.routes import Link
from durum.errors import DidRun
from durum.grains import failure
from durum.grains.kind import GrainKind
from durum.wire.connection import LinkBroken
from durum.wire.messages import AnyMessage, Credit, Failure, Item, Reply


class Way(Protocol):
    """What a stream asks of the router."""

    deadlines: Deadlines

    def now(self) -> float:
        """Boottime."""
        ...

    async def lead(self, delivery: Delivery) -> Link:
        """The connection to send by. Raises CallError where there is none by the deadline."""
        ...

    async def judge(self, delivery: Delivery, outcome: AnyMessage | Exception) -> Failure | None:
        """Note how an attempt has ended, and wait a little; the failure, where that is the end."""
        ...


Streams = dict[tuple[int, int], "Incoming"]
"""Those that are open: by the identity of their connection, and their id on it."""


class Incoming:
    """One stream. The first item that is asked for opens it.

    Args:
        way: see Way.
        streams: where it is to be found while it is open.
        delivery: whom to call and how; its deadline is set anew for each item.
        window: so many items may be on their way at once.
    """

    def __init__(self, way: Way, streams: Streams, delivery: Delivery, window: int) -> None:
        self._way = way
        self._streams = streams
        self._delivery = delivery
        self._window = window
        self._link: Link | None = None
        self._id = 0
        self._end: asyncio.Future[AnyMessage] | None = None
        self._items: deque[bytes] = deque()
        self._taken = 0  # since the last credit
        self._came = False
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop

    def feed(self, item: Item) -> None:
        """An item has arrived."""
        self._items.append(item.value)
        self._came = True
        self._changed.set()

    async def take(self) -> bytes | Reply | Failure:
        """The next item, or how the stream has ended: a Reply where there are no more.

        Raises:
            CallError: nothing came by the deadline, or the connection broke.
        """
        self._loop = asyncio.get_running_loop()
        delivery = self._delivery
        limit_s = delivery.timeout_s
        if delivery.origin is not None:
            limit_s = min(limit_s, delivery.origin.deadline - self._way.now())
        delivery.deadline = self._way.now() + limit_s
        while True:
            if self._items:
                return self._next()
            if self._end is None:
                await self._open()
            elif self._end.done():
                outcome = await self._ended(self._end)
                if outcome is not None:
                    return outcome
            else:
                await self._wait()

    def _next(self) -> bytes:
        item = self._items.popleft()
        self._taken += 1
        if self._taken * 2 >= self._window:
            link, taken, self._taken = self._link, self._taken, 0
            if link is not None and self._end is not None and not self._end.done():
                link.send(Credit(self._id, taken))
        return item

    async def _open(self) -> None:
        delivery = self._delivery
        link = await self._way.lead(delivery)
        number = link.next_id()
        self._link, self._id = link, number
        mark = (id(link), number)
        self._streams[mark] = self  # first: inside a silo, items come while it is being asked for
        self._way.deadlines.timed.add(mark)
        try:
            end = self._end = link.request(delivery.open(number, self._window))
        except LinkBroken as exc:
            self._forget()
            await self._way.judge(delivery, exc)
            return
        end.add_done_callback(self._on_end)

    def _on_end(self, end: asyncio.Future[AnyMessage]) -> None:
        if not end.cancelled():
            end.exception()  # marked as seen: perhaps nobody asks for another item
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(max(0.0, self._delivery.deadline - self._way.now())):
                await self._changed.wait()
        except TimeoutError:
            self.close()
            self._delivery.ran = DidRun.MAYBE
            raise self._delivery.ending(closed=False) from None

    async def _ended(self, end: asyncio.Future[AnyMessage]) -> Reply | Failure | None:
        """How it has ended, or None: it has not begun, and is to be opened anew."""
        self._forget()
        outcome: AnyMessage | Exception
        if end.cancelled():
            outcome = LinkBroken("the stream was closed", sent=True)
        else:
            outcome = end.exception() or end.result()  # type: ignore[assignment]
        if isinstance(outcome, Reply):
            return outcome
        if self._came:
            if isinstance(outcome, Failure):
                return outcome
            raise errors.SiloLost(
                f"{self._delivery.grain}: the connection to its silo broke in the middle of a stream. What"
                " came before is right; begin anew for the rest.",
                DidRun.ROLLED_BACK,
            )
        failed = await self._way.judge(self._delivery, outcome)
        self._end = None
        return failed

    def close(self) -> None:
        """No more are wanted. From any thread: garbage is collected by whichever it is."""
        link, end = self._link, self._end
        if link is None or end is None:
            return
        if not self._is_here():
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self.close)
            return
        self._forget()
        if not end.done():
            end.cancel()
            withdraw(link, self._id)

    def _is_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _forget(self) -> None:
        if self._link is not None:
            mark = (id(self._link), self._id)
            self._streams.pop(mark, None)
            self._way.deadlines.timed.discard(mark)

    def __repr__(self) -> str:
        return (
            f"<Incoming {self._delivery.grain}.{self._delivery.method} waiting={len(self._items)}>"
        )


class Received:
    """A Source of a stream's items.

    Args:
        incoming: the stream.
        kind: the grain's, for exceptions of its own.
    """

    def __init__(self, incoming: Incoming, kind: GrainKind) -> None:
        self._incoming = incoming
        self._kind: Final = kind

    async def receive(self) -> bytes:
        """As Source.receive."""
        outcome = await self._incoming.take()
        if isinstance(outcome, bytes):
            return outcome
        if isinstance(outcome, Reply):
            raise StopAsyncIteration
        raise failure.rebuild(outcome, self._kind)

    def close(self) -> None:
        """As Source.close."""
        self._incoming.close()

    def __repr__(self) -> str:
        return repr(self._incoming)
