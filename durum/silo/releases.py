"""How a silo lets go of partitions. Owns draining, releasing and who is told; knows not why they go.

Each partition goes by itself as it falls idle: drained, then taken with nobody as the holder, under a token
that fences what may still be on its way, then told to those who asked and to the one who should own it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from durum import errors
from durum.ids import Token
from durum.silo.holdings import Holdings
from durum.silo.patience import answered, pause
from durum.silo.ports import Ports
from durum.store.protocol import Owner, Take
from durum.telemetry import Log
from durum.wire.connection import Connection
from durum.wire.messages import Released

_BATCH: Final = 256
_RETRY_S: Final = 0.25
_log = Log("durum.releases")


class Drainer(Protocol):
    """The part of a silo that runs turns."""

    async def drain(self, partition: int, within_s: float, free: Token) -> None:
        """Finish the partition's turns and let its activations go.

        After it returns no turn of the partition runs or begins under the holding it had. Turns that
        take longer are cancelled. The partition will be free under that token.
        """
        ...

    def taken(self, partition: int, token: Token, seen: Token) -> None:
        """A partition is held from here on under a token, and was taken from the one that was seen."""
        ...

    def drop(self, partition: int) -> None:
        """Forget the partition's activations at once; their turns end without effect."""
        ...


class _Request:
    """Somebody asked us to hand over, and has not had the last answer."""

    __slots__ = ("connection", "id", "waits_for")

    def __init__(self, connection: Connection, request_id: int, waits_for: set[int]) -> None:
        self.connection = connection
        self.id = request_id
        self.waits_for = waits_for


class Releases:
    """Partitions on their way out of one silo.

    Args:
        ports: see Ports.
        holdings: what is held.
        drainer: finishes turns.
        released: called with each record after its release, or after its loss.
        free: called with partitions that became free without anybody having asked, and their tokens.
    """

    def __init__(
        self,
        ports: Ports,
        holdings: Holdings,
        drainer: Drainer,
        released: Callable[[Owner], None],
        free: Callable[[Mapping[int, Token]], None],
    ) -> None:
        self._ports = ports
        self._holdings = holdings
        self._drainer = drainer
        self._released = released
        self._free = free
        self._going: dict[int, Take] = {}
        self._drained: dict[int, None] = {}
        self._requests: list[_Request] = []
        self._soon = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None

    def going(self, partition: int) -> bool:
        """Whether a partition is being let go."""
        return partition in self._going

    @property
    def busy(self) -> bool:
        """Whether any is."""
        return bool(self._going)

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Release what has been drained, until cancelled.

        Args:
            tasks: where draining goes on.
        """
        self._tasks = tasks
        while True:
            await self._soon.wait()
            self._soon.clear()
            while self._drained:
                batch = list(self._drained)[:_BATCH]
                try:
                    await self._release(batch)
                except errors.StoreUnavailable as exc:
                    _log.warning("partitions not released yet", count=len(batch), error=str(exc))
                    await pause(self._soon, _RETRY_S)

    def begin(self, partitions: Iterable[int]) -> None:
        """Start letting go of partitions that are held and ready.

        One that still waits for its hold-off stays until it is over: who takes from nobody serves at once.
        """
        for partition in partitions:
            holding = self._holdings.ready(partition)
            if holding is None or self._tasks is None:
                continue
            holding.draining = True
            self._going[partition] = Take(
                partition=partition,
                seen=holding.token,
                token=self._ports.entropy.token(),
                silo=None,
            )
            self._tasks.create_task(self._drain(partition), name=f"drain {partition}")

    def disown(self, record: Owner) -> None:
        """Release what was never held: nothing has run under it."""
        if record.partition not in self._going:
            self._let_go(record.partition, record.token)
            self._drained[record.partition] = None
            self._soon.set()

    def answer(self, connection: Connection, request_id: int, partitions: Iterable[int]) -> None:
        """Answer a request as the partitions that it waits for become free."""
        request = _Request(connection, request_id, {p for p in partitions if p in self._going})
        if request.waits_for:
            self._requests.append(request)
        else:
            connection.send(Released(request_id, ()))

    def _let_go(self, partition: int, seen: Token) -> None:
        self._going[partition] = Take(
            partition=partition, seen=seen, token=self._ports.entropy.token(), silo=None
        )

    async def _drain(self, partition: int) -> None:
        within_s = self._ports.config.limits.drain_timeout_s
        try:
            await self._drainer.drain(partition, within_s, self._going[partition].token)
        except Exception as exc:  # noqa: BLE001 - whatever became of its turns, the partition has to go
            _log.error("partition not drained in good order", exc, partition=partition)
            self._drainer.drop(partition)
        self._drained[partition] = None
        self._soon.set()

    async def _release(self, batch: list[int]) -> None:
        takes = [self._going[partition] for partition in batch]
        # The very same takes again after an unknown outcome: the record shows whether one succeeded.
        records = await answered(
            self._ports.store.take(self._ports.mark, takes),
            self._ports.config.lease.store_timeout_s,
            "release partitions",
        )
        free: dict[int, Token] = {}
        for take, record in zip(takes, records, strict=True):
            self._holdings.drop(take.partition)
            self._drainer.drop(take.partition)  # no activation is left, but what it was unsure of
            del self._going[take.partition]
            del self._drained[take.partition]
            if record.token == take.token:
                free[take.partition] = take.token
            self._released(record)
        told = self._answer_requests(frozenset(batch), free)
        self._free({p: token for p, token in free.items() if p not in told})

    def _answer_requests(
        self, settled: frozenset[int], free: Mapping[int, Token]
    ) -> frozenset[int]:
        """Tell those who asked for what has just been settled. Returns what somebody was told of."""
        told: list[int] = []
        for request in list(self._requests):
            mine = sorted(request.waits_for & settled & free.keys())
            request.waits_for -= settled
            if not request.waits_for:
                self._requests.remove(request)
            if not request.connection.closing:
                told += mine
                pairs = tuple((partition, bytes(free[partition])) for partition in mine)
                request.connection.send(Released(request.id, pairs, more=bool(request.waits_for)))
        return frozenset(told)

    def __repr__(self) -> str:
        return f"<Releases going={len(self._going)} drained={len(self._drained)}>"
