"""Connections to silos, one for each address, opened when first needed. Knows addresses, no grains."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from durum import errors
from durum.config import Limits
from durum.ids import Address
from durum.tasks import TaskOwner
from durum.telemetry import Log
from durum.wire import links as wire
from durum.wire.connection import Connection
from durum.wire.handshake import Introduction
from durum.wire.messages import AnyMessage
from durum.wire.network import Network

_log = Log("durum.links")


class Links:
    """Open connections by address.

    Args:
        network: how to reach silos.
        introduction: who we say we are.
        limits: see Limits.
        tasks: owner of the tasks that dial.
        on_message: called with what a silo sends unasked.
        on_close: called when a connection is gone or takes no more calls.
    """

    def __init__(
        self,
        *,
        network: Network,
        introduction: Introduction,
        limits: Limits,
        tasks: TaskOwner,
        on_message: Callable[[Connection, AnyMessage], None],
        on_close: Callable[[Connection], None],
    ) -> None:
        self._network = network
        self._introduction = introduction
        self._limits = limits
        self._tasks = tasks
        self._on_message = on_message
        self._on_close = on_close
        self._open: dict[Address, Connection] = {}
        self._alive: dict[Connection, None] = {}
        self._dialing: dict[Address, asyncio.Future[Connection]] = {}

    @property
    def open(self) -> Mapping[Address, Connection]:
        """Connections that take calls now."""
        return MappingProxyType(self._open)

    @property
    def alive(self) -> Collection[Connection]:
        """Connections that have not ended: the open ones, and those that still owe answers."""
        return self._alive.keys()

    async def get(self, address: Address) -> Connection:
        """The connection to an address, opened if need be. Callers at the same time share one attempt.

        Raises:
            ConnectionRefusedError: nobody listens there.
            OSError: it cannot be reached, or the handshake took too long.
            IncompatibleSilo: it is another cluster, or does not share our secret.
        """
        connection = self._open.get(address)
        if connection is not None:
            return connection
        attempt = self._dialing.get(address)
        if attempt is None:
            attempt = asyncio.get_running_loop().create_future()
            self._dialing[address] = attempt
            self._tasks.start(self._dial(address, attempt), f"dial {address}")
        return await asyncio.shield(attempt)

    async def _dial(self, address: Address, attempt: asyncio.Future[Connection]) -> None:
        try:
            connection = await wire.dial(
                self._network, address, self._introduction, self, self._limits
            )
        except (OSError, errors.ClusterError) as exc:
            attempt.set_exception(exc)
            attempt.exception()  # marked as seen: those who waited may all have been cancelled
        except asyncio.CancelledError:
            attempt.set_exception(ConnectionError(f"{address}: closed while connecting"))
            attempt.exception()
            raise
        else:
            if not connection.closing:
                self._open[address] = connection
            attempt.set_result(connection)
        finally:
            del self._dialing[address]

    def drop(self, connection: Connection) -> None:
        """Break a connection; what waits on it ends in LinkBroken."""
        connection.abort()

    async def close(self, within_s: float) -> None:
        """Close all connections in good order, then break those that are left."""
        connections = list(self._alive)
        for connection in connections:
            connection.close()
        try:
            async with asyncio.timeout(within_s):
                for connection in connections:
                    await connection.wait_closed()
        except TimeoutError:
            for connection in connections:
                connection.abort()

    def opened(self, connection: Connection) -> None:
        """A handshake is done (called by the connection)."""
        _log.debug("link opened", peer=connection.peer)
        self._alive[connection] = None

    def received(self, connection: Connection, message: AnyMessage) -> None:
        """A silo sent something unasked (called by the connection)."""
        self._on_message(connection, message)
        if connection.closing:
            self._forget(connection)

    def closed(self, connection: Connection, error: Exception | None) -> None:
        """A connection is gone (called by the connection)."""
        _log.debug("link closed", peer=connection.peer, error=str(error) if error else "")
        self._alive.pop(connection, None)
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        for address, held in list(self._open.items()):
            if held is connection:
                del self._open[address]
                self._on_close(connection)
