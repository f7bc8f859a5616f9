"""Who watches the grains of this silo. Owns each watch's buffer, credit and end; knows no activation: a watch
neither wakes a grain nor keeps it.

A watch is a stream whose items nobody makes by turns: they are what turns have published. It ends when the
grain's partition leaves this silo, and its watcher begins anew where the grain is then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Final

from durum import errors
from durum.clock import Clock
from durum.config import Limits
from durum.errors import DidRun
from durum.grains import events, failure
from durum.grains.carried import CARRIED, trace_of
from durum.grains.context import TurnContext
from durum.grains.filters import Filter, Invocation, admit
from durum.grains.kind import GrainKind
from durum.grains.watching import METHOD
from durum.ids import GrainId, split_grain_id
from durum.silo import refusals
from durum.silo.lease import Lease
from durum.silo.statistics import ObserverStatistics
from durum.silo.turn import Sink, failed, refuse
from durum.tasks import TaskOwner
from durum.wire.messages import AnyMessage, Call, Failure, Item, Moved, Open, Reply

WINDOW_LIMIT: Final = 1024
_SIGNS: Final = 3
"""Signs of life in the time after which silence is taken for loss."""
_SWEEP_S: Final = 1.0
_SHORTEST_S: Final = 0.05


def _nowhere() -> None:
    """It is not on its way yet."""


class Watcher:
    """One watch; also the sink of what becomes of it on its way to the grain.

    Args:
        message: what asks for it.
        sink: where its events go.
        limits: of its buffer.
        ended: called once it is over.

    Attributes:
        call: the same as a call, to be placed as all calls are.
        period_s: how often it wants a sign of life.
        sent_at: boottime of the last sign of life.
        place: brings it to its grain, wherever that is now.
        admitted: filters have let it through.
    """

    __slots__ = (
        *("_bytes", "_credit", "_ended", "_limits", "_missed", "_waiting"),
        *(
            "admitted",
            "call",
            "leave",
            "over",
            "period_s",
            "place",
            "sent_at",
            "silo",
            "sink",
            "trusted",
        ),
    )

    def __init__(
        self, message: Open, sink: Sink, limits: Limits, ended: Callable[[Watcher], None]
    ) -> None:
        self.sink = sink
        self.trusted = sink.trusted
        self.silo = sink.silo
        self.place: Callable[[], None] = _nowhere
        self.admitted = False
        self.call = Call(
            message.id,
            message.grain,
            message.method,
            message.args,
            message.timeout_ms,
            "",
            message.chain,
            message.hops,
            message.request,
            message.carried,
        )
        self.period_s = max(_SHORTEST_S, message.timeout_ms / 1000 / _SIGNS)
        self.sent_at = 0.0
        self.over = False
        self.leave: Callable[[Watcher], None] | None = None
        self._limits = limits
        self._ended = ended
        self._credit = max(1, min(message.window, WINDOW_LIMIT))
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._missed = 0

    def begin(self, leave: Callable[[Watcher], None], now: float) -> None:
        """It has come to its grain."""
        self.leave = leave
        self.sign(now)

    def sign(self, now: float) -> None:
        """Show that the watch holds, where there is room; a reader who is behind has other signs."""
        if self._credit > 0:
            self._send(events.ALIVE)
            self.sent_at = now

    def offer(self, event: bytes) -> int:
        """Take in an event. How many earlier ones are left out for it."""
        if self._credit > 0 and not self._waiting:
            self._send(event)
            return 0
        self._waiting.append(event)
        self._bytes += len(event)
        before = self._missed
        while len(self._waiting) > self._limits.watch_events or (
            self._bytes > self._limits.watch_bytes and len(self._waiting) > 1
        ):
            self._bytes -= len(self._waiting.popleft())
            self._missed += 1
        return self._missed - before

    def grant(self, items: int) -> None:
        """The watcher has room for more."""
        self._credit = min(self._credit + max(0, items), WINDOW_LIMIT)
        self._pump()

    def cancel(self) -> None:
        """The watcher wants no more, or is gone."""
        self._over()

    def end(self, error: errors.CallError) -> None:
        """There is no more here."""
        self.send(failed(self.call.id, error))

    def send(self, message: AnyMessage) -> None:
        """It could not be placed, or ends."""
        if not self.over and isinstance(message, Reply | Failure | Moved):
            message.id = self.call.id
            self._over()
            self.sink.send(message)

    def _pump(self) -> None:
        if self._credit > 0 and self._missed:
            self._send(events.missed(self._missed))
            self._missed = 0
        while self._credit > 0 and self._waiting:
            event = self._waiting.popleft()
            self._bytes -= len(event)
            self._send(event)

    def _send(self, value: bytes) -> None:
        self._credit -= 1
        self.sink.send(Item(self.call.id, value))

    def _over(self) -> None:
        if self.over:
            return
        self.over = True
        self._waiting.clear()
        if self.leave is not None:
            self.leave(self)
        self._ended(self)

    def __repr__(self) -> str:
        return (
            f"<Watcher {self.call.grain} credit={self._credit} waiting={len(self._waiting)}"
            f" missed={self._missed}>"
        )


class Observers:
    """All watches of one silo's grains.

    Args:
        limits: how many, and what waits for each.
        clock: for signs of life.
        lease: whether this silo may still be the grains' own.
        tasks: owner of the task that gives signs of life.
        base: context variables that it starts from.
        incoming: filters around whatever comes to grains.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        lease: Lease,
        tasks: TaskOwner,
        base: Context,
        incoming: Sequence[Filter],
    ) -> None:
        self._incoming = incoming
        self._limits = limits
        self._clock = clock
        self._lease = lease
        self._tasks = tasks
        self._base = base
        self._by_grain: dict[GrainId, dict[Watcher, None]] = {}
        self._by_partition: dict[int, dict[GrainId, None]] = {}
        self._count = 0
        self._published = 0
        self._missed = 0
        self._shortest_s = _SWEEP_S
        self._sweeping: asyncio.Task[object] | None = None

    def take(self, sink: Sink, call: Call, kind: GrainKind, partition: int) -> None:
        """Begin a watch of a grain whose partition this silo serves.

        Args:
            sink: the Watcher; whatever else asks is refused.
            call: whose grain.
            kind: the grain's.
            partition: the grain's.
        """
        refusal = self._refusal(call.grain, kind)
        if refusal is not None or not isinstance(sink, Watcher):
            return refuse(sink, call.id, refusal or refusals.no_call(call.grain, "watch"))
        if sink.over:
            return None
        if self._incoming and not sink.admitted:
            context = self._base.copy()
            context.run(CARRIED.set, call.carried)
            self._tasks.start(self._ask_filters(sink, kind), f"watch {call.grain}", context)
            return None
        grain = call.grain
        self._by_grain.setdefault(grain, {})[sink] = None
        self._by_partition.setdefault(partition, {})[grain] = None
        self._count += 1
        self._shortest_s = min(self._shortest_s, sink.period_s)
        sink.begin(lambda watcher: self._left(watcher, partition), self._clock.boottime())
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = self._tasks.start(self._sweep(), "watches", self._base.copy())
        return None

    def _refusal(self, grain: GrainId, kind: GrainKind) -> errors.CallError | None:
        if kind.events is None:
            return errors.NoSuchMethod(
                f"{grain}: its class publishes nothing here, so it cannot be watched. Derive it from"
                " durum.Publishes[...], on all silos."
            )
        if not self._lease.held(self._clock.boottime()):
            return refusals.lapsed(grain)
        limits, these = self._limits, self._by_grain.get(grain, {})
        if self._count >= limits.watchers or len(these) >= limits.watchers_per_grain:
            return errors.Overloaded(
                f"{grain} has {len(these)} watches (limit {limits.watchers_per_grain}), and its silo"
                f" {self._count} (limit {limits.watchers}); this one did not begin. Have fewer watch, which"
                " pass on what they see, or raise watchers_per_grain or watchers."
            )
        return None

    async def _ask_filters(self, watcher: Watcher, kind: GrainKind) -> None:
        """Let filters look at it, or refuse it, as they do with calls."""
        call = watcher.call
        context = TurnContext(
            method=call.method,
            request=call.request,
            caller=call.chain[-1].grain if call.chain else None,
            baggage={} if call.carried is None else call.carried.baggage,
            trace=trace_of(call.carried),
        )
        key = split_grain_id(call.grain)[1]
        invocation = Invocation(kind.name, key, call.method, True, True, context, METHOD, call.args)
        try:
            await admit(self._incoming, invocation)
        except Exception as exc:  # noqa: BLE001 - the author's filter
            watcher.send(failure.encode(exc, call.id, DidRun.NO))
        else:
            watcher.admitted = True
            watcher.place()  # anew: the grain may have moved meanwhile

    def publish(self, grain: GrainId, written: Sequence[bytes]) -> None:
        """Send events to whoever watches the grain."""
        watchers = self._by_grain.get(grain)
        if watchers is None:
            return
        self._published += len(written)
        for watcher in tuple(watchers):
            for event in written:
                self._missed += watcher.offer(event)

    def doubt(self, grain: GrainId) -> None:
        """It is not known whether a turn that published has committed; tell whoever watches."""
        for watcher in tuple(self._by_grain.get(grain, ())):
            self._missed += watcher.offer(events.missed(0))

    def end(self, partition: int) -> None:
        """A partition leaves this silo: its watchers begin anew where it goes."""
        for grain in tuple(self._by_partition.get(partition, ())):
            self.end_grain(grain)

    def end_grain(self, grain: GrainId) -> None:
        """A grain leaves this silo, or may have."""
        for watcher in tuple(self._by_grain.get(grain, ())):
            watcher.end(errors.StreamMoved(f"{grain} has moved to another silo; watch it there."))

    def end_all(self) -> None:
        """This silo serves nothing any more."""
        for grain in tuple(self._by_grain):
            self.end_grain(grain)

    def watched(self, grain: GrainId) -> bool:
        """Whether anybody watches the grain here."""
        return grain in self._by_grain

    def statistics(self) -> ObserverStatistics:
        """As counted so far."""
        return ObserverStatistics(
            watchers=self._count,
            grains=len(self._by_grain),
            published=self._published,
            missed=self._missed,
        )

    def _left(self, watcher: Watcher, partition: int) -> None:
        grain = watcher.call.grain
        self._count -= 1
        watchers = self._by_grain[grain]
        del watchers[watcher]
        if not watchers:
            del self._by_grain[grain]
            grains = self._by_partition[partition]
            del grains[grain]
            if not grains:
                del self._by_partition[partition]

    async def _sweep(self) -> None:
        """Give signs of life while anybody watches."""
        while self._by_grain:
            await self._clock.sleep(min(_SWEEP_S, self._shortest_s / 2))
            now = self._clock.boottime()
            if not self._lease.held(now):
                self.end_all()  # another silo may be the grains' own already
            for watchers in tuple(self._by_grain.values()):
                for watcher in watchers:
                    if now - watcher.sent_at >= watcher.period_s:
                        watcher.sign(now)
        self._shortest_s = _SWEEP_S

    def __repr__(self) -> str:
        return f"<Observers {self._count} of {len(self._by_grain)} grains>"
