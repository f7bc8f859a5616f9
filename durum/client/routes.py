"""Which connection leads to the owner of a partition, as far as is known here. No I/O of its own."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from durum.client.hosts import Hosts
from durum.ids import Address, SiloId
from durum.wire.messages import AnyMessage, Call, Cancel, Credit, Moved, Notice, Open, Table

_NOBODY: Final = 0xFFFF


class Link(Protocol):
    """What routing needs of a connection; the silo's own dispatcher offers it too."""

    closing: bool
    trusted: bool

    def next_id(self) -> int:
        """A number for a request, larger than all before."""
        ...

    def request(self, message: Call | Open) -> asyncio.Future[AnyMessage]:
        """Send a call; the future gets the answer, or LinkBroken."""
        ...

    def forget(self, id: int) -> None:  # noqa: A002 - the wire's own name
        """Its answer no longer matters."""
        ...

    def send(self, message: Cancel | Notice | Credit) -> None:
        """Send what needs no answer."""
        ...


class Routes:
    """The newest partition table, and the open connection behind each partition.

    Args:
        own: the address of the silo that this is part of, with the link that stays inside it.
    """

    def __init__(self, own: tuple[Address, Link] | None = None) -> None:
        self._own = own
        self._table = Table(version=0, silos=(), owners=b"", kinds=())
        self._owners: Sequence[Address | None] = (None,)
        self._redirects: dict[int, tuple[Address, int]] = {}
        self._changed = asyncio.Event()
        self.placed: Final = Hosts()
        """Where single grains are; they come before their partitions."""
        self.by_partition: list[Link | None] = [None]
        """The hot path's own table: a connection that takes calls now, or None: ask `owner`."""

    @property
    def version(self) -> int:
        """The newest view seen; 0 before the first."""
        return self._table.version

    @property
    def silos(self) -> Sequence[Address]:
        """Addresses of all active silos."""
        return self._table.silos

    @property
    def dead(self) -> Sequence[SiloId]:
        """Silos that have been declared dead."""
        return self._table.dead

    def hosts(self, kind: str) -> bool:
        """Whether any active silo hosts the kind."""
        return any(kind in kinds for kinds in self._table.kinds)

    def hosting(self, kind: str) -> Sequence[Address]:
        """Addresses of the active silos that host a kind."""
        table = self._table
        return [at for at, kinds in zip(table.silos, table.kinds, strict=False) if kind in kinds]

    def learn(self, table: Table, links: Mapping[Address, Link]) -> bool:
        """Take in a table. False where it is not newer than the one at hand."""
        if table.version <= self._table.version:
            return False
        self._table = table
        indexes = struct.unpack(f"<{len(table.owners) // 2}H", table.owners)
        self._owners = [None if i == _NOBODY else table.silos[i] for i in indexes] or [None]
        self._redirects = {p: r for p, r in self._redirects.items() if r[1] > table.version}
        known: dict[Address, Link] = dict(links)
        if self._own is not None:
            known[self._own[0]] = self._own[1]
        self.by_partition = [None if a is None else known.get(a) for a in self._owners]
        for partition in self._redirects:
            self.by_partition[partition] = None
        self._announce()
        return True

    def redirect(self, partition: int, moved: Moved) -> None:
        """A silo said that it is not the owner."""
        if moved.owner and moved.version >= self._table.version:
            self._redirects[partition] = (moved.owner, moved.version)
        else:
            self._redirects.pop(partition, None)
        self.by_partition[partition] = None

    def use(self, partition: int, link: Link) -> None:
        """Remember the connection that leads to the partition's owner."""
        if not link.closing:
            self.by_partition[partition] = link

    def lose(self, link: Link) -> None:
        """A connection takes no more calls."""
        self.by_partition = [None if held is link else held for held in self.by_partition]

    def owner(self, partition: int) -> Address | None:
        """Where to go for a partition, or None where nobody is known to own it."""
        redirect = self._redirects.get(partition)
        return redirect[0] if redirect is not None else self._owners[partition]

    def is_own(self, link: Link) -> bool:
        """Whether a link stays inside this silo."""
        return self._own is not None and self._own[1] is link

    def own_link(self, address: Address) -> Link | None:
        """The link that stays inside this silo, where the address is its own."""
        return self._own[1] if self._own is not None and self._own[0] == address else None

    def leads_here(self, grain: int) -> bool:
        """Whether the grain of that hash is this silo's own, by the newest table."""
        link = self.by_partition[grain % len(self.by_partition)]
        return self._own is not None and link is self._own[1]

    async def wait_change(self) -> None:
        """Return at the next new table."""
        await self._changed.wait()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Routes version={self.version} silos={len(self.silos)}>"
