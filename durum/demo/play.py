"""Playing the shop's purchases through a client. Owns pace, and the comparison; starts nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from durum import Cluster, ReplyForgotten, options
from durum.demo.purchases import Books, Purchase, Sums
from durum.demo.shop import Customer, Day, Month

T = TypeVar("T")

PATIENCE_S: Final = 60.0
"""How long a purchase is tried before the shop gives up on it."""

CALLS_PER_PURCHASE: Final = 3
"""The customer, the day's ledger, the month's."""


async def play(
    cluster: Cluster,
    purchases: Iterable[Purchase],
    *,
    in_flight: int,
    bought: Callable[[], None],
) -> None:
    """Buy all of it, many at a time.

    Args:
        cluster: where.
        purchases: what.
        in_flight: how many are under way at once.
        bought: called after each purchase.
    """

    async def buy(purchase: Purchase) -> None:
        # With a key, a call may be sent as often as it takes: it has its effect once. So Durum
        # repeats it by itself when the silo is lost while the call is under way. Without a key it
        # would raise SiloLost, since nobody can tell whether it ran.
        customer = options(
            cluster.actor(Customer, purchase.customer),
            idempotency_key=purchase.id,
            timeout=PATIENCE_S,
        )
        with suppress(ReplyForgotten):
            await customer.buy(purchase.id, purchase.day, purchase.cds, purchase.dollars)
        bought()

    await for_each(purchases, buy, in_flight)


async def for_each(items: Iterable[T], act: Callable[[T], Awaitable[None]], in_flight: int) -> None:
    """Do something with each item, in their order, so many at a time."""

    async def work(waiting: Iterator[T]) -> None:
        # All workers draw from one iterator: each takes the next item when it is done with one.
        for item in waiting:
            await act(item)

    waiting = iter(items)
    async with asyncio.TaskGroup() as workers:
        for number in range(in_flight):
            workers.create_task(work(waiting), name=f"worker {number}")


async def ask(cluster: Cluster, keys: Books, in_flight: int) -> Books:
    """Ask every customer and ledger that there should be for its sums.

    Args:
        cluster: where.
        keys: whom: the books computed from the file.
        in_flight: how many at once.
    """
    told = Books()

    async def customer(key: str) -> None:
        told.customers[key] = Sums(*await cluster.actor(Customer, key).totals())

    async def day(key: str) -> None:
        told.days[key] = Sums(*await cluster.actor(Day, key).totals())

    async def month(key: str) -> None:
        told.months[key] = Sums(*await cluster.actor(Month, key).totals())

    await for_each(keys.customers, customer, in_flight)
    await for_each(keys.days, day, in_flight)
    await for_each(keys.months, month, in_flight)
    return told


@dataclass(frozen=True, slots=True)
class Verdict:
    """How what the actors say differs from the file.

    Args:
        lost: entries that are missing, in all books together.
        doubled: entries that are too many, in all books together.
        wrong: whose sums are not the file's, as `customer 00021: ...`.
    """

    lost: int
    doubled: int
    wrong: tuple[str, ...]

    @property
    def right(self) -> bool:
        return not self.wrong


def compare(expected: Books, told: Books) -> Verdict:
    """Compare every customer's, day's and month's sums, to the cent."""
    lost = doubled = 0
    wrong: list[str] = []
    for noun, ours, theirs in (
        ("customer", expected.customers, told.customers),
        ("day", expected.days, told.days),
        ("month", expected.months, told.months),
    ):
        for key, sums in ours.items():
            said = theirs.get(key, Sums())
            lost += max(0, sums.purchases - said.purchases)
            doubled += max(0, said.purchases - sums.purchases)
            if said != sums:
                wrong.append(f"{noun} {key}: the file has {sums}, the actor says {said}")
    return Verdict(lost, doubled, tuple(wrong))
