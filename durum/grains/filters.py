"""Functions around calls: logging, authorization, measuring, for all kinds at once. Owns how they are
chained; knows neither silo nor client.

    async def audit(call: durum.Invocation, proceed: durum.Proceed) -> object:
        print(call.kind, call.key, call.method, call.arguments)
        return await proceed()

A filter may look, refuse by raising, wait, or return something else; it calls `proceed` at most once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from durum.grains.context import TurnContext
from durum.grains.method import Method
from durum.grains.reference import Caller, CallOptions, Target
from durum.grains.streams import Source

Proceed: TypeAlias = Callable[[], Awaitable[object]]
"""Goes on to the next filter, or to the method; gives the result."""

_END: Final = object()
_NOTHING: Final = TurnContext()


class Invocation(msgspec.Struct, frozen=True, eq=False):
    """A call, as a filter sees it.

    Args:
        kind: the actor's.
        key: the actor's.
        method: the name of what is called.
        read_only: whether it may change anything.
        streams: whether it gives a stream; `proceed` then gives the first item.
        context: at the silo, what the method finds as self.context; at the caller, nothing.
    """

    kind: str
    key: str
    method: str
    read_only: bool
    streams: bool
    context: TurnContext
    _method: Method
    _args: bytes

    @property
    def arguments(self) -> Mapping[str, object]:
        """The arguments by name, decoded once more: to change them changes nothing."""
        return self._method.unpack(self._args)


Filter: TypeAlias = Callable[[Invocation, Proceed], Awaitable[object]]


class Filters(msgspec.Struct, frozen=True):
    """A silo's.

    Args:
        incoming: around the methods of its actors.
        outgoing: around the calls that those make.
    """

    incoming: tuple[Filter, ...] = ()
    outgoing: tuple[Filter, ...] = ()


NO_FILTERS: Final = Filters()


def _chain(
    filters: Sequence[Filter], invocation: Invocation, last: Callable[[], Awaitable[object]]
) -> Awaitable[object]:
    def proceed_from(place: int) -> Awaitable[object]:
        if place == len(filters):
            return last()
        return filters[place](invocation, lambda: proceed_from(place + 1))

    return proceed_from(0)


def around(kind: str, method: Method, filters: Sequence[Filter]) -> Method:
    """The same method with filters around each run of it at its silo.

    Args:
        kind: whose.
        method: which; it is not changed.
        filters: the first is the outermost.
    """

    def invocation(instance: Any, args: bytes) -> Invocation:
        return Invocation(
            kind,
            instance.key,
            method.name,
            method.read_only,
            method.streams,
            instance.context,
            method,
            args,
        )

    async def run(instance: Any, args: bytes, code: Coroutine[Any, Any, object]) -> object:
        try:
            return await _chain(filters, invocation(instance, args), lambda: code)
        finally:
            code.close()  # where no filter went on

    async def stream(instance: Any, args: bytes, items: Any) -> AsyncIterator[object]:
        try:
            first = await _chain(filters, invocation(instance, args), lambda: anext(items, _END))
            if first is not _END:
                yield first
                async for item in items:
                    yield item
        finally:
            await items.aclose()

    def invoke(instance: Any, args: bytes) -> Any:
        code: Any = method.invoke(instance, args)
        return stream(instance, args, code) if method.streams else run(instance, args, code)

    return method.wrapped(invoke)


async def admit(filters: Sequence[Filter], invocation: Invocation) -> None:
    """Let filters look at what no code of the actor's runs for. What one raises is raised here."""

    async def nothing() -> None:
        """What `proceed` gives."""

    await _chain(filters, invocation, nothing)


class FilteredCaller:
    """A Caller with filters around each call, on the side of whoever makes it.

    Args:
        caller: carries the calls.
        filters: the first is the outermost.
    """

    def __init__(self, caller: Caller, filters: Sequence[Filter]) -> None:
        self._caller = caller
        self._filters = filters

    async def call(
        self, target: Target, method: Method, args: bytes, options: CallOptions
    ) -> bytes:
        got: list[tuple[bytes, object]] = []

        async def last() -> object:
            data = await self._caller.call(target, method, args, options)
            got.append((data, method.decode_result(data)))
            return got[0][1]

        value = await _chain(self._filters, invocation_of(target, method, args), last)
        if got and value is got[0][1]:
            return got[0][0]
        return method.encode_result(value)

    def stream(self, target: Target, method: Method, args: bytes, options: CallOptions) -> Source:
        source = self._caller.stream(target, method, args, options)
        return _FilteredSource(source, self._filters, invocation_of(target, method, args))


class _FilteredSource:
    """A stream whose first item comes through filters."""

    def __init__(self, source: Source, filters: Sequence[Filter], invocation: Invocation) -> None:
        self._source = source
        self._filters = filters
        self._invocation = invocation
        self._begun = False

    async def receive(self) -> bytes:
        if self._begun:
            return await self._source.receive()
        self._begun = True
        method = self._invocation._method  # noqa: SLF001 - ours
        got: list[tuple[bytes, object]] = []

        async def last() -> object:
            try:
                data = await self._source.receive()
            except StopAsyncIteration:
                return _END
            got.append((data, method.decode_result(data)))
            return got[0][1]

        value = await _chain(self._filters, self._invocation, last)
        if value is _END:
            raise StopAsyncIteration
        if got and value is got[0][1]:
            return got[0][0]
        return method.encode_result(value)

    def close(self) -> None:
        self._source.close()


def invocation_of(target: Target, method: Method, args: bytes) -> Invocation:
    """A call, as filters at its caller see it."""
    return Invocation(
        target.kind.name,
        target.key,
        method.name,
        method.read_only,
        method.streams,
        _NOTHING,
        method,
        args,
    )
