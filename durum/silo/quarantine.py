"""Grains whose stored state cannot be read. Owns which, and until when each is left alone; their bytes stay
as they are in the store, for a person or a newer class to read.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

from durum import errors
from durum.ids import GrainId, Token
from durum.silo.services import Services
from durum.store.damage import Damaged

AGAIN_S: Final = 10.0
"""So long a grain's calls are refused before the store is asked again: meanwhile it may have been mended."""
_LIMIT: Final = 10_000


@contextlib.asynccontextmanager
async def narrowed(services: Services, partition: int, token: Token) -> AsyncIterator[None]:
    """Tell a grain's damaged record from its partition's, while one of its operations runs.

    Raises:
        StoreError: the grain's is, and the partition's is as it was.
        Superseded: the holding is not ours any more.
        DataLoss: the partition's is.
    """
    try:
        yield
    except Damaged as exc:
        await services.store.verify(partition, token)
        raise errors.StoreError(str(exc)) from exc


class Quarantine:
    """Those of one silo."""

    def __init__(self) -> None:
        self._until: dict[GrainId, tuple[float, str]] = {}

    def take(self, grain: GrainId, error: errors.StoreError, now: float) -> errors.Quarantined:
        """Put a grain away.

        Args:
            grain: which.
            error: why it cannot be read.
            now: boottime.

        Returns:
            What its callers are told.
        """
        if len(self._until) >= _LIMIT:
            del self._until[next(iter(self._until))]
        why = f"{grain} is quarantined: {error} The call did not run."
        self._until[grain] = (now + AGAIN_S, why)
        return errors.Quarantined(why)

    def refusal(self, grain: GrainId, now: float) -> errors.Quarantined | None:
        """Why the grain cannot be called now, or None."""
        if not self._until:
            return None
        until, why = self._until.get(grain, (now, ""))
        if now < until:
            return errors.Quarantined(why)
        self._until.pop(grain, None)
        return None

    def __len__(self) -> int:
        return len(self._until)

    def __repr__(self) -> str:
        return f"<Quarantine {list(self._until)[:10]}>"
