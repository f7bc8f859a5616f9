"""Delivers one partition's messages, as long as the partition is held. Owns the tasks for it and its dealings
with the store; what goes out next, the outbox decides.

Nothing runs for a partition that has nothing to deliver.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec

from durum import errors
from durum.ids import Token
from durum.silo.outbox import Batch, Outbox, Patience, Room
from durum.silo.services import Services
from durum.store.effects import Posted, is_last
from durum.telemetry import Log
from durum.wire import post as wire
from durum.wire.messages import Call, Failure

_log: Final = Log("durum.post")
PAGE: Final = 256
"""Rows read at a time."""
ACK_S: Final = 0.5
"""What is done waits so long for more, before it is acknowledged together."""
ACK_ROWS: Final = 1000
_RETRY_S: Final = 0.25
_DOUBTS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""When to look for what a commit of unknown fate may have sent: it may land late."""


class Slots:
    """How many batches a silo has in flight.

    Args:
        left: how many more it may have.
    """

    __slots__ = ("left", "waiting")

    def __init__(self, left: int) -> None:
        self.left = left
        self.waiting: dict[Desk, None] = {}

    def give_back(self) -> None:
        """One is free again."""
        self.left += 1
        if self.waiting:
            desk = next(iter(self.waiting))
            del self.waiting[desk]
            desk.pump()


