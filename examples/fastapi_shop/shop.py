"""A shop's carts and stock as actors. They know nothing of HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from durum import Actor, options, read_only

PRICES = {"apple": Decimal("0.50"), "pear": Decimal("0.70")}


class SoldOut(Exception):
    """There is not enough left of an article."""


class Paid(Exception):
    """The cart was checked out already."""


class Stock(Actor):
    """How much there is of one article; the key is its name."""

    left: int = 0

    async def refill(self, pieces: int) -> int:
        """Put pieces on the shelf. Returns how many there are."""
        if pieces <= 0:
            raise ValueError("pieces must be positive")
        self.left += pieces
        return self.left

    async def take(self, pieces: int) -> None:
        """Take pieces off the shelf, or none where there are too few."""
        if pieces > self.left:
            raise SoldOut(f"{self.left} {self.key} left, {pieces} wanted")
        self.left -= pieces

    @read_only
    async def count(self) -> int:
        return self.left


@dataclass(frozen=True)
class Contents:
    """What is in a cart, and whether it was paid."""

    pieces: dict[str, int]
    total: Decimal
    paid: bool


class Cart(Actor):
    """One customer's cart; the key is the customer."""

    pieces: dict[str, int] = {}
    total: Decimal = Decimal(0)
    paid: bool = False
    number: int = 0

    async def add(self, article: str, pieces: int) -> Contents:
        """Take pieces from the shelf into the cart."""
        if self.paid:
            raise Paid(f"the cart of {self.key} was checked out")
        if article not in PRICES:
            raise ValueError(f"no such article: {article}")
        # Derived from what this cart has done so far: if this turn has to run again, it is the same
        # taking, and the shelf is emptied once.
        taking = f"{self.key} {self.number}"
        await options(self.actor(Stock, article), idempotency_key=taking).take(pieces)
        self.number += 1
        self.pieces[article] = self.pieces.get(article, 0) + pieces
        self.total += PRICES[article] * pieces
        return self._contents()

    async def check_out(self) -> Contents:
        """Pay. Doing it twice changes nothing."""
        self.paid = True
        return self._contents()

    @read_only
    async def show(self) -> Contents:
        return self._contents()

    def _contents(self) -> Contents:
        return Contents(dict(self.pieces), self.total, self.paid)
