"""Could one copy, touched by one call at a time, have given these answers? Owns the search; pure.

Source: Wing and Gong, "Testing and verifying concurrent objects" (1993), with the pruning of Lowe,
"Testing for linearizability" (2017): a set of calls done and a state that were tried once are not
tried again.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from durum.testing.history import Operation


class Undecided(Exception):
    """The search passed its limit: too many calls at once whose fate is unknown."""


class Model(Protocol):
    """What one copy does."""

    initial: Hashable

    def step(self, state: Hashable, operation: Operation) -> tuple[bool, Hashable]:
        """Do one call: whether its result is possible in this state, and the state after it."""
        ...


class Register:
    """A value that is read, written, and compared and set.

    `read` gives the value; `write` takes one; `cas` takes (expected, new) and gives whether it was set.
    """

    def __init__(self, initial: Hashable = None) -> None:
        self.initial: Hashable = initial

    def step(self, state: Hashable, operation: Operation) -> tuple[bool, Hashable]:
        if operation.name == "read":
            return not operation.known or operation.result == state, state
        if operation.name == "write":
            assert isinstance(operation.argument, Hashable)  # noqa: S101 - a test's own mistake
            return True, operation.argument
        assert operation.name == "cas"  # noqa: S101 - a test's own mistake
        assert isinstance(operation.argument, tuple)  # noqa: S101 - a test's own mistake
        expected, new = operation.argument
        matches = state == expected
        return not operation.known or operation.result == matches, new if matches else state


class Counter:
    """A number that `add` raises, giving the new one, and `read` gives."""

    def __init__(self, initial: int = 0) -> None:
        self.initial: Hashable = initial

    def step(self, state: Hashable, operation: Operation) -> tuple[bool, Hashable]:
        assert isinstance(state, int)  # noqa: S101 - it began as one
        if operation.name == "add":
            assert isinstance(operation.argument, int)  # noqa: S101 - a test's own mistake
            state += operation.argument
        return not operation.known or operation.result == state, state


@dataclass(frozen=True, slots=True)
class Violation:
    """No order of the calls explains their answers.

    Args:
        placed: the longest sequence that does, as far as it goes.
        state: the state after it.
        stuck: calls of which one would have to come next, and cannot.
    """

    placed: tuple[Operation, ...]
    state: Hashable
    stuck: tuple[Operation, ...]

    def __str__(self) -> str:
        before = "\n  ".join(str(one) for one in self.placed[-10:])
        after = "\n  ".join(str(one) for one in self.stuck)
        return (
            f"not linearizable: after {len(self.placed)} calls\n  {before}\n"
            f"the state is {self.state!r}, and none of these can be next\n  {after}"
        )


def check(
    operations: Iterable[Operation], model: Model, *, limit: int = 5_000_000
) -> Violation | None:
    """Look for an order of one key's calls that explains every answer.

    Args:
        operations: the calls, in any order. One with an unknown fate may be placed anywhere after its
            beginning, or nowhere.
        model: what one copy does.
        limit: steps after which the search is given up.

    Raises:
        Undecided: the limit was reached.
    """
    return _Search([one for one in operations if _tells(one)], model).run(limit)


def check_each(
    by_key: dict[str, list[Operation]], model: Model, *, limit: int = 5_000_000
) -> dict[str, Violation]:
    """Check every key by itself. Keys that are linearizable are left out of the answer."""
    found = {key: check(operations, model, limit=limit) for key, operations in by_key.items()}
    return {key: violation for key, violation in found.items() if violation is not None}


def _tells(operation: Operation) -> bool:
    """Whether it can make a difference. A read without an answer changes and says nothing."""
    return operation.known or operation.name != "read"


_END: Final = 0
"""The list's anchor: before its first event and after its last."""


class _Search:
    """Depth first over orders. Events are a doubly linked list, so that placing a call and taking it
    back are a few assignments."""

    def __init__(self, operations: list[Operation], model: Model) -> None:
        self._operations: Final = operations
        self._model: Final = model
        # A beginning before an end of the same instant: those two calls were at once.
        events = sorted(
            [(one.called, 0, index) for index, one in enumerate(operations)]
            + [(one.returned, 1, index) for index, one in enumerate(operations) if one.known]
        )
        count = len(events) + 1
        self._next: Final = [(place + 1) % count for place in range(count)]
        self._before: Final = [(place - 1) % count for place in range(count)]
        self._of: Final = [-1] + [index for _, _, index in events]
        self._is_end: Final = [False] + [kind == 1 for _, kind, _ in events]
        self._begins: Final[dict[int, int]] = {}
        self._ends: Final[dict[int, int]] = {}
        for place in range(1, count):
            places = self._ends if self._is_end[place] else self._begins
            places[self._of[place]] = place
        self._must: Final = sum(1 << index for index in self._ends)

    def run(self, limit: int) -> Violation | None:
        state: Hashable = self._model.initial
        done = 0
        placed: list[tuple[int, Hashable]] = []
        tried: set[tuple[int, Hashable]] = set()
        best: Violation | None = None
        place = self._next[_END]
        while done & self._must != self._must:
            limit -= 1
            if limit < 0:
                raise Undecided(f"{len(self._operations)} calls are too many to decide on")
            if place != _END and not self._is_end[place]:
                index = self._of[place]
                possible, after = self._model.step(state, self._operations[index])
                # One of unknown fate that changes nothing may as well not have happened.
                helps = index in self._ends or after != state
                if possible and helps and (done | 1 << index, after) not in tried:
                    tried.add((done | 1 << index, after))
                    placed.append((index, state))
                    state, done = after, done | 1 << index
                    self._lift(index)
                    place = self._next[_END]
                else:
                    place = self._next[place]
                continue
            # The next thing in time is the end of a call that fits nowhere before it.
            if best is None or len(placed) > len(best.placed):
                best = self._violation(placed, state)
            if not placed:
                return best
            index, state = placed.pop()
            done &= ~(1 << index)
            self._unlift(index)
            place = self._next[self._begins[index]]
        return None

    def _lift(self, index: int) -> None:
        for place in self._places(index):
            self._next[self._before[place]] = self._next[place]
            self._before[self._next[place]] = self._before[place]

    def _unlift(self, index: int) -> None:
        for place in reversed(self._places(index)):
            self._next[self._before[place]] = place
            self._before[self._next[place]] = place

    def _places(self, index: int) -> list[int]:
        begin, end = self._begins[index], self._ends.get(index)
        return [begin] if end is None else [begin, end]

    def _violation(self, placed: list[tuple[int, Hashable]], state: Hashable) -> Violation:
        stuck: list[Operation] = []
        place = self._next[_END]
        while place != _END and not self._is_end[place]:
            stuck.append(self._operations[self._of[place]])
            place = self._next[place]
        order = tuple(self._operations[index] for index, _ in placed)
        return Violation(order, state, tuple(stuck))
