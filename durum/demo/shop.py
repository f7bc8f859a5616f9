"""A shop's books as actors: every customer, every day and every month is one.

    durum silo durum/demo/shop.py        # or: durum dev examples/shop/shop.py

A purchase goes to its customer, who enters it into the ledgers of its day and its month.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import date
from decimal import Decimal

from durum import Actor, ReplyForgotten, options, read_only


class Customer(Actor):
    """Someone who buys. The key is the customer's number in the shop's own books."""

    purchases: int = 0
    cds: int = 0
    spent: Decimal = Decimal(0)
    last_purchase: date | None = None

    async def buy(self, purchase: str, day: date, cds: int, dollars: Decimal) -> Decimal:
        """Buy some CDs.

        Args:
            purchase: names this purchase for ever, so that it is entered once, however often this
                method has to run.
            day: when.
            cds: how many.
            dollars: for how much.

        Returns:
            What the customer has spent so far.
        """
        # Each ledger is an actor of its own and commits on its own. If this silo dies after the
        # first one did, our own changes are gone and the caller sends the purchase again; the
        # ledger would then count it twice. The key tells it that this is the same purchase: it
        # answers from memory and changes nothing. (The key must come from the purchase, never from
        # chance: a second run has to arrive at the same one.)
        for ledger in (self.actor(Day, f"{day}"), self.actor(Month, f"{day:%Y-%m}")):
            # A grain keeps every key for a day, but only the newest replies. That the entry was
            # made is all we need to know.
            with suppress(ReplyForgotten):
                await options(ledger, idempotency_key=purchase).enter(cds, dollars)

        # From here to the end nothing is awaited, and all of it becomes true together, with the
        # reply, or not at all.
        self.purchases += 1
        self.cds += cds
        self.spent += dollars
        if self.last_purchase is None or day > self.last_purchase:
            self.last_purchase = day
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
        """Count one purchase. Give it an idempotency key: an entry must not be made twice."""
        self.purchases += 1
        self.cds += cds
        self.dollars += dollars

    @read_only
    async def totals(self) -> tuple[int, int, Decimal]:
        """Purchases, CDs and dollars so far."""
        return self.purchases, self.cds, self.dollars


class Day(Ledger):
    """One day's ledger; the key is its date, `1997-03-08`."""


class Month(Ledger, replies_kept=50_000):
    """One month's ledger; the key is the month, `1997-03`.

    A grain remembers its keyed calls for a day, 10,000 of them unless its class says otherwise; the
    best month of the full set has 11,600 purchases, and the demo plays it in a minute.
    """
