"""Which partition a grain is in, and which silo should own which partition by a view. Pure: it knows
who is wanted, not who holds; and no kind, store or time.
"""

from __future__ import annotations

import array
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from durum.ids import Address, GrainId, SiloId, address_of, generation_of
from durum.placement.ring import RING_VERSION, Ring
from durum.views import SiloRow, View
from durum.wire.messages import Table

NOBODY: Final = 0xFFFF
"""In Table.owners: no silo may own the partition."""


def partition_of(grain: GrainId, partitions: int) -> int:
    """The partition of a grain. For ever: P never changes in a service's life, nor does this."""
    return zlib.crc32(grain.encode()) % partitions


@dataclass(frozen=True)
class Assignment:
    """Who should own which partition, by one view.

    Args:
        version: the view's.
        silos: the active silos, in the order of their ids, those without partitions too.
        kinds: for each of them the kinds it hosts, sorted.
        owners: for each partition its silo, or None where no silo may own any.
    """

    version: int
    silos: tuple[SiloId, ...]
    kinds: tuple[tuple[str, ...], ...]
    owners: tuple[SiloId | None, ...]

    def owner(self, partition: int) -> SiloId | None:
        """The silo that should own a partition."""
        return self.owners[partition]

    @cached_property
    def by_silo(self) -> Mapping[SiloId, tuple[int, ...]]:
        """The partitions of each active silo, ascending."""
        found: dict[SiloId, list[int]] = {silo: [] for silo in self.silos}
        for partition, silo in enumerate(self.owners):
            if silo is not None:
                found[silo].append(partition)
        return {silo: tuple(partitions) for silo, partitions in found.items()}

    def partitions_of(self, silo: SiloId) -> tuple[int, ...]:
        """What a silo should own, ascending; nothing for a silo that is not active."""
        return self.by_silo.get(silo, ())

    def hosts(self, kind: str) -> bool:
        """Whether a silo that owns partitions hosts the kind. If none does: NoSuchKind."""
        return any(
            kind in kinds and self.partitions_of(silo)
            for silo, kinds in zip(self.silos, self.kinds, strict=True)
        )

    def table(self) -> Table:
        """The same for clients."""
        number = {silo: index for index, silo in enumerate(self.silos)}
        owners = array.array(
            "H", (NOBODY if silo is None else number[silo] for silo in self.owners)
        )
        return Table(
            version=self.version,
            silos=tuple(address_of(silo) for silo in self.silos),
            owners=_little_endian(owners).tobytes(),
            kinds=self.kinds,
        )


def addresses(table: Table) -> list[Address | None]:
    """What a table says: for each partition the address of the silo that should own it, or None."""
    owners = array.array("H", table.owners)
    return [
        table.silos[index] if index < len(table.silos) else None for index in _little_endian(owners)
    ]


def assignment(view: View, partitions: int, ring: int = RING_VERSION) -> Assignment:
    """Decide who should own which partition.

    Active silos share them by weight (see Ring). Some get none, whatever their weight:

    - those that host no kind at all, and so can serve no grain themselves;
    - the older lives of an address that has a newer one;
    - by ring 1 those whose kinds or class versions differ from the reference's, which is the oldest
      active silo that has a weight. By ring 2 an owner that does not host a grain's kind finds it a
      silo that does.

    A silo's place on the ring is its address's, so that one which restarts gets back what it had.

    Args:
        view: the rows to decide by. Equal views give equal answers in every process.
        partitions: P.
        ring: by which rules; the service's genesis says so.
    """
    newest: dict[Address, SiloRow] = {}
    for row in sorted(view.active, key=_age):
        newest[row.address] = row
    candidates = [row for row in newest.values() if row.weight > 0]
    if ring == 1:
        kinds = min(candidates, key=_age).kinds if candidates else {}
        candidates = [row for row in candidates if row.kinds == kinds]
    else:
        candidates = [row for row in candidates if row.kinds]
    owners = {row.address: row for row in candidates}
    placed = Ring({address: row.weight for address, row in owners.items()}).place(partitions)
    return Assignment(
        version=view.version,
        silos=tuple(row.silo for row in view.active),
        kinds=tuple(tuple(sorted(row.kinds)) for row in view.active),
        owners=tuple(None if node is None else owners[Address(node)].silo for node in placed),
    )


def _age(row: SiloRow) -> tuple[int, SiloId]:
    """Orders rows from the oldest life to the newest; the id settles a tie."""
    return generation_of(row.silo), row.silo


def _little_endian(owners: array.array[int]) -> array.array[int]:
    if sys.byteorder == "big":  # pragma: no cover - none of the machines that test this
        owners.byteswap()
    return owners
