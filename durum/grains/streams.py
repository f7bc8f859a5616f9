"""The results of a streaming method, at its caller. Owns their end; where they come from, a Source knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Source(Protocol):
    """Where encoded items come from."""

    async def receive(self) -> bytes:
        """The next item.

        Raises:
            StopAsyncIteration: there are no more.
            CallError: the stream cannot go on; did_run says what is known.
            Exception: the method's own.
        """
        ...

    def close(self) -> None:
        """No more are wanted; the silo is told. Twice does no harm."""
        ...


class Results(Generic[T_co]):
    """What a streaming method gives: `async for item in actor.feed(3)`.

    Nothing is sent before the first item is asked for. It ends with its last item, with an error, when the
    task that waits for an item is cancelled, by `aclose()`, or when nobody refers to it any more, as after
    a `break`; then the method ends too.

    Args:
        source: see Source.
        decode: makes an item of its bytes.
    """

    __slots__ = ("_decode", "_over", "_source")

    def __init__(self, source: Source, decode: Callable[[bytes], T_co]) -> None:
        self._source = source
        self._decode = decode
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        if self._over:
            raise StopAsyncIteration
        try:
            return self._decode(await self._source.receive())
        except BaseException:
            self._end()
            raise

    async def aclose(self) -> None:
        """Want no more items; the method ends at its `yield`."""
        self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._source.close()

    def __del__(self) -> None:
        self._end()

    def __repr__(self) -> str:
        return f"<Results {'over' if self._over else 'open'} of {self._source!r}>"
