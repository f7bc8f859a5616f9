"""Links to the other silos, for membership and ownership only. Owns who is connected, probing and what
travels between silos; knows no view and judges nobody. Calls of clients and grains take other connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from durum import errors
from durum.clock import Clock
from durum.ids import Address, GrainId, SiloId, address_of, generation_of
from durum.silo.detector import Outcome
from durum.silo.patience import cause
from durum.telemetry import Log
from durum.views import Status, View
from durum.wire.connection import Connection, Handler
from durum.wire.messages import (
    Ack,
    AnyMessage,
    Goodbye,
    Gossip,
    HandOver,
    Luggage,
    Probe,
    Released,
)

Dial = Callable[[Address, Handler], Awaitable[Connection]]
"""Opens a connection; raises ConnectionRefusedError, OSError or IncompatibleSilo."""

_HELPER_WAIT_S: Final = 1.0
_HELPING_LIMIT: Final = 64
_STALE_PROBES: Final = 2.5
# An address that cannot even be read comes from another silo's settings; it must not end this one.
_UNREACHABLE: Final = (OSError, UnicodeError, errors.ClusterError, errors.ConfigError)
_log = Log("durum.peers")


class Peers:
    """The other silos as this one reaches them. A Handler of their connections, dialed or accepted.

    Args:
        me: this silo.
        dial: how connections are opened.
        clock: for silences.
        version: the version of the newest view.

    Attributes:
        on_version: called with the version of a view that another silo has.
        on_broken: called with a silo whose connection ended without our doing.
        on_hand_over: called with a request to hand over and where to answer it.
        on_released: called with partitions that are free now, and their tokens.
        on_luggage: called with what actors of a partition take along, and whether pickles may come that way.
    """

    def __init__(self, *, me: SiloId, dial: Dial, clock: Clock, version: Callable[[], int]) -> None:
        self.on_version: Callable[[int], None] = _ignore
        self.on_broken: Callable[[SiloId], None] = _ignore
        self.on_hand_over: Callable[[Connection, HandOver], None] = _ignore
        self.on_released: Callable[[Sequence[tuple[int, bytes]]], None] = _ignore
        self.on_luggage: Callable[..., None] = _ignore
        self._me = me
        self._dial = dial
        self._clock = clock
        self._version = version
        self._links: dict[SiloId, list[Connection]] = {}
        self._dialing: dict[Address, asyncio.Lock] = {}
        self._heard_at: dict[SiloId, float] = {}
        self._ending: set[Connection] = set()
        self._helping = 0
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Probe on others' behalf until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await asyncio.Event().wait()
        except BaseExceptionGroup as group:
            raise cause(group) from group
        finally:
            self._tasks = None
            for link in self._all_links():
                self._end(link)

    def heard(self, silo: SiloId) -> None:
        """Bytes of a silo arrived on a connection that is not among these."""
        self._heard_at[silo] = self._clock.boottime()

    def silence_s(self, silo: SiloId) -> float:
        """How long ago bytes of a silo last arrived."""
        loop_now = asyncio.get_running_loop().time()
        silences = [loop_now - link.last_received for link in self._links.get(silo, ())]
        if silo in self._heard_at:
            silences.append(self._clock.boottime() - self._heard_at[silo])
        return min(silences, default=float("inf"))

    async def probe(self, silo: SiloId, wait_s: float) -> Outcome:
        """Ask a silo whether it is there.

        Args:
            silo: which.
            wait_s: for the connection and the answer together.
        """
        try:
            async with asyncio.timeout(wait_s):
                link = await self._link(silo)
                probe = Probe(link.next_id(), self._version())
                try:
                    answer = await link.request(probe)
                finally:
                    link.forget(probe.id)
        except _ReplacedError:
            return Outcome.REFUSED
        except ConnectionRefusedError:
            # As long as a connection stands, something in between refuses, not the silo.
            return Outcome.SILENT if self._open_links(silo) else Outcome.REFUSED
        except _UNREACHABLE as exc:
            _log.debug("probe failed", silo=silo, error=repr(exc))
            self._drop_stale(silo, wait_s)
            return Outcome.SILENT
        if not isinstance(answer, Ack):
            return Outcome.SILENT
        self.on_version(answer.version)
        return Outcome.ANSWERED

    async def probe_through(self, helper: SiloId, target: SiloId, wait_s: float) -> bool:
        """Ask a silo to ask another one. False also where the helper itself does not answer."""
        try:
            async with asyncio.timeout(wait_s):
                link = await self._link(helper)
                probe = Probe(link.next_id(), self._version(), target)
                try:
                    answer = await link.request(probe)
                finally:
                    link.forget(probe.id)
        except _UNREACHABLE:
            return False
        return isinstance(answer, Ack) and answer.alive

    async def who(self, address: Address, wait_s: float) -> SiloId | None:
        """Which silo answers at an address, or None."""
        try:
            async with asyncio.timeout(wait_s):
                link = await self._dial(address, self)
        except _UNREACHABLE:
            return None
        found = link.peer.silo
        self._end(link)
        return found

    async def obstacle(self, address: Address, wait_s: float) -> Exception | None:
        """Why whoever is at an address cannot be reached, or will have nothing to do with us; None where it
        lets us in.
        """
        try:
            async with asyncio.timeout(wait_s):
                link = await self._dial(address, self)
        except _UNREACHABLE as exc:
            return exc
        self._end(link)
        return None

    async def hand_over(
        self, silo: SiloId, version: int, partitions: tuple[int, ...], within_s: float
    ) -> None:
        """Ask a silo to release partitions, and wait until it has done all it can.

        Those that become free are told to `on_released`; it may not have held the others.
        """
        try:
            async with asyncio.timeout(within_s):
                link = await self._link(silo)
                request = HandOver(link.next_id(), version, partitions)
                try:
                    answer = await link.request(request)
                finally:
                    link.forget(request.id)
        except _UNREACHABLE as exc:
            _log.debug("hand-over failed", silo=silo, error=repr(exc))
            return
        if isinstance(answer, Released):
            self.on_released(answer.partitions)

    def release(self, silo: SiloId, partitions: tuple[tuple[int, bytes], ...]) -> None:
        """Tell a silo of partitions that are free, if it is connected; else it will ask."""
        link = next(iter(self._open_links(silo)), None)
        if link is not None:
            link.send(Released(0, partitions, more=True))

    async def carry(
        self,
        silo: SiloId,
        message: Callable[..., Luggage],
        values: tuple[tuple[GrainId, bytes], ...],
    ) -> bool:
        """Bring luggage to a silo. Returns whether it has taken it in.

        Args:
            silo: which.
            message: makes it, but for its id and values.
            values: by grain.
        """
        try:
            link = await self._link(silo)
            luggage = message(id=link.next_id(), values=values)
            try:
                answer = await link.request(luggage)
            finally:
                link.forget(luggage.id)
        except _UNREACHABLE:
            return False
        return isinstance(answer, Ack)

    def gossip(self, version: int) -> None:
        """Tell all connected silos that there is a newer view."""
        for silo in list(self._links):
            for link in self._open_links(silo)[:1]:
                link.send(Gossip(version))

    def on_view(self, view: View) -> None:
        """Hang up on the dead."""
        for row in view.rows:
            if row.status is Status.DEAD:
                self._heard_at.pop(row.silo, None)
                for link in list(self._links.get(row.silo, ())):
                    self._end(link)

    def opened(self, connection: Connection) -> None:
        """A silo's handshake is done (called by the connection)."""
        silo = connection.peer.silo
        if silo is not None:
            self._links.setdefault(silo, []).append(connection)

    def received(self, connection: Connection, message: AnyMessage) -> None:
        """A silo sent something that is no answer to our own requests (called by the connection)."""
        match message:
            case Probe(target=""):
                connection.send(Ack(message.id, self._version()))
                self.on_version(message.version)
            case Probe():
                self._help(connection, message)
                self.on_version(message.version)
            case HandOver():
                self.on_version(message.version)
                self.on_hand_over(connection, message)
            case Released():
                self.on_released(message.partitions)
            case Gossip():
                self.on_version(message.version)
            case Luggage():
                self.on_luggage(message, trusted=connection.trusted)
                connection.send(Ack(message.id, self._version()))
            case Goodbye():
                self._ending.add(
                    connection
                )  # it leaves in good order, which is evidence of nothing
            case _:
                _log.debug("not for peers", peer=connection.peer, message=type(message).__name__)

    def closed(self, connection: Connection, error: Exception | None) -> None:
        """A connection has ended (called by the connection)."""
        silo = connection.peer.silo
        if silo is None:
            return
        links = self._links.get(silo, [])
        if connection in links:
            links.remove(connection)
        if not links:
            self._links.pop(silo, None)
        heard_s = asyncio.get_running_loop().time() - connection.last_received
        heard_at = self._clock.boottime() - heard_s
        self._heard_at[silo] = max(heard_at, self._heard_at.get(silo, heard_at))
        if connection in self._ending:
            self._ending.discard(connection)
        elif silo != self._me:
            _log.debug("link broke", silo=silo, error=repr(error))
            self.on_broken(silo)

    async def _link(self, silo: SiloId) -> Connection:
        """The connection to a silo, opened if need be; those who ask meanwhile wait for the same attempt.

        Raises:
            _ReplacedError: a later life of its address answers there.
            OSError: it cannot be reached.
            IncompatibleSilo: another service answers, or an earlier life.
        """
        address = address_of(silo)
        async with self._dialing.setdefault(address, asyncio.Lock()):
            link = next(iter(self._open_links(silo)), None)
            if link is not None:
                return link
            link = await self._dial(address, self)
        found = link.peer.silo
        if found == silo:
            return link
        self._end(link)
        if found is not None and _replaces(found, silo):
            raise _ReplacedError(f"{found} answers at the address of {silo}")
        raise errors.IncompatibleSilo(f"{found} answers at the address of {silo}.")

    def _help(self, connection: Connection, probe: Probe) -> None:
        if self._tasks is None or self._helping >= _HELPING_LIMIT or probe.target == self._me:
            alive = probe.target == self._me
            connection.send(Ack(probe.id, self._version(), alive=alive))
            return
        self._helping += 1
        self._tasks.create_task(self._probe_for(connection, probe), name=f"probe {probe.target}")

    async def _probe_for(self, connection: Connection, probe: Probe) -> None:
        try:
            outcome = await self.probe(probe.target, _HELPER_WAIT_S)
        finally:
            self._helping -= 1
        if not connection.closing:
            alive = outcome is Outcome.ANSWERED
            connection.send(Ack(probe.id, self._version(), alive=alive))

    def _drop_stale(self, silo: SiloId, wait_s: float) -> None:
        """End links from which nothing came for long: a path that forgot them may carry a new one."""
        now = asyncio.get_running_loop().time()
        for link in self._open_links(silo):
            if now - link.last_received > _STALE_PROBES * wait_s:
                self._end(link)

    def _end(self, link: Connection) -> None:
        self._ending.add(link)
        link.abort()

    def _open_links(self, silo: SiloId) -> list[Connection]:
        return [link for link in self._links.get(silo, ()) if not link.closing]

    def _all_links(self) -> list[Connection]:
        return [link for links in self._links.values() for link in links]

    def __repr__(self) -> str:
        return f"<Peers of {self._me}: {', '.join(self._links) or 'none'}>"


class _ReplacedError(ConnectionError):
    """A later life of the silo's address answers there."""


def _replaces(found: SiloId, silo: SiloId) -> bool:
    return address_of(found) == address_of(silo) and generation_of(found) > generation_of(silo)


def _ignore(*_: object) -> None:
    """Nobody listens yet."""
