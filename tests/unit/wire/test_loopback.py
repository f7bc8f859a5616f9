"""The network inside a process: order, back-pressure and ends like those of real sockets."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextvars import ContextVar

import pytest

from durum.errors import DurumBug
from durum.ids import Address
from durum.testing.run import run
from durum.wire.loopback import LoopbackNetwork, LoopbackTransport, Medium
from tests.support.wire import ANYWHERE, quiet

where: ContextVar[str] = ContextVar("where", default="nowhere")


class End(asyncio.Protocol):
    """One end that keeps what happens to it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, LoopbackTransport)
        self.transport = transport
        self.events.append(f"made in {where.get()}")

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool | None:
        self.events.append("eof")
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {type(exc).__name__} in {where.get()}")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")


async def ends(network: LoopbackNetwork | None = None) -> tuple[End, End]:
    """A connection's two ends."""
    network = network or LoopbackNetwork()
    accepted: list[End] = []

    def accept() -> End:
        accepted.append(End())
        return accepted[-1]

    listener = await network.listen(ANYWHERE, accept)
    near = await network.connect(listener.address, End)
    await listener.close()
    assert isinstance(near, End)
    return near, accepted[0]


@pytest.mark.parametrize("segment_bytes", [0, 1, 5, 100])
def test_bytes_arrive_whole_and_in_order(segment_bytes: int) -> None:
    """What is sent arrives, however it is cut on the way."""

    async def main() -> None:
        near, far = await ends(LoopbackNetwork(medium=Medium(segment_bytes=segment_bytes)))
        for n in range(20):
            near.transport.write(bytes([n]) * n)
            far.transport.write(bytearray([n]))
        await quiet()
        assert far.received == b"".join(bytes([n]) * n for n in range(20))
        assert near.received == bytes(range(20))

    run(main(), 1)


def test_close_delivers_what_was_written_before() -> None:
    """An orderly end loses nothing; both ends hear of it once, without an error."""

    async def main() -> None:
        near, far = await ends()
        near.transport.write(b"last words")
        near.transport.close()
        near.transport.close()
        near.transport.write(b"never")
        assert near.transport.is_closing()
        await quiet()
        assert far.received == b"last words"
        assert near.events == ["made in nowhere", "lost NoneType in nowhere"]
        assert far.events == ["made in nowhere", "eof", "lost NoneType in nowhere"]
        assert repr(near.transport).endswith("lost unread=0>")

    run(main(), 1)


def test_reset_loses_what_was_under_way() -> None:
    """A process that dies takes its unsent bytes along; the other end sees a reset."""

    async def main() -> None:
        near, far = await ends()
        near.transport.write(b"gone")
        near.transport.abort()
        near.transport.abort()
        await quiet()
        assert far.received == b""
        assert near.events[1:] == ["lost NoneType in nowhere"]
        assert far.events[1:] == ["lost ConnectionResetError in nowhere"]

    run(main(), 1)


def test_end_may_stay_open_after_the_others_eof() -> None:
    """asyncio leaves that to the protocol."""

    class Stays(End):
        def eof_received(self) -> bool:
            return True

    async def main() -> None:
        near, far = await ends()
        far.transport.set_protocol(stays := Stays())
        assert far.transport.get_protocol() is stays
        near.transport.close()
        await quiet()
        assert not far.transport.is_closing()
        assert not far.transport.can_write_eof()

    run(main(), 1)


def test_writer_is_paused_until_the_other_end_reads() -> None:
    """Back-pressure is what keeps memory bounded, so tests need it too."""

    async def main() -> None:
        near, far = await ends(LoopbackNetwork(medium=Medium(window_bytes=100)))
        near.transport.set_write_buffer_limits(high=50)
        assert near.transport.get_write_buffer_limits() == (12, 50)
        far.transport.pause_reading()
        assert not far.transport.is_reading()
        near.transport.write(bytes(150))
        assert (near.events[1:], near.transport.get_write_buffer_size()) == ([], 50)
        near.transport.write(bytes(1))
        near.transport.write(bytes(9))
        await quiet()
        assert near.events[1:] == ["pause"]
        assert repr(near.transport).endswith("open unread=160>")
        far.transport.resume_reading()
        far.transport.resume_reading()
        await quiet()
        assert near.events[1:] == ["pause", "resume"]
        assert len(far.received) == 160
        assert far.transport.is_reading()

    run(main(), 1)


@pytest.mark.parametrize(
    ("high", "low", "expected"),
    [(None, None, (16384, 65536)), (None, 10, (10, 40)), (40, None, (10, 40)), (9, 3, (3, 9))],
)
def test_write_buffer_limits_are_asyncios(
    high: int | None, low: int | None, expected: tuple[int, int]
) -> None:
    """Protocols set them as they would for a socket."""

    async def main() -> None:
        near, _ = await ends()
        near.transport.set_write_buffer_limits(high, low)
        assert near.transport.get_write_buffer_limits() == expected

    run(main(), 1)


def test_lost_end_is_not_told_to_resume() -> None:
    """After connection_lost a protocol hears nothing more."""

    async def main() -> None:
        near, far = await ends()
        near.transport.set_write_buffer_limits(high=0)
        far.transport.pause_reading()
        near.transport.write(b"x")
        await quiet()
        far.transport.resume_reading()
        await asyncio.sleep(0)
        near.transport.abort()
        await quiet()
        assert near.events[1:] == ["pause", "lost NoneType in nowhere"]

    run(main(), 1)


