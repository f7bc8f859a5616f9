"""Somebody in the middle of connections: forwards, swallows answers, resets, or refuses everybody.

Owns what passes and the count of who came; knows no protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final, Self

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends a reset


class _Relay:
    """One connection and its continuation."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.ends = near, far
        self.swallows = False

    async def pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                if not (answers and self.swallows):
                    sink.write(data)
        for end in self.ends:
            end.close()

    def reset(self) -> None:
        for end in self.ends:
            _reset(end)


class Proxy:
    """Listens on a free port of loopback, and connects who comes with a target.

    Args:
        host: the target's.
        port: the target's.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._relays: set[_Relay] = set()
        self._server: asyncio.Server | None = None
        self.refusing = False
        """Whether who comes is accepted, and reset at once."""
        self.arrivals: list[float] = []
        """When somebody came, by the loop's clock."""

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def swallow_answers(self) -> None:
        """From now on let nothing come back on the connections that are open; questions go through."""
        for relay in self._relays:
            relay.swallows = True

    def reset(self, *, swallowed_only: bool = False) -> None:
        """Break what is open, in both directions, as a firewall or a dying host does."""
        for relay in list(self._relays):
            if relay.swallows or not swallowed_only:
                relay.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.arrivals.append(asyncio.get_running_loop().time())
        if self.refusing:
            _reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        relay = _Relay(writer, far_writer)
        self._relays.add(relay)
        try:
            await asyncio.gather(
                relay.pump(reader, far_writer, answers=False),
                relay.pump(far_reader, writer, answers=True),
            )
        finally:
            self._relays.discard(relay)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        async with asyncio.timeout(5):
            while self._relays:
                await asyncio.sleep(0.01)
        await self._server.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    line = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
