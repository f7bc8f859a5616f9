"""Whether what was counted and paid adds up. Owns the arithmetic of counters and banks; pure."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from durum.testing.history import Operation


def check_counter(operations: Iterable[Operation], final: int) -> list[str]:
    """Judge a counter that `add` raises by one, giving the new value, and `read` gives.

    Exact, and quick for any number of calls: it finds fault with a history just when no order of its
    calls explains the answers and the final value.

    Args:
        operations: one key's calls. An unknown `add` counts or does not, from its beginning on.
        final: the value at the end, read when nothing was under way any more.

    Returns:
        What is wrong, in words; nothing where all adds up.
    """
    known = [one for one in operations if one.known]
    unknown = sorted(one.called for one in operations if not one.known and one.name == "add")
    values = sorted(_value(one) for one in known if one.name == "add")
    wrong = [f"two adds gave {value}" for value, times in Counter(values).items() if times > 1]
    highest = max((_value(one) for one in known), default=0)
    if final < highest:
        wrong.append(f"the final value is {final}, but {highest} was answered before")
    if not len(values) <= final <= len(values) + len(unknown):
        wrong.append(
            f"the final value is {final}; {len(values)} adds were answered,"
            f" the fate of {len(unknown)} more is unknown"
        )
    return wrong + _stale(known) + _from_nowhere(known, values, unknown)


def _stale(known: list[Operation]) -> list[str]:
    """Calls that answered less than was answered before they began."""
    wrong: list[str] = []
    ended = sorted(known, key=lambda one: one.returned)
    began = sorted(known, key=lambda one: one.called)
    floor = count = 0
    for one in began:
        while count < len(ended) and ended[count].returned < one.called:
            floor = max(floor, _value(ended[count]))
            count += 1
        if _value(one) < floor + (one.name == "add"):
            wrong.append(f"{one}, although {floor} had been answered before it began")
    return wrong


def _from_nowhere(
    known: list[Operation], values: Sequence[int], unknown: Sequence[float]
) -> list[str]:
    """Answers higher than all adds that had begun by then can explain."""
    wrong: list[str] = []
    for one in known:
        answered = bisect.bisect_right(values, _value(one))
        begun = bisect.bisect_right(unknown, one.returned)
        if _value(one) > answered + begun:
            wrong.append(f"{one}, but only {answered + begun} adds can explain it")
    return wrong


def _value(operation: Operation) -> int:
    assert isinstance(operation.result, int)  # noqa: S101 - a test's own mistake
    return operation.result


class Outcome(StrEnum):
    """What the one who asked for a transfer knows of it."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money that was to go from one account to another.

    Args:
        source: whose money.
        target: who gets it.
        amount: how much, above 0.
        outcome: what the one who asked knows.
    """

    source: str
    target: str
    amount: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Account:
    """An account at the end.

    Args:
        balance: what it says it has.
        entries: transfer id and signed amount of each booking, in order.
    """

    balance: int
    entries: Sequence[tuple[str, int]] = ()


def check_bank(
    opening: Mapping[str, int], closing: Mapping[str, Account], transfers: Mapping[str, Transfer]
) -> list[str]:
    """Judge a bank whose accounts keep their bookings.

    The sum stays what it was, no balance is ever negative, every transfer happened once or not at all:
    once if it was answered, not at all if it was refused, either if its fate is unknown.

    Args:
        opening: balances at the beginning.
        closing: accounts at the end, once everything has settled.
        transfers: all that was asked for, by id.

    Returns:
        What is wrong, in words; nothing where all adds up.
    """
    wrong: list[str] = []
    booked: Counter[tuple[str, str, int]] = Counter()
    if set(opening) != set(closing):
        wrong.append(f"accounts differ: {sorted(set(opening) ^ set(closing))}")
    for name, account in closing.items():
        balance = opening.get(name, 0)
        for entry, amount in account.entries:
            balance += amount
            booked[entry, name, amount] += 1
            if balance < 0:
                wrong.append(f"{name} had {balance} after {entry}")
        if balance != account.balance:
            wrong.append(f"{name} has {account.balance}, its bookings make {balance}")
    total = sum(account.balance for account in closing.values())
    if total != sum(opening.values()):
        wrong.append(f"the sum was {sum(opening.values())} and is {total}")
    for name, transfer in transfers.items():
        out = booked.pop((name, transfer.source, -transfer.amount), 0)
        into = booked.pop((name, transfer.target, transfer.amount), 0)
        allowed = {Outcome.DONE: {1}, Outcome.REFUSED: {0}, Outcome.UNKNOWN: {0, 1}}
        if out != into or out not in allowed[transfer.outcome]:
            wrong.append(f"{name} ({transfer.outcome}) was paid out {out} and paid in {into} times")
    wrong.extend(f"{name} booked {amount} for {id_}, unasked" for id_, name, amount in booked)
    return wrong
