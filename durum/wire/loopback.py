"""A network inside one process. Owns links, their order and back-pressure; knows no frames and no clock.

Everything happens through `loop.call_soon`, so a run on a deterministic loop repeats. How long bytes
travel is a Carrier's decision; the simulator brings one of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from itertools import cycle
from typing import Any, Final, Protocol, cast

from durum.errors import DurumBug
from durum.ids import Address, join_address, split_address

FIRST_PORT: Final = 49_152
HIGH_WATER_BYTES: Final = 64 * 1024


class Carrier(Protocol):
    """Decides when what one end of a link sent reaches the other."""

    def carry(self, source: LoopbackTransport, arrive: Callable[[], None]) -> None:
        """Have `arrive` called once, from the loop and in the context of `source.peer`.

        The link keeps its order whatever the delays are: each arrival delivers the oldest piece
        that is under way. A piece whose arrival never comes holds up those behind it, as a lost
        packet does.
        """
        ...


class Immediate:
    """The carrier of a perfect link: everything arrives in the loop's next round."""

    def carry(self, source: LoopbackTransport, arrive: Callable[[], None]) -> None:
        source.loop.call_soon(arrive, context=source.peer.context)


class _End(Enum):
    EOF = "eof"
    RESET = "reset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """What links are made of.

    Args:
        carrier: when what is written arrives.
        window_bytes: as much may be under way or unread before it counts as buffered at the writer.
        segment_bytes: what is written travels in pieces of at most this size; 0 leaves it whole.
    """

    carrier: Carrier = field(default_factory=Immediate)
    window_bytes: int = 0
    segment_bytes: int = 0


class LoopbackTransport(asyncio.Transport):
    """One end of a link between two protocols.

    Args:
        loop: where everything is scheduled.
        protocol: whom to tell of what arrives.
        medium: what the link is made of.
        local: this end's address.
        remote: the other end's address.
        context: in which this end's callbacks run; a simulator freezes a process by it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.BaseProtocol,
        medium: Medium,
        *,
        local: Address,
        remote: Address,
        context: contextvars.Context,
    ) -> None:
        super().__init__({"sockname": split_address(local), "peername": split_address(remote)})
        self.loop = loop
        self.local = local
        self.remote = remote
        self.context = context
        self._protocol = protocol
        self._medium = medium
        self._peer: LoopbackTransport | None = None
        self._under_way: deque[bytes | _End] = deque()
        self._arrived: deque[bytes | _End] = deque()
        self._unread_bytes = 0
        """Written here, not yet read by the other end's protocol."""
        self._high = HIGH_WATER_BYTES
        self._low = HIGH_WATER_BYTES // 4
        self._told_to_pause = False
        self._reading = True
        self._lost = False
        """Closed or reset, from either end; the protocol hears nothing more but connection_lost."""

    def __repr__(self) -> str:
        state = "lost" if self._lost else "open"
        return (
            f"<LoopbackTransport {self.local} -> {self.remote} {state} unread={self._unread_bytes}>"
        )

    @property
    def peer(self) -> LoopbackTransport:
        """The other end."""
        if self._peer is None:
            raise DurumBug(f"{self!r} was never joined to another end. Please report it.")
        return self._peer

    @property
    def joined(self) -> bool:
        """Whether there is another end."""
        return self._peer is not None

    def attach(self, peer: LoopbackTransport) -> None:
        """Join this end to the other; done once for each end."""
        self._peer = peer

    # asyncio.BaseTransport

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._lost

    def close(self) -> None:
        if not self._lost:
            self._send(_End.EOF)
            self._lose(None)

    def abort(self) -> None:
        self.reset(None)

    def reset(self, error: Exception | None) -> None:
        """Break the link: the other end learns of it as a reset, this end with `error`."""
        if not self._lost:
            self._under_way.clear()
            self._send(_End.RESET)
            self._lose(error)

    # asyncio.ReadTransport

    def is_reading(self) -> bool:
        return self._reading and not self._lost

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self.loop.call_soon(self._read, context=self.context)

    # asyncio.WriteTransport

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._lost or not data:
            return
        piece = bytes(data)
        step = self._medium.segment_bytes or len(piece)
        for start in range(0, len(piece), step):
            self._send(piece[start : start + step])
        self._unread_bytes += len(piece)
        self._watch_high_water()

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return max(0, self._unread_bytes - self._medium.window_bytes)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER_BYTES if low is None else 4 * low
        self._high = high
        self._low = high // 4 if low is None else low
        self._watch_high_water()

    # Between the two ends

    def _send(self, piece: bytes | _End) -> None:
        self._under_way.append(piece)
        self._medium.carrier.carry(self, self._arrive)

    def _arrive(self) -> None:
        # A reset cleared what was under way, so later arrivals of that may find nothing.
        if self._under_way:
            self.peer.receive(self._under_way.popleft())

    def receive(self, piece: bytes | _End) -> None:
        """Take what the other end sent. Called by that end only."""
        self._arrived.append(piece)
        self._read()

    def _read(self) -> None:
        while self._arrived and not self._lost:
            piece = self._arrived[0]
            if piece is _End.RESET:
                self._lose(ConnectionResetError(errno.ECONNRESET, "reset by the other end"))
            elif not self._reading:
                return
            elif isinstance(piece, bytes):
                self._arrived.popleft()
                self._feed(piece)
                self.peer.was_read(len(piece))
            else:
                self._arrived.popleft()
                self._end()

    def _feed(self, piece: bytes) -> None:
        protocol = self._protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            rest = memoryview(piece)
            while rest and not self._lost:
                room = memoryview(protocol.get_buffer(len(rest)))
                size = min(len(room), len(rest))
                room[:size] = rest[:size]
                rest = rest[size:]
                protocol.buffer_updated(size)
        else:
            cast("asyncio.Protocol", protocol).data_received(piece)

    def _end(self) -> None:
        # Both kinds of stream protocol have it, and there is no other.
        if not cast("asyncio.Protocol", self._protocol).eof_received():
            self.close()

    def was_read(self, size: int) -> None:
        """Count off what the other end's protocol has read. Called by that end only."""
        self._unread_bytes -= size
        if self._told_to_pause and self.get_write_buffer_size() <= self._low:
            self._told_to_pause = False
            self.loop.call_soon(self._tell, "resume_writing", context=self.context)

    def _watch_high_water(self) -> None:
        if not self._told_to_pause and self.get_write_buffer_size() > self._high:
            self._told_to_pause = True
            self._tell("pause_writing")

    def _tell(self, what: str) -> None:
        if not self._lost:
            getattr(self._protocol, what)()

    def _lose(self, error: Exception | None) -> None:
        self._lost = True
        self.loop.call_soon(self._protocol.connection_lost, error, context=self.context)


