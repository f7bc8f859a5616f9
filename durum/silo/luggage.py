"""What actors take along when their partition is handed over: values that live in memory only. Owns both
ends, what is on its way out and what waits here for its partition, and the bounds of both.

Nothing depends on it: whatever is late, too much, or lost with a silo is dropped and counted, and the actor
begins without, as after a crash. A value belongs to the token under which its partition becomes free; who
takes the partition from another token finds nothing, since others may have held it in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, Protocol, Self

from durum.config import Limits
from durum.grains.kind import GrainKind
from durum.ids import GrainId, SiloId, Token
from durum.placement.partitions import partition_of
from durum.silo.peers import Peers
from durum.silo.statistics import LuggageStatistics
from durum.telemetry import Log
from durum.wire.messages import Luggage
from durum.wire.opaque import OpaqueCodec

_log = Log("durum.luggage")


class Traveller(Protocol):
    """An activation, as far as its luggage goes."""

    kind: GrainKind
    grain: GrainId

    @property
    def queue(self) -> tuple[int, int]:
        """How many turns run, and how many calls wait."""
        ...

    async def run_hook(self, name: str, *args: object) -> Any:
        """Run one of its hooks, and commit what that has changed."""
        ...


class Carriage:
    """The luggage of one silo.

    Args:
        limits: luggage_bytes and the like.
        context: what timers run in.
    """

    def __init__(self, limits: Limits, context: Context) -> None:
        self._limits = limits
        self._context = context
        self._largest = min(limits.luggage_bytes, limits.frame_bytes // 2)
        self._waiting: dict[int, _Waiting] = {}
        self._in = _Room(limits)
        self._out = _Room(limits)
        self._peers: Peers
        self._me: SiloId
        self._wanted: Callable[[int], SiloId | None] = _nobody
        self._partitions = 0
        self._sent = self._used = self._dropped = 0

    def serve(
        self, me: SiloId, peers: Peers, wanted: Callable[[int], SiloId | None], partitions: int
    ) -> None:
        """Begin to carry.

        Args:
            me: this silo.
            peers: the way to others.
            wanted: which silo should own a partition.
            partitions: P.
        """
        self._me, self._peers, self._wanted, self._partitions = me, peers, wanted, partitions
        peers.on_luggage = self.arrived

    def close(self) -> None:
        """Drop what waits."""
        for partition in list(self._waiting):
            self._expire(partition)

    def statistics(self) -> LuggageStatistics:
        """The counters as they are now."""
        return LuggageStatistics(
            sent=self._sent, used=self._used, dropped=self._dropped, waiting=self._in.count
        )

    def drop(self, grain: GrainId, why: object) -> None:
        """Count a value that goes no further."""
        self._dropped += 1
        _log.debug("luggage dropped", grain=grain, reason=str(why))

    # Out ------------------------------------------------------------------------------------------------

    def trunk(self, partition: int, free: Token) -> Trunk:
        """Where the values of a partition's actors are put.

        Args:
            partition: which.
            free: the token under which it will be free.
        """
        return Trunk(self, partition, free, open=self._heir(partition) is not None)

    def _heir(self, partition: int) -> SiloId | None:
        found = self._wanted(partition)
        return None if found is None or found == self._me else found

    async def pack(self, traveller: Traveller, trunk: Trunk) -> None:
        """Have an activation say what it takes along. Its last turn has ended."""
        grain, codec = traveller.grain, traveller.kind.luggage
        if codec is None:
            return
        if traveller.queue[0] or self._out.full:
            self.drop(grain, "turns go on beside it, or too much is on its way")
            return
        try:
            async with asyncio.timeout(self._limits.luggage_s):
                packed = codec.verify(await traveller.run_hook("on_dehydrate"))
        except Exception as exc:  # noqa: BLE001 - the author's code must not keep a grain from going
            self.drop(grain, exc)
            _log.error("on_dehydrate failed", exc, grain=grain)
            return
        if len(packed) > self._largest or not self._out.take(len(packed)):
            self.drop(grain, f"{len(packed)} bytes (luggage_bytes {self._largest}), or too many")
            return
        trunk.values.append((grain, packed))

    async def ship(self, trunk: Trunk) -> None:
        """Bring a partition's values to its next owner; returns once that has them, or the time is up."""
        heir = self._heir(trunk.partition)
        try:
            async with asyncio.timeout(self._limits.luggage_s):
                for batch in trunk.batches(self._limits.frame_bytes // 2):
                    message = partial(Luggage, partition=trunk.partition, token=trunk.free)
                    if heir is None or not await self._peers.carry(heir, message, batch):
                        return
                    trunk.arrived += len(batch)
        except TimeoutError:
            pass

    def unload(self, trunk: Trunk) -> None:
        """A trunk goes no further."""
        self._sent += trunk.arrived
        for grain, _ in trunk.values[trunk.arrived :]:
            self.drop(grain, "it was not delivered in time")
        for _, packed in trunk.values:
            self._out.free(len(packed))
        trunk.values.clear()

    # In -------------------------------------------------------------------------------------------------

    def arrived(self, message: Luggage, *, trusted: bool) -> None:
        """Take in values for a partition that this silo is about to take.

        Args:
            message: from another silo.
            trusted: whether pickles may come this way.
        """
        waiting = self._waiting.get(message.partition)
        if waiting is not None and waiting.free != message.token:
            self._expire(message.partition)
            waiting = None
        if waiting is None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(
                self._limits.luggage_s, self._expire, message.partition, context=self._context
            )
            waiting = self._waiting[message.partition] = _Waiting(message.token, timer, trusted)
        waiting.trusted = waiting.trusted and trusted
        for grain, packed in message.values:
            mine = partition_of(grain, self._partitions) == message.partition
            if mine and grain not in waiting.values and self._in.take(len(packed)):
                waiting.values[grain] = packed
            else:
                self.drop(grain, "too much waits, or it is none of the partition's")

    def claim(self, partition: int, seen: Token) -> dict[GrainId, Packed]:
        """A partition was taken from a token: what came along with it, by grain."""
        waiting = self._waiting.get(partition)
        if waiting is None or waiting.free != seen:
            return {}
        del self._waiting[partition]
        waiting.timer.cancel()
        for packed in waiting.values.values():
            self._in.free(len(packed))
        return {grain: Packed(packed, waiting.trusted) for grain, packed in waiting.values.items()}

    async def unpack(self, traveller: Traveller, packed: Packed) -> bool:
        """Give an activation what it took along. Its state is loaded, and it has served nobody yet.

        Returns:
            False where its hook has failed half-way: better a new activation, without.
        """
        codec = traveller.kind.luggage
        try:
            if codec is None or (isinstance(codec, OpaqueCodec) and not packed.trusted):
                self.drop(
                    traveller.grain,
                    "its class takes none, or it is a pickle and the link not trusted",
                )
                return True
            value = codec.decode(packed.data)
        except Exception as exc:  # noqa: BLE001 - of another release, or the author's conversion
            self.drop(traveller.grain, exc)
            return True
        try:
            async with asyncio.timeout(self._limits.luggage_s):
                await traveller.run_hook("on_rehydrate", value)
        except Exception as exc:  # noqa: BLE001 - the author's code
            self.drop(traveller.grain, exc)
            _log.error("on_rehydrate failed", exc, grain=traveller.grain)
            return False
        self._used += 1
        return True

    def _expire(self, partition: int) -> None:
        waiting = self._waiting.pop(partition)
        waiting.timer.cancel()
        for grain, packed in waiting.values.items():
            self._in.free(len(packed))
            self.drop(grain, "its partition was not taken in time")

    def __repr__(self) -> str:
        return (
            f"<Carriage waiting={self._in.count} leaving={self._out.count} dropped={self._dropped}>"
        )


class Trunk:
    """The values of one partition's actors, on their way out.

    Args:
        carriage: its silo's.
        partition: which.
        free: the token under which it will be free.
        open: another silo takes it over.

    Attributes:
        values: by grain, encoded.
        arrived: how many of them the next owner has.
    """

    __slots__ = ("_carriage", "arrived", "free", "open", "partition", "values")

    def __init__(self, carriage: Carriage, partition: int, free: Token, *, open: bool) -> None:  # noqa: A002
        self._carriage = carriage
        self.open = open
        self.partition = partition
        self.free = free
        self.values: list[tuple[GrainId, bytes]] = []
        self.arrived = 0

    async def pack(self, traveller: Traveller) -> None:
        """See Carriage."""
        await self._carriage.pack(traveller, self)

    async def ship(self) -> None:
        """See Carriage."""
        if self.values:
            await self._carriage.ship(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._carriage.unload(self)

    def batches(self, limit: int) -> list[tuple[tuple[GrainId, bytes], ...]]:
        """The values in order, in portions that fit into frames."""
        found: list[list[tuple[GrainId, bytes]]] = [[]]
        size = 0
        for grain, packed in self.values:
            cost = len(grain) * 4 + len(packed) + 16
            if size + cost > limit and found[-1]:
                found.append([])
                size = 0
            found[-1].append((grain, packed))
            size += cost
        return [tuple(each) for each in found if each]


class Packed:
    """One actor's value, as it arrived.

    Args:
        data: encoded.
        trusted: whether it may be a pickle.
    """

    __slots__ = ("data", "trusted")

    def __init__(self, data: bytes, trusted: bool) -> None:  # noqa: FBT001 - beside what it is about
        self.data = data
        self.trusted = trusted


class _Waiting:
    """Values for one partition that has not been taken yet."""

    __slots__ = ("free", "timer", "trusted", "values")

    def __init__(self, free: bytes, timer: asyncio.TimerHandle, trusted: bool) -> None:  # noqa: FBT001
        self.free = free
        self.timer = timer
        self.trusted = trusted
        self.values: dict[GrainId, bytes] = {}


class _Room:
    """What there is room for: a number of values, and of their bytes."""

    __slots__ = ("_bytes", "_limits", "count")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = 0
        self.count = 0

    @property
    def full(self) -> bool:
        """Whether nothing more goes in."""
        limits = self._limits
        return self.count >= limits.luggage_count or self._bytes >= limits.luggage_total_bytes

    def take(self, size: int) -> bool:
        """Use room, if there is some."""
        if self.full or self._bytes + size > self._limits.luggage_total_bytes:
            return False
        self.count += 1
        self._bytes += size
        return True

    def free(self, size: int) -> None:
        """Give room back."""
        self.count -= 1
        self._bytes -= size


def _nobody(partition: int) -> None:  # noqa: ARG001 - nothing is served yet
    return None
