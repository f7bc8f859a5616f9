"""One end of a simulated connection, as its kernel keeps it. Owns what happens to it when its process
stops, dies or is gone; the rest is the loopback's.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

from durum.ids import Address
from durum.testing.loop import SimLoop
from durum.wire import loopback
from durum.wire.loopback import LoopbackTransport, Medium

KERNEL_BUFFER_BYTES: Final = 256 * 1024
"""Written this far ahead of the reader, bytes are the kernels' and no longer the process's."""


class Unaccepted(asyncio.Protocol):
    """Stands in until the process takes the connection: a stopped one never does, and yet the kernel
    has opened it."""


class SimTransport(LoopbackTransport):
    """One end of a connection.

    Args:
        loop: its loop.
        host: whose end it is.
        medium: what the link is made of.
        local: this end's address.
        remote: the other end's.
        context: in which the host's callbacks run.
        on_gone: told when the end is closed or broken.
    """

    def __init__(
        self,
        loop: SimLoop,
        host: str,
        medium: Medium,
        *,
        local: Address,
        remote: Address,
        context: Context,
        on_gone: Callable[[SimTransport], None],
    ) -> None:
        super().__init__(loop, Unaccepted(), medium, local=local, remote=remote, context=context)
        self.host: Final = host
        self._sim: Final = loop
        self._on_gone: Final = on_gone
        self._random: Final = loop.randomness(f"{local} {remote}")
        self._error: Exception | None = None
        # Until there is a protocol to hear it.
        self.pause_reading()

    @property
    def gone(self) -> bool:
        """Closed, broken or killed."""
        return self._lost

    @property
    def peer_end(self) -> SimTransport:
        """The other end."""
        peer = self.peer
        assert isinstance(peer, SimTransport)  # noqa: S101 - both ends are made together
        return peer

    def open(self, protocol: asyncio.BaseProtocol) -> None:
        """The process has the connection now. In its context."""
        unheard = self._lost
        self.set_protocol(protocol)
        protocol.connection_made(self)
        self.resume_reading()
        if unheard:
            # It broke before anyone could hear of it. What breaks from here on is told by itself.
            self.loop.call_soon(protocol.connection_lost, self._error, context=self.context)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._sim.is_dead(self.host):
            return
        # A byte stream has no seams: a reader that relies on them is found out here.
        if len(data) > 1 and self._random.random() < 0.05:
            seam = self._random.randrange(1, len(data))
            super().write(data[:seam])
            super().write(data[seam:])
        else:
            super().write(data)

    def close(self) -> None:
        # Also called when a dead process's coroutines are put to rest; its kernel has closed long ago.
        if not self._sim.is_dead(self.host):
            super().close()

    def reset(self, error: Exception | None) -> None:
        if not self._sim.is_dead(self.host):
            super().reset(error)

    def receive(self, piece: bytes | loopback._End) -> None:
        if not self._lost:
            super().receive(piece)
        elif isinstance(piece, bytes):
            self.answer_reset()

    def answer_reset(self) -> None:
        """Say to the other end, if there is one, that nobody is here any more."""
        if not self.peer_end.gone:
            self._send(loopback._End.RESET)  # noqa: SLF001 - the word for it on this link

    def lose(self, error: Exception) -> None:
        """Break this end. The other one learns nothing of it until it sends."""
        if not self._lost:
            self._under_way.clear()
            self._lose(error)

    def die(self) -> None:
        """The process is gone. What it had written still arrives, then the other end is reset."""
        if not self._lost:
            self.answer_reset()
            self._lose(ConnectionResetError(errno.ECONNRESET, "its process was killed"))

    def _lose(self, error: Exception | None) -> None:
        self._error = error
        super()._lose(error)
        self._on_gone(self)
