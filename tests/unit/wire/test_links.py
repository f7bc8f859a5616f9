"""Dialing and listening: every attempt ends, and nobody listens to the world by accident."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from durum.config import Limits
from durum.errors import ConfigError, DurumBug, IncompatibleSilo
from durum.ids import Address
from durum.testing import loop
from durum.testing.run import run
from durum.wire import links
from durum.wire.connection import Connection
from durum.wire.loopback import LoopbackNetwork
from durum.wire.messages import Goodbye, Reply
from durum.wire.network import Listener, TcpNetwork
from tests.support.wire import (
    ANYWHERE,
    OTHER_SECRET,
    SECRET,
    Recorder,
    call,
    client,
    echo,
    pair,
    silo,
)


def test_dial_returns_an_open_connection() -> None:
    """Who dials can call at once, and the server knows whom it has."""

    async def main() -> None:
        both = await pair(secrets=(SECRET,))
        assert both.here.connections == [both.near]
        assert both.server.connections == (both.far,)
        assert repr(both.server) == f"<Server at {both.server.address} connections=1>"
        assert repr(both.near) == (
            "<Connection dialer with 127.0.0.1:7600@1 open in_flight=0 owed=0>"
        )
        await both.close()
        statistics = both.server.statistics()
        assert (statistics.connections, statistics.accepted, statistics.turned_away) == (0, 1, 0)

    run(main(), 1)


def test_dial_tells_that_nobody_listens() -> None:
    """A refusal by the address itself is evidence that a process is gone; nothing else may look so."""

    async def main(network: LoopbackNetwork | TcpNetwork, address: Address) -> None:
        with pytest.raises(ConnectionRefusedError):
            await links.dial(network, address, client(), Recorder(), Limits())

    run(main(LoopbackNetwork(), Address("10.0.0.9:1")), 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        asyncio.run(main(TcpNetwork(), Address(f"127.0.0.1:{free.getsockname()[1]}")))


def test_dial_gives_up_a_listener_that_stays_silent() -> None:
    """connect() to a stopped process succeeds; only an answer proves life."""

    async def main() -> None:
        network, here = LoopbackNetwork(), Recorder()
        listener = await network.listen(ANYWHERE, asyncio.Protocol)
        with pytest.raises(TimeoutError, match=r"did not introduce itself within 3\.0 s"):
            await links.dial(network, listener.address, client(), here, Limits())
        assert loop.current().time() == 3
        assert (here.connections, here.ends) == ([], [])

    run(main(), 1)


def test_dial_gives_up_an_address_that_never_answers() -> None:
    """A firewall that drops packets must not hold a caller for minutes."""

    class Void:
        async def listen(
            self, address: Address, accept: Callable[[], asyncio.BaseProtocol]
        ) -> Listener:
            raise NotImplementedError

        async def connect(
            self, address: Address, make: Callable[[], asyncio.BaseProtocol]
        ) -> asyncio.BaseProtocol:
            await asyncio.sleep(1000)
            return make()

    async def main() -> None:
        with pytest.raises(
            TimeoutError, match=r"10\.0\.0\.9:1 did not accept a connection within 3"
        ):
            await links.dial(Void(), Address("10.0.0.9:1"), client(), Recorder(), Limits())
        assert loop.current().time() == 3

    run(main(), 1)


@pytest.mark.parametrize(
    ("says", "error", "text"),
    [
        (b"-ERR unknown command\r\n", IncompatibleSilo, "does not speak Durum's protocol"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", IncompatibleSilo, "does not speak Durum's protocol"),
        (b"\x03\x00\x00\x00\x91\x91\x91", IncompatibleSilo, "does not speak Durum's protocol"),
        (b"", ConnectionResetError, "closed the connection during the handshake; is it a silo"),
    ],
    ids=["redis", "http", "msgpack", "closed"],
)
def test_dial_tells_that_there_is_no_silo(says: bytes, error: type[Exception], text: str) -> None:
    """A port given by mistake is named as such, not as a broken network."""

    class Foreign(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(says)
            if not says:
                transport.close()

    async def main() -> None:
        network = LoopbackNetwork()
        listener = await network.listen(ANYWHERE, Foreign)
        with pytest.raises(error, match=text):
            await links.dial(network, listener.address, client(), Recorder(), Limits())

    run(main(), 1)


def test_dial_tells_why_it_was_refused(caplog: pytest.LogCaptureFixture) -> None:
    """The reason is in the exception here and in the log there; strangers cannot flood the log."""

    async def main() -> None:
        network, there = LoopbackNetwork(), Recorder(echo)
        server = await links.serve(network, ANYWHERE, silo(SECRET), there, Limits())
        for _ in range(50):
            with pytest.raises(IncompatibleSilo, match="two sides have different cluster secrets"):
                await links.dial(
                    network, server.address, client(OTHER_SECRET), Recorder(), Limits()
                )
        await asyncio.sleep(11)
        with pytest.raises(IncompatibleSilo):
            await links.dial(network, server.address, client(OTHER_SECRET), Recorder(), Limits())
        await asyncio.sleep(1)
        statistics = server.statistics()
        assert (statistics.connections, statistics.accepted, statistics.turned_away) == (0, 0, 51)
        assert (there.connections, there.ends) == ([], [])
        await server.close()

    run(main(), 1)
    lines = [r.getMessage() for r in caplog.records if "turned away" in r.getMessage()]
    assert len(lines) == 2
    assert "different cluster secrets" in lines[0]
    assert "others_since=49" in lines[1]
    assert SECRET.decode() not in caplog.text


def test_dial_that_is_cancelled_leaves_nothing() -> None:
    """A caller that gave up must not leave a connection half open."""

    async def main() -> None:
        network, ends = LoopbackNetwork(), []

        class Silent(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                ends.append(exc)

        listener = await network.listen(ANYWHERE, Silent)
        dialing = asyncio.create_task(
            links.dial(network, listener.address, client(), Recorder(), Limits())
        )
        await asyncio.sleep(1)
        dialing.cancel()
        await asyncio.wait([dialing])
        await asyncio.sleep(0.1)
        assert len(ends) == 1

    run(main(), 1)


def test_dial_refuses_a_network_that_breaks_its_promise() -> None:
    """A port's provider that returns something else is our mistake, and is said to be."""

    class Wrong(LoopbackNetwork):
        async def connect(
            self, address: Address, make: Callable[[], asyncio.BaseProtocol]
        ) -> asyncio.BaseProtocol:
            return asyncio.Protocol()

    async def main() -> None:
        with pytest.raises(DurumBug, match="connected a Protocol"):
            await links.dial(Wrong(), ANYWHERE, client(), Recorder(), Limits())

    run(main(), 1)


