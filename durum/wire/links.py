"""Dialing and listening. Owns who is let in, how many, and what is said of those turned away."""

from __future__ import annotations

import asyncio
import ipaddress
from functools import partial
from typing import Final

from durum.config import Limits
from durum.errors import ConfigError, DurumBug
from durum.ids import Address, split_address
from durum.telemetry import Log
from durum.wire.connection import Connection, Handler
from durum.wire.doorman import Doorman
from durum.wire.handshake import Introduction, Side
from durum.wire.messages import AnyMessage
from durum.wire.network import Listener, Network
from durum.wire.statistics import ServerStatistics
from durum.wire.tls import certificates

_log: Final = Log("durum.links")
_LOG_EVERY_S: Final = 10.0
_UNKNOWN: Final = Introduction(role="silo", cluster="")


async def dial(
    network: Network,
    address: Address,
    introduction: Introduction,
    handler: Handler,
    limits: Limits,
) -> Connection:
    """Connect to a silo; the handshake is done and `handler.opened` was called when this returns.

    Raises:
        IncompatibleSilo: it is no silo, or one of another version, cluster, service or secret.
        ConnectionRefusedError: the address itself said no: nobody listens there.
        OSError: it cannot be reached, has no room, or did not answer within handshake_s.
    """
    host, _ = split_address(address)
    make = partial(Connection, introduction, Side.DIALER, handler, limits, host=host)
    try:
        async with asyncio.timeout(limits.handshake_s):
            protocol = await network.connect(address, make)
    except TimeoutError as exc:
        raise TimeoutError(
            f"{address} did not accept a connection within {limits.handshake_s} s; it is cut off, "
            "stopped or overloaded."
        ) from exc
    if not isinstance(protocol, Connection):
        raise DurumBug(f"{network!r} connected a {type(protocol).__name__}. Please report it.")
    try:
        await protocol.wait_opened()
    except asyncio.CancelledError:
        protocol.abort()
        raise
    return protocol


class Server:
    """An address where silos and clients connect.

    A silo's id holds its port, which is known only once it listens: so a server starts first, and lets
    nobody in before `open` says who this side is.

    Args:
        limits: bounds on the connections' number, times and memory.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._inside: tuple[Introduction, Handler] | None = None
        self._listener: Listener | None = None
        # A dict keeps their order, so that closing them repeats under a seed.
        self._open: dict[Connection, None] = {}
        self._doorman: Doorman[Connection] = Doorman(limits)
        self._accepted = 0
        self._turned_away = 0
        self._unlogged = 0
        self._quiet_until = 0.0

    def __repr__(self) -> str:
        where = "nowhere" if self._listener is None else self._listener.address
        return f"<Server at {where} connections={len(self._open)}>"

    @property
    def address(self) -> Address:
        """Where it listens, with the port that was taken."""
        if self._listener is None:
            raise DurumBug(
                "a server was asked for its address before it had one. Please report it."
            )
        return self._listener.address

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Those open now, strangers included, in the order they came."""
        return tuple(self._open)

    def statistics(self) -> ServerStatistics:
        """The counters as they are now."""
        return ServerStatistics(
            connections=len(self._open), accepted=self._accepted, turned_away=self._turned_away
        )

    def open(self, introduction: Introduction, handler: Handler) -> None:
        """Let others in from here on.

        Args:
            introduction: who this side is.
            handler: whom to give the connections.
        """
        self._inside = (introduction, handler)

    async def start(self, network: Network, address: Address) -> None:
        """Begin to listen.

        Raises:
            OSError: the address is taken or not this host's.
        """
        self._listener = await network.listen(address, self._accept)

    async def close(self) -> None:
        """Stop accepting. Connections that are open stay open; see `connections`."""
        if self._listener is not None:
            await self._listener.close()

    def _accept(self) -> Connection:
        introduction, handler = self._inside or (_UNKNOWN, _Nobody())
        return Connection(
            introduction,
            Side.LISTENER,
            handler,
            self._limits,
            admit=self._admit,
            known=self._doorman.know,
            ended=self._on_end,
        )

    def _admit(self, connection: Connection) -> str:
        self._open[connection] = None
        if self._inside is None:
            return "it is starting"
        limit = self._limits.connections
        if len(self._open) > limit:
            return f"{limit} connections are open already; raise Limits.connections, or add silos"
        refusal = self._doorman.admit(connection, connection.host, connection.last_received)
        while oldest := self._doorman.crowded():
            oldest.abort(ConnectionAbortedError("too many strangers came after it"))
            self._doorman.forget(oldest)
        return refusal

    def _on_end(self, connection: Connection, error: Exception | None) -> None:
        self._open.pop(connection, None)
        self._doorman.forget(connection)
        if connection.was_open:
            self._accepted += 1
        else:
            self._turned_away += 1
            self._tell(connection, error)

    def _tell(self, connection: Connection, error: Exception | None) -> None:
        # Strangers decide how many lines there could be; they must not fill the disk.
        now = connection.last_received
        if now < self._quiet_until:
            self._unlogged += 1
            return
        self._quiet_until = now + _LOG_EVERY_S
        _log.warning(
            "a connection was turned away",
            reason=str(error or "it left during the handshake"),
            remote=connection.remote,
            others_since=self._unlogged,
        )
        self._unlogged = 0


async def serve(
    network: Network,
    address: Address,
    introduction: Introduction,
    handler: Handler,
    limits: Limits,
) -> Server:
    """Listen for silos and clients.

    Raises:
        ConfigError: see refuse_exposed.
        OSError: the address is taken or not this host's.
    """
    refuse_exposed(address, introduction)
    server = Server(limits)
    server.open(introduction, handler)
    await server.start(network, address)
    return server


def refuse_exposed(address: Address, introduction: Introduction) -> None:
    """Refuse to let anybody in who can connect, unless that is meant.

    Raises:
        ConfigError: the address is reachable from elsewhere and there is neither a secret to ask for nor
            a CA whose certificates to ask for; or there is TLS without a certificate.
    """
    tls = introduction.tls
    if tls is not None:
        certificates(tls).listening()
        certificates(tls).dialing()
    if introduction.secrets or (tls is not None and tls.mutual) or is_loopback(address):
        return
    if not introduction.insecure:
        lack = "no cluster secret is set, nor a TLS CA" if tls else "no cluster secret is set"
        raise ConfigError(
            f"{address} can be reached from other hosts, and {lack}: anyone could call any "
            "actor. Set DURUM_SECRET or DURUM_SECRET_FILE, or give --tls-cert, --tls-key and --tls-ca; "
            "or listen on 127.0.0.1, or say --insecure if that is meant."
        )
    _log.warning("listening without a secret: anyone who reaches it may call", address=address)


def is_loopback(address: Address) -> bool:
    """Whether only this host can reach an address."""
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Nobody:
    """Handles connections that are never opened."""

    def opened(self, connection: Connection) -> None: ...

    def received(self, connection: Connection, message: AnyMessage) -> None: ...

    def closed(self, connection: Connection, error: Exception | None) -> None: ...
