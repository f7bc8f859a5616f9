"""A store that kills its silo at a chosen operation. Owns the counting and what the dead silo still sees:
nothing. What operations do is the store's inside.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial
from typing import Any, Final, TypeVar

from durum import errors
from durum.store.protocol import Store

T = TypeVar("T")

ANY: Final = "any"
_PASSED: Final = frozenset({"create", "durability", "genesis", "hints"})
"""What is asked for before a silo lives, or is no question at all."""


class When(StrEnum):
    """On which side of an operation a silo dies."""

    BEFORE = "before"
    """The store never hears of the operation."""
    AFTER = "after"
    """The store has done it, and the silo never learns."""


class CrashPoint:
    """A place in a silo's life at which it will be killed, once.

    Args:
        operation: at which operation, by its name in durum.store.protocol, or `any` of them.
        when: on which side of it.
        nth: at which of them, from now on.
    """

    def __init__(self, operation: str, when: When, nth: int) -> None:
        self.operation: Final = operation
        self.when: Final = when
        self.left = nth
        self._dead = asyncio.Event()

    @property
    def reached(self) -> bool:
        """Whether the silo has died of it."""
        return self._dead.is_set()

    async def wait(self, timeout_s: float = 30.0) -> None:
        """Return once the silo has died of it.

        Raises:
            TimeoutError: it did not come to that in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._dead.wait()
        except TimeoutError:
            raise TimeoutError(f"{self!r} was not reached within {timeout_s:g} s") from None

    def matches(self, operation: str, when: When) -> bool:
        """Count an operation. Whether it is the one."""
        if self.reached or when is not self.when or self.operation not in (ANY, operation):
            return False
        self.left -= 1
        return self.left == 0

    def died(self) -> None:
        """The silo is dead."""
        self._dead.set()

    def __repr__(self) -> str:
        state = "reached" if self.reached else f"left={self.left}"
        return f"<CrashPoint {self.when} {self.operation} {state}>"


class _State(StrEnum):
    ALIVE = "alive"
    STRUCK = "struck"
    """A crash point was reached; the process is about to be ended."""
    GONE = "gone"


class CrashingStore:
    """One silo's way to a store that others share. It has all the store's methods.

    Args:
        inside: the store.
        kill: ends the silo's process; called at most once, in the middle of an operation.
    """

    def __init__(self, inside: Store, kill: Callable[[], None]) -> None:
        self.counts: Final[Counter[str]] = Counter()
        """Operations begun, by name."""
        self._inside: Final = inside
        self._kill: Final = kill
        self._points: Final[list[CrashPoint]] = []
        self._held: Final[list[asyncio.Future[Any]]] = []
        self._state = _State.ALIVE

    def crash(self, point: CrashPoint) -> None:
        """Kill the silo at that point.

        Raises:
            ConfigError: the store has no such operation.
        """
        if point.operation != ANY and not callable(getattr(self._inside, point.operation, None)):
            raise errors.ConfigError(
                f"{point.operation!r} is no operation of a store; durum/store/protocol.py has them."
            )
        self._points.append(point)

    def die(self) -> None:
        """The process is gone: what it asked for has no answer, and it asks for nothing more."""
        self._state = _State.GONE
        for held in self._held:
            _fail(held)
        for point in self._points:
            if point.left <= 0:
                point.died()

    async def close(self) -> None:
        """Nothing: the store inside belongs to all."""

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inside, name)
        if name in _PASSED or name.startswith("_") or not callable(found):
            return found
        way = self._do if inspect.iscoroutinefunction(found) else self._ask
        return partial(way, name, found)

    def __repr__(self) -> str:
        return f"<CrashingStore {self._inside!r} {self._state}>"

    async def _do(
        self, name: str, function: Callable[..., Awaitable[T]], /, *args: Any, **options: Any
    ) -> T:
        self.counts[name] += 1
        if self._strikes(name, When.BEFORE):
            await self._silence()
        answer = await function(*args, **options)
        if self._strikes(name, When.AFTER):
            await self._silence()
        return answer

    def _ask(
        self, name: str, function: Callable[..., asyncio.Future[T]], /, *args: Any, **options: Any
    ) -> asyncio.Future[T]:
        self.counts[name] += 1
        if self._strikes(name, When.BEFORE):
            return self._silence()
        outer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def answered(inner: asyncio.Future[T]) -> None:
            if self._strikes(name, When.AFTER):
                self._hold(outer)
            elif outer.done() or inner.cancelled():
                outer.cancel()
            elif error := inner.exception():
                outer.set_exception(error)
            else:
                outer.set_result(inner.result())

        function(*args, **options).add_done_callback(answered)
        return outer

    def _strikes(self, name: str, when: When) -> bool:
        """Whether the silo is dead, or dies now."""
        if self._state is _State.ALIVE:
            hits = [point for point in self._points if point.matches(name, when)]
            if hits:
                self._state = _State.STRUCK
                self._kill()
        return self._state is not _State.ALIVE

    def _silence(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._hold(future)
        return future

    def _hold(self, future: asyncio.Future[Any]) -> None:
        """Leave a future without an answer until the process is gone."""
        if self._state is _State.GONE:
            _fail(future)
        else:
            self._held.append(future)


def _fail(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(errors.StoreUnavailable("this silo was killed by its test"))
        future.exception()  # marked as seen: perhaps nobody waits any more
