"""Where the primary is, as a majority of sentinels would say. Owns asking them; knows no data.

A sentinel that is cut off goes on naming the old primary. Each names the epoch of the last promotion
that it knows of, so the highest one is believed, and whoever is named must say itself that it is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, cast

import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.exceptions

from durum import errors
from durum.clock import Clock
from durum.ids import Address, join_address
from durum.store import redis_errors
from durum.store.redis_line import Entry
from durum.store.redis_pipe import Guide, Pipe
from durum.store.redis_url import Place
from durum.tasks import TaskOwner, heed_cancellation
from durum.telemetry import Log

_POLL_S: Final = 1.0
_LISTEN_S: Final = 1.0
_SHARE: Final = 0.4  # of an operation's time limit: connecting comes after it
_REFUSALS: Final = (redis.exceptions.ResponseError, redis.exceptions.AuthenticationError)
_PROMOTED: Final = "+switch-master"
_log = Log("durum.store")


class Sentinels(Guide):
    """The sentinels of one primary.

    Args:
        place: the parsed URL.
        clock: for pauses.
        store_timeout_s: time limit of an operation; they have a share of it.
    """

    def __init__(self, place: Place, *, clock: Clock, store_timeout_s: float) -> None:
        self._place = place
        self._clock = clock
        self._timeout_s = store_timeout_s * _SHARE
        self._tasks = TaskOwner("sentinels")
        self._pipes: dict[Pipe, None] = {}
        self._soon = asyncio.Event()
        self._sentinels = {
            join_address(host, port): redis.asyncio.Redis(
                host=host,
                port=port,
                username=place.sentinel_account.user or None,
                password=place.sentinel_account.password,
                retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                **({} if place.tls is None else {"ssl": True, **place.tls.for_redis_py()}),
            )
            for host, port in place.nodes
        }

    def __repr__(self) -> str:
        return f"<Sentinels of {self._place.name} at {', '.join(self._sentinels)}>"

    async def open(self) -> None:
        await self._tasks.open()
        self._tasks.start(self._watch(), "watch")
        for address, sentinel in self._sentinels.items():
            self._tasks.start(self._listen(sentinel), f"listen to {address}")

    async def close(self) -> None:
        await self._tasks.close()
        for sentinel in self._sentinels.values():
            await sentinel.aclose()

    async def locate(self, pipe: Pipe) -> tuple[str, int]:
        self._pipes[pipe] = None
        return await self._primary()

    def welcome(self, role: str) -> str:
        return "" if role == "master" else "the sentinels name it, and it is no primary (yet)"

    def refused(self, pipe: Pipe, entry: Entry, text: str) -> bool:  # noqa: ARG002 - the base's
        if redis_errors.code_of(text) in ("READONLY", "MASTERDOWN"):
            # Not at once: what else it has answered in the same packet is to be heard first.
            asyncio.get_running_loop().call_soon(pipe.hang_up, "it is the primary no more")
        return False

    async def _watch(self) -> None:
        """Leave a primary that another one has replaced: it may be cut off from those who know."""
        while True:
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._soon.wait()
            except TimeoutError:
                pass
            self._soon.clear()
            try:
                where = await self._primary()
            except (errors.StoreUnavailable, errors.ConfigError):
                continue  # whoever is connected may go on
            for pipe in self._pipes:
                if pipe.connected and pipe.target != where:
                    pipe.hang_up(f"the primary is at {join_address(*where)} now")

    async def _listen(self, sentinel: redis.asyncio.Redis) -> None:
        """Hear of promotions at once: until we leave, a replaced primary confirms what will be lost."""
        while True:
            pubsub = sentinel.pubsub()
            try:
                await pubsub.subscribe(_PROMOTED)
                heed_cancellation()
                while True:
                    message = await pubsub.get_message(
                        ignore_subscribe_messages=True, timeout=_LISTEN_S
                    )
                    heed_cancellation()
                    if message is not None:
                        self._soon.set()
            except (redis.exceptions.RedisError, OSError):
                pass  # not there, or not allowed: it is asked every second as well
            finally:
                await pubsub.aclose()  # type: ignore[no-untyped-call]
            heed_cancellation()
            await self._clock.sleep(_LISTEN_S)

    async def _primary(self) -> tuple[str, int]:
        """Ask all of them.

        Raises:
            StoreUnavailable: none knows a primary.
            ConfigError: all that answer say that there is no such name, or refuse us.
        """
        asked = {
            address: self._tasks.start(self._ask(address), f"ask {address}")
            for address in self._sentinels
        }
        # Those that are late are left to redis-py's own limits: it keeps no order when it is cancelled.
        await asyncio.wait(asked.values(), timeout=self._timeout_s)
        best: Mapping[str, Any] | None = None
        refusals, trouble = [], []
        for address, task in asked.items():
            answer = task.result() if task.done() else None
            if isinstance(answer, _REFUSALS):
                refusals.append(f"{address}: {answer}")
            elif not isinstance(answer, Mapping):
                trouble.append(f"{address}: {answer or 'no answer in time'}")
            elif best is None or int(answer["config-epoch"]) > int(best["config-epoch"]):
                best = answer
        if best is not None:
            return str(best["ip"]), int(best["port"])
        if refusals and not trouble:
            raise errors.ConfigError(
                f"{self._place.url}: no sentinel knows {self._place.name!r} ({'; '.join(refusals)}). "
                "Correct the name in the URL, or sentinel_username and sentinel_password."
            )
        raise redis_errors.unreachable(self._place.url, "; ".join([*trouble, *refusals]))

    async def _ask(self, address: Address) -> Mapping[str, Any] | Exception:
        try:
            found = await self._sentinels[address].sentinel_master(self._place.name)
        except (redis.exceptions.RedisError, OSError) as exc:
            return exc
        return cast("Mapping[str, Any]", found)  # its stub speaks of other protocols too
