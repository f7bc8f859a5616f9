"""Counters and banks: arithmetic that must find a lost or doubled cent."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durum.testing.history import UNKNOWN, Operation
from durum.testing.ledgers import Account, Outcome, Transfer, check_bank, check_counter
from durum.testing.linearizable import Counter, check

SEEDS = st.integers(0, 2**32)


def add(result: object, called: float, returned: float = math.inf) -> Operation:
    return Operation("k", "add", 1, result, called, returned)


def read(result: int, called: float, returned: float) -> Operation:
    return Operation("k", "read", None, result, called, returned)


@pytest.mark.parametrize(
    ("history", "final"),
    [
        ([], 0),
        ([add(1, 1, 2), add(2, 3, 4)], 2),
        ([add(2, 1, 9), add(1, 2, 8)], 2),
        ([add(1, 1, 2), add(UNKNOWN, 3)], 1),
        ([add(1, 1, 2), add(UNKNOWN, 3)], 2),
        ([add(UNKNOWN, 1), add(2, 2, 3)], 2),
        ([add(1, 1, 2), read(1, 3, 4), read(1, 3, 4)], 1),
    ],
)
def test_counter_accepts(history: list[Operation], final: int) -> None:
    """All of these can happen."""
    assert check_counter(history, final) == []


@pytest.mark.parametrize(
    ("history", "final", "says"),
    [
        ([add(1, 1, 2), add(1, 3, 4)], 1, "two adds gave 1"),
        ([add(1, 1, 2), add(2, 3, 4)], 1, "2 was answered before"),
        ([add(1, 1, 2)], 2, "the final value is 2; 1 adds"),
        ([add(1, 1, 2), add(UNKNOWN, 3)], 3, "the fate of 1 more"),
        ([add(1, 1, 2), read(0, 3, 4)], 1, "although 1 had been answered"),
        ([add(2, 1, 2), add(1, 3, 4)], 2, "although 2 had been answered"),
        ([add(2, 1, 2), add(UNKNOWN, 3)], 2, "only 1 adds can explain it"),
        ([read(1, 1, 2), add(UNKNOWN, 3)], 1, "only 0 adds can explain it"),
    ],
)
def test_counter_rejects(history: list[Operation], final: int, says: str) -> None:
    """Lost, doubled, stale, and counted before it was asked for."""
    assert any(says in line for line in check_counter(history, final))


@settings(deadline=None)
@given(SEEDS)
def test_counter_agrees_with_the_search(seed: int) -> None:
    """It claims to be exact: the general checker has to come to the same answer."""
    chance = random.Random(seed)
    history = []
    for _ in range(chance.randint(1, 6)):
        called = chance.randint(0, 12) + chance.random()
        returned = called + 6 * chance.random()
        if chance.random() < 0.3:
            history.append(add(UNKNOWN, called))
        elif chance.random() < 0.3:
            history.append(read(chance.randint(0, 4), called, returned))
        else:
            history.append(add(chance.randint(1, 4), called, returned))
    final = chance.randint(0, 5)
    whole = [*history, read(final, 100, 101)]
    assert (check_counter(history, final) == []) == (check(whole, Counter()) is None)


@settings(deadline=None)
@given(SEEDS, st.integers(0, 60))
def test_counter_accepts_every_valid_history(seed: int, length: int) -> None:
    """Whatever one counter could have answered must pass."""
    chance = random.Random(seed)
    value = 0
    history: list[Operation] = []
    points = sorted(chance.uniform(0, 50) for _ in range(length))
    for point in points:
        called, returned = point - chance.random(), point + chance.random()
        if chance.random() < 0.3:
            history.append(read(value, called, returned))
        elif chance.random() < 0.1:
            value += chance.random() < 0.5
            history.append(add(UNKNOWN, called))
        else:
            value += 1
            history.append(add(value, called, returned))
    assert check_counter(history, value) == []


OPENING = {"a": 100, "b": 50}
TRANSFERS = {
    "t1": Transfer("a", "b", 30, Outcome.DONE),
    "t2": Transfer("b", "a", 80, Outcome.UNKNOWN),
    "t3": Transfer("b", "a", 500, Outcome.REFUSED),
}
CLOSING = {
    "a": Account(150, (("t1", -30), ("t2", 80))),
    "b": Account(0, (("t1", 30), ("t2", -80))),
}


def test_bank_accepts_a_transfer_of_unknown_fate_done_or_not() -> None:
    """Both are right, as long as both accounts agree."""
    assert check_bank(OPENING, CLOSING, TRANSFERS) == []
    without = {"a": Account(70, (("t1", -30),)), "b": Account(80, (("t1", 30),))}
    assert check_bank(OPENING, without, TRANSFERS) == []


@pytest.mark.parametrize(
    ("closing", "says"),
    [
        ({"a": CLOSING["a"]}, "accounts differ"),
        ({**CLOSING, "a": replace(CLOSING["a"], balance=149)}, "a has 149, its bookings make 150"),
        ({**CLOSING, "a": replace(CLOSING["a"], balance=149)}, "the sum was 150 and is 149"),
        ({**CLOSING, "b": Account(0, (("t2", -80), ("t1", 30)))}, "b had -30 after t2"),
        (
            {**CLOSING, "a": Account(70, (("t1", -30),))},
            "t2 (unknown) was paid out 1 and paid in 0",
        ),
        ({"a": Account(100), "b": Account(50)}, "t1 (done) was paid out 0"),
        (
            {
                "a": Account(40, (("t1", -30), ("t1", -30))),
                "b": Account(110, (("t1", 30), ("t1", 30))),
            },
            "t1 (done) was paid out 2",
        ),
        (
            {
                "a": Account(70, (("t1", -30), ("t9", 1), ("t9", -1))),
                "b": Account(80, (("t1", 30),)),
            },
            "a booked 1 for t9, unasked",
        ),
        (
            {
                "a": Account(570, (("t1", -30), ("t3", 500))),
                "b": Account(-420, (("t1", 30), ("t3", -500))),
            },
            "t3 (refused) was paid out 1",
        ),
    ],
)
def test_bank_rejects(closing: dict[str, Account], says: str) -> None:
    """Lost, doubled, half done, refused and yet done, overdrawn, out of thin air."""
    assert any(says in line for line in check_bank(OPENING, closing, TRANSFERS))


@settings(deadline=None)
@given(SEEDS, st.integers(0, 60))
def test_bank_accepts_every_valid_run(seed: int, length: int) -> None:
    """Whatever a right bank does must pass."""
    chance = random.Random(seed)
    opening = {name: chance.randint(0, 100) for name in "abcd"}
    balances = dict(opening)
    entries: dict[str, list[tuple[str, int]]] = {name: [] for name in opening}
    transfers: dict[str, Transfer] = {}
    for number in range(length):
        source, target = chance.sample("abcd", 2)
        amount = chance.randint(1, 60)
        outcome = chance.choice([Outcome.DONE, Outcome.UNKNOWN])
        happens = balances[source] >= amount
        if not happens:
            outcome = chance.choice([Outcome.REFUSED, Outcome.UNKNOWN])
        elif outcome is Outcome.UNKNOWN:
            happens = chance.random() < 0.5
        transfers[f"t{number}"] = Transfer(source, target, amount, outcome)
        if happens:
            for name, delta in ((source, -amount), (target, amount)):
                balances[name] += delta
                entries[name].append((f"t{number}", delta))
    closing = {name: Account(balances[name], entries[name]) for name in opening}
    assert check_bank(opening, closing, transfers) == []
