"""Brings a call to the owner of its grain and an answer back, whatever moves meanwhile.

Knows routes, deadlines and which failures may be tried again; knows nothing of what a call means. Clients
and silos use the same one.

A call is sent again only where it surely did not run, or where its idempotency key makes a second run
harmless.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from durum import errors
from durum.client.carrier import Carrier
from durum.client.deadlines import Deadlines, withdraw
from durum.client.delivery import Delivery, Origin
from durum.client.links import Links
from durum.client.routes import Link, Routes
from durum.client.streams import Incoming, Received, Streams
from durum.clock import Clock
from durum.config import Limits
from durum.errors import DidRun
from durum.grains import failure
from durum.grains.carried import CARRIED
from durum.grains.kind import Method
from durum.grains.reference import CallOptions, Target
from durum.ids import Entropy, GrainId
from durum.telemetry import Log
from durum.wire.connection import Connection, LinkBroken
from durum.wire.messages import (
    AnyMessage,
    Call,
    Failure,
    Goodbye,
    Item,
    Moved,
    Open,
    Reply,
    Table,
)

_log = Log("durum.router")
_SWEEP_S: Final = 0.1
_IDLE_FRACTION: Final = 0.03
"""Of the usual deadline: so late may a call be that was sent while nothing else was under way."""
_NIL: Final = b"\xc0"


class Router:
    """Calls from one process to all silos.

    Args:
        links: connections.
        routes: the partition table.
        clock: for deadlines.
        entropy: for jitter.
        limits: see Limits.
        through: send calls through any silo that is connected, instead of dialing the owner.
    """

    def __init__(
        self,
        *,
        links: Links,
        routes: Routes,
        clock: Clock,
        entropy: Entropy,
        limits: Limits,
        through: bool = False,
    ) -> None:
        self._links = links
        self._routes = routes
        self._clock = clock
        self._entropy = entropy
        self._limits = limits
        self._through = through
        self._timeout_ms = int(limits.call_timeout_s * 1000)
        self.deadlines = Deadlines(links, clock, limits.call_timeout_s)
        self._carrier = Carrier(
            links=links,
            routes=routes,
            clock=clock,
            entropy=entropy,
            limits=limits,
            deadlines=self.deadlines,
            through=through,
        )
        self._streams: Streams = {}

    @property
    def timeout_s(self) -> float:
        """The time limit of calls that name none."""
        return self._limits.call_timeout_s

    # The hot path ---------------------------------------------------------------------------------

    async def call(
        self,
        target: Target,
        method: Method,
        args: bytes,
        options: CallOptions,
        *,
        origin: Origin | None = None,
    ) -> bytes:
        """Call a grain's method.

        Args:
            target: whom.
            method: which.
            args: as `method.bind` made them.
            options: deadline and idempotency key.
            origin: the turn that makes the call, if one does.

        Returns:
            The encoded result; that of a one-way call is nil, and comes once it was sent.

        Raises:
            CallError: it ended without a value; `did_run` says whether it ran.
            Exception: what the method itself raised.
        """
        first: AnyMessage | Exception | None = None
        if options.timeout_s is None and not options.idempotency_key and method.plain:
            links = self._routes.by_partition
            link = links[target.hash % len(links)] if method.by_hash else self._link(target)
            if link is not None and not link.closing:
                next_id = link.next_id  # taken out before it is called, as in Performer._perform
                call = Call(next_id(), target.grain, method.name, args, self._timeout_ms)
                carried = CARRIED.get()
                if carried is not None:
                    call.carried = carried
                if origin is not None:
                    # No timer of its own: the turn is cancelled at its deadline, and this with it.
                    call.timeout_ms = int(1000 * (origin.deadline - self._clock.boottime()))
                    call.chain, call.request = origin.chain, origin.request
                try:
                    first = await link.request(call)
                except asyncio.CancelledError:
                    withdraw(link, call.id)
                    raise
                except (LinkBroken, TimeoutError) as exc:
                    first = exc
                else:
                    if type(first) is Reply:
                        return first.result
        return await self.deliver(target, method, args, options, origin=origin, first=first)

    def _link(self, target: Target) -> Link | None:
        """As far as is known the open connection to the silo of a grain whose hash does not tell, or to who
        knows it.
        """
        routes = self._routes
        if target.kind.stateless:
            return None
        address = routes.placed.find(target.grain)
        if address is None:
            return routes.by_partition[target.hash % len(routes.by_partition)]
        return routes.own_link(address) or self._links.open.get(address)

    # Everything else ------------------------------------------------------------------------------

    async def deliver(
        self,
        target: Target,
        method: Method,
        args: bytes,
        options: CallOptions,
        *,
        origin: Origin | None = None,
        first: AnyMessage | Exception | None = None,
    ) -> bytes:
        """As `call`, on the way that survives moves, lost silos and pauses.

        Args:
            target: whom.
            method: which.
            args: as `method.bind` made them.
            options: deadline and idempotency key.
            origin: the turn that makes the call, if one does.
            first: how a first attempt has ended.
        """
        delivery = self._delivery(target, method, args, options, origin)
        if origin is not None:
            now = self._clock.boottime()
            delivery.timeout_s = max(0.0, min(delivery.timeout_s, origin.deadline - now))
            delivery.deadline = now + delivery.timeout_s
        if method.one_way:
            return await self._notify(delivery)
        answer = await self._carrier.carry(delivery, first)
        if isinstance(answer, Reply):
            return answer.result
        end = failure.rebuild(answer, target.kind)
        if isinstance(end, errors.CallError) and end.did_run is DidRun.NO:
            end.did_run = delivery.ran  # an earlier attempt of a keyed call may have run
        raise end

    def stream(
        self,
        target: Target,
        method: Method,
        args: bytes,
        options: CallOptions,
        *,
        origin: Origin | None = None,
    ) -> Received:
        """The results of a streaming method. Nothing is sent before the first is asked for.

        Args: as those of `call`; the time limit is each item's.
        """
        if options.idempotency_key:
            raise errors.ArgumentError(
                f"idempotency_key: {target.grain}: {method.name} gives a stream and records nothing; it was"
                " not called. Call it without a key."
            )
        delivery = self._delivery(target, method, args, options, origin)
        return Received(self._incoming(delivery), target.kind)

    def relay_stream(self, message: Open) -> Incoming:
        """As `relay`, for a stream."""
        return self._incoming(Delivery.of(message, self._clock.boottime()))

    def _delivery(
        self,
        target: Target,
        method: Method,
        args: bytes,
        options: CallOptions,
        origin: Origin | None,
    ) -> Delivery:
        timeout_s = self._limits.call_timeout_s if options.timeout_s is None else options.timeout_s
        return Delivery(
            grain=target.grain,
            hash=target.hash,
            method=method.name,
            args=args,
            key=options.idempotency_key,
            pickled=method.opaque,
            near=target.kind.name if target.kind.stateless else "",
            carried=CARRIED.get(),
            origin=origin,
            timeout_s=timeout_s,
            deadline=self._clock.boottime() + timeout_s,
        )

    def _incoming(self, delivery: Delivery) -> Incoming:
        return Incoming(self._carrier, self._streams, delivery, self._limits.stream_window)

    def take_item(self, link: Link, item: Item) -> None:
        """An item of a stream has arrived."""
        stream = self._streams.get((id(link), item.id))
        if stream is not None:
            stream.feed(item)

    async def _notify(self, delivery: Delivery) -> bytes:
        """Hand a one-way call to a connection. Nobody will know what becomes of it."""
        if delivery.key:
            raise errors.ArgumentError(
                f"idempotency_key: {delivery.grain}: {delivery.method} is one-way, and nothing of such"
                " calls is recorded; it was not sent. Call it without a key."
            )
        delivery.chain_ends()
        await self.pass_on(delivery)
        return _NIL

    async def pass_on(self, delivery: Delivery) -> None:
        """Send a one-way call to whoever owns its grain, as far as is known now.

        Raises:
            CallError: no silo could be reached; it did not run.
        """
        link = await self._carrier.lead(delivery)
        link.send(delivery.notice(delivery.deadline - self._clock.boottime()))

    def moved(self, grain: GrainId, moved: Moved) -> None:
        """A silo said where a one-way call has to go."""
        self._carrier.moved(grain, zlib.crc32(grain.encode()), moved)

    async def relay(self, call: Call) -> Reply | Failure:
        """Carry a call for a client that cannot reach its grain's owner.

        Args:
            call: as it came. Its deadline, key and chain go on with it.

        Returns:
            The owner's own answer; its id is not the call's.

        Raises:
            CallError: there is none; `did_run` says whether it ran.
        """
        delivery = Delivery.of(call, self._clock.boottime())
        answer = await self._carrier.carry(delivery, None)
        if type(answer) is Failure and answer.did_run is DidRun.NO:
            answer.did_run = delivery.ran
        return answer

    def leads_here(self, grain: GrainId) -> bool:
        """Whether calls to a grain stay inside this silo, as far as is known now."""
        return self._routes.leads_here(zlib.crc32(grain.encode()))

    # What silos push ------------------------------------------------------------------------------

    def received(self, connection: Connection, message: AnyMessage) -> None:
        """Take in what a silo sent unasked."""
        if isinstance(message, Item):
            self.take_item(connection, message)
        elif isinstance(message, Table):
            self.learn(message)
        elif isinstance(message, Goodbye):
            self._routes.lose(connection)

    def learn(self, table: Table) -> None:
        """Take in a partition table; break what waits on the dead."""
        if not self._routes.learn(table, self._links.open):
            return
        dead = frozenset(table.dead)
        for connection in list(self._links.alive):
            if connection.peer.silo in dead:
                self._links.drop(connection)

    def lost(self, connection: Connection) -> None:
        """A connection takes no more calls."""
        self._routes.lose(connection)

    def close(self) -> None:
        """Let calls that are being delivered end with their present attempt."""
        self._carrier.close()
