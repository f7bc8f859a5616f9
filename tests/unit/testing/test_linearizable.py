"""The linearizability checker: it has to reject what one copy cannot do, and accept all that it can."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durum.testing.history import UNKNOWN, Operation
from durum.testing.linearizable import Counter, Model, Register, Undecided, check, check_each

SEEDS = st.integers(0, 2**32)


def op(
    name: str,
    argument: object,
    result: object,
    called: float,
    returned: float,
) -> Operation:
    return Operation("k", name, argument, result, called, returned, "c")


def read(result: object, called: float, returned: float) -> Operation:
    return op("read", None, result, called, returned)


def write(value: object, called: float, returned: float = math.inf) -> Operation:
    return op("write", value, UNKNOWN if returned == math.inf else None, called, returned)


def cas(expected: int, new: int, result: object, called: float, returned: float) -> Operation:
    return op("cas", (expected, new), result, called, returned)


ACCEPTED: dict[str, list[Operation]] = {
    "nothing at all": [],
    "one after the other": [write(1, 1, 2), read(1, 3, 4)],
    "a read beside a write sees the old": [write(1, 1, 4), read(None, 2, 3)],
    "a read beside a write sees the new": [write(1, 1, 4), read(1, 2, 3)],
    "two reads see the change between them": [write(1, 1, 9), read(None, 2, 3), read(1, 4, 5)],
    "an unknown write happened": [write(1, 1), read(1, 2, 3)],
    "an unknown write did not happen": [write(1, 1), read(None, 2, 3)],
    "an unknown write happened late": [write(1, 1), read(None, 2, 3), read(1, 4, 5)],
    "an unknown read says nothing": [write(1, 1, 2), read(UNKNOWN, 3, math.inf)],
    "compare and set in turn": [
        write(1, 1, 2),
        cas(1, 2, result=True, called=3, returned=4),
        cas(1, 3, result=False, called=5, returned=6),
        read(2, 7, 8),
    ],
    "an unknown compare and set explains a value": [
        write(1, 1, 2),
        cas(1, 2, result=UNKNOWN, called=3, returned=math.inf),
        read(2, 4, 5),
    ],
    "an unknown compare and set may have failed": [
        write(1, 1, 2),
        cas(7, 2, result=UNKNOWN, called=3, returned=math.inf),
        read(1, 4, 5),
    ],
    "calls that touch at one instant are at once": [write(1, 1, 2), read(None, 2, 3)],
}

REJECTED: dict[str, list[Operation]] = {
    "a stale read": [write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)],
    "a lost write": [write(1, 1, 2), read(None, 3, 4)],
    "a value from nowhere": [write(1, 1, 2), read(3, 3, 4)],
    "a value from the future": [read(1, 1, 2), write(1, 3, 4)],
    "an unknown write from the future": [read(1, 1, 2), write(1, 3)],
    "back and forth": [write(1, 1, 9), read(1, 2, 3), read(None, 4, 5)],
    "an unknown write undone": [write(1, 1), read(1, 2, 3), read(None, 4, 5)],
    "two winners": [
        write(1, 1, 2),
        cas(1, 2, result=True, called=3, returned=6),
        cas(1, 3, result=True, called=3, returned=6),
    ],
    "a loser that should have won": [
        write(1, 1, 2),
        cas(1, 2, result=False, called=3, returned=4),
    ],
    "two readers that disagree on the order": [
        write(1, 1, 20),
        write(2, 1, 20),
        read(1, 2, 3),
        read(2, 4, 5),
        read(1, 6, 7),
    ],
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_checker_accepts(name: str) -> None:
    """A false alarm sends people after a bug that is not there."""
    assert check(ACCEPTED[name], Register()) is None
    assert check(ACCEPTED[name][::-1], Register()) is None


@pytest.mark.parametrize("name", REJECTED)
def test_checker_rejects(name: str) -> None:
    """A checker that passes these proves nothing about a silo."""
    assert check(REJECTED[name], Register()) is not None


def test_violation_shows_what_cannot_be_next() -> None:
    """The few calls around the fault are what a person needs."""
    found = check(REJECTED["a stale read"], Register())
    assert found is not None
    assert found.state == 2
    assert [one.name for one in found.placed] == ["write", "write"]
    assert "after 2 calls" in str(found)
    assert "5..6 c k.read() -> 1" in str(found)
    assert "?" in str(write(1, 1))


def test_check_each_judges_keys_apart() -> None:
    """Linearizability is per object, which is what keeps the search small."""
    found = check_each(
        {"good": ACCEPTED["one after the other"], "bad": REJECTED["a lost write"]}, Register()
    )
    assert list(found) == ["bad"]


def test_counter_adds_any_amount() -> None:
    """Deposits differ; the model has to follow."""
    adds = [op("add", 5, 5, 1, 2), op("add", 3, 8, 3, 4)]
    assert check([*adds, read(8, 5, 6)], Counter()) is None
    assert check([*adds, read(5, 5, 6)], Counter()) is not None


def test_checker_says_so_when_it_cannot_decide() -> None:
    """Giving up must never look like a pass."""
    many = [write(number, 1) for number in range(30)]
    many += [read(number, 2 + number, 2.5 + number) for number in (3, 1, 4, 15)]
    many += [read(99, 40, 41)]
    with pytest.raises(Undecided):
        check(many, Register(), limit=2000)


def by_force(operations: list[Operation], model: Model) -> bool:
    """The definition, tried out: some order of all known and some unknown calls explains all."""

    def extend(rest: tuple[Operation, ...], state: Hashable) -> bool:
        if not any(one.known for one in rest):
            return True
        first_end = min(one.returned for one in rest)
        for one in rest:
            if one.called <= first_end:
                possible, after = model.step(state, one)
                others = tuple(other for other in rest if other is not one)
                if possible and extend(others, after):
                    return True
        return False

    return extend(tuple(operations), model.initial)


@settings(deadline=None)
@given(SEEDS)
def test_checker_agrees_with_the_definition(seed: int) -> None:
    """Small histories at random: most are wrong, some are right, and the search has to tell."""
    chance = random.Random(seed)
    operations = []
    for _ in range(chance.randint(1, 6)):
        called = chance.randint(0, 12)
        returned = called + chance.randint(0, 6)
        kind = chance.choice(["read", "write", "cas"])
        if chance.random() < 0.25:
            result: object = UNKNOWN
        elif kind == "read":
            result = chance.choice([None, 0, 1])
        else:
            result = chance.random() < 0.5
        argument: object = (chance.randrange(2), chance.randrange(2))
        if kind != "cas":
            argument = chance.randrange(2)
        end = returned if result is not UNKNOWN else math.inf
        operations.append(op(kind, argument, result, called, end))
    assert (check(operations, Register()) is None) == by_force(operations, Register())


def valid_history(chance: random.Random, clients: int, length: int) -> list[Operation]:
    """Calls as one copy would have answered them: each at a point between its beginning and end."""
    points = []
    for client in range(clients):
        now = chance.random()
        for _ in range(length):
            called = now + chance.random()
            point = called + chance.random()
            now = point + chance.random()
            points.append((point, called, now, client))
    state = 0
    found = []
    for _, called, returned, client in sorted(points):
        kind = chance.choice(["read", "read", "write", "cas"])
        argument: object = None
        result: object = state
        if kind == "write":
            argument = state = chance.randrange(5)
            result = None
        elif kind == "cas":
            expected, new = chance.randrange(5), chance.randrange(5)
            argument, result = (expected, new), expected == state
            state = new if expected == state else state
        if kind != "read" and chance.random() < 0.05:
            result, returned = UNKNOWN, math.inf  # noqa: PLW2901 - it never came back
        found.append(Operation("k", kind, argument, result, called, returned, f"c{client}"))
    chance.shuffle(found)
    return found


@settings(deadline=None)
@given(SEEDS, st.integers(1, 5), st.integers(0, 30))
def test_checker_accepts_every_valid_history(seed: int, clients: int, length: int) -> None:
    """Whatever one copy could have answered must pass."""
    assert check(valid_history(random.Random(seed), clients, length), Register(0)) is None


@settings(deadline=None)
@given(SEEDS, st.integers(2, 4), st.integers(3, 12))
def test_checker_rejects_a_valid_history_with_one_foreign_value(
    seed: int, clients: int, length: int
) -> None:
    """One read of what nobody wrote, anywhere in a long history, has to be found."""
    chance = random.Random(seed)
    history = valid_history(random.Random(seed), clients, length)
    reads = [index for index, one in enumerate(history) if one.name == "read"]
    if reads:
        index = chance.choice(reads)
        one = history[index]
        history[index] = Operation("k", "read", None, 99, one.called, one.returned, one.client)
        assert check(history, Register(0)) is not None


def test_checker_is_quick_on_long_histories() -> None:
    """Simulations record thousands of calls a key; a slow checker would not be run."""
    history = valid_history(random.Random(1), 8, 400)
    assert check(history, Register(0), limit=2_000_000) is None
    assert len(history) == 3200
