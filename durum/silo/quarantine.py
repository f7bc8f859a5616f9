"""Grains whose stored state cannot be read. Owns which, and until when each is left alone; their bytes stay
as they are in the store, for a person or a newer class to read.
"""

from __future__ import annotations

from typing import Final

from durum import errors
from durum.ids import GrainId

AGAIN_S: Final = 10.0
"""So long a grain's calls are refused before the store is asked again: meanwhile it may have been mended."""
_LIMIT: Final = 10_000


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