def test_reading_stops_where_the_end_is_lost_in_between() -> None:
    """A protocol that closes in the middle of a read gets no more of it."""

    class Hasty(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.room = bytearray(3)
            self.reads = 0

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.room

        def buffer_updated(self, nbytes: int) -> None:
            self.reads += 1
            self.transport.close()

    async def main() -> None:
        near, far = await ends()
        hasty = Hasty()
        hasty.connection_made(far.transport)
        far.transport.set_protocol(hasty)
        near.transport.write(b"twelve bytes")
        near.transport.write(b"and more")
        await quiet()
        assert hasty.reads == 1

    run(main(), 1)


def test_carrier_decides_when_pieces_arrive_and_order_holds() -> None:
    """A simulator delays and drops; a stream stays a stream whatever it does."""
    held: list[Callable[[], None]] = []

    class Held:
        def carry(self, source: LoopbackTransport, arrive: Callable[[], None]) -> None:
            held.append(arrive)

    async def main() -> None:
        near, far = await ends(LoopbackNetwork(medium=Medium(carrier=Held())))
        for piece in (b"a", b"b", b"c"):
            near.transport.write(piece)
        await quiet()
        assert far.received == b""
        held[2]()
        assert far.received == b"a"
        held[0]()
        assert far.received == b"ab"
        near.transport.abort()
        for arrive in held[1:]:
            arrive()
        held[1]()
        await quiet()
        assert far.received == b"ab"
        assert far.events[-1] == "lost ConnectionResetError in nowhere"

    run(main(), 1)


def test_callbacks_run_in_the_context_of_their_own_process() -> None:
    """A simulator freezes a process by the context of its callbacks."""

    async def main() -> None:
        network = LoopbackNetwork()
        accepted: list[End] = []

        def accept() -> End:
            accepted.append(End())
            return accepted[-1]

        where.set("server")
        listener = await network.listen(ANYWHERE, accept)
        where.set("client")
        near = await network.connect(listener.address, End)
        assert isinstance(near, End)
        near.transport.close()
        await quiet()
        assert near.events == ["made in client", "lost NoneType in client"]
        assert accepted[0].events == ["made in server", "eof", "lost NoneType in server"]

    run(main(), 1)


def test_hosts_see_each_other_by_address() -> None:
    """One process plays many hosts, each with its own address."""

    async def main() -> None:
        network = LoopbackNetwork("10.0.0.1")
        other = network.at("10.0.0.2")
        peers: list[object] = []

        class Asks(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                peers.append(transport.get_extra_info("peername")[0])

        listener = await network.listen(Address("10.0.0.1:7600"), Asks)
        await other.connect(listener.address, asyncio.Protocol)
        assert peers == ["10.0.0.2"]

    run(main(), 1)


def test_ports_are_taken_and_freed() -> None:
    """Port 0 is any free one; an address that is taken is refused until it is free again."""

    async def main() -> None:
        network = LoopbackNetwork()
        fixed = await network.listen(Address("127.0.0.1:49153"), End)
        first = await network.listen(ANYWHERE, End)
        second = await network.listen(ANYWHERE, End)
        assert [first.address, second.address] == ["127.0.0.1:49152", "127.0.0.1:49154"]
        with pytest.raises(OSError, match="taken") as caught:
            await network.listen(fixed.address, End)
        assert caught.value.errno == errno.EADDRINUSE
        await fixed.close()
        await fixed.close()
        await network.listen(fixed.address, End)

    run(main(), 1)


def test_listener_that_closes_meanwhile_refuses() -> None:
    """A connection attempt under way when the listener closes must end."""

    async def main() -> None:
        network = LoopbackNetwork()
        listener = await network.listen(ANYWHERE, End)
        connecting = asyncio.create_task(network.connect(listener.address, End))
        await asyncio.sleep(0)
        await listener.close()
        with pytest.raises(ConnectionRefusedError):
            await connecting

    run(main(), 1)


@pytest.mark.parametrize("rounds", [1, 2])
def test_connect_that_is_cancelled_leaves_nothing(rounds: int) -> None:
    """Whenever the caller gives up, no end stays open."""

    async def main() -> None:
        network = LoopbackNetwork()
        accepted: list[End] = []

        def accept() -> End:
            accepted.append(End())
            return accepted[-1]

        listener = await network.listen(ANYWHERE, accept)
        connecting = asyncio.create_task(network.connect(listener.address, End))
        for _ in range(rounds):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait([connecting])
        await quiet()
        assert all(end.events[-1].startswith("lost") for end in accepted)

    run(main(), 1)


def test_end_without_another_end_is_our_mistake() -> None:
    """The simulator joins ends by hand."""

    async def main() -> None:
        near, _ = await ends()
        lone = LoopbackTransport(
            asyncio.get_running_loop(),
            End(),
            Medium(),
            local=Address("a:1"),
            remote=Address("b:1"),
            context=near.transport.context,
        )
        assert not lone.joined
        with pytest.raises(DurumBug):
            _ = lone.peer

    run(main(), 1)
