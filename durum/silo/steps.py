"""Runs coroutines that never wait, each to its end in one step, without a task and without an exception.

A coroutine that is sent into by hand hands its value over in a StopIteration, which costs more than many a
method. Inside a generator that outlives them all, `yield from` takes the value, and the interpreter makes no
exception of it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

from durum.silo.turn import CURRENT, Turn

_Step = tuple[Turn, Coroutine[Any, Any, object]]


class Steps:
    """One silo's generator for it.

    `send` takes a turn and its coroutine, and returns the coroutine's value with `turn.over` set. Where the
    coroutine raises, so does `send`; where it waits after all, `turn.over` is not set. After both, `renew`.
    """

    __slots__ = ("generator", "send")

    send: Callable[[_Step], object]

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin anew: an exception that passed through has ended the generator."""
        self.generator = cast("Generator[object, _Step | None, None]", _run())
        self.generator.send(None)
        self.send = self.generator.send


@types.coroutine
def _run() -> Generator[object, Any, None]:
    value: object = None
    while True:
        turn, coro = yield value
        CURRENT.set(turn)
        value = yield from coro
        turn.over = True
