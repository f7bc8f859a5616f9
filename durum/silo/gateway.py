"""The silo's door: gives each message that arrives to whom it is for. Owns who is connected; decides nothing.

All connections between silos are alike: those that the other side's grains opened for their calls may carry
probes as well.
"""

from __future__ import annotations

import asyncio

from durum.client.router import Router
from durum.silo.dispatcher import Dispatcher
from durum.silo.peers import Peers
from durum.silo.relay import Relay
from durum.telemetry import Log
from durum.wire.connection import Connection
from durum.wire.messages import (
    AnyMessage,
    Call,
    Cancel,
    Credit,
    Goodbye,
    Gossip,
    HandOver,
    Item,
    Luggage,
    Notice,
    Open,
    Probe,
    Released,
    Table,
)

_log = Log("durum.gateway")


class Gateway:
    """A Handler of accepted connections, and of what comes unasked on dialed ones.

    Args:
        dispatcher: takes in calls.
        peers: takes in what silos say to each other.
        router: this silo's own calls.
        relay: carries calls for clients that ask for it.
        relay_s: how long those may take once the silo leaves.
    """

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        peers: Peers,
        router: Router,
        relay: Relay,
        relay_s: float,
    ) -> None:
        self._dispatcher = dispatcher
        self._peers = peers
        self._router = router
        self._relay = relay
        self._relay_s = relay_s
        self._clients: dict[Connection, None] = {}
        self._silos: dict[Connection, None] = {}
        self._table: Table | None = None
        self._leaving = ""

    def opened(self, connection: Connection) -> None:
        """A handshake is done (called by the connection)."""
        if connection.peer.role == "silo":
            self._silos[connection] = None
            self._peers.opened(connection)
            return
        self._clients[connection] = None
        if self._table is not None:
            connection.send(self._table)
        if self._leaving:
            connection.say_goodbye(self._leaving)

    def received(self, connection: Connection, message: AnyMessage) -> None:
        """Take a message that is no answer (called by the connection)."""
        if type(message) is Call:
            if not (connection.peer.through and self._carry(connection, message)):
                self._dispatcher.call(connection, message)
        elif type(message) is Cancel:
            self._dispatcher.cancel(connection, message)
        elif type(message) is Notice:
            self._dispatcher.notice(connection, message)
        elif isinstance(message, Open | Credit | Item):
            self._stream(connection, message)
        elif isinstance(message, Probe | HandOver | Released | Gossip | Luggage):
            if connection.peer.role == "silo":
                self._peers.received(connection, message)
            else:
                _log.warning("a client sent what only silos may", peer=connection.peer)
                connection.abort()
        elif isinstance(message, Goodbye):
            self._router.received(connection, message)

    def _stream(self, connection: Connection, message: Open | Credit | Item) -> None:
        if isinstance(message, Open):
            if not (connection.peer.through and self._carry(connection, message)):
                self._dispatcher.stream(connection, message)
        elif isinstance(message, Item):
            self._router.received(connection, message)
        else:
            self._dispatcher.credit(connection, message)

    def _carry(self, connection: Connection, call: Call | Open) -> bool:
        """Pass a client's call on, where it is for another silo."""
        if self._dispatcher.works_for(call.grain):
            return False
        astray = self._dispatcher.astray(call.grain)
        return self._relay.take(connection, call, astray=astray)

    def closed(self, connection: Connection, error: Exception | None) -> None:
        """A connection has ended (called by the connection)."""
        if connection.peer.role == "silo":
            self._silos.pop(connection, None)
            self._peers.closed(connection, error)
        else:
            self._clients.pop(connection, None)
        self._relay.lost(connection)
        self._dispatcher.lost(connection)

    def push(self, table: Table) -> None:
        """Tell all clients who should own what."""
        self._table = table
        for connection in self._clients:
            connection.send(table)

    async def leave(self, reason: str, within_s: float) -> None:
        """Say goodbye to everybody, and wait until they have closed or the time is up.

        Args:
            reason: why, for their logs.
            within_s: what is still open then is broken; what carries other silos' calls gets the time
                that turns get.
        """
        self._leaving = reason
        connections = [*self._clients, *self._silos]
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                limit_s = max(within_s, self._relay_s) if connection.peer.through else within_s
                group.create_task(connection.leave(reason, limit_s), name="leave")

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    @property
    def silos(self) -> int:
        """How many connections other silos have made."""
        return len(self._silos)

    def abort(self) -> None:
        """Break all connections at once."""
        for connection in [*self._clients, *self._silos]:
            connection.abort()

    def __repr__(self) -> str:
        return f"<Gateway clients={len(self._clients)} silos={len(self._silos)}>"
