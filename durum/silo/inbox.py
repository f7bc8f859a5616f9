"""The messages of one activation: what came is judged by the grain's marks, run as turns, and answered. Owns
who is being delivered; a turn's end is the settlement's, an outbox's order its owner's.

A message's turn commits the mark together with what the method changed, so that it has taken effect once the
mark has. A method that raised leaves no mark: the message comes again, until its last attempt; then it is
parked, and the mark goes with that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from durum import errors
from durum.client.delivery import NO_TURN
from durum.errors import DidRun
from durum.grains.kind import GrainKind, Method
from durum.ids import GrainId, SiloId, Token
from durum.silo import refusals
from durum.silo.durable import Durable
from durum.silo.effects import Staged
from durum.silo.marks import Mark, Marks, Verdict, mark_name, written
from durum.silo.meters import Meter
from durum.silo.services import Services
from durum.silo.stored import StoredEntries
from durum.silo.turn import Sink, Turn, failed, refuse
from durum.store import parts
from durum.telemetry import Log
from durum.wire import post as wire
from durum.wire.messages import AnyMessage, Call, Failure, Hop, Reply

_log: Final = Log("durum.messages")
_PAGE: Final = 1000
_OWN_FAULT: Final = frozenset({"", "ArgumentError", "NoSuchMethod", "NotAuthorized"})
"""Errors of a message that comes again to no avail, unless its method or its receiver changes."""


class Place(Protocol):
    """The activation, as its messages see it."""

    def enter(self, turn: Turn, now: float) -> None:
        """Let a turn begin or wait."""
        ...

    def withdraw(self, turn: Turn) -> bool:
        """Drop one that waits. False where it does not."""
        ...

    async def wait_valid(self) -> bool:
        """Return once it can commit; False where it moves or has gone.

        Raises:
            CallError: it could not be activated.
        """
        ...

    def drop(self) -> None:
        """Be gone at once: the grain is another's."""
        ...


class Taking:
    """One message's turn; the sink of its end.

    Args:
        message: its id.
    """

    __slots__ = ("ended", "message")

    trusted = True
    silo: SiloId | None = None

    def __init__(self, message: str) -> None:
        self.message: Final = message
        self.ended: asyncio.Future[Reply | Failure] = asyncio.get_running_loop().create_future()

    def send(self, message: AnyMessage) -> None:
        """The turn has ended."""
        if not self.ended.done() and isinstance(message, Reply | Failure):
            self.ended.set_result(message)

    def moved(self) -> None:
        """It has not begun, and will not here."""
        if not self.ended.done():
            self.ended.set_result(_MOVED)


_MOVED: Final = Failure(0, "NotServing", DidRun.NO, "it moves")
"""Stands for the end of a message that was not tried, since its activation goes."""


class _Arrival:
    """One message that has come.

    Args:
        name: of its outbox's mark.
        order: what it came with.
        each: itself.
        attempt: which one this is.

    Attributes:
        mark, half: the outbox's, once this one is done, or done in part.
        message: its id.
        saved: a part of it is committed, and it failed.
    """

    __slots__ = ("attempt", "each", "half", "mark", "message", "name", "order", "saved")

    def __init__(self, name: bytes, order: wire.Deliver, each: wire.Numbered, attempt: int) -> None:
        self.name = name
        self.order = order
        self.each = each
        self.attempt = attempt
        self.mark = Mark(each.epoch, each.lineage, each.number)
        self.half = Mark(each.epoch, each.lineage, each.number, half=True)
        self.message = wire.message_id(order.partition, each.lineage, each.number)
        self.saved = False


