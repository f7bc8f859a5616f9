"""What a store promises of messages, wake-ups and dead letters: they come with a commit, and are read and put
away here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from durum.ids import GrainId, Token
from durum.store.effects import Posted, WakeUp
from durum.store.parts import Part


class EffectStore(Protocol):
    """Effects by partition. Plain functions that return futures, as those of TurnStore.

    What is fenced here is fenced by the owner's token; a hosted one is never good for a partition.
    """

    def posted(
        self, partition: int, token: Token, after: int, limit: int
    ) -> asyncio.Future[Sequence[Posted]]:
        """Read a page of the outbox, by numbers.

        It is the last one if it has fewer than `limit` messages and less than PAGE_BYTES of rows; see
        effects.is_last.

        Args:
            partition: which.
            token: the holding.
            after: only messages behind this number; 0 for all.
            limit: at most so many.

        Raises:
            Superseded: the partition has another token.
            DataLoss: the owner record is missing.
        """
        ...

    def acknowledge(
        self, partition: int, token: Token, numbers: Sequence[int]
    ) -> asyncio.Future[None]:
        """Take messages out of the outbox; those that are not there are none's loss. Sent again, it
        changes nothing.

        Args:
            partition: which.
            token: the holding.
            numbers: of the messages; a few hundred at most.

        Raises:
            Superseded, DataLoss: as `posted` does.
        """
        ...

    def due(
        self,
        partition: int,
        token: Token,
        until_ms: int,
        limit: int,
        after: tuple[int, GrainId, bytes] | None = None,
    ) -> asyncio.Future[Sequence[WakeUp]]:
        """Read a page of wake-ups, by due time, then grain, then name (both by their bytes).

        Args:
            partition: which.
            token: the holding.
            until_ms: those that are due at this time or before.
            limit: at most so many; fewer only where there are no more.
            after: only those behind this one, in that order, which need not be there any more.

        Raises:
            Superseded, DataLoss: as `posted` does.
        """
        ...

    def letters(self, partition: int, after: bytes, limit: int) -> asyncio.Future[Sequence[Part]]:
        """Read a page of dead letters: names and contents, by the order of their names' bytes.

        For people, so not fenced. It ends as pages of parts do; see PartStore.scan_parts.

        Args:
            partition: where to look; one that does not exist has none.
            after: only names behind this one; b"" for all.
            limit: at most so many.
        """
        ...

    def count_letters(self, partition: int) -> asyncio.Future[int]:
        """How many dead letters there are. Not fenced."""
        ...
