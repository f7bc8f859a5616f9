"""Carries one call or stream until it has an answer, over moves, lost silos and pauses. Knows routes and
deadlines; nothing of what a call means.

A call is sent again only where it surely did not run, or where its idempotency key makes a second run
harmless; a Delivery judges that.
"""

from __future__ import annotations

import asyncio
from typing import Final

from durum import errors
from durum.client.deadlines import Deadlines, expire, withdraw
from durum.client.delivery import Delivery
from durum.client.links import Links
from durum.client.nearest import Nearest
from durum.client.routes import Link, Routes
from durum.clock import Clock
from durum.config import Limits
from durum.ids import Address, Entropy, GrainId
from durum.wire.connection import LinkBroken
from durum.wire.messages import AnyMessage, Call, Failure, Moved, Reply

_INWARD_GRACE_S: Final = 0.5
_FIRST_PAUSE_S: Final = 0.005
_LAST_PAUSE_S: Final = 0.25


class Carrier:
    """The way of calls that the shortest way did not bring to an end.

    Args:
        links: connections.
        routes: the partition table.
        clock: for deadlines.
        entropy: for jitter.
        limits: see Limits.
        deadlines: of all requests.
        through: send through any silo that is connected, instead of dialing the owner.
    """

    def __init__(
        self,
        *,
        links: Links,
        routes: Routes,
        clock: Clock,
        entropy: Entropy,
        limits: Limits,
        deadlines: Deadlines,
        through: bool,
    ) -> None:
        self._links = links
        self._routes = routes
        self._clock = clock
        self._entropy = entropy
        self._limits = limits
        self._through = through
        self._nearest = Nearest(links, routes, entropy)
        self._closed = False
        self.deadlines = deadlines

    def close(self) -> None:
        """Let calls that are being delivered end with their present attempt."""
        self._closed = True

    def now(self) -> float:
        """Boottime."""
        return self._clock.boottime()

    async def lead(self, delivery: Delivery) -> Link:
        """The connection to send by.

        Raises:
            CallError: there is none by the deadline.
        """
        link: Link | None = None
        while link is None:
            left_s = delivery.deadline - self._clock.boottime()
            if left_s <= 0 or self._closed:
                raise delivery.ending(closed=self._closed)
            link = await self._route(delivery, left_s)
        if delivery.pickled and not link.trusted:
            raise delivery.exposed()
        return link

    async def judge(self, delivery: Delivery, outcome: AnyMessage | Exception) -> Failure | None:
        """Note what an attempt that gave no value has shown, and wait a little where it may be made again.

        Returns:
            The failure, where that is the end.
        """
        if isinstance(outcome, Moved):
            self.moved(delivery.grain, delivery.hash, outcome)
        elif not isinstance(outcome, Failure):
            self._routes.placed.forget(delivery.grain)
        end = delivery.judge(outcome)
        if end is None:
            if isinstance(outcome, Failure):
                self._routes.placed.forget(delivery.grain)
            await self._pause(delivery)
        return end

    def moved(self, grain: GrainId, hash: int, moved: Moved) -> None:  # noqa: A002 - Target's own name
        """Note what a silo said that does not serve a grain."""
        if moved.hosted:
            self._routes.placed.learn(grain, moved.owner)
        else:
            self._routes.placed.forget(grain)
            self._routes.redirect(hash % len(self._routes.by_partition), moved)

    async def carry(
        self, delivery: Delivery, outcome: AnyMessage | Exception | None
    ) -> Reply | Failure:
        """Send a call until it has an answer, or may not be sent again.

        Args:
            delivery: the call.
            outcome: how a first attempt has ended, if there was one.

        Raises:
            CallError: there is none; `did_run` says whether it ran.
        """
        while True:
            if outcome is not None:
                if type(outcome) is Reply:
                    return outcome
                end = await self.judge(delivery, outcome)
                if end is not None:
                    return end
            link = await self.lead(delivery)
            left_s = delivery.deadline - self._clock.boottime()
            call = delivery.call(link.next_id(), left_s)
            outcome = await self._attempt(link, call, left_s)

    async def _attempt(self, link: Link, call: Call, left_s: float) -> AnyMessage | Exception:
        try:
            future = link.request(call)
        except LinkBroken as exc:
            return exc
        # Within the process the other end tells by itself that the time is up, and knows more of the call.
        grace_s = _INWARD_GRACE_S if self._routes.is_own(link) else 0.0
        timer = asyncio.get_running_loop().call_later(max(0.0, left_s) + grace_s, expire, future)
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
        host = self._routes.placed.find(delivery.grain)
        if host is not None and not self._through:
            return await self._host_link(delivery, host, left_s)
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
        link = self._routes.own_link(address) or await self._dialed(delivery, address, left_s)
        if link is None:
            self._routes.redirect(partition, Moved(0, address, -1))
            await self._pause(delivery)
        elif self._partition(delivery) == partition and self._routes.owner(partition) == address:
            self._routes.use(partition, link)
        return link

    async def _host_link(self, delivery: Delivery, host: Address, left_s: float) -> Link | None:
        """The connection to the silo of a grain that has a place of its own, dialed if need be."""
        link = self._routes.own_link(host) or await self._dialed(delivery, host, left_s)
        if link is None:
            self._routes.placed.forget(delivery.grain)
            await self._pause(delivery)
        return link

    async def _dialed(self, delivery: Delivery, address: Address, left_s: float) -> Link | None:
        try:
            async with asyncio.timeout(left_s):
                return await self._links.get(address)
        except (OSError, errors.ClusterError) as exc:
            delivery.last = f"{address} cannot be reached ({str(exc) or type(exc).__name__})"
            delivery.attempts += 1
            return None

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

    def __repr__(self) -> str:
        return f"<Carrier {self._routes!r}>"
