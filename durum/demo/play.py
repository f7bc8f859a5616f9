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

TURNS_PER_PURCHASE: Final = 3
"""A call of the customer, a message to the day's ledger, one to the month's."""
LOOKS_S: Final = 0.1
SETTLED_WITHIN_S: Final = 90.0
"""How long messages may be under way after the last purchase, and then days open."""


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
            await customer.buy(purchase.day, purchase.cds, purchase.dollars)
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


async def settle(cluster: Cluster, expected: Books, in_flight: int) -> bool:
    """Return once all messages have arrived, as far as the sums can tell.

    Returns:
        False where they did not in time: something is lost.
    """
    now = asyncio.get_running_loop().time
    until = now() + SETTLED_WITHIN_S
    while not compare(expected, await ask(cluster, expected, in_flight)).right:
        if now() > until:
            return False
        await asyncio.sleep(LOOKS_S)
    return True


async def close_days(cluster: Cluster, keys: Books, in_flight: int) -> int:
    """Wait until reminders have closed the days, after a while in which nothing more has come.

    Returns:
        How many are closed.
    """
    now = asyncio.get_running_loop().time
    until, closed = now() + SETTLED_WITHIN_S, 0

    async def see(key: str) -> None:
        nonlocal closed
        day = options(cluster.actor(Day, key), timeout=PATIENCE_S)
        while not await day.is_closed():
            if now() > until:
                return
            await asyncio.sleep(LOOKS_S)
        closed += 1

    await for_each(keys.days, see, in_flight)
    return closed