class Inbox:
    """One activation's.

    Args:
        grain: which.
        kind: its kind.
        durable: its durable side.
        services: the silo's.
        place: see Place.
        entries: its record, patiently read.
    """

    def __init__(
        self,
        grain: GrainId,
        kind: GrainKind,
        durable: Durable,
        services: Services,
        place: Place,
        entries: StoredEntries,
    ) -> None:
        limits = services.config.limits
        self._grain = grain
        self._kind = kind
        self._durable = durable
        self._services = services
        self._place = place
        self._entries = entries
        self._methods: Mapping[str, tuple[Method, Meter]] = services.methods(kind)
        self._attempts: Final = kind.options.message_attempts or limits.message_attempts
        self._timeout_s: Final = limits.call_timeout_s
        self._marks: Marks | None = None
        self._reading = asyncio.Lock()
        self._lines: dict[bytes, asyncio.Lock] = {}
        self._turns: dict[Turn, Taking] = {}
        self._deliveries = 0
        self._stopped = False

    def take(self, call: Call, sink: Sink) -> None:
        """Take in a delivery; it is answered once."""
        try:
            order = wire.decode_deliver(call.args)
        except msgspec.MsgspecError as exc:
            text = f"{self._grain}: a delivery is malformed ({exc}); nothing ran."
            return refuse(sink, call.id, errors.ArgumentError(text))
        load = self._services.load
        self._deliveries += 1
        load.calls += 1
        load.bytes += len(call.args)
        self._services.tasks.start(
            self._answer(call, sink, order),
            f"messages for {self._grain}",
            self._services.base.copy(),
        )
        return None

    @property
    def busy(self) -> bool:
        """Whether messages are being delivered."""
        return self._deliveries > 0

    def stop(self) -> None:
        """The activation is about to go: begin nothing more."""
        self._stopped = True
        for turn, taking in list(self._turns.items()):
            if self._place.withdraw(turn):
                taking.moved()

    async def _answer(self, call: Call, sink: Sink, order: wire.Deliver) -> None:
        try:
            answer = await self._deliver(order)
            if answer is None:
                refuse(sink, call.id, refusals.not_serving(self._grain, "it moves"))
            else:
                sink.send(Reply(call.id, wire.encode(answer)))
        except errors.CallError as exc:
            # Nothing of this one ran; what did before it, its mark will tell.
            refuse(sink, call.id, exc)
        finally:
            self._deliveries -= 1
            load = self._services.load
            load.calls -= 1
            load.bytes -= len(call.args)

    async def _deliver(self, order: wire.Deliver) -> wire.Delivered | None:
        """Run what is new, one after another; None where the activation goes before anything was done."""
        name = mark_name(order.partition, order.receiver, self._grain)
        # Whoever gave up on an earlier delivery may send another while that one runs.
        async with self._lines.setdefault(name, asyncio.Lock()):
            marks = await self._known()
            began, done = self._services.clock.boottime(), 0
            for each in order.rows:
                if self._stopped or self._services.clock.boottime() - began > self._timeout_s:
                    break
                attempt = order.attempt if each is order.rows[0] else 1
                end = await self._see_to(marks, _Arrival(name, order, each, attempt))
                if end is _MOVED:
                    break
                if end is not None:
                    return wire.Delivered(done, end, _counts(end))
                done = each.number
        return wire.Delivered(done) if done else None

    async def _known(self) -> Marks:
        async with self._reading:
            if self._marks is None:
                found: dict[bytes, bytes] = {}
                after = b""
                while True:
                    page = await self._entries.scan(parts.MARKS, after, _PAGE)
                    found.update(page)
                    if parts.is_last(page, _PAGE):
                        break
                    after = page[-1][0]
                self._marks = Marks(found)
        return self._marks

    async def _see_to(self, marks: Marks, arrival: _Arrival) -> Failure | None:
        """See to one message. None where it is done, else why it is not: _MOVED where the activation goes."""
        each = arrival.each
        verdict = marks.judge(arrival.name, each.epoch, each.lineage, each.number)
        if verdict is Verdict.OLDER and await self._lost_its_past(arrival):
            verdict = Verdict.NEW
        if verdict in {Verdict.DONE, Verdict.OLDER}:
            return None
        if verdict is Verdict.HALF:
            end = await self._park(arrival, _half(self._grain))
        else:
            end = await self._attempt(marks, arrival)
        if end is None:
            marks.took(arrival.name, arrival.mark)
        return end

    async def _attempt(self, marks: Marks, arrival: _Arrival) -> Failure | None:
        """Run a message, or park it where that was its last attempt."""
        end = await self._run(arrival)
        if end is None:
            self._services.load.told += 1
            return None
        if end is _MOVED:
            return end
        if arrival.saved:
            # What it saved stays, so it must not run again: not here, and not where nobody remembers this.
            marks.took(arrival.name, arrival.half)
            return await self._park(arrival, end)
        _log.warning(
            "a message was not taken",
            grain=self._grain,
            method=wire.decode_row(arrival.each.row).method,
            attempt=arrival.attempt,
            error=end.text,
            type=end.type_name or end.error,
            traceback=end.traceback,
        )
        if _counts(end) and arrival.attempt >= self._attempts:
            return await self._park(arrival, end)
        return end

    async def _lost_its_past(self, arrival: _Arrival) -> bool:
        """Whether the sender's store has gone back in time, so that an older lineage comes after a newer."""
        order = arrival.order
        if arrival.each.lineage != order.token:
            return False
        try:
            await self._services.store.verify(order.partition, Token(order.token))
        except errors.StoreUnavailable as exc:
            raise refusals.not_serving(self._grain, exc) from exc
        except errors.DurumError:
            return False  # an owner of old, who does not know it yet
        return True

    async def _run(self, arrival: _Arrival) -> Failure | None:
        """Run a message as a turn. None where it is committed."""
        row = wire.decode_row(arrival.each.row)
        known = self._methods.get(row.method)
        if known is None or known[0].streams:
            return failed(0, refusals.no_such_method(self._kind, row.method))
        method, meter = known
        if method.opaque and not row.trusted:
            return failed(0, refusals.untrusted(self._grain, row.method))
        now, number = self._services.clock.boottime(), self._services.next_turn()
        chain = (Hop(row.sender, NO_TURN),) if row.sender else ()
        timeout_ms = int(self._timeout_s * 1000)
        call = Call(
            number, self._grain, row.method, row.args, timeout_ms, "", chain, 0, row.request
        )
        call.carried = row.carried
        taking = Taking(arrival.message)
        until = now + self._timeout_s
        turn = Turn(
            number, call, method, taking, self._durable, until, False, chain, "", meter, now
        )
        turn.staged = staged = Staged()
        staged.closing[arrival.name] = written(arrival.mark), written(arrival.half)
        self._turns[turn] = taking
        try:
            self._place.enter(turn, now)
            end = await taking.ended
        finally:
            del self._turns[turn]
        # What a save took along is no more in the list that the turn began with.
        arrival.saved = (
            isinstance(end, Failure) and end.did_run is DidRun.YES and not staged.closing
        )
        return None if isinstance(end, Reply) else end

    async def _park(self, arrival: _Arrival, why: Failure) -> Failure | None:
        """Put a message aside. None where that is done."""
        services = self._services
        now_ms = int(services.store_time() * 1000)
        letter = wire.Letter(
            self._grain,
            arrival.each.row,
            why.type_name.rpartition(":")[2] or why.error,
            why.text,
            why.traceback,
            arrival.attempt,
            now_ms,
            arrival.message,
        )
        staged = Staged()
        staged.set_part(arrival.name, written(arrival.mark))
        staged.set_letter(wire.letter_name(now_ms, services.next_commit_id()), wire.encode(letter))
        if not await self._place.wait_valid():
            return _MOVED
        error = await self._commit(staged)
        if error is not None:
            return failed(0, error)
        services.load.parked += 1
        _log.error(
            "a message was parked as a dead letter",
            grain=self._grain,
            message=arrival.message,
            attempts=arrival.attempt,
            error=why.text,
            type=why.type_name or why.error,
            traceback=why.traceback,
        )
        return None

    async def _commit(self, staged: Staged) -> errors.CallError | None:
        """Commit effects beside whatever turn runs. The error, where that failed."""
        services = self._services
        if self._durable.version is None:
            await self._entries.know_version()
        done: asyncio.Future[errors.CallError | None] = asyncio.get_running_loop().create_future()
        self._durable.commit(
            change=None,
            with_state=False,
            deadline=services.clock.boottime() + self._timeout_s,
            then=done.set_result,
            staged=staged,
        )
        error = await asyncio.shield(done)
        if self._durable.lost:
            self._place.drop()
        return error

    def __repr__(self) -> str:
        return f"<Inbox {self._grain} lines={len(self._lines)} turns={len(self._turns)}>"


def _counts(failure: Failure) -> bool:
    """Whether a message failed by its own fault, and not by its silo's, its store's or a full queue's."""
    if failure.error == "CallTimeout":
        return failure.did_run is not DidRun.NO
    return failure.error in _OWN_FAULT


def _half(grain: GrainId) -> Failure:
    text = (
        f"{grain}: the message's method saved a part of its work and did not come to its end; it is not run"
        " again."
    )
    return failed(0, errors.CommitFailed(text, DidRun.YES))
