"""One connection between two processes. Owns requests in flight, batching and its end; knows no grain.

Either end may make requests. What one read produced leaves when the read ends; a message with nothing
else in flight leaves at once; all others of one round of the loop leave together, as one frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Final, Protocol

from durum.config import Limits
from durum.telemetry import Log
from durum.wire import apologies, frames, messages
from durum.wire.handshake import Introduction, Peer, Side
from durum.wire.messages import AnyMessage, Call, Failure, Goodbye, Released, Reply
from durum.wire.requests import LinkBroken, Request, Requests
from durum.wire.statistics import ConnectionStatistics
from durum.wire.stream import Stream

__all__ = ["Connection", "Handler", "LinkBroken", "Peer"]

_log: Final = Log("durum.connection")
_ANSWERS: Final = frozenset({Reply, Failure, messages.Moved, messages.Ack})
"""What resolves a request; Released does so too, but not every one."""
_LATER: Final = frozenset({messages.Notice, messages.Item})
"""What nobody waits for by itself: those of one round leave together."""


class Handler(Protocol):
    """What a connection is for. Called from the loop; must not block, should not raise."""

    def opened(self, connection: Connection) -> None:
        """The handshake is done; `connection.peer` says with whom."""
        ...

    def received(self, connection: Connection, message: AnyMessage) -> None:
        """Take a message that is not the answer to a request of ours. They come in the order sent."""
        ...

    def closed(self, connection: Connection, error: Exception | None) -> None:
        """An opened connection has ended; its requests have failed with LinkBroken already."""
        ...


class Connection(Stream):
    """One end of a connection, from its handshake to its end.

    Args:
        introduction: who this side is.
        side: whether it dialed.
        handler: whom to give what arrives.
        limits: bounds on frames, times and memory.
        admit: asked before anything is read; a text refuses the connection and is the reason.
        known: told once the handshake is done, before the handler.
        ended: told of the end, whether it was opened or not.
        host: what was dialed, to compare with the certificate there.
    """

    def __init__(
        self,
        introduction: Introduction,
        side: Side,
        handler: Handler,
        limits: Limits,
        *,
        admit: Callable[[Connection], str] | None = None,
        known: Callable[[Connection], None] | None = None,
        ended: Callable[[Connection, Exception | None], None] | None = None,
        host: str = "",
    ) -> None:
        super().__init__(introduction, side, limits, self._ask_admission, host)
        self.next_id: Callable[[], int] = count(1).__next__
        """Give the next request its id."""

        self._handler = handler
        self._may_enter = admit
        self._known = known
        self._ended = ended
        self._said_goodbye = self._heard_goodbye = False
        self._out: list[AnyMessage] = []
        """Messages that wait for the end of this read or round."""
        self._holds = False
        """Inside a read, or a flush is in the loop's queue: what is sent waits for it."""
        self._scheduled = False
        """A flush is in the loop's queue."""
        self._requests = Requests()
        self._sent = self._received = self._writes = self._received_frames = 0

    def __repr__(self) -> str:
        return (
            f"<Connection {self._side} with {self.peer.silo or self.peer.role} {self.state} "
            f"in_flight={len(self._requests.pending)} owed={len(self._requests.owed)}>"
        )

    @property
    def in_flight(self) -> int:
        """Own requests that have no answer yet."""
        return len(self._requests.pending)

    def send(self, message: AnyMessage) -> None:
        """Send a message that is no request. After the end it goes nowhere, silently."""
        kind = type(message)
        if (
            kind is Reply  # nearly always, and asked in half the time
            or kind in _ANSWERS
            or (kind is Released and not message.more)  # type: ignore[union-attr]
        ):
            self._requests.owed.discard(message.id)  # type: ignore[union-attr]
        self._out.append(message)
        if not self._holds:
            self._leave()

    def request(self, message: Request) -> asyncio.Future[AnyMessage]:
        """Send a request whose id is from next_id(); the future gets its answer.

        A future that nobody awaits any more belongs into forget().

        Raises:
            LinkBroken: at once, with sent=False, where the connection takes no requests any more; as
                the future's exception where it ends before the answer.
            Unsendable: as the future's exception, where the message fits into no frame.
        """
        if self.closing:
            raise LinkBroken(f"{self!r} takes no requests any more; it was not sent.", sent=False)
        # Taken out before it is called, as in Performer._perform.
        new_future = self._new_future
        future: asyncio.Future[AnyMessage] = new_future()
        self._requests.pending[message.id] = future
        self._out.append(message)
        if not self._holds:
            self._leave()
        return future

    def forget(self, request: int) -> None:
        """The answer to a request no longer matters; if it comes, it is dropped."""
        self._requests.pending.pop(request, None)
        if self._requests.watched:
            self._settle()

    def pending_up_to(self, newest: int) -> list[tuple[int, asyncio.Future[AnyMessage]]]:
        """Own requests without an answer whose id is at most that, oldest first."""
        found = []
        for request, future in self._requests.pending.items():
            if request > newest:
                break  # ids grow, and a dict keeps their order
            found.append((request, future))
        return found

    def say_goodbye(self, reason: str = "") -> None:
        """Take no new requests on this connection, in either direction. Answers still travel.

        The other side closes it once nothing is in flight.
        """
        if not self._said_goodbye:
            self._said_goodbye = self.closing = True
            self.send(Goodbye(reason))

    async def leave(self, reason: str, within_s: float) -> None:
        """Say goodbye, wait for the other side to close, and end it after `within_s` anyway."""
        self.say_goodbye(reason)
        try:
            async with asyncio.timeout(within_s):
                await self.wait_closed()
        except TimeoutError:
            self.abort()
            await self.wait_closed()

    async def drained(self) -> None:
        """Wait until nothing is in flight in either direction, or the connection has ended."""
        await self._requests.wait_idle()
        self._flush()

    def close(self) -> None:
        """End the connection once what was sent has left, within handshake_s. Requests fail."""
        self._flush()
        super().close()

    def statistics(self) -> ConnectionStatistics:
        """The counters as they are now."""
        return ConnectionStatistics(
            sent=self._sent,
            received=self._received,
            writes=self._writes,
            received_frames=self._received_frames,
            sent_bytes=self._outflow.sent_bytes,
            received_bytes=self._received_bytes,
            in_flight=len(self._requests.pending),
            owed=len(self._requests.owed),
            unread_bytes=self._outflow.unread_bytes,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._new_future = asyncio.get_running_loop().create_future
        super().connection_made(transport)

    # In

    def _ask_admission(self) -> str:
        return "" if self._may_enter is None else self._may_enter(self)

    def _on_open(self) -> None:
        self._holds = True
        if self._known is not None:
            self._known(self)
        try:
            self._handler.opened(self)
        except Exception as exc:  # noqa: BLE001 - the link reader converts; the loop goes on
            _log.error("a connection could not be opened", exc=exc, peer=self.peer.silo)
            self.abort(exc)

    def _on_read_end(self) -> None:
        self._holds = self._scheduled
        if self._out:
            self._flush()
        if self._requests.watched:
            self._settle()

    def _on_end(self, error: Exception | None) -> None:
        unsent, self._out = self._out, []
        self._requests.fail(unsent, str(self.peer.silo or "the other side"), error)
        self._requests.settle()
        if self._ended is not None:
            self._ended(self, error)
        if self.was_open:
            self._handler.closed(self, error)

    def _on_frame(self, payload: memoryview[int]) -> None:
        self._holds = True
        batch = frames.decode(payload)
        self._received_frames += 1
        self._received += len(batch)
        pending, owed, received = (
            self._requests.pending,
            self._requests.owed,
            self._handler.received,
        )
        rest = iter(batch)
        while True:
            try:
                for message in rest:
                    kind = type(message)
                    if kind in _ANSWERS:
                        future = pending.pop(message.id, None)  # type: ignore[union-attr]
                        if future is not None and not future.done():
                            future.set_result(message)
                    elif kind is Call:
                        owed.add(message.id)  # type: ignore[union-attr]
                        received(self, message)
                    else:
                        self._receive_other(message)
                return  # noqa: TRY300 - the loop goes on after a failure only
            except Exception as exc:  # noqa: BLE001 - one message's failure must not cost the others
                self._on_failure(message, exc)

    def _receive_other(self, message: AnyMessage) -> None:
        match message:
            case Released(more=False) if future := self._requests.pending.pop(message.id, None):
                if not future.done():
                    future.set_result(message)
                return
            case messages.Probe() | messages.HandOver() | messages.Open() | messages.Luggage():
                self._requests.owed.add(message.id)
            case messages.Cancel():
                self._requests.owed.discard(message.id)
            case Goodbye():
                self._heard_goodbye = self.closing = self._requests.watched = True
            case _:
                pass
        self._handler.received(self, message)

    def _on_failure(self, message: AnyMessage, exc: Exception) -> None:
        name = type(message).__name__
        _log.error("a message could not be handled", exc=exc, message=name, peer=self.peer.silo)
        if failure := apologies.for_unhandled(message, exc):
            self.send(failure)

    # Out

    def _leave(self) -> None:
        requests = self._requests
        if len(requests.pending) + len(requests.owed) > 1 or type(self._out[-1]) in _LATER:
            self._holds = self._scheduled = True
            self._loop.call_soon(self._flush_round)
        else:
            self._flush_round()

    def _flush_round(self) -> None:
        self._holds = self._scheduled = False
        self._flush()
        if self._requests.watched:
            self._settle()

    def _flush(self) -> None:
        out = self._out
        # What is given to a transport that is gone would count as sent, and as perhaps run.
        if not out or self._stopped or not self.was_open or self._transport.is_closing():
            if self._is_lost:
                out.clear()
            return
        self._out = []
        wire, refused = self._writer.pack(out)
        outflow = self._outflow
        outflow.sent_bytes += len(wire)
        outflow.write(wire)
        self._sent += len(out)
        self._writes += 1
        for each in refused:
            self._refuse(each)
        if outflow.paused:
            outflow.check()

    def _refuse(self, refused: frames.Refused) -> None:
        message, error = refused
        self._sent -= 1
        if isinstance(message, Request):
            self._requests.refuse(message, error)
        elif failure := apologies.for_unsendable(message, error):
            self.send(failure)
        else:
            _log.error("a message could not be sent", exc=error, peer=self.peer.silo)

    def _settle(self) -> None:
        if self._requests.settle() and self._heard_goodbye:
            self.close()
