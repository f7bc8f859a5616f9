"""Watches and streams for code without async. Owns the waiting; the client's own thread has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from durum.client.thread import LoopThread
from durum.grains.events import Gap
from durum.grains.publishing import E
from durum.grains.watching import Watch

T = TypeVar("T")


class BlockingStream(Generic[T]):
    """What durum.sync's `cluster.stream` gives: the results of a streaming method, one by one.

    An iterator, and a context manager that ends the method. It also ends with its last item, with an error,
    by `close()`, when Ctrl-C ends the waiting, or when nobody refers to it any more, as after a `break`.

    Args:
        thread: where the client lives.
        results: the stream itself.
    """

    def __init__(self, thread: LoopThread, results: AsyncIterator[T]) -> None:
        self._thread = thread
        self._results: AsyncIterator[T] | None = results

    def close(self) -> None:
        """Want no more items; the method ends at its `yield`. Twice does no harm."""
        self._results = None  # it ends with the last reference, in any thread

    async def _next(self) -> T:
        results = self._results
        if results is None:
            raise StopAsyncIteration
        return await anext(results)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        future = self._thread.start(self._next())
        try:
            return future.result()
        except StopAsyncIteration:
            raise StopIteration from None
        except BaseException:
            future.cancel()
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<blocking {self._results!r}>"


class BlockingWatch(Generic[E]):
    """What durum.sync's `cluster.watch` gives: events as they come, with a Gap where some may be missing.

    A context manager, which is entered once the watch has begun, and an iterator. Ctrl-C ends the waiting.

    Args:
        thread: where the client lives.
        watch: the watch itself.
    """

    def __init__(self, thread: LoopThread, watch: Watch[E]) -> None:
        self._thread = thread
        self._watch = watch

    def get(self, timeout: float | None = None) -> E | Gap:
        """The next event, or a Gap.

        Args:
            timeout: how long to wait, in seconds; None: for ever.

        Raises:
            TimeoutError: there was none in that time; none is lost.
            StopIteration: the watch was closed.
            CallError: it cannot go on: the class is no longer served, or its client was closed.
        """
        try:
            return self._run(self._next(within_s=timeout))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the watch. Twice does no harm."""
        self._run(self._watch.aclose())

    async def _next(self, *, within_s: float | None) -> E | Gap:
        async with asyncio.timeout(within_s):
            return await anext(self._watch)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        future = self._thread.start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def __enter__(self) -> Self:
        self._run(self._watch.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> E | Gap:
        return self.get()

    def __repr__(self) -> str:
        return f"<blocking {self._watch!r}>"
