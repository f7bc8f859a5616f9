"""What a store promises of the parts of a grain's record: bytes by name, read one by one or in order.

Large collections are made of them. They change with a commit only; what reads them is fenced as a load is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from durum.ids import GrainId, Token

Part = tuple[bytes, bytes]
"""Name and content."""

PAGE_BYTES: Final = 1024 * 1024
"""A page ends with the part that reaches this many bytes of content."""
PURGED_PER_COMMIT: Final = 1000
"""How many parts one commit purges at most, so that no turn pays for a whole collection."""


class PartStore(Protocol):
    """Parts of grains' records. Plain functions that return futures, as those of TurnStore."""

    def load_parts(
        self,
        partition: int,
        token: Token,
        grain: GrainId,
        names: Sequence[bytes],
        *,
        contents: bool = True,
    ) -> asyncio.Future[Mapping[bytes, bytes]]:
        """Read parts by name, all at one instant.

        Args:
            partition: the grain's partition.
            token: the holding.
            grain: which grain.
            names: a few hundred at most.
            contents: False only tells which are there; each content is then empty.

        Returns:
            Those that are there.

        Raises:
            Superseded, DataLoss: as `load` does.
        """
        ...

    def scan_parts(
        self, partition: int, token: Token, grain: GrainId, prefix: bytes, after: bytes, limit: int
    ) -> asyncio.Future[Sequence[Part]]:
        """Read a page of parts, by the order of their names' bytes, at one instant.

        It is the last one if it has fewer than `limit` parts and less than PAGE_BYTES of content.

        Args:
            partition: the grain's partition.
            token: the holding.
            grain: which grain.
            prefix: what their names begin with.
            after: only names behind this one; b"" for all.
            limit: at most so many.

        Raises:
            Superseded, DataLoss: as `load` does.
        """
        ...


def above(prefix: bytes) -> bytes | None:
    """The least bytes above all that begin with a prefix, or None where there are none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def is_last(page: Sequence[Part], limit: int) -> bool:
    """Whether nothing comes behind a page that was asked for with this limit."""
    return len(page) < limit and sum(len(content) for _, content in page) < PAGE_BYTES
