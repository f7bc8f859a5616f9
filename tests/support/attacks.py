"""A silo to be attacked, and what attackers use: connections of ours that do what no client of ours would."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

import durum
from durum import Actor, Limits, Opaque, SiloConfig
from durum.ids import GrainId
from durum.wire import links, values
from durum.wire.connection import Connection
from durum.wire.handshake import Introduction
from durum.wire.messages import AnyMessage, Call
from durum.wire.network import TcpNetwork
from tests.support import bombs

SECRET = "correct horse battery staple 1949"


class Vault(Actor):
    """What is attacked."""

    total: int = 0

    async def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    async def echo(self, value: Any) -> Any:
        return value

    async def keep(self, thing: Opaque[Any]) -> str:
        return type(thing).__name__

    async def fetch(self) -> Opaque[Any]:
        return {self.total}

    async def fail(self, note: str) -> None:
        raise ValueError("the method's own words")

    async def _private(self) -> None:
        bombs.Bomb().__reduce__()[0](*bombs.Bomb().__reduce__()[1])


@dataclass
class Listener:
    """Takes what a silo says unasked."""

    heard: list[AnyMessage] = field(default_factory=list)

    def opened(self, connection: Connection) -> None: ...

    def received(self, connection: Connection, message: AnyMessage) -> None:
        self.heard.append(message)

    def closed(self, connection: Connection, error: Exception | None) -> None: ...


@contextlib.asynccontextmanager
async def serving(
    secret: str = SECRET, limits: Limits | None = None, tls: durum.Tls | None = None
) -> AsyncIterator[durum.Silo]:
    config = SiloConfig(limits=limits or Limits(), partitions=16)
    async with durum.Silo(kinds=[Vault], secret=secret, tls=tls, config=config) as silo:
        yield silo
        async with silo.connect() as cluster:  # whatever happened, others are served
            assert await cluster.actor(Vault, "others").echo("still") == "still"


async def dial(target: durum.Silo, /, secret: str = SECRET, **more: Any) -> Connection:
    """Connect as somebody who may, and then does what no client of ours would."""
    introduction = Introduction(
        **{
            "role": "client",
            "cluster": "default",
            "secrets": (secret.encode(),) if secret else (),
            **more,
        }
    )
    return await links.dial(TcpNetwork(), target.address, introduction, Listener(), Limits())


async def ask(
    connection: Connection, method: str, args: bytes, grain: str = "Vault/one"
) -> AnyMessage:
    return await connection.request(Call(connection.next_id(), GrainId(grain), method, args, 5_000))


async def leave(connection: Connection) -> None:
    connection.abort()
    await connection.wait_closed()


def pickled(value: object) -> bytes:
    """The arguments of a call with one pickled value."""
    return b"\x91" + values.encode_fast(msgspec.msgpack.Ext(values.PICKLED, pickle.dumps(value)))
