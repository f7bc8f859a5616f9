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
from durum.client.deadlines import Deadlines, expire, withdraw
from durum.client.delivery import Delivery, Origin
from durum.client.links import Links
from durum.client.nearest import Nearest
from durum.client.routes import Link, Routes
from durum.clock import Clock
from durum.config import Limits
from durum.errors import DidRun
from durum.grains import failure
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
    Moved,
    Reply,
    Table,
)

_log = Log("durum.router")
_SWEEP_S: Final = 0.1
_IDLE_FRACTION: Final = 0.03
"""Of the usual deadline: so late may a call be that was sent while nothing else was under way."""
_NIL: Final = b"\xc0"
_FIRST_PAUSE_S: Final = 0.005
_LAST_PAUSE_S: Final = 0.25


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
        self._nearest = Nearest(links, routes, entropy)
        self.deadlines = Deadlines(links, clock, limits.call_timeout_s)
        self._closed = False

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
            link = links[target.hash % len(links)]
            if link is not None and not link.closing:
                call = Call(link.next_id(), target.grain, method.name, args, self._timeout_ms)
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
        now = self._clock.boottime()
        timeout_s = self._limits.call_timeout_s if options.timeout_s is None else options.timeout_s
        if origin is not None:
            timeout_s = max(0.0, min(timeout_s, origin.deadline - now))
        delivery = Delivery(
            grain=target.grain,
            hash=target.hash,
            method=method.name,
            args=args,
            key=options.idempotency_key,
            pickled=method.opaque,
            near=target.kind.name if target.kind.stateless else "",
            origin=origin,
            timeout_s=timeout_s,
            deadline=now + timeout_s,
        )
        if method.one_way:
            return await self._notify(delivery)
        answer = await self._carry(delivery, first)
        if isinstance(answer, Reply):
            return answer.result
        end = failure.rebuild(answer, target.kind)
        if isinstance(end, errors.CallError) and end.did_run is DidRun.NO:
            end.did_run = delivery.ran  # an earlier attempt of a keyed call may have run
        raise end

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
        link: Link | None = None
        while link is None:
            left_s = delivery.deadline - self._clock.boottime()
            if left_s <= 0 or self._closed:
                raise delivery.ending(closed=self._closed)
            link = await self._route(delivery, left_s)
        if delivery.pickled and not link.trusted:
            raise delivery.exposed()
        link.send(delivery.notice(delivery.deadline - self._clock.boottime()))

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
        answer = await self._carry(delivery, None)
        if type(answer) is Failure and answer.did_run is DidRun.NO:
            answer.did_run = delivery.ran
        return answer

    def leads_here(self, grain: GrainId) -> bool:
        """Whether calls to a grain stay inside this silo, as far as is known now."""
        return self._routes.leads_here(zlib.crc32(grain.encode()))

    async def _carry(
        self, delivery: Delivery, outcome: AnyMessage | Exception | None
    ) -> Reply | Failure:
        """Send a call until it has an answer, or may not be sent again."""
        while True:
            if outcome is not None:
                if type(outcome) is Reply:
                    return outcome
                if isinstance(outcome, Moved):
                    self._routes.redirect(self._partition(delivery), outcome)
                end = delivery.judge(outcome)
                if end is not None:
                    return end
                await self._pause(delivery)
            left_s = delivery.deadline - self._clock.boottime()
            if left_s <= 0 or self._closed:
                raise delivery.ending(closed=self._closed)
            link = await self._route(delivery, left_s)
            if link is None:
                outcome = None
                continue
            if delivery.pickled and not link.trusted:
                raise delivery.exposed()
            left_s = delivery.deadline - self._clock.boottime()
            call = delivery.call(link.next_id(), left_s)
            outcome = await self._attempt(link, call, left_s)

    async def _attempt(self, link: Link, call: Call, left_s: float) -> AnyMessage | Exception:
        try:
            future = link.request(call)
        except LinkBroken as exc:
            return exc
        timer = asyncio.get_running_loop().call_later(max(0.0, left_s), expire, future)
        mark = (id(link), call.id)
        self.deadlines.timed.add(mark)
        try:
            return await future
        except asyncio.CancelledError:
            withdraw(link, call.id)
            raise
        except TimeoutError as exc:
            withdraw(link, call.id)
            return exc
        except LinkBroken as exc:
            return exc
        finally:
            timer.cancel()
            self.deadlines.timed.discard(mark)

    async def _route(self, delivery: Delivery, left_s: float) -> Link | None:
        """The connection to the grain's owner, or None: look again."""
        if delivery.near:
            return await self._near_link(delivery, left_s)
        partition = self._partition(delivery)
        link = self._routes.by_partition[partition]
        if link is not None and not link.closing:
            return link
        if self._through:
            return await self._any_link(delivery, partition)
        return await self._owners_link(delivery, partition, left_s)

    async def _owners_link(self, delivery: Delivery, partition: int, left_s: float) -> Link | None:
        """The connection to a partition's owner, dialed if need be."""
        address = self._routes.owner(partition)
        if address is None:
            delivery.last = (
                "no active silo is known"
                if not self._routes.silos
                else "no silo owns the grain now"
            )
            await self._wait_table(left_s)
            return None
        own = self._routes.own_link(address)
        if own is not None:
            self._routes.use(partition, own)
            return own
        try:
            async with asyncio.timeout(left_s):
                connection = await self._links.get(address)
        except (OSError, errors.ClusterError) as exc:
            self._routes.redirect(partition, Moved(0, address, -1))
            why = f"{address} cannot be reached ({str(exc) or type(exc).__name__})"
            await self._no_link(delivery, why)
            return None
        if self._partition(delivery) == partition and self._routes.owner(partition) == address:
            self._routes.use(partition, connection)
        return connection

    async def _any_link(self, delivery: Delivery, partition: int) -> Link | None:
        """A connection to any silo, which brings the call on its way."""
        link = self._nearest.gateway(partition)
        if link is None:
            await self._no_link(delivery, "no silo can be reached")
        else:
            self._routes.use(partition, link)
        return link

    async def _near_link(self, delivery: Delivery, left_s: float) -> Link | None:
        """A connection to any silo that hosts the kind."""
        try:
            link = await self._nearest.host(delivery.near, through=self._through, left_s=left_s)
        except (OSError, errors.ClusterError) as exc:
            await self._no_link(delivery, str(exc) or type(exc).__name__)
            return None
        if link is None:
            await self._no_link(delivery, "no silo that hosts the kind can be reached")
        return link

    async def _no_link(self, delivery: Delivery, why: str) -> None:
        delivery.last = why
        delivery.attempts += 1
        await self._pause(delivery)

    def _partition(self, delivery: Delivery) -> int:
        return delivery.hash % len(self._routes.by_partition)

    async def _wait_table(self, left_s: float) -> None:
        try:
            async with asyncio.timeout(min(left_s, _LAST_PAUSE_S)):
                await self._routes.wait_change()
        except TimeoutError:
            pass

    async def _pause(self, delivery: Delivery) -> None:
        """Wait a little longer each time, but go at once where the call was told where to go."""
        attempts = delivery.attempts + max(0, delivery.hops - self._limits.forward_hops)
        if attempts:
            longest = min(_LAST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempts, 10))
            await self._clock.sleep(longest * (0.5 + self._entropy.fraction() / 2))

    # What silos push ------------------------------------------------------------------------------

    def received(self, connection: Connection, message: AnyMessage) -> None:
        """Take in what a silo sent unasked."""
        if isinstance(message, Table):
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
        self._closed = True
