"""Turns of a grain that its author did not write: it is woken, or its reminders are set. Owns who is asked by
what; each is an ordinary turn in the mailbox, with its commit.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from durum import errors
from durum.grains import reminders
from durum.grains.actor import Actor
from durum.grains.schedules import Plan
from durum.silo import telling
from durum.silo.reminders import WAKES, Book
from durum.silo.telling import Drawer
from durum.wire import reminders as wire

_encode: Final = msgspec.msgpack.Encoder().encode


class Waker(Protocol):
    """Who sees to the wake-ups whose names begin alike."""

    async def wake(self, instance: Actor, name: str) -> int | None:
        """Do what is due, as part of the running turn.

        Args:
            instance: the grain's.
            name: the wake-up's, without what it begins with.

        Returns:
            When to look again, in the store's milliseconds, or None.
        """
        ...


class Reserved:
    """What runs in the place of a public method.

    Args:
        name: for people and counters.
        begin: given the instance and the arguments.
    """

    plain: Final = True
    read_only: Final = False
    opaque: Final = False
    streams: Final = False
    waits: Final = True

    def __init__(
        self, name: str, begin: Callable[[Actor, bytes], Coroutine[Any, Any, object]]
    ) -> None:
        self.name: Final = name
        self.invoke: Final = begin

    def encode_result(self, value: object, /) -> bytes:
        """Its callers are our own."""
        return _encode(value)

    def __repr__(self) -> str:
        return f"<Reserved {self.name}>"


def reserved(request: str, book: Book, drawer: Callable[[], Drawer]) -> Reserved:
    """What an activation answers to a request of wire.administration.TURNS.

    Args:
        request: which.
        book: its reminders.
        drawer: gives its delayed messages.
    """
    if request != wire.WAKE:
        return Reserved("remind", partial(_remind, book))
    wakers: Mapping[bytes, Waker] = {WAKES: book, telling.WAKES: drawer()}
    return Reserved("on_reminder", partial(_wake, wakers))


async def _wake(wakers: Mapping[bytes, Waker], instance: Actor, args: bytes) -> int | None:
    name = _decoded(args, wire.Wake).name
    waker = wakers.get(name[:1])
    if waker is None:
        raise errors.NoSuchMethod(f"this silo knows no wake-up {name[:50]!r}; nothing was done.")
    return await waker.wake(instance, name[1:].decode())


async def _remind(book: Book, _: Actor, args: bytes) -> object:
    asked = _decoded(args, wire.Remind)
    reminders.check_name(asked.name)
    if asked.plan is None:
        there = asked.name in await book.standing()
        book.cancel(asked.name)
        return there
    try:
        plan = msgspec.msgpack.decode(asked.plan, type=Plan)
    except msgspec.MsgspecError as exc:
        raise errors.ArgumentError(f"remind(): {exc}; nothing was set.") from exc
    await book.load()
    book.remind(asked.name, plan)
    return (await book.standing())[asked.name]


def _decoded(args: bytes, form: type[Any]) -> Any:
    try:
        return msgspec.msgpack.decode(args, type=form)
    except msgspec.MsgspecError as exc:
        raise errors.ArgumentError(f"{form.__name__}: {exc}; nothing was done.") from exc
