"""What clients saw: calls with their beginnings and ends. Owns the record; judges nothing.

A call that failed counts by what is known of it: one that surely did nothing is left out, one whose fate
nobody knows may have happened at any time after its beginning, or never.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, TypeVar

from durum import errors
from durum.errors import DidRun

T = TypeVar("T")


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
"""The result of a call of which nobody knows whether it ran."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call, as its caller saw it.

    Args:
        key: what it was about; keys are judged apart.
        name: what was done, in the words of the model that judges.
        argument: with what.
        result: what came back, or UNKNOWN.
        called: its place in time; only the order counts, and equal means at once.
        returned: where it ended; infinite where it never did.
        client: who called, for people.
    """

    key: str
    name: str
    argument: object
    result: object
    called: float
    returned: float
    client: str = ""

    @property
    def known(self) -> bool:
        return self.result is not UNKNOWN

    def __str__(self) -> str:
        end = f"{self.returned:g}" if self.known else "?"
        argument = "" if self.argument is None else repr(self.argument)
        return f"{self.called:g}..{end} {self.client} {self.key}.{self.name}({argument}) -> {self.result!r}"


class History:
    """Records calls as they are made. On one loop, so the order of events is the order of time."""

    def __init__(self) -> None:
        self._ticks: Final = itertools.count(1)
        self._open: Final[dict[int, Operation]] = {}
        self._ended: Final[list[Operation]] = []

    async def call(
        self, key: str, name: str, argument: object, reply: Awaitable[T], *, client: str = ""
    ) -> T:
        """Await a call and record it.

        Args:
            key: what it is about.
            name: what is done.
            argument: with what.
            reply: the call itself, not begun.
            client: who calls.

        Raises:
            Whatever the call raises. A method's own exception counts as nothing done.
        """
        called = next(self._ticks)
        # Open until it ends, and for ever where its client is killed: then its fate is unknown.
        self._open[called] = Operation(key, name, argument, UNKNOWN, called, math.inf, client)
        try:
            result = await reply
        except errors.CallError as exc:
            if exc.did_run in {DidRun.NO, DidRun.ROLLED_BACK}:
                del self._open[called]
            raise
        except Exception:
            del self._open[called]
            raise
        operation = Operation(key, name, argument, result, called, next(self._ticks), client)
        del self._open[called]
        self._ended.append(operation)
        return result

    def operations(self) -> list[Operation]:
        """All of them, in the order of their beginnings."""
        return sorted((*self._ended, *self._open.values()), key=lambda one: one.called)

    def by_key(self) -> dict[str, list[Operation]]:
        """The same for each key apart, in the order of the keys' first calls."""
        found: dict[str, list[Operation]] = {}
        for operation in self.operations():
            found.setdefault(operation.key, []).append(operation)
        return found

    def __repr__(self) -> str:
        return f"<History ended={len(self._ended)} unknown={len(self._open)}>"
