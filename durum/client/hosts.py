"""Where grains are that have a place of their own, as far as is known here. Asks nobody."""

from __future__ import annotations

from typing import Final

from durum.ids import Address, GrainId

LIMIT: Final = 16_384


class Hosts:
    """The silos of single grains, as their partitions' owners have named them.

    A hint, as all routes: who is asked in vain says so, and the owner is asked again. The oldest are
    forgotten where there are too many.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[GrainId, Address] = {}

    def find(self, grain: GrainId) -> Address | None:
        """Where the grain was last, or None: ask the owner of its partition."""
        return self._known.get(grain)

    def learn(self, grain: GrainId, address: Address) -> None:
        """The grain is there."""
        self._known.pop(grain, None)
        if len(self._known) >= LIMIT:
            del self._known[next(iter(self._known))]
        self._known[grain] = address

    def forget(self, grain: GrainId) -> None:
        """It was not there, or did not answer."""
        self._known.pop(grain, None)

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"<Hosts of {len(self)} grains>"
