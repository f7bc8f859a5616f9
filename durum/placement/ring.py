"""The consistent hash ring. Owns which node a slot falls to, within each node's bound; knows no views.

Every silo and client computes this by itself, so it depends on nothing but its arguments: no clock, no
randomness, no order of arrival, no hash seed.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Mapping
from functools import cache
from itertools import chain
from typing import Final

from uhashring import HashRing

RING_VERSION: Final = 2
"""Changes with anything that would place one slot elsewhere. Genesis records it, so that two releases
which place differently never serve one service together."""

RINGS: Final = frozenset({1, RING_VERSION})
"""Those by which this release can place. A service keeps the one that it was created with."""

POINTS_PER_WEIGHT: Final = 160
"""Points on the ring of a node with weight 1. More of them even out the shares before the bound has to."""

WEIGHT_LIMIT: Final = 16.0
"""Heavier nodes count as this heavy: each unit of weight costs points."""

_LOAD_NUMERATOR: Final = 11
_LOAD_DENOMINATOR: Final = 10
_WEIGHT_GRAIN: Final = 1000


class Ring:
    """Nodes on a circle, each with points in proportion to its weight.

    Args:
        weights: node name to weight. A weight that is not a number above 0 keeps its node off the ring.
    """

    __slots__ = ("_nodes", "_positions", "_units")

    def __init__(self, weights: Mapping[str, float]) -> None:
        units = {node: _units(weights[node]) for node in sorted(weights)}
        self._units: Final[dict[str, int]] = {node: unit for node, unit in units.items() if unit}
        # md5, the library's default, fails on hosts that allow only FIPS algorithms.
        ring = HashRing(
            {node: {"vnodes": _points(unit)} for node, unit in self._units.items()},
            hash_fn=_position,
        )
        points: list[tuple[int, str]] = ring.get_points()
        self._positions: Final = [position for position, _ in points]
        self._nodes: Final = [node for _, node in points]

    def place(self, slots: int) -> list[str | None]:
        """Give each slot a node, none more than its bound.

        Every slot goes to the node its position falls to. Where those are more than the node's bound,
        the ones with the highest numbers walk on to the next node that has room. Slots at home are
        settled first: so a change of nodes moves few besides those that it must.

        Args:
            slots: how many; they are numbered from 0.

        Returns:
            The node of each slot; None for all where the ring is empty.
        """
        placed: list[str | None] = [None] * slots
        if not self._units:
            return placed
        room = {node: self.bound(node, slots) for node in self._units}
        homeless: list[tuple[int, int]] = []
        for slot, position in enumerate(_slot_positions(slots)):
            at = bisect_right(self._positions, position) % len(self._positions)
            home = self._nodes[at]
            if room[home]:
                room[home] -= 1
                placed[slot] = home
            else:
                homeless.append((slot, at))
        for slot, at in homeless:
            # The bounds add up to more than there are slots, so the walk always ends at a node.
            around = chain(range(at, len(self._nodes)), range(at))
            node = next(self._nodes[point] for point in around if room[self._nodes[point]])
            room[node] -= 1
            placed[slot] = node
        return placed

    def bound(self, node: str, slots: int) -> int:
        """The most slots a node may get: a tenth more than its share, rounded up.

        In whole numbers, since a rounding error would let two silos disagree about one slot.
        """
        share = _LOAD_NUMERATOR * slots * self._units[node]
        return -(-share // (_LOAD_DENOMINATOR * sum(self._units.values())))


def _units(weight: float) -> int:
    """A weight in thousandths; 0 for what is no weight."""
    if not math.isfinite(weight) or weight <= 0:
        return 0
    return max(1, round(min(weight, WEIGHT_LIMIT) * _WEIGHT_GRAIN))


def _points(units: int) -> int:
    return max(1, units * POINTS_PER_WEIGHT // _WEIGHT_GRAIN)


def _position(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


@cache
def _slot_positions(slots: int) -> tuple[int, ...]:
    return tuple(_position(f"slot {slot}") for slot in range(slots))
