"""How many operations travel together. Owns the counts; knows no store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self

BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Upper bounds of the sizes that are counted apart; one more bucket takes what is above them all."""


class Batches:
    """A histogram of sizes.

    Attributes:
        sizes: how many batches had a size up to each bound, and above the one before.
        operations: in all of them.
    """

    __slots__ = ("operations", "sizes")

    def __init__(self) -> None:
        self.sizes = [0] * (len(BOUNDS) + 1)
        self.operations = 0

    def add(self, size: int) -> None:
        """Count one batch."""
        self.sizes[min((size - 1).bit_length(), len(BOUNDS))] += 1
        self.operations += size

    @classmethod
    def sum(cls, several: Iterable[Self]) -> Self:
        """All of several ways to a store together."""
        total = cls()
        for one in several:
            total.operations += one.operations
            total.sizes = [a + b for a, b in zip(total.sizes, one.sizes, strict=True)]
        return total

    def __repr__(self) -> str:
        return f"<Batches {sum(self.sizes)} of {self.operations} operations>"
