"""The map of a Redis cluster: which master has which slot, and who these masters are.

Owns asking for it anew, at once when something went astray; sends no command of the store's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from durum import errors
from durum.clock import Clock
from durum.ids import Address, join_address
from durum.store import redis_errors, redis_line, redis_slots
from durum.store.redis_pipe import Guide, Pipe
from durum.store.redis_url import Place
from durum.tasks import TaskOwner
from durum.telemetry import Log

_POLL_S: Final = 1.0
_PAUSE_S: Final = 0.1
_log = Log("durum.store")


class Nodes(Guide):
    """What is known of a cluster.

    Args:
        place: the parsed URL; its nodes are asked first.
        make: makes a pipe to an address.
        clock: for pauses.
    """

    def __init__(
        self, place: Place, make: Callable[[Address, Guide], Pipe], *, clock: Clock
    ) -> None:
        self.url = place.url
        self._seeds = place.addresses
        self._make = make
        self._clock = clock
        self._tasks = TaskOwner("cluster nodes")
        self._map: Sequence[Address | None] = [None] * redis_slots.SLOTS
        self._listeners: list[Callable[[], None]] = []
        self._identities: dict[Address, str] = {}
        self._soon = asyncio.Event()
        self._turn = 0
        self.masters: dict[Address, None] = {}
        """All that have slots."""

    def __repr__(self) -> str:
        return f"<Nodes {self.url} masters={list(self.masters)}>"

    def listen(self, on_map: Callable[[], None]) -> None:
        """Have a function called with each change of the map."""
        self._listeners.append(on_map)

    def master_of(self, slot: int) -> Address | None:
        """Who has the slot, as far as is known."""
        return self._map[slot]

    def moved(self, slot: int, address: Address) -> None:
        """A node says that another one has the slot."""
        if self._map[slot] != address:
            changed = list(self._map)
            changed[slot] = address
            self._set(changed)
        self.look_soon()

    def look_soon(self) -> None:
        """Something went astray: ask for the map."""
        self._soon.set()

    def seen(self, pipe: Pipe, identity: str) -> None:
        """A master has told who it is."""
        address = join_address(*pipe.target)
        if address not in self.masters:
            return
        if address not in self._identities:
            # Those who were replaced count until their successors are known: one change, not two.
            for gone in [one for one in self._identities if one not in self.masters]:
                del self._identities[gone]
        self._identities[address] = identity

    def identity(self) -> str:
        """Which processes answer as the cluster, in which roles, with which lines of history."""
        return " ".join(f"{address}={who}" for address, who in sorted(self._identities.items()))

    async def open(self) -> None:
        """Find the map, and follow it from then on.

        Raises:
            ConfigError: a node does not accept us, or is no cluster's.
            StoreUnavailable: none of the URL's nodes answers.
        """
        trouble: list[str] = []
        for address in self._seeds:
            try:
                await self._ask_stranger(address)
            except errors.StoreUnavailable as exc:
                trouble.append(f"{address}: {exc.__cause__ or exc}")
            else:
                break
        else:
            raise redis_errors.unreachable(self.url, "; ".join(trouble))
        await self._tasks.open()

    def follow(self, pipes: Callable[[], Sequence[Pipe]], tidy: Callable[[], list[Pipe]]) -> None:
        """Ask for the map again and again.

        Args:
            pipes: whom to ask.
            tidy: called each time; returns pipes to close.
        """
        self._tasks.start(self._follow(pipes, tidy), "follow")

    async def close(self) -> None:
        await self._tasks.close()

    # -- inside

    async def _follow(
        self, pipes: Callable[[], Sequence[Pipe]], tidy: Callable[[], list[Pipe]]
    ) -> None:
        while True:
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._soon.wait()
            except TimeoutError:
                pass
            self._soon.clear()
            try:
                await self._look([pipe for pipe in pipes() if pipe.connected])
            except errors.DurumError as exc:
                _log.debug("the cluster does not tell its map", store=self.url, error=str(exc))
            for pipe in tidy():
                await pipe.close()
            await self._clock.sleep(_PAUSE_S)

    async def _look(self, pipes: list[Pipe]) -> None:
        self._turn += 1
        if not pipes:
            await self._ask_stranger(self._seeds[self._turn % len(self._seeds)])
            return
        # Each in its turn: one that is cut off from the others tells an old map for a while.
        await self._ask(pipes[self._turn % len(pipes)])
        found = await asyncio.gather(*(pipe.identity() for pipe in pipes), return_exceptions=True)
        for pipe, identity in zip(pipes, found, strict=True):
            if isinstance(identity, str):
                self.seen(pipe, identity)

    async def _ask_stranger(self, address: Address) -> None:
        pipe = self._make(address, Guide())
        await pipe.open()
        try:
            await self._ask(pipe)
        finally:
            await pipe.close()

    async def _ask(self, pipe: Pipe) -> None:
        try:
            reply: Any = await pipe.send(("CLUSTER", "SLOTS"), redis_line.plain)
        except redis_errors.Refused as exc:
            if exc.code in redis_errors.PASSING:
                raise
            raise errors.ConfigError(
                f"{self.url}: a node does not tell the map of its cluster ({exc}). Write redis:// for "
                "a server without cluster mode, and allow the user CLUSTER SLOTS."
            ) from exc
        found = redis_slots.masters(reply, pipe.target[0])
        if any(found):
            self._set(found)

    def _set(self, found: Sequence[Address | None]) -> None:
        if found == self._map:
            return
        self._map = found
        self.masters = dict.fromkeys(sorted({one for one in found if one is not None}))
        _log.info("cluster map", store=self.url, masters=list(self.masters))
        for on_map in self._listeners:
            on_map()
