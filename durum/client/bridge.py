"""Brings calls and results of references from any loop, or none, to the loop where their connection lives."""

from __future__ import annotations

import asyncio

from durum.client.thread import LoopThread
from durum.grains.kind import Method
from durum.grains.reference import CallOptions, Target
from durum.grains.streams import Source


class Bridge:
    """The Caller of a connection's references.

    Args:
        thread: where the connection lives.
        cluster: what has to live as long as its references.
    """

    def __init__(self, thread: LoopThread, cluster: object) -> None:
        self._thread = thread
        # References keep the connection alive: a notebook may hold nothing else of it.
        self._cluster = cluster

    async def call(
        self, target: Target, method: Method, args: bytes, options: CallOptions
    ) -> bytes:
        calling = self._thread.cluster.router.call(target, method, args, options)
        if self._thread.is_current:
            return await calling
        return await asyncio.wrap_future(self._thread.start(calling))

    def stream(self, target: Target, method: Method, args: bytes, options: CallOptions) -> Source:
        return _BridgedSource(
            self._thread, self._thread.cluster.router.stream(target, method, args, options)
        )


class _BridgedSource:
    """Results of a streaming method, brought from the connection's own loop to any other."""

    def __init__(self, thread: LoopThread, source: Source) -> None:
        self._thread = thread
        self._source = source

    async def receive(self) -> bytes:
        if self._thread.is_current:
            return await self._source.receive()
        return await asyncio.wrap_future(self._thread.start(self._source.receive()))

    def close(self) -> None:
        self._source.close()