def join(one: LoopbackTransport, other: LoopbackTransport) -> None:
    """Make two ends one link. Their protocols' connection_made is the caller's to call."""
    one.attach(other)
    other.attach(one)


class _Place:
    """Somebody listens here."""

    def __init__(
        self,
        address: Address,
        accept: Callable[[], asyncio.BaseProtocol],
        places: dict[Address, _Place],
    ) -> None:
        self.address = address
        self.accept = accept
        self.context = contextvars.copy_context()
        self._places = places

    async def close(self) -> None:
        self._places.pop(self.address, None)


class LoopbackNetwork:
    """All the hosts of one process; connections between them never leave it.

    Args:
        host: where connections made through this object come from.
        medium: what its links are made of.
    """

    def __init__(self, host: str = "127.0.0.1", medium: Medium | None = None) -> None:
        self._host = host
        self._medium = Medium() if medium is None else medium
        self._places: dict[Address, _Place] = {}
        self._ports = cycle(range(FIRST_PORT, 1 << 16))

    def at(self, host: str) -> LoopbackNetwork:
        """The same network as another host sees it."""
        view = LoopbackNetwork(host, self._medium)
        view._places = self._places
        view._ports = self._ports
        return view

    async def listen(self, address: Address, accept: Callable[[], asyncio.BaseProtocol]) -> _Place:
        host, port = split_address(address)
        bound = join_address(host, port or next(self._ports))
        while not port and bound in self._places:
            bound = join_address(host, next(self._ports))
        if bound in self._places:
            raise OSError(errno.EADDRINUSE, f"{bound} is taken")
        self._places[bound] = place = _Place(bound, accept, self._places)
        return place

    async def connect(
        self, address: Address, make: Callable[[], asyncio.BaseProtocol]
    ) -> asyncio.BaseProtocol:
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        place = self._places.get(address)
        if place is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens at {address}")
        made = make()
        near = self._end(loop, made, join_address(self._host, next(self._ports)), address, context)
        opened: asyncio.Future[None] = loop.create_future()
        loop.call_soon(self._accept, place, near, opened, context=place.context)
        try:
            await opened
        except asyncio.CancelledError:
            if near.joined:
                near.abort()
            raise
        return made

    def _accept(self, place: _Place, near: LoopbackTransport, opened: asyncio.Future[None]) -> None:
        if opened.done():
            return
        if self._places.get(place.address) is not place:
            opened.set_exception(
                ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens at {place.address}")
            )
            return
        far = self._end(near.loop, place.accept(), near.remote, near.local, place.context)
        join(near, far)
        near.loop.call_soon(self._open, near, opened, context=near.context)
        far.get_protocol().connection_made(far)

    def _open(self, near: LoopbackTransport, opened: asyncio.Future[None]) -> None:
        near.get_protocol().connection_made(near)
        if not opened.done():
            opened.set_result(None)

    def _end(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.BaseProtocol,
        local: Address,
        remote: Address,
        context: contextvars.Context,
    ) -> LoopbackTransport:
        return LoopbackTransport(
            loop, protocol, self._medium, local=local, remote=remote, context=context
        )
