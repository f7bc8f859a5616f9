"""A shop's books as actors: every customer, every day and every month is one.

    durum silo durum/demo/shop.py        # or: durum dev examples/shop/shop.py

A purchase goes to its customer, who tells the ledgers of its day and its month. A reminder closes each day.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

from durum import Actor, Tick, read_only

CLOSING = timedelta(seconds=1.5)
"""How long a day's ledger is quiet before it is closed. A real shop would take the hours after midnight."""


class Customer(Actor):
    """Someone who buys. The key is the customer's number in the shop's own books."""

    purchases: int = 0
    cds: int = 0
    spent: Decimal = Decimal(0)
    last_purchase: date | None = None

    async def buy(self, day: date, cds: int, dollars: Decimal) -> Decimal:
        """Buy some CDs. Give it an idempotency key: a purchase must not be made twice.

        Args:
            day: when.
            cds: how many.
            dollars: for how much.

        Returns:
            What the customer has spent so far.
        """
        self.purchases += 1
        self.cds += cds
        self.spent += dollars
        if self.last_purchase is None or day > self.last_purchase:
            self.last_purchase = day

        # Messages are part of this turn: they go out with its commit, or not at all, and each takes effect
        # once. (A call would commit at the ledger, whatever became of this turn afterwards.)
        for ledger in (self.actor(Day, f"{day}"), self.actor(Month, f"{day:%Y-%m}")):
            self.tell(ledger.enter, cds, dollars)
        return self.spent

    @read_only
    async def totals(self) -> tuple[int, int, Decimal]:
        """Purchases, CDs and dollars so far."""
        return self.purchases, self.cds, self.spent


class Ledger(Actor):
    """Sums of one stretch of time."""

    purchases: int = 0
    cds: int = 0
    dollars: Decimal = Decimal(0)

    async def enter(self, cds: int, dollars: Decimal) -> None:
        """Count one purchase."""
        self.purchases += 1
        self.cds += cds
        self.dollars += dollars

    @read_only
    async def totals(self) -> tuple[int, int, Decimal]:
        """Purchases, CDs and dollars so far."""
        return self.purchases, self.cds, self.dollars


class Day(Ledger):
    """One day's ledger; the key is its date, `1997-03-08`. It is closed when nothing more comes."""

    closed_with: int | None = None
    counted: int = 0

    async def enter(self, cds: int, dollars: Decimal) -> None:
        """Count one purchase; it opens the day, or opens it again."""
        await super().enter(cds, dollars)
        if self.purchases == 1 or self.closed_with is not None:
            self.closed_with = None
            self.remind("close", delay=CLOSING)

    async def on_reminder(self, name: str, tick: Tick) -> None:  # noqa: ARG002 - it has one only
        """Close the day, or look again later where there were purchases meanwhile."""
        if self.purchases == self.counted:
            self.closed_with = self.purchases
        else:
            self.counted = self.purchases
            self.remind("close", delay=CLOSING)

    @read_only
    async def is_closed(self) -> bool:
        """Whether the day is over."""
        return self.closed_with is not None


class Month(Ledger):
    """One month's ledger; the key is the month, `1997-03`."""
