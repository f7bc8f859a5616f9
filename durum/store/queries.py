"""What a store can be asked about its grains beside their turns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from durum.ids import GrainId


class Queries(Protocol):
    """Which grains there are. For people and tools: read beside the turns, so possibly a moment old."""

    def scan(
        self, partition: int, prefix: str, after: str, limit: int
    ) -> asyncio.Future[Sequence[GrainId]]:
        """Ids of grains that have been committed, and not erased since, by the order of their bytes.

        Args:
            partition: where to look; one that does not exist has none.
            prefix: what the ids begin with.
            after: only ids behind this one; "" for all.
            limit: at most so many.
        """
        ...

    def count(self, partition: int, prefix: str) -> asyncio.Future[int]:
        """How many ids `scan` would give in all."""
        ...
