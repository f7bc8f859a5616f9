"""One connection between two processes. Owns requests in flight, batching and its end; knows no grain.

Either end may make requests. What one read produced leaves when the read ends; a message with nothing
else in flight leaves at once; all others of one round of the loop leave together, as one frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol, cast

from durum.config import Limits
from durum.errors import CallError, DidRun, DurumBug
from durum.telemetry import Log
from durum.wire import frames, handshake, messages
from durum.wire.greeting import Greeting, is_local
from durum.wire.handshake import Introduction, Peer, Session, Side
from durum.wire.messages import AnyMessage, Call, Failure, Goodbye, Released, Reply
from durum.wire.outflow import Outflow
from durum.wire.requests import LinkBroken, Request, Requests

__all__ = ["Connection", "ConnectionStatistics", "Handler", "LinkBroken", "Peer"]

_log: Final = Log("durum.connection")
_ANSWERS: Final = frozenset({Reply, Failure, messages.Moved, messages.Ack})
"""What resolves a request; Released does so too, but not every one."""
_NOBODY: Final = Peer(role="client", silo=None, address="", version=0, authenticated=False)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatistics:
    """A connection's counters at one moment.

    Args:
        sent: messages sent.
        received: messages received.
        writes: how often something was written.
        received_frames: frames received.
        sent_bytes: bytes written.
        received_bytes: bytes received.
        in_flight: own requests without an answer.
        owed: the other side's requests without an answer.
        unread_bytes: what this process still holds, since the other side does not read faster.
    """

    sent: int
    received: int
    writes: int
    received_frames: int
    sent_bytes: int
    received_bytes: int
    in_flight: int
    owed: int
    unread_bytes: int


class Connection(asyncio.BufferedProtocol):
    """One end of a connection, from its handshake to its end.

    Args:
        introduction: who this side is.
        side: whether it dialed.
        handler: whom to give what arrives.
        limits: bounds on frames, times and memory.
        admit: asked before anything is read; a text refuses the connection and is the reason.
        ended: told of the end, whether it was opened or not.
    """

    def __init__(  # noqa: PLR0913 - only links builds it
        self,
        introduction: Introduction,
        side: Side,
        handler: Handler,
        limits: Limits,
        *,
        admit: Callable[[Connection], str] | None = None,
        ended: Callable[[Connection, Exception | None], None] | None = None,
    ) -> None:
        self.peer: Peer = _NOBODY
        """Who is at the other end; true from Handler.opened on."""
        self.closing = False
        """It takes no new requests: either side said goodbye, or it is closed."""
        self.last_received = 0.0
        """Loop time at which bytes last came."""
        self.local = True
        """The other end is on this host."""
        self.next_id: Callable[[], int] = count(1).__next__
        """Give the next request its id."""

        self._introduction = introduction
        self._side = side
        self._handler = handler
        self._limits = limits
        self._admit = admit
        self._ended = ended

        self._greeting: Greeting | None = None
        self._is_open = False
        self._stopped = False
        """Closed by us or lost: nothing is read or written any more."""
        self._is_lost = False
        self._error: Exception | None = None
        """Why this side ended it, where it did."""
        self._said_goodbye = self._heard_goodbye = False
        self._settles = False
        """Something happens once nothing is in flight: goodbye was heard, or somebody waits for it."""
        self._waits_idle: list[asyncio.Future[None]] = []

        self._out: list[AnyMessage] = []
        """Messages that wait for the end of this read or round."""
        self._holds = False
        """Inside a read, or a flush is in the loop's queue: what is sent waits for it."""
        self._requests = Requests()
        self._reader = frames.FrameReader(handshake.HANDSHAKE_BYTES)
        self._writer = frames.FrameWriter(limits.frame_bytes)
        self._sent = self._received = self._writes = self._received_frames = 0
        self._sent_bytes = self._received_bytes = 0

    def __repr__(self) -> str:
        state = "greeting"
        if self._is_open:
            state = "closing" if self.closing else "open"
        if self._is_lost:
            state = "lost"
        return (
            f"<Connection {self._side} with {self.peer.silo or self.peer.role} {state} "
            f"in_flight={len(self._requests.pending)} owed={len(self._requests.owed)}>"
        )

    @property
    def was_open(self) -> bool:
        """The handshake succeeded once."""
        return self._is_open

    @property
    def remote(self) -> str:
        """The other end's network address, for people."""
        return str(self._transport.get_extra_info("peername"))

    @property
    def in_flight(self) -> int:
        """Own requests that have no answer yet."""
        return len(self._requests.pending)

    def send(self, message: AnyMessage) -> None:
        """Send a message that is no request. After the end it goes nowhere, silently."""
        kind = type(message)
        if kind in _ANSWERS or (kind is Released and not message.more):  # type: ignore[union-attr]
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
        future: asyncio.Future[AnyMessage] = self._new_future()
        self._requests.pending[message.id] = future
        self._out.append(message)
        if not self._holds:
            self._leave()
        return future

    def forget(self, request: int) -> None:
        """The answer to a request no longer matters; if it comes, it is dropped."""
        self._requests.pending.pop(request, None)
        if self._settles:
            self._settle()

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
        if not (self._is_lost or self._is_idle()):
            waiter: asyncio.Future[None] = self._new_future()
            self._waits_idle.append(waiter)
            self._settles = True
            await waiter

    async def wait_opened(self) -> None:
        """Wait for the end of the handshake.

        Raises:
            IncompatibleSilo: the two sides do not belong together; the message says why.
            OSError: the connection ended, or the other side was too slow.
        """
        await asyncio.shield(self._opened)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended and everybody was told."""
        await asyncio.shield(self._closed)

    def close(self) -> None:
        """End the connection once what was sent has left, within handshake_s. Requests fail."""
        if not self._stopped:
            self._flush()
            self._stop(None)
            self._outflow.close()

    def abort(self, error: Exception | None = None) -> None:
        """End the connection now; `error` says why to Handler.closed and to pending requests."""
        if not self._is_lost:
            self._stop(error)
            self._transport.abort()

    def statistics(self) -> ConnectionStatistics:
        """The counters as they are now."""
        return ConnectionStatistics(
            sent=self._sent,
            received=self._received,
            writes=self._writes,
            received_frames=self._received_frames,
            sent_bytes=self._sent_bytes,
            received_bytes=self._received_bytes,
            in_flight=len(self._requests.pending),
            owed=len(self._requests.owed),
            unread_bytes=self._outflow.unread_bytes,
        )

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream transport, whatever the loop; uvloop's does not inherit from asyncio.Transport.
        self._transport = cast("asyncio.Transport", transport)
        self._loop = loop = asyncio.get_running_loop()
        self._new_future, self._now = loop.create_future, loop.time
        self._opened: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._outflow = Outflow(self._transport, self._limits, loop, self.abort)
        self.last_received = loop.time()
        self.local = is_local(transport)
        refusal = "" if self._admit is None else self._admit(self)
        if refusal:
            self._transport.write(frames.frame(handshake.refusal(refusal, again=True)))
            self._turn_away(ConnectionAbortedError(refusal))
            return
        self._greeting = Greeting(
            self._introduction,
            self._side,
            self._transport,
            self._limits,
            done=self._open,
            failed=self._turn_away,
        )

    def get_buffer(self, sizehint: int) -> memoryview[int]:  # noqa: ARG002 - grows by what arrives
        return self._reader.writable()

    def buffer_updated(self, nbytes: int) -> None:
        self.last_received = self._now()
        self._received_bytes += nbytes
        reader = self._reader
        reader.filled(nbytes)
        held, self._holds = self._holds, True
        try:
            while not self._stopped and (payload := reader.next()) is not None:
                if self._greeting is None:
                    self._dispatch(frames.decode(payload))
                else:
                    self._greeting.receive(bytes(payload))
        except frames.ProtocolError as exc:
            if self._greeting is None:
                self.abort(exc)
            else:
                self._greeting.on_garbage(exc)
        # A flush that is in the loop's queue already comes soon enough, but never later than this.
        self._holds = held
        if self._out:
            self._flush()
        if self._settles:
            self._settle()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._outflow.pause()

    def resume_writing(self) -> None:
        self._outflow.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        error = self._error or exc
        self._stop(error)
        self._is_lost = True
        unsent, self._out = self._out, []
        self._requests.fail(unsent, str(self.peer.silo or "the other side"), error)
        if not self._opened.done():
            self._opened.set_exception(
                error
                or ConnectionResetError(
                    "the other side closed the connection during the handshake; is it a silo?"
                )
            )
            self._opened.exception()  # only a dialer waits for it
        self._settle()
        if self._ended is not None:
            self._ended(self, error)
        if self._is_open:
            self._handler.closed(self, error)
        self._closed.set_result(None)

    # In

    def _open(self, session: Session) -> None:
        self._greeting = None
        self.peer = session.peer
        self._reader.limit_bytes = self._limits.frame_bytes
        if session.send_key:
            self._reader.seal = frames.Seal(session.receive_key)
            self._writer = frames.FrameWriter(
                self._limits.frame_bytes, frames.Seal(session.send_key)
            )
        self._is_open = True
        self._handler.opened(self)
        self._opened.set_result(None)

    def _dispatch(self, batch: list[AnyMessage]) -> None:
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
            case messages.Probe() | messages.HandOver():
                self._requests.owed.add(message.id)
            case messages.Cancel():
                self._requests.owed.discard(message.id)
            case Goodbye():
                self._heard_goodbye = self.closing = self._settles = True
            case _:
                pass
        self._handler.received(self, message)

    def _on_failure(self, message: AnyMessage, exc: Exception) -> None:
        name = type(message).__name__
        _log.error("a message could not be handled", exc=exc, message=name, peer=self.peer.silo)
        if isinstance(message, Request):
            text = f"the silo failed to handle this {name}: {exc!r}. Its log has the details."
            self.send(Failure(message.id, DurumBug.__name__, DidRun.MAYBE, text))

    # Out

    def _leave(self) -> None:
        requests = self._requests
        if len(requests.pending) + len(requests.owed) > 1:
            self._holds = True
            self._loop.call_soon(self._flush_round)
        else:
            self._flush()

    def _flush_round(self) -> None:
        self._holds = False
        self._flush()
        if self._settles:
            self._settle()

    def _flush(self) -> None:
        out = self._out
        if not out or self._stopped or not self._is_open:
            if self._is_lost:
                out.clear()
            return
        self._out = []
        wire, refused = self._writer.pack(out)
        self._outflow.write(wire)
        self._sent += len(out)
        self._writes += 1
        self._sent_bytes += len(wire)
        for each in refused:
            self._refuse(each)
        if self._outflow.paused:
            self._outflow.check(len(wire))

    def _refuse(self, refused: frames.Refused) -> None:
        message, error = refused
        self._sent -= 1
        if isinstance(message, Request):
            self._requests.refuse(message, error)
        elif isinstance(message, Reply | Failure):
            did_run = message.did_run if isinstance(message, Failure) else DidRun.YES
            self.send(
                Failure(message.id, CallError.__name__, did_run, f"No reply was possible: {error}")
            )
        else:
            _log.error("a message could not be sent", exc=error, peer=self.peer.silo)

    # The end

    def _is_idle(self) -> bool:
        return self._requests.idle and not self._out

    def _settle(self) -> None:
        if not (self._is_lost or self._is_idle()):
            return
        self._settles = self._heard_goodbye
        waiting, self._waits_idle = self._waits_idle, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
        if self._heard_goodbye:
            self.close()

    def _turn_away(self, error: Exception) -> None:
        self._stop(error)
        self._outflow.close()

    def _stop(self, error: Exception | None) -> None:
        self.closing = self._stopped = True
        self._error = self._error or error
        self._outflow.stop()
        if self._greeting is not None:
            self._greeting.stop()
