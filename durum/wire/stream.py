"""Frames between two processes. Owns the handshake, the transport and the end; knows no messages."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, cast

from durum.config import Limits
from durum.errors import ClusterError
from durum.ids import SiloId
from durum.wire import frames, handshake
from durum.wire.greeting import Greeting, is_local
from durum.wire.handshake import Introduction, Peer, Session, Side, TlsChannel
from durum.wire.outflow import Outflow
from durum.wire.secured import SecuredTransport
from durum.wire.tls import certificates

_NOBODY: Final = Peer(role="client", silo=None, address="", version=0, authenticated=False)


class Stream(asyncio.BufferedProtocol, ABC):
    """Whole frames in and bytes out, between a handshake and an end.

    A subclass gives four methods: `_on_open`, `_on_frame`, `_on_read_end` and `_on_end`.

    Args:
        introduction: who this side is.
        side: whether it dialed.
        limits: bounds on frames, times and memory.
        admit: asked before anything is read; a text refuses the connection and is the reason.
        host: what was dialed.
    """

    def __init__(
        self,
        introduction: Introduction,
        side: Side,
        limits: Limits,
        admit: Callable[[], str],
        host: str = "",
    ) -> None:
        self.peer: Peer = _NOBODY
        """Who is at the other end; true once it is open."""
        self.local = True
        """The other end is on this host."""
        self.closing = False
        """It takes no new requests: either side said goodbye, or it is closed."""
        self.last_received = 0.0
        """Loop time at which bytes last came."""
        self.was_open = False
        """The handshake has succeeded, once."""
        self.trusted = False
        """The other end is who it has to be, and nobody can write or read in between: pickled values
        may travel."""
        self.silo: SiloId | None = None
        """The silo at the other end; None for a client."""

        self._introduction = introduction
        self._side = side
        self._limits = limits
        self._admit = admit
        self._host = host
        self._greeting: Greeting | None = None
        self._stopped = False
        """Closed by us or lost: nothing is read or written any more."""
        self._is_lost = False
        self._error: Exception | None = None
        """Why this side ended it, where it did."""
        self._reader = frames.FrameReader(handshake.HANDSHAKE_BYTES)
        self._writer = frames.FrameWriter(limits.frame_bytes)
        self._received_bytes = 0

    @property
    def state(self) -> str:
        """Where it stands, for people: greeting, open, closing or lost."""
        if self._is_lost:
            return "lost"
        if self.closing:
            return "closing"
        return "open" if self.was_open else "greeting"

    @property
    def remote(self) -> str:
        """The other end's network address, for people."""
        return str(self._transport.get_extra_info("peername"))

    @property
    def host(self) -> str:
        """The other end's host; "" where it is a pair within this process, or a unix socket."""
        name = self._transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) else ""

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
        """End the connection once what was written has left, within handshake_s."""
        if not self._stopped:
            self._stop(None)
            self._outflow.close()

    def abort(self, error: Exception | None = None) -> None:
        """End the connection now; `error` is given as the reason to all who ask."""
        if not self._is_lost:
            self._stop(error)
            self._transport.abort()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream transport, whatever the loop; uvloop's does not inherit from asyncio.Transport.
        self._transport = raw = cast("asyncio.Transport", transport)
        self._loop = loop = asyncio.get_running_loop()
        self._now = loop.time
        self._opened: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._outflow = Outflow(raw, self._limits, loop, self.abort)
        self.last_received = loop.time()
        self.local = is_local(transport)
        tls = self._introduction.tls
        if refusal := self._admit():
            if tls is None:
                raw.write(frames.frame(handshake.refusal(refusal, again=True)))
            self._turn_away(ConnectionAbortedError(refusal))
            return
        if tls is not None:
            secured = SecuredTransport(raw, self, certificates(tls), self._side, self._host)
            self._transport = secured
            self._outflow = Outflow(secured, self._limits, loop, self.abort)
        self._greeting = Greeting(
            self._introduction,
            self._side,
            self._transport,
            self._limits,
            done=self._open,
            failed=self._turn_away,
        )
        if tls is None:
            self._greeting.begin()
        else:
            secured.begin()

    def secured(self, channel: TlsChannel) -> None:
        """TLS is there; the handshake may begin (called by the transport)."""
        if self._greeting is not None and not self._stopped:
            self._greeting.begin(channel)

    def insecure(self, error: ClusterError) -> None:
        """TLS has failed (called by the transport)."""
        if self.was_open:
            self.abort(error)
        else:
            self._turn_away(error)

    def get_buffer(self, sizehint: int) -> memoryview[int]:  # noqa: ARG002 - grows by what arrives
        return self._reader.writable()

    def buffer_updated(self, nbytes: int) -> None:
        self.last_received = self._now()
        self._received_bytes += nbytes
        reader = self._reader
        reader.filled(nbytes)
        try:
            while not self._stopped and (payload := reader.next()) is not None:
                if self._greeting is None:
                    self._on_frame(payload)
                else:
                    self._greeting.receive(bytes(payload))
        except frames.ProtocolError as exc:
            if self._greeting is None:
                self.abort(exc)
            else:
                self._greeting.on_garbage(exc, reader.start())
        self._on_read_end()

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
        if not self._opened.done():
            early = "the other side closed the connection during the handshake; is it a silo?"
            if self._introduction.tls is not None:
                early += " It may speak no TLS, or not believe this side's certificate."
            self._opened.set_exception(error or ConnectionResetError(early))
            self._opened.exception()  # only a dialer waits for it
        try:
            self._on_end(error)
        finally:
            self._closed.set_result(None)

    # For the subclass

    @abstractmethod
    def _on_open(self) -> None:
        """The handshake is done."""

    @abstractmethod
    def _on_frame(self, payload: memoryview[int]) -> None:
        """Take a whole frame; the view is good only until this returns."""

    @abstractmethod
    def _on_read_end(self) -> None:
        """All whole frames of one read have been taken."""

    @abstractmethod
    def _on_end(self, error: Exception | None) -> None:
        """The connection is lost, opened or not."""

    def _open(self, session: Session) -> None:
        self._greeting = None
        self.peer = session.peer
        self.silo = session.peer.silo
        is_private = self.local or self._introduction.tls is not None
        self.trusted = session.peer.authenticated and is_private
        limit_bytes = self._limits.frame_bytes
        self._reader.limit_bytes = limit_bytes
        if session.send_key:
            self._reader.seal = frames.Seal(session.receive_key)
            self._writer = frames.FrameWriter(limit_bytes, frames.Seal(session.send_key))
        self.was_open = True
        self._on_open()
        if not self._stopped:
            self._opened.set_result(None)

    def _turn_away(self, error: Exception) -> None:
        self._stop(error)
        self._outflow.close()

    def _stop(self, error: Exception | None) -> None:
        self.closing = self._stopped = True
        self._error = self._error or error
        self._outflow.stop()
        if self._greeting is not None:
            self._greeting.stop()
