"""Strangers at a real port: closed in time, with bounded memory, and others notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from durum.config import Limits
from durum.errors import IncompatibleSilo
from durum.ids import Address, split_address
from durum.wire import frames, handshake, links
from durum.wire.connection import Connection
from durum.wire.frames import FrameReader
from durum.wire.handshake import Handshake, Introduction, Side
from durum.wire.messages import Reply
from durum.wire.network import TcpNetwork
from tests.support.wire import ANYWHERE, OTHER_SECRET, SECRET, Recorder, call, client, echo, silo

HANDSHAKE_S = 0.4
"""Short, so that the tests are; the default is 3."""
LIMITS = Limits(handshake_s=HANDSHAKE_S)


@dataclass
class House:
    """A silo's port with one friend inside."""

    server: links.Server
    inside: Recorder
    friend: Connection

    async def friend_is_served(self) -> None:
        """Others are unharmed."""
        answer = await self.friend.request(call(self.friend.next_id(), b"still"))
        assert isinstance(answer, Reply)
        assert answer.result == b"still"

    async def only_friend_is_left(self) -> None:
        """Nothing of the strangers is kept."""
        while len(self.server.connections) > 1:
            await asyncio.sleep(0.01)
        assert len(self.inside.connections) == 1


@contextlib.asynccontextmanager
async def house(limits: Limits = LIMITS) -> AsyncIterator[House]:
    network, inside = TcpNetwork(), Recorder(echo)
    server = await links.serve(network, ANYWHERE, silo(SECRET), inside, limits)
    friend = await links.dial(network, server.address, client(SECRET), Recorder(), Limits())
    try:
        yield House(server, inside, friend)
    finally:
        friend.abort()
        await friend.wait_closed()
        await server.close()


class Stranger:
    """A raw socket, and how long it was let live."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, since: float
    ) -> None:
        self.reader, self.writer = reader, writer
        self._loop = asyncio.get_running_loop()
        self._since = since
        self.heard = b""

    @classmethod
    async def come(cls, address: Address) -> Stranger:
        # The other side's time may begin before we hear of it.
        since = asyncio.get_running_loop().time()
        return cls(*await asyncio.open_connection(*split_address(address)), since)

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def hear(self) -> bytes:
        """One frame's body."""
        (size,) = struct.unpack("<I", await self.reader.readexactly(4))
        return await self.reader.readexactly(size)

    async def until_closed(self) -> float:
        """Wait for the other side to close; return how long it lived, in seconds."""
        with contextlib.suppress(ConnectionError):
            self.heard += await self.reader.read(-1)
        lived = self._loop.time() - self._since
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()
        return lived


Main = Callable[[], Coroutine[Any, Any, None]]


def on_uvloop(main: Main) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


loops = pytest.mark.parametrize("on_loop", [lambda main: asyncio.run(main()), on_uvloop])


