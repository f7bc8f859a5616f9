"""Hints by pub/sub: that the membership table may have changed. Knows no table; polling is the truth."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.exceptions

from durum.clock import Clock
from durum.ids import Entropy
from durum.store.redis_pipe import Pipe
from durum.store.redis_url import Place
from durum.tasks import heed_cancellation

_PAUSE_S: Final = 0.5
_LISTEN_S: Final = 1.0


class Hints:
    """A subscription that is made again for ever, where the pipe is connected then.

    Args:
        place: the parsed URL.
        pipe: to the server that publishes; None while there is none.
        channel: what to listen to.
        clock: for pauses.
        entropy: their jitter.
        store_timeout_s: time limit for connecting.
    """

    def __init__(
        self,
        place: Place,
        pipe: Callable[[], Pipe | None],
        channel: str,
        *,
        clock: Clock,
        entropy: Entropy,
        store_timeout_s: float,
    ) -> None:
        self._place = place
        self._pipe = pipe
        self._channel = channel
        self._clock = clock
        self._entropy = entropy
        self._timeout_s = store_timeout_s
        self._closed = False

    def close(self) -> None:
        """End all listening with the next look."""
        self._closed = True

    async def listen(self) -> AsyncIterator[None]:
        """Yield after each connecting, for what was missed before, and at each hint."""
        while not self._closed:
            pipe = self._pipe()
            if pipe is not None and pipe.connected:
                client = self._client(pipe)
                pubsub = client.pubsub()
                try:
                    await pubsub.subscribe(self._channel)
                    heed_cancellation()
                    yield
                    # Where another server is the primary now, this one publishes nothing any more.
                    while self._still(pipe):
                        message = await pubsub.get_message(
                            ignore_subscribe_messages=True, timeout=_LISTEN_S
                        )
                        heed_cancellation()
                        if message is not None:
                            yield
                except (redis.exceptions.RedisError, OSError):
                    pass
                finally:
                    await pubsub.aclose()  # type: ignore[no-untyped-call]
                    await client.aclose()
            heed_cancellation()
            await self._clock.sleep(_PAUSE_S * (1 + self._entropy.fraction()))

    def _still(self, pipe: Pipe) -> bool:
        return not self._closed and self._pipe() is pipe and pipe.connected

    def _client(self, pipe: Pipe) -> redis.asyncio.Redis:
        place = self._place
        where: dict[str, Any]
        if place.path:
            where = {"unix_socket_path": place.path}
        else:
            where = {"host": pipe.target[0], "port": pipe.target[1]}
        if place.tls is not None:
            where.update(ssl=True, **place.tls.for_redis_py())
        return redis.asyncio.Redis(
            **where,
            username=place.account.user or None,
            password=place.account.password,
            # Its default would send a command again that may have run.
            retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
        )
