"""Who should own what by the newest view, worked out once for all who ask. Decides nothing: the ring does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from durum.ids import SiloId
from durum.placement.partitions import Assignment, assignment
from durum.store.protocol import Genesis
from durum.views import Status, View
from durum.wire.messages import Table


class Assigned:
    """One service's partitions, by view.

    Args:
        genesis: says how many there are, and by which ring they are placed.
    """

    def __init__(self, genesis: Genesis) -> None:
        self._genesis = genesis
        self._newest: Assignment | None = None

    def owners(self, view: View) -> Sequence[SiloId | None]:
        """The silo that should own each partition."""
        return self._by(view).owners

    def shares(self, view: View) -> Mapping[SiloId | None, int]:
        """How many partitions each silo should own."""
        return Counter(self.owners(view))

    def table(self, view: View) -> Table:
        """What clients are told."""
        dead = tuple(row.silo for row in view.rows if row.status is Status.DEAD)
        return msgspec.structs.replace(self._by(view).table(), dead=dead)

    def _by(self, view: View) -> Assignment:
        if self._newest is None or self._newest.version != view.version:
            genesis = self._genesis
            self._newest = assignment(view, genesis.partitions, genesis.ring)
        return self._newest

    def __repr__(self) -> str:
        return f"<Assigned {'nothing yet' if self._newest is None else self._newest.version}>"