@loops
@pytest.mark.parametrize(
    ("says", "lives_s"),
    [
        (b"", HANDSHAKE_S),
        (b"\x00", HANDSHAKE_S),
        (struct.pack("<I", 2000) + b"half of it", HANDSHAKE_S),
        (b"\xff\xff\xff\xff", 0),
        (struct.pack("<I", 2049), 0),
        (b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n", 0),
        (b"*1\r\n$4\r\nPING\r\n", 0),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 0),
        (frames.frame(b"\xc0" * 100), 0),
        (frames.frame(b"\x91" * 2000), 0),
        (frames.frame(pickle.dumps(os.system)), 0),
        (frames.frame(b""), 0),
        (os.urandom(100_000), 0),
    ],
    ids=[
        "half-open",
        "one byte",
        "half a frame",
        "4 GB length",
        "too long",
        "http",
        "redis",
        "tls",
        "garbage",
        "deep",
        "pickle",
        "empty frame",
        "100 kB of noise",
    ],
)
def test_stranger_is_closed_in_time(
    on_loop: Callable[[Main], None],
    says: bytes,
    lives_s: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever comes to the port, it is gone within the handshake's time and harms nobody."""

    async def main() -> None:
        async with house() as home:
            stranger = await Stranger.come(home.server.address)
            stranger.say(says)
            lived = await stranger.until_closed()
            assert lives_s <= lived + 0.01
            assert lived < 3
            why = "did not introduce itself" if lives_s else "does not speak Durum's protocol"
            assert why in caplog.text
            assert stranger.heard == b""
            await home.friend_is_served()
            await home.only_friend_is_left()
            assert home.server.statistics().turned_away == 1

    on_loop(main)


def test_slow_stranger_is_closed_in_time() -> None:
    """One byte now and then must not renew the time: that is how few sockets hold many."""

    async def main() -> None:
        async with house() as home:
            stranger = await Stranger.come(home.server.address)
            hello = frames.frame(Handshake(client(SECRET), Side.DIALER, private=True).begin())

            async def drip() -> None:
                for n in range(len(hello)):
                    stranger.say(hello[n : n + 1])
                    await asyncio.sleep(HANDSHAKE_S / 10)

            dripping = asyncio.create_task(drip())
            lived = await stranger.until_closed()
            dripping.cancel()
            await asyncio.wait([dripping])
            assert HANDSHAKE_S <= lived + 0.01 < 3
            await home.friend_is_served()
            await home.only_friend_is_left()

    asyncio.run(main())


@pytest.mark.parametrize("secrets", [(), (OTHER_SECRET,), (OTHER_SECRET, b"and yet another one")])
def test_stranger_without_the_secret_is_turned_away(secrets: tuple[bytes, ...]) -> None:
    """A process of another cluster, or of none."""

    async def main() -> None:
        async with house() as home:
            with pytest.raises(IncompatibleSilo, match="secret"):
                await links.dial(
                    TcpNetwork(), home.server.address, client(*secrets), Recorder(), LIMITS
                )
            await home.friend_is_served()
            await home.only_friend_is_left()

    asyncio.run(main())


def test_replayed_handshake_is_turned_away() -> None:
    """Who listened on the wire yesterday does not get in today."""
    recorded: list[bytes] = []

    async def main() -> None:
        async with house() as home:
            dialer = Handshake(client(SECRET), Side.DIALER, private=True)
            first = await Stranger.come(home.server.address)
            body = dialer.begin()
            while body:
                recorded.append(body)
                first.say(frames.frame(body))
                step = dialer.receive(await first.hear())
                body = step.send
            assert step.session is not None
            first.writer.close()
            await first.writer.wait_closed()
            again = await Stranger.come(home.server.address)
            again.say(b"".join(frames.frame(body) for body in recorded))
            assert await again.until_closed() < 3
            assert b"different cluster secrets" in again.heard
            await home.friend_is_served()
            while len(home.server.connections) > 1:
                await asyncio.sleep(0.01)
            assert len(home.inside.connections) == 2

    asyncio.run(main())


def test_nothing_runs_before_the_proof() -> None:
    """A call sent along with the hello, without a proof, must not be decoded, let alone run."""

    async def main() -> None:
        async with house() as home:
            stranger = await Stranger.come(home.server.address)
            hello = Handshake(client(SECRET), Side.DIALER, private=True).begin()
            sent, _ = frames.FrameWriter(1000).pack([call(1)])
            stranger.say(frames.frame(hello) + sent)
            assert await stranger.until_closed() < 3
            assert home.inside.messages == []
            await home.friend_is_served()
            await home.only_friend_is_left()

    asyncio.run(main())


def test_friend_that_turns_bad_is_closed() -> None:
    """Knowing the secret once is no leave to send anything."""

    async def main() -> None:
        async with house() as home:
            for wire in (b"\xff\xff\xff\xff", frames.frame(b"\xdd\xff\xff\xff\xff")):
                bad = await links.dial(
                    TcpNetwork(), home.server.address, client(SECRET), Recorder(), LIMITS
                )
                bad._transport.write(wire)
                await bad.wait_closed()
            await home.friend_is_served()
            while len(home.server.connections) > 1:
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_many_half_open_strangers_hold_little_and_leave() -> None:
    """Slots of strangers come back by themselves; a friend who comes too late comes again."""

    async def main() -> None:
        async with house(Limits(handshake_s=1, connections=100)) as home:
            strangers = [await Stranger.come(home.server.address) for _ in range(99)]
            for stranger in strangers:
                stranger.say(b"\x10")
            turned_away = await Stranger.come(home.server.address)
            assert await turned_away.until_closed() < 3
            assert b"100 connections are open already" in turned_away.heard
            held = sum(c._reader.room_bytes for c in home.server.connections)
            assert held <= 101 * 4096
            await home.friend_is_served()
            await asyncio.gather(*(stranger.until_closed() for stranger in strangers))
            await home.only_friend_is_left()
            again = await links.dial(
                TcpNetwork(), home.server.address, client(SECRET), Recorder(), LIMITS
            )
            again.abort()
            await again.wait_closed()

    asyncio.run(main())


FLOOD = """
import asyncio, resource, sys
sys.path.insert(0, sys.argv[1])
from tests.support.wire import *
from durum.wire.network import TcpNetwork

async def main():
    limits = Limits(handshake_s=0.3)
    server = await links.serve(TcpNetwork(), ANYWHERE, silo(SECRET), Recorder(echo), limits)
    print(server.address, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)

asyncio.run(main())
"""


def test_strangers_cost_a_silo_little_memory() -> None:
    """A flood of noise and of 4 GB lengths, watched from outside the process it goes to."""
    process = subprocess.Popen(
        [sys.executable, "-c", FLOOD, str(Path(__file__).parents[3])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    noise = struct.pack("<I", 2000) + os.urandom(1 << 20)

    async def flood(address: Address) -> None:
        for _ in range(4):
            strangers = [await Stranger.come(address) for _ in range(50)]
            for n, stranger in enumerate(strangers):
                stranger.say(noise if n % 2 else b"\xff\xff\xff\xff")
            await asyncio.gather(*(stranger.until_closed() for stranger in strangers))

    try:
        address = Address(process.stdout.readline().strip())
        process.stdin.write("\n")
        process.stdin.flush()
        before = int(process.stdout.readline())
        asyncio.run(flood(address))
        process.stdin.write("\n")
        process.stdin.flush()
        after = int(process.stdout.readline())
        assert after - before < 8 * 1024, "kilobytes"
    finally:
        process.kill()
        process.communicate()


def test_dialer_is_no_easier_to_harm() -> None:
    """A silo's address may be taken over by anything; who dials it must end in time as well."""

    class Noise(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.WriteTransport)
            self.transport = transport
            transport.write(os.urandom(1 << 20))

    async def main() -> None:
        listener = await TcpNetwork().listen(ANYWHERE, Noise)
        with pytest.raises((IncompatibleSilo, OSError)):
            await links.dial(TcpNetwork(), listener.address, client(SECRET), Recorder(), LIMITS)
        await listener.close()

    asyncio.run(main())


def test_man_in_the_middle_can_only_cut() -> None:
    """Someone who relays the handshake and then changes a frame ends the connection, no more."""

    async def main() -> None:
        dialer = Handshake(client(SECRET), Side.DIALER, private=False)
        listener = Handshake(silo(SECRET), Side.LISTENER, private=False)
        proof = dialer.receive(listener.receive(dialer.begin()).send).send
        far = listener.receive(proof).session
        assert far is not None
        reader = FrameReader(1000)
        reader.seal = frames.Seal(far.receive_key)
        forged, _ = frames.FrameWriter(1000).pack([call(1, b"forged by someone in between")])
        room = reader.writable()
        room[: len(forged)] = forged
        reader.filled(len(forged))
        with pytest.raises(frames.ProtocolError):
            reader.next()

    asyncio.run(main())


def test_handshake_speaks_of_no_secret() -> None:
    """What a stranger can provoke us to say holds no secret, no mark and no silo's name."""
    introduction = Introduction(
        role="silo", cluster="tests", mark="feedface", silo=silo().silo, secrets=(SECRET,)
    )
    listener = Handshake(introduction, Side.LISTENER, private=False)
    said = listener.receive(
        Handshake(client(OTHER_SECRET), Side.DIALER, private=False).begin()
    ).send
    for word in (SECRET, b"feedface", b"7600"):
        assert word not in said
    assert len(said) < handshake.HANDSHAKE_BYTES