class Desk:
    """One partition's.

    Args:
        partition: whose messages.
        epoch, token: the holding.
        services: the silo's.
        slots: see Slots.
        room: see outbox.Room.
        pending: the store has messages that were there before the holding.
        lost: called where the store has another token for the partition.
    """

    def __init__(
        self,
        *,
        partition: int,
        epoch: int,
        token: Token,
        services: Services,
        slots: Slots,
        room: Room,
        pending: bool,
        lost: Callable[[int], None],
    ) -> None:
        limits = services.config.limits
        self.partition: Final = partition
        self.epoch: Final = epoch
        self.token: Final = token
        self._services = services
        self._slots = slots
        self._lost = lost
        patience = Patience(limits.message_retry_s, limits.message_retry_max_s)
        self.outbox: Final = Outbox(patience, room, pending=pending, frame_bytes=limits.frame_bytes)
        self._timeout_ms = int(2000 * limits.call_timeout_s)
        self._deliveries: set[asyncio.Task[object]] = set()
        self._chores: dict[str, asyncio.Task[object]] = {}
        self._rest_at = 0.0
        self._doubts = 0
        self._closed = False

    def pump(self) -> None:
        """Begin whatever may begin."""
        if self._closed:
            return
        now = self._services.clock.boottime()
        if self.outbox.unread is not None:
            self._begin("read", self._read)
        while self._slots.left and (batch := self.outbox.next(now)) is not None:
            self._slots.left -= 1
            task = self._start(self._deliver(batch), f"deliver to {batch.receiver}")
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)
        if not self._slots.left:
            self._slots.waiting[self] = None
        if self.outbox.unacknowledged:
            self._begin("acknowledge", self._acknowledge)
        self._watch_rests()

    def doubt(self) -> None:
        """A commit of unknown fate may have sent something, and may still do so."""
        self._doubts = 0
        self.outbox.doubt()
        self._begin("doubt", self._look_again)
        self.pump()

    def stop(self) -> None:
        """End at once. What was not acknowledged goes out again, from the next owner."""
        self._closed = True
        self._slots.waiting.pop(self, None)
        for task in [*self._deliveries, *self._chores.values()]:
            task.cancel()
        self.outbox.close()

    # Delivering ---------------------------------------------------------------------------------------

    async def _deliver(self, batch: Batch) -> None:
        try:
            await self._deliver_once(batch)
        finally:
            self._slots.give_back()
        self.pump()

    async def _deliver_once(self, batch: Batch) -> None:
        services, receiver, failure = self._services, batch.receiver, None
        answer = wire.Delivered(0)
        try:
            rows = batch.rows or await self._fetch(batch.numbers)
            answer = await self._ask(batch, rows)
        except (errors.DurumError, msgspec.MsgspecError) as exc:
            # Whether any of it ran is not known here: the receiver will know what it has had.
            failure = f"{type(exc).__name__}: {exc}"
        if answer.failure is not None:
            failure = f"{answer.failure.error or answer.failure.type_name}: {answer.failure.text}"
        if self._closed:
            return
        if failure is None and answer.number >= batch.numbers[0]:
            self.outbox.delivered(receiver, answer.number)
        else:
            self.outbox.failed(
                receiver,
                answer.number,
                failure or "it answered nothing",
                counts=answer.counts,
                now=services.clock.boottime(),
                fraction=services.fraction(),
            )
            _log.debug("messages not delivered yet", receiver=receiver, error=failure)

    async def _ask(self, batch: Batch, rows: Sequence[Posted]) -> wire.Delivered:
        order = wire.Deliver(
            self.partition,
            self.token,
            batch.receiver,
            tuple(wire.Numbered(row.number, row.epoch, row.lineage, row.row) for row in rows),
            batch.attempt,
        )
        call = Call(0, batch.receiver, wire.DELIVER, wire.encode(order), self._timeout_ms)
        answer = await self._services.router.relay(call)
        if isinstance(answer, Failure):
            return wire.Delivered(0, answer)
        return wire.decode_delivered(answer.result)

    async def _fetch(self, numbers: Sequence[int]) -> Sequence[Posted]:
        """Read rows again for which there was no room; only the first few of them, perhaps."""
        found = await self._page(numbers[0] - 1)
        wanted = frozenset(numbers)
        return self.outbox.fitting([row for row in found if row.number in wanted])

    def _page(self, after: int) -> asyncio.Future[Sequence[Posted]]:
        return self._services.store.posted(self.partition, self.token, after, PAGE)

    # The store ----------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while (after := self.outbox.unread) is not None:
            self.outbox.asked()
            rows = await self._page(after)
            self.outbox.read(rows, last=is_last(rows, PAGE))
            self.pump()

    async def _acknowledge(self) -> None:
        if self.outbox.unacknowledged < ACK_ROWS:
            await self._services.clock.sleep(ACK_S)
        while done := self.outbox.take_done(ACK_ROWS):
            try:
                await self._services.store.acknowledge(self.partition, self.token, done)
            except BaseException:
                self.outbox.give_back(done)
                raise

    async def _look_again(self) -> None:
        while self._doubts < len(_DOUBTS_S):
            self._doubts += 1
            await self._services.clock.sleep(_DOUBTS_S[self._doubts - 1])
            self.outbox.doubt()
            self.pump()

    async def _chore(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something until it is done, however often the store does not answer."""
        try:
            while True:
                try:
                    await work()
                except errors.StoreUnavailable as exc:
                    _log.debug("the post waits for the store", chore=name, error=str(exc))
                    await self._services.clock.sleep(_RETRY_S)
                else:
                    break
        except errors.Superseded:
            self._lost(self.partition)
            self.stop()
        except errors.DataLoss as exc:
            self._services.halt(exc)
            self.stop()
        finally:
            self._chores.pop(name, None)
        self.pump()

    # Tasks --------------------------------------------------------------------------------------------

    def _begin(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if name not in self._chores:
            self._chores[name] = self._start(self._chore(name, work), name)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[object]:
        what = f"{name}, partition {self.partition}"
        return self._services.tasks.start(work, what, self._services.base.copy())

    def _watch_rests(self) -> None:
        """Be back when the first that rests may go again."""
        at = self.outbox.next_at
        resting = self._chores.get("rest")
        if at is None or (resting is not None and self._rest_at <= at):
            return
        if resting is not None:
            resting.cancel()
            del self._chores["rest"]
        self._rest_at = at
        self._chores["rest"] = self._start(self._rest(at), "rest")

    async def _rest(self, at: float) -> None:
        clock = self._services.clock
        while (left_s := at - clock.boottime()) > 0:
            await clock.sleep(left_s)
        if self._chores.get("rest") is asyncio.current_task():
            del self._chores["rest"]
        self.pump()

    def __repr__(self) -> str:
        return f"<Desk {self.partition} {self.outbox!r}{' closed' if self._closed else ''}>"
