"""Many masters behind one face: each command goes to the master that has its key's slot.

Owns which pipe that is, and what becomes of commands that came to the wrong one: only those that
surely did not run are sent again. What the map is, Nodes knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from durum.clock import Clock
from durum.ids import Address
from durum.store import redis_errors, redis_line, redis_slots
from durum.store.redis_line import Command, Entry, Finish
from durum.store.redis_nodes import Nodes
from durum.store.redis_pipe import Guide, Pipe

_RETRY_S: Final = 0.05
_GLANCE_S: Final = 0.005


class ClusterWay(Guide):
    """One pipe to each master.

    Args:
        nodes: the map.
        make: makes a pipe to an address.
        home: the key of the membership table.
        clock: measures time limits.
        store_timeout_s: a command that finds no master for this long ends in StoreUnavailable.
    """

    def __init__(
        self,
        nodes: Nodes,
        make: Callable[[Address, Guide], Pipe],
        *,
        home: str,
        clock: Clock,
        store_timeout_s: float,
    ) -> None:
        self._nodes = nodes
        self._make = make
        self._home = home
        self._clock = clock
        self._timeout_s = store_timeout_s
        self._loop = asyncio.get_running_loop()
        self._pipes: dict[Address, Pipe] = {}
        self._by_slot: list[Pipe | None] = [None] * redis_slots.SLOTS
        # First keys are owner records and the membership table, so they are few.
        self._slots: dict[str, int] = {}
        self._astray: dict[asyncio.Future[Any], float] = {}
        self._parked: list[Entry] = []
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False
        nodes.listen(self._remap)

    def __repr__(self) -> str:
        return f"<ClusterWay {self._nodes.url} {list(self._pipes.values())} parked={len(self._parked)}>"

    # -- Way

    def send(self, command: Command, finish: Finish) -> asyncio.Future[Any]:
        pipe = self._by_slot[self._slot(command)] or self._choose(command)
        if pipe is not None:
            return pipe.send(command, finish)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._park((future, finish, command))
        return future

    async def identity(self) -> str:
        # Asked for with the others of this tick, so that it is not older than their answers.
        pipe = self._choose(("", self._home))
        if pipe is None:
            raise redis_errors.unreachable(self._nodes.url, "no master has the membership table")
        self._nodes.seen(pipe, await pipe.identity())
        return self._nodes.identity()

    def pipes(self) -> tuple[Pipe, ...]:
        return tuple(self._pipes[one] for one in sorted(self._pipes) if one in self._nodes.masters)

    def home(self) -> Pipe | None:
        """The pipe to the membership table's master."""
        return self._choose(("", self._home))

    async def close(self) -> None:
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        for future, _, _ in self._parked:
            redis_errors.refuse(future, self._nodes.url, "the store is closed")
        self._parked.clear()
        for pipe in self._pipes.values():
            await pipe.close()

    # -- which pipe

    async def connect_all(self) -> None:
        """Connect to every master, as far as they can be reached in time; the rest follows by itself."""
        pipes = [self._pipe(address) for address in self._nodes.masters]
        latest = self._clock.boottime() + self._timeout_s
        # So that who they are is known from the first look on: each one found later is a change.
        while not all(pipe.connected for pipe in pipes) and self._clock.boottime() < latest:
            await self._clock.sleep(_GLANCE_S)

    def tidy(self) -> list[Pipe]:
        """Give up pipes to those who are masters no more, once nothing waits in them.

        Returns:
            What is left to close.
        """
        gone = [
            address
            for address, pipe in self._pipes.items()
            if address not in self._nodes.masters and pipe.idle
        ]
        return [self._pipes.pop(address) for address in gone]

    def _slot(self, command: Command) -> int:
        key = command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]
        slot = self._slots.get(key)  # type: ignore[arg-type] # keys are text
        if slot is None:
            slot = self._slots[str(key)] = redis_slots.slot_of(str(key))
        return slot

    def _choose(self, command: Command) -> Pipe | None:
        slot = self._slot(command)
        pipe = self._by_slot[slot]
        if pipe is None:
            address = self._nodes.master_of(slot)
            if address is not None:
                pipe = self._by_slot[slot] = self._pipe(address)
        return pipe

    def _pipe(self, address: Address) -> Pipe:
        pipe = self._pipes.get(address)
        if pipe is None:
            pipe = self._pipes[address] = self._make(address, self)
            pipe.start()
        return pipe

    def _remap(self) -> None:
        """The map has changed: what was not sent goes to who has its slot now."""
        self._by_slot = [None] * redis_slots.SLOTS
        for address, pipe in list(self._pipes.items()):
            if address not in self._nodes.masters or not pipe.connected:
                for entry in pipe.withdraw():
                    if self._is_late(entry[0]):
                        redis_errors.refuse(entry[0], self._nodes.url, "its master is away")
                    else:
                        self._dispatch(entry)

    # -- Guide of its pipes

    def refused(self, pipe: Pipe, entry: Entry, text: str) -> bool:
        code = redis_errors.code_of(text)
        if code not in redis_errors.PASSING:
            return False
        if self._is_late(entry[0]):
            entry[0].set_exception(redis_errors.unsettled(self._nodes.url, text))
        elif code == "MOVED":
            self._nodes.moved(*redis_slots.redirection(text, pipe.target[0]))
            self._dispatch(entry)
        elif code == "ASK":
            _, address = redis_slots.redirection(text, pipe.target[0])
            asking: asyncio.Future[Any] = self._loop.create_future()
            asking.add_done_callback(_forget)
            target = self._pipe(address)
            # No await between the two: it is said of the very next command only.
            target.resend((asking, redis_line.plain, ("ASKING",)))
            target.resend(entry)
        else:
            self._nodes.look_soon()
            self._park(entry)
        return True

    def opened(self, pipe: Pipe) -> None:
        self._nodes.seen(pipe, pipe.known_as)

    def lost(self, pipe: Pipe) -> None:  # noqa: ARG002 - the base's
        if not self._closed:
            self._nodes.look_soon()

    # -- commands without a master

    def _is_late(self, future: asyncio.Future[Any]) -> bool:
        """Whether a command has been on its way for too long. Its time begins with its first detour."""
        since = self._astray.get(future)
        if since is None:
            self._astray[future] = self._clock.boottime()
            future.add_done_callback(self._arrived)
            return False
        return self._clock.boottime() - since > self._timeout_s

    def _arrived(self, future: asyncio.Future[Any]) -> None:
        self._astray.pop(future, None)

    def _dispatch(self, entry: Entry) -> None:
        if entry[2][0] == "ASKING":
            return  # whom it was said to is not asked any more
        pipe = self._choose(entry[2])
        if pipe is None:
            self._park(entry)
        else:
            pipe.resend(entry)

    def _park(self, entry: Entry) -> None:
        if self._closed:
            redis_errors.refuse(entry[0], self._nodes.url, "the store is closed")
            return
        self._is_late(entry[0])
        self._parked.append(entry)
        if self._retry is None:
            self._retry = self._loop.call_later(_RETRY_S, self._unpark)

    def _unpark(self) -> None:
        self._retry = None
        parked, self._parked = self._parked, []
        for entry in parked:
            if entry[0].done():
                continue
            if self._is_late(entry[0]):
                entry[0].set_exception(
                    redis_errors.unsettled(self._nodes.url, "no master has its slot")
                )
            else:
                self._dispatch(entry)


def _forget(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