def test_server_turns_away_beyond_its_limit() -> None:
    """The limit is told as what it is: come again later, not a broken or foreign silo."""

    async def main() -> None:
        network, limits = LoopbackNetwork(), Limits(connections=2)
        server = await links.serve(network, ANYWHERE, silo(), Recorder(echo), limits)

        async def dial() -> Connection:
            return await links.dial(network, server.address, client(), Recorder(), limits)

        first, second = await dial(), await dial()
        with pytest.raises(ConnectionAbortedError, match="2 connections are open already; raise"):
            await dial()
        first.close()
        await first.wait_closed()
        await asyncio.sleep(0.1)
        third = await dial()
        assert await third.request(call(third.next_id(), b"x")) == Reply(1, b"x")
        for connection in (second, third):
            connection.abort()
            await connection.wait_closed()
        await asyncio.sleep(0.1)
        await server.close()

    run(main(), 1)


def test_server_that_stopped_accepting_keeps_its_connections() -> None:
    """A silo that leaves refuses newcomers while it still answers those it has."""

    async def main() -> None:
        both = await pair()
        await both.server.close()
        with pytest.raises(ConnectionRefusedError):
            await links.dial(both.network, both.server.address, client(), Recorder(), Limits())
        assert await both.near.request(call(both.near.next_id(), b"x")) == Reply(1, b"x")
        for connection in both.server.connections:
            connection.say_goodbye("leaving")
        await both.near.wait_closed()
        assert both.here.messages == [Goodbye("leaving")]
        await both.close()

    run(main(), 1)


