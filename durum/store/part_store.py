"""What a store promises of the parts of a grain's record: bytes by name, read one by one or in order.

They change with a commit only; what reads them is fenced as a load is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from durum.ids import GrainId, Token
from durum.store.parts import Part


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
