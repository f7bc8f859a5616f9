"""The shop's purchases as they stand in the file, and their sums. Knows nothing of actors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

SAMPLE: Final = Path(__file__).with_name("cdnow_sample.txt")


@dataclass(frozen=True, slots=True)
class Purchase:
    """One line of the file.

    Args:
        id: `line-17`: what tells it from every other purchase.
        customer: the customer's number in the full set.
        day: when.
        cds: how many.
        dollars: for how much.
    """

    id: str
    customer: str
    day: date
    cds: int
    dollars: Decimal

    @property
    def month(self) -> str:
        return f"{self.day:%Y-%m}"


class BadLine(ValueError):
    """A line that is not a purchase. The message has the file, the line and what was expected."""


def read(path: Path, limit: int | None = None) -> list[Purchase]:
    """Read a file of purchases.

    Args:
        path: columns are the customer's number, in the sample also the number within the sample,
            then date, number of CDs and dollars, parted by blanks.
        limit: stop after so many purchases.

    Raises:
        BadLine: some line is not like that, or there is none.
    """
    purchases: list[Purchase] = []
    with path.open(encoding="ascii", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if limit is not None and len(purchases) >= limit:
                break
            if line.strip():
                purchases.append(_purchase(path, number, line))
    if not purchases:
        raise BadLine(f"{path} has no purchases.")
    return purchases


def _purchase(path: Path, number: int, line: str) -> Purchase:
    words = line.split()
    if len(words) == 5:
        del words[1]
    try:
        customer, day, cds, dollars = words
        return Purchase(
            f"line-{number}", customer, date.fromisoformat(day), int(cds), Decimal(dollars)
        )
    except (ValueError, InvalidOperation) as exc:
        raise BadLine(
            f"{path}, line {number}: {line.strip()[:80]!r} is not a purchase. Expected:"
            " customer [number in sample] YYYYMMDD cds dollars"
        ) from exc


@dataclass(slots=True)
class Sums:
    """Purchases, CDs and dollars of one customer, day or month."""

    purchases: int = 0
    cds: int = 0
    dollars: Decimal = Decimal(0)

    def add(self, purchase: Purchase) -> None:
        """Count one purchase."""
        self.purchases += 1
        self.cds += purchase.cds
        self.dollars += purchase.dollars


@dataclass(slots=True)
class Books:
    """The sums of every customer, day and month, by key."""

    customers: dict[str, Sums] = field(default_factory=dict)
    days: dict[str, Sums] = field(default_factory=dict)
    months: dict[str, Sums] = field(default_factory=dict)


def sum_up(purchases: Iterable[Purchase]) -> Books:
    """Compute the books straight from the purchases, as the actors should have them."""
    books = Books()
    for purchase in purchases:
        books.customers.setdefault(purchase.customer, Sums()).add(purchase)
        books.days.setdefault(f"{purchase.day}", Sums()).add(purchase)
        books.months.setdefault(purchase.month, Sums()).add(purchase)
    return books