def test_server_refuses_an_address_that_is_taken() -> None:
    """Two silos on one address is a mistake to be told at start."""

    async def main(network: LoopbackNetwork | TcpNetwork) -> None:
        first = await links.serve(network, ANYWHERE, silo(), Recorder(), Limits())
        with pytest.raises(OSError, match=r"taken|in use"):
            await links.serve(network, first.address, silo(), Recorder(), Limits())
        await first.close()

    run(main(LoopbackNetwork()), 1)
    asyncio.run(main(TcpNetwork()))


@pytest.mark.parametrize(
    "address", ["0.0.0.0:0", "10.1.2.3:0", "[::]:0", "shop.internal:0", "192.168.0.1:7600"]
)
def test_server_without_a_secret_stays_on_loopback(address: str) -> None:
    """Whoever reaches a silo without a secret may call every actor; that needs to be meant."""

    async def main() -> None:
        with pytest.raises(
            ConfigError, match="can be reached from other hosts, and no cluster secret"
        ):
            await links.serve(LoopbackNetwork(), Address(address), silo(), Recorder(), Limits())

    run(main(), 1)


def test_server_beyond_loopback_works_with_a_secret_or_when_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The explicit way out is logged, since the next reader of the log may not know of it."""

    async def main() -> None:
        network = LoopbackNetwork()
        for introduction in (silo(SECRET), replace(silo(), insecure=True)):
            server = await links.serve(
                network, Address("10.1.2.3:0"), introduction, Recorder(), Limits()
            )
            await server.close()

    run(main(), 1)
    assert caplog.text.count("listening without a secret") == 1


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("[::]:1", False),
        ("0.0.0.0:1", False),
        ("localhost.example.com:1", False),
    ],
)
def test_loopback_addresses(address: str, expected: bool) -> None:
    """A name is taken for loopback only where no resolver could say otherwise."""
    assert links.is_loopback(Address(address)) == expected


def test_server_has_no_address_before_it_starts() -> None:
    """Asking too early is our own mistake."""
    server = links.Server(Limits())
    assert repr(server) == "<Server at nowhere connections=0>"
    with pytest.raises(DurumBug):
        _ = server.address
    asyncio.run(server.close())


def test_handler_that_cannot_open_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Half-made state would fail later and elsewhere."""

    class Fragile(Recorder):
        def opened(self, connection: Connection) -> None:
            raise RuntimeError("no")

    async def main() -> None:
        network = LoopbackNetwork()
        server = await links.serve(network, ANYWHERE, silo(), Fragile(), Limits())
        with pytest.raises(ConnectionResetError):
            await links.dial(network, server.address, client(), Recorder(), Limits())
        other = await links.serve(network, ANYWHERE, silo(), Recorder(), Limits())
        with pytest.raises(RuntimeError, match="no"):
            await links.dial(network, other.address, client(), Fragile(), Limits())
        await asyncio.sleep(0.1)
        assert server.connections == other.connections == ()

    run(main(), 1)
    assert caplog.text.count("a connection could not be opened") == 2


def test_server_that_is_still_starting_lets_nobody_in() -> None:
    """A silo knows its id only once it listens; until then others are to come again."""

    async def main() -> None:
        network, server = LoopbackNetwork(), links.Server(Limits())
        await server.start(network, ANYWHERE)
        with pytest.raises(ConnectionAbortedError, match="it is starting"):
            await links.dial(network, server.address, client(), Recorder(), Limits())
        server.open(silo(), Recorder(echo))
        connection = await links.dial(network, server.address, client(), Recorder(), Limits())
        assert await connection.request(call(connection.next_id(), b"x")) == Reply(1, b"x")
        connection.abort()
        await connection.wait_closed()
        await asyncio.sleep(0.1)
        await server.close()

    run(main(), 1)


STOPPED = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_dial_gives_up_a_stopped_process() -> None:
    """The kernel accepts for a process that is stopped, so the limit has to be our own."""
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGSTOP)

        async def main() -> None:
            limits = Limits(handshake_s=0.3)
            with pytest.raises(TimeoutError, match="did not introduce itself"):
                await links.dial(
                    TcpNetwork(), Address(f"127.0.0.1:{port}"), client(), Recorder(), limits
                )

        asyncio.run(main())
    finally:
        process.kill()
        process.communicate()
