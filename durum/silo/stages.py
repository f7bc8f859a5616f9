"""Where an activation stands. A table with one door; knows nothing of what happens there."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Final

from durum import errors


class State(Enum):
    """Where an activation stands; it only moves down."""

    ACTIVATING = auto()
    VALID = auto()
    DEACTIVATING = auto()
    GONE = auto()


LEGAL: Final = {
    State.ACTIVATING: {State.VALID, State.GONE},
    State.VALID: {State.DEACTIVATING, State.GONE},
    State.DEACTIVATING: {State.GONE},
    State.GONE: set(),
}


class Stages:
    """The table's door: what stands somewhere in it, and who waits for it to go on."""

    __slots__ = ("_refusal", "_settled", "_state")

    def __init__(self) -> None:
        self._state = State.ACTIVATING
        self._settled: asyncio.Event | None = None
        self._refusal: errors.CallError | None = None

    @property
    def state(self) -> State:
        return self._state

    async def wait_gone(self) -> None:
        """Return when it is gone, or valid: then it has to be deactivated first."""
        if self._state in {State.ACTIVATING, State.DEACTIVATING}:
            if self._settled is None:
                self._settled = asyncio.Event()
            await self._settled.wait()

    async def wait_valid(self) -> bool:
        """Return once it is valid; False where it goes.

        Raises:
            CallError: why it could not be activated.
        """
        while self._state is State.ACTIVATING:
            await self.wait_gone()
        if self._refusal is not None:
            raise self._refusal
        return self._is(State.VALID)

    def _is(self, state: State) -> bool:
        """Asked after an await, where a type checker still believes what was true before it."""
        return self._state is state

    def _go(self, state: State) -> None:
        if state not in LEGAL[self._state]:
            raise errors.DurumBug(f"{self!r}: {self._state.name} -> {state.name}")
        self._state = state
        if self._settled is not None and state in {State.VALID, State.GONE}:
            self._settled.set()
            self._settled = None
