"""Two ends of a connection for tests: who records what arrives, and how the ends are joined."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from durum.config import Limits
from durum.ids import Address, GrainId, SeededEntropy, SiloId
from durum.wire import links
from durum.wire.connection import Connection
from durum.wire.handshake import Introduction
from durum.wire.loopback import LoopbackNetwork, Medium
from durum.wire.messages import AnyMessage, Call, Reply
from durum.wire.network import Network

SECRET = b"the cluster's own secret"
OTHER_SECRET = b"quite another secret here"
SILO = SiloId("127.0.0.1:7600@1")
ANYWHERE = Address("127.0.0.1:0")


def silo(*secrets: bytes, mark: str = "", cluster: str = "tests") -> Introduction:
    """How a silo introduces itself."""
    return Introduction(
        role="silo",
        cluster=cluster,
        mark=mark,
        silo=SILO,
        secrets=secrets,
        entropy=SeededEntropy(1),
    )


def client(*secrets: bytes, mark: str = "", cluster: str = "tests") -> Introduction:
    """How a client introduces itself."""
    return Introduction(
        role="client", cluster=cluster, mark=mark, secrets=secrets, entropy=SeededEntropy(2)
    )


def call(request: int, args: bytes = b"\x90", method: str = "add") -> Call:
    return Call(request, GrainId("Counter/one"), method, args)


@dataclass
class Recorder:
    """A handler that keeps everything, and answers as it is told."""

    answer: Callable[[Connection, AnyMessage], None] | None = None
    connections: list[Connection] = field(default_factory=list)
    messages: list[AnyMessage] = field(default_factory=list)
    ends: list[Exception | None] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def opened(self, connection: Connection) -> None:
        self.connections.append(connection)
        self.changed.set()

    def received(self, connection: Connection, message: AnyMessage) -> None:
        self.messages.append(message)
        self.changed.set()
        if self.answer is not None:
            self.answer(connection, message)

    def closed(self, connection: Connection, error: Exception | None) -> None:
        self.ends.append(error)
        self.changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that this handler hears of."""
        while not holds():
            self.changed.clear()
            await self.changed.wait()


async def quiet() -> None:
    """Let everything happen that takes no time."""
    await asyncio.sleep(1e-9)


def echo(connection: Connection, message: AnyMessage) -> None:
    """Answer every call with its arguments."""
    if isinstance(message, Call):
        connection.send(Reply(message.id, message.args))


@dataclass
class Pair:
    """A server, a client, and the two ends of the connection between them."""

    network: Network
    server: links.Server
    near: Connection
    far: Connection
    here: Recorder
    there: Recorder

    async def close(self) -> None:
        """End it, from the client's side."""
        self.near.abort()
        await self.near.wait_closed()
        await self.far.wait_closed()
        await self.server.close()


async def pair(
    *,
    network: Network | None = None,
    medium: Medium | None = None,
    limits: Limits | None = None,
    secrets: tuple[bytes, ...] = (),
    answer: Callable[[Connection, AnyMessage], None] | None = echo,
) -> Pair:
    """Join two ends; on a network inside the process unless one is given."""
    network = network or LoopbackNetwork(medium=medium)
    limits = limits or Limits()
    here, there = Recorder(), Recorder(answer)
    server = await links.serve(network, ANYWHERE, silo(*secrets), there, limits)
    near = await links.dial(network, server.address, client(*secrets), here, limits)
    await there.until(lambda: bool(there.connections))
    return Pair(network, server, near, there.connections[0], here, there)
