"""A volatile timer, as an actor's code sees it. Owns what was asked for; measures no time itself."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any, Final, Protocol

import msgspec

from durum import errors


class Timer:
    """What `self.set_timer` returns. It lives in one activation, and ends with it.

    Args:
        name: for logs, and to replace it by another of that name.
        stop: called once when it is cancelled.
    """

    __slots__ = ("_stop", "name")

    def __init__(self, name: str, stop: Callable[[], None] | None) -> None:
        self.name: Final = name
        self._stop = stop

    @property
    def active(self) -> bool:
        """Whether another tick may come."""
        return self._stop is not None

    def cancel(self) -> None:
        """Let no further tick begin. One that runs goes on to its end. Twice does no harm."""
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()

    def ended(self) -> None:
        """There is no further tick (called by the silo)."""
        self._stop = None

    def __repr__(self) -> str:
        return f"<Timer {self.name}{'' if self.active else ' ended'}>"


class Feed(Protocol):
    """Events, one after another."""

    def __aiter__(self) -> AsyncIterator[object]:
        """From here on."""
        ...

    async def aclose(self) -> None:
        """No more are wanted."""
        ...


class TimerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for.

    Args:
        name: for logs.
        replaces: another timer of that name ends.
        function: the method itself, as in the class body.
        args: for it.
        due_s: until the first tick.
        every_s: from one tick to the next; None: there is only one.
        keep_alive: the activation is not collected while the timer is active.
        feed: in the place of times: each of its events makes a tick, with it as the only argument.
    """

    name: str
    replaces: bool
    function: Callable[..., Coroutine[Any, Any, object]]
    args: tuple[object, ...]
    due_s: float
    every_s: float | None
    keep_alive: bool
    feed: Feed | None = None


def specify(
    actor: object,
    callback: Callable[..., object],
    args: tuple[object, ...],
    *,
    due: float | timedelta | None,
    every: float | timedelta | None,
    name: str | None,
    keep_alive: bool,
) -> TimerSpec:
    """Check what a timer is to do.

    Raises:
        ArgumentError: the callback is no `async def` method of this actor, or a time is out of range.
    """
    function = method_of(actor, callback)
    if function is None:
        raise errors.ArgumentError(
            f"set_timer({callback!r}): it takes an `async def` method of this actor, such as"
            " self._flush; nothing was set."
        )
    if due is None and every is None:
        raise errors.ArgumentError("set_timer(): say due=..., every=..., or both; nothing was set.")
    every_s = None if every is None else _seconds("every", every, least=0.001)
    return TimerSpec(
        name=function.__name__ if name is None else name,
        replaces=name is not None,
        function=function,
        args=args,
        due_s=_seconds("due", due, least=0.0) if due is not None else every_s or 0.0,
        every_s=every_s,
        keep_alive=keep_alive,
    )


def method_of(actor: object, callback: Callable[..., object]) -> Any:
    """The function of an `async def` method of this very actor; None where the callback is none."""
    function: Any = getattr(callback, "__func__", None)
    owner = getattr(callback, "__self__", None)
    same = owner is not None and vars(owner) is vars(actor)  # its read-only view shares the dict
    return function if same and inspect.iscoroutinefunction(function) else None


def _seconds(what: str, given: float | timedelta, *, least: float) -> float:
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    if type(seconds) not in (int, float) or not (least <= seconds < math.inf):
        raise errors.ArgumentError(
            f"set_timer({what}={given!r}): write a timedelta or seconds, at least {least:g};"
            " nothing was set."
        )
    return float(seconds)
