"""A watch on an actor, at whoever follows it. Owns its beginnings, one after another, and what is said of the
time between them; where its events come from, a Caller knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

from durum import errors
from durum.grains import events
from durum.grains.events import Events, Gap
from durum.grains.method import Method
from durum.grains.publishing import Publishes
from durum.grains.reference import (
    Caller,
    CallOptions,
    Reference,
    Target,
    caller_of,
    options_of,
    target_of,
)
from durum.grains.streams import Source
from durum.wire.administration import WATCH

E = TypeVar("E")

SILENCE_S: Final = 15.0
"""A silo from which nothing has come for so long is taken for lost; it gives signs of life more often."""
_FIRST_PAUSE_S: Final = 0.05
_LAST_PAUSE_S: Final = 1.0
_NO_ARGUMENTS: Final = b"\x90"
_FATAL: Final = (
    *(errors.ArgumentError, errors.NoSuchKind, errors.NoSuchMethod),
    *(errors.NotAuthorized, errors.ShuttingDown, errors.RemoteError),
)
"""What keeps a watch from beginning, whatever comes later. ShuttingDown says so of one's own client only:
silos that stop send on whoever asks them."""


async def _published(_: object) -> AsyncIterator[Any]:
    """Stands for what no code runs for."""
    yield None


def _method() -> Method:
    """What is called to watch an actor, in the place of a public method."""
    made = Method(
        "Publishes", "watch", _published, {"return": Any}, lambda actor: actor, streams=True
    )
    object.__setattr__(made, "name", WATCH)  # which no function can be called
    return made


METHOD: Final = _method()
"""What filters see of a watch, as it is about to begin."""


def watch(ref: Publishes[E]) -> Watch[E]:
    """Follow what an actor publishes, from a client or from another actor.

        async with durum.watch(cluster.actor(Board, "main")) as events:
            async for event in events:
                ...

    Inside the block, all that the actor publishes comes, in its order; where something may be missing, a Gap
    stands in its place. After its silo was lost or has handed it over, the watch begins anew by itself,
    however long that takes. A watch does not keep the actor in memory, and does not wake it up.

    Args:
        ref: a reference to an actor whose class derives from Publishes. Its option `timeout` says how long
            the first beginning may take, and how long a silo may be silent before it is taken for lost;
            15 seconds, if there is none.

    Raises:
        ArgumentError: ref is no such reference.
    """
    return watch_as("watch", ref, patient=False)


def watch_as(verb: str, ref: Publishes[E], *, patient: bool) -> Watch[E]:
    """As watch, under another name; a patient one begins with a Gap, however long that takes."""
    known: object = ref
    if not isinstance(known, Reference):
        raise errors.ArgumentError(
            f"{verb}(): expected a reference such as cluster.actor(Kind, key), got {known!r:.200}; nothing"
            " was sent."
        )
    target = target_of(known)
    kind = target.kind
    if kind.events is None:
        raise errors.ArgumentError(
            f"{verb}(): {kind.cls.__qualname__} publishes nothing; nothing was sent. Derive it from"
            " durum.Publishes[...] too, and let it call self.publish(event)."
        )
    options = options_of(known)
    if options.timeout_s is None:
        options = options.within(SILENCE_S)
    return Watch(caller_of(known), target, kind.events, options, patient=patient)


class Watch(Generic[E]):
    """What watch() gives: events as they come, with a Gap where some may be missing.

    An async context manager, which is entered once the watch has begun, and an async iterator. It ends by
    leaving the block, by `aclose()`, or when nobody refers to it any more; waiting for an event may be
    cancelled and loses none.

    Args:
        caller: brings the events.
        target: whose.
        events: how they are written.
        options: the reference's.
        patient: it begins with a Gap, and however long that takes.
    """

    __slots__ = (
        *("_before", "_caller", "_events", "_options"),
        *("_over", "_source", "_target"),
    )

    def __init__(
        self,
        caller: Caller,
        target: Target,
        events: Events,
        options: CallOptions,
        *,
        patient: bool,
    ) -> None:
        self._caller = caller
        self._target = target
        self._events = events
        self._options = options
        self._source: Source | None = None
        self._before: Gap | None = Gap(None, "begun") if patient else None
        self._over = False

    async def __aenter__(self) -> Self:
        """Begin.

        Raises:
            CallError: it could not begin; nothing runs at the actor in any case.
        """
        if self._source is None and not self._over:
            await self._begin_first()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E | Gap:
        """The next event, or a Gap.

        Raises:
            StopAsyncIteration: the watch was closed.
            CallError: it cannot go on: the class is no longer served, or its client was closed.
        """
        while not self._over:
            source = self._source
            if source is None:
                gap = await self._begin_again()
                if gap is not None:
                    return gap
                continue
            try:
                event = self._events.decode(await source.receive())
            except (errors.CallError, StopAsyncIteration):
                self._lose()
                continue
            if event is not events.NO_EVENT:
                return cast(
                    "E | Gap", event
                )  # as its class says: it was published by such an actor
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End the watch. Twice does no harm."""
        self._end()

    async def _begin_again(self) -> Gap | None:
        """Begin, however long it takes. What stands for the time before, if anything."""
        if self._before is None:
            await self._begin_first()
            return None
        pause_s = _FIRST_PAUSE_S
        while self._source is None and not self._over:
            try:
                await self._begin()
            except _FATAL:
                self._end()
                raise
            except errors.CallError:
                await asyncio.sleep(pause_s)
                pause_s = min(_LAST_PAUSE_S, pause_s * 2)
        return self._before

    async def _begin_first(self) -> None:
        """Begin in time, or not at all."""
        timeout_s = self._options.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                while self._source is None and not self._over:
                    try:
                        await self._begin()
                    except (errors.SiloLost, errors.StreamMoved):
                        await asyncio.sleep(_FIRST_PAUSE_S)  # asking once more does no harm
        except TimeoutError:
            text = f"{self._target.grain}: no watch of it began within {timeout_s} s. Begin anew."
            raise errors.CallTimeout(text, errors.DidRun.NO) from None

    async def _begin(self) -> None:
        source = self._caller.stream(self._target, METHOD, _NO_ARGUMENTS, self._options)
        try:
            await source.receive()  # a sign of life: what is published from here on comes
        except StopAsyncIteration:
            raise errors.StreamMoved(
                f"{self._target.grain}: the watch ended as it began."
            ) from None
        except BaseException:
            source.close()
            raise
        self._source = source

    def _lose(self) -> None:
        source, self._source = self._source, None
        self._before = Gap(None, "moved")
        if source is not None:
            source.close()

    def _end(self) -> None:
        self._over = True
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def __del__(self) -> None:
        self._end()

    def __repr__(self) -> str:
        state = "over" if self._over else "open" if self._source is not None else "not begun"
        return f"<Watch of {self._target.grain} {state}>"
