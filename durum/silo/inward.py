"""The link of a silo to itself: calls between grains of one silo take the same path as all others, without
a wire. Arguments and results are bytes here too, so that no two grains share a mutable object."""

from __future__ import annotations

import asyncio
from itertools import count

from durum.client.router import Router
from durum.ids import SiloId
from durum.silo.dispatcher import Dispatcher
from durum.wire.messages import (
    AnyMessage,
    Call,
    Cancel,
    Credit,
    Failure,
    Item,
    Moved,
    Notice,
    Open,
    Reply,
)


class InwardLink:
    """Both ends of a connection that never leaves the process.

    Args:
        silo: this silo.
    """

    def __init__(self, silo: SiloId) -> None:
        self.silo: SiloId | None = silo
        self._dispatcher: Dispatcher
        self._router: Router
        self._ids = count(1)
        self._pending: dict[int, asyncio.Future[AnyMessage]] = {}
        self.closing = False
        self.trusted = True

    def lead_to(self, dispatcher: Dispatcher, router: Router) -> None:
        """Name who takes in the calls, and who gets the items of streams."""
        self._dispatcher = dispatcher
        self._router = router

    def next_id(self) -> int:
        """A number for a request, larger than all before."""
        return next(self._ids)

    def request(self, message: Call | Open) -> asyncio.Future[AnyMessage]:
        """Bring a call to its grain; the future gets the answer."""
        future: asyncio.Future[AnyMessage] = asyncio.get_running_loop().create_future()
        self._pending[message.id] = future
        if isinstance(message, Open):
            self._dispatcher.stream(self, message)
        else:
            self._dispatcher.call(self, message)
        return future

    def forget(self, id: int) -> None:  # noqa: A002 - the wire's own name
        """Its answer no longer matters."""
        self._pending.pop(id, None)

    def send(self, message: AnyMessage) -> None:
        """Take an answer from a turn, or from a caller what has no answer."""
        if isinstance(message, Cancel):
            self._dispatcher.cancel(self, message)
        elif isinstance(message, Notice):
            self._dispatcher.notice(self, message)
        elif isinstance(message, Item):
            self._router.take_item(self, message)
        elif isinstance(message, Credit):
            self._dispatcher.credit(self, message)
        elif isinstance(message, Reply | Failure | Moved):
            future = self._pending.pop(message.id, None)
            if future is not None and not future.done():
                future.set_result(message)

    def __repr__(self) -> str:
        return f"<InwardLink pending={len(self._pending)}>"
