"""Which connection to take where the grain's owner need not be the one. Decides; dials only through Links."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from durum import errors
from durum.client.links import Links
from durum.client.routes import Link, Routes
from durum.ids import Address, Entropy
from durum.wire.connection import Connection


class Nearest:
    """Connections to any silo.

    Args:
        links: connections.
        routes: which silos there are, and what they host.
        entropy: for choosing among equals.
    """

    def __init__(self, links: Links, routes: Routes, entropy: Entropy) -> None:
        self._links = links
        self._routes = routes
        self._entropy = entropy

    def gateway(self, partition: int) -> Link | None:
        """A silo that brings calls on their way to a partition's owner: best the owner itself."""
        links = [link for link in self._links.open.values() if not link.closing]
        if not links:
            return None
        owner = self._routes.owner(partition)
        # The same one each time, so that one caller's calls of one grain keep their order.
        usual = links[partition % len(links)]
        return next((link for link in links if link.peer.address == owner), usual)

    async def host(self, kind: str, *, through: bool, left_s: float) -> Link | None:
        """A silo that hosts a kind: this one; else the least busy of those that are connected; else any.

        Args:
            kind: its name.
            through: do not dial.
            left_s: how long dialing may take.

        Returns:
            None where no silo is known now.

        Raises:
            NoSuchKind: no active silo hosts it.
            OSError, ClusterError: the one that was chosen cannot be reached.
        """
        hosting = self._routes.hosting(kind)
        own = next((link for a in hosting if (link := self._routes.own_link(a)) is not None), None)
        if own is not None:
            return own
        if not hosting and self._routes.silos:
            raise errors.NoSuchKind(
                f"no active silo hosts the kind {kind!r}; the call did not run. Start a silo with that"
                " kind, or correct the name."
            )
        open_links = [link for link in self._links.open.values() if not link.closing]
        near = [link for link in open_links if link.peer.address in hosting]
        if near:
            return self._least_busy(near)
        if through:
            return self._least_busy(open_links) if open_links else None
        if not hosting:
            return None
        return await self._dial(hosting, left_s)

    def _least_busy(self, links: Sequence[Connection]) -> Connection:
        least = min(link.in_flight for link in links)
        equals = [link for link in links if link.in_flight == least]
        return equals[int(self._entropy.fraction() * len(equals))]

    async def _dial(self, addresses: Sequence[Address], left_s: float) -> Connection:
        address = addresses[int(self._entropy.fraction() * len(addresses))]
        async with asyncio.timeout(left_s):
            return await self._links.get(address)

    def __repr__(self) -> str:
        return f"<Nearest {self._routes!r}>"
