"""Takes in calls and brings each to its activation, or says where else it has to go. Runs no user code.

Bounds what a silo has on its hands, remembers which turns can be cancelled, and ends those whose deadline
has passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from durum import errors
from durum.grains.carried import excess
from durum.grains.kind import GrainKind
from durum.ids import Address, GrainId, SiloId, address_of, grain_id, split_grain_id
from durum.placement.partitions import partition_of
from durum.silo import refusals
from durum.silo.activation import Activation
from durum.silo.administration import Administration
from durum.silo.catalog import Catalog
from durum.silo.directory import Directory
from durum.silo.holdings import Holding, Tenure
from durum.silo.hosting import Hosting, is_asked_of_owner
from durum.silo.relay import Relay
from durum.silo.services import Services
from durum.silo.streams import Outgoings
from durum.silo.turn import Sink, Turn, refuse
from durum.silo.unanswered import Unanswered
from durum.silo.waiting import Waiting
from durum.silo.workers import NOWHERE
from durum.wire.administration import ANYWHERE, PREFIX, WATCH
from durum.wire.hints import HINT
from durum.wire.messages import Call, Cancel, Credit, Moved, Notice, Open

_SWEEP_S: Final = 0.25


class Holdings(Protocol):
    """Which partitions this silo serves, and who should serve the others: the ownership."""

    def holding(self, partition: int) -> Holding | None:
        """The holding, where this silo serves the partition now."""
        ...

    async def held(self, partition: int, timeout_s: float) -> Holding | None:
        """Wait until this silo serves the partition; None where it does not in time."""
        ...

    def wanted(self, partition: int) -> SiloId | None:
        """Who owns the partition by the newest view."""
        ...


class Dispatcher:
    """The way in for calls, from connections and from this silo's own grains.

    Args:
        silo: this silo.
        partitions: P.
        services: the silo's.
        version: the newest view's number.
    """

    def __init__(
        self, *, silo: SiloId, partitions: int, services: Services, version: Callable[[], int]
    ) -> None:
        self._silo = silo
        self._partitions = partitions
        self._services = services
        self._load = services.load
        self._limits = services.config.limits
        self._boottime = services.clock.boottime
        self._version = version
        self._tracked: dict[tuple[int, int], Turn] = {}
        self._any_tracked = asyncio.Event()
        self._waiting = Waiting(services, self._refuse)
        self._gone: dict[
            int, Sink
        ] = {}  # held until then, so that no new one gets the same identity
        self.streams = Outgoings(services, self.call)
        self._activations: Mapping[GrainId, Activation] = {}
        self._catalog: Catalog
        self._administration: Administration
        self._relay: Relay
        self._holdings: Holdings
        self._hosting: Hosting
        self._closed = False

    def open(
        self,
        *,
        catalog: Catalog,
        holdings: Holdings,
        directory: Directory,
        administration: Administration,
        relay: Relay,
    ) -> None:
        """Take in calls for the catalog's grains from here on."""
        self._hosting = Hosting(
            silo=self._silo,
            directory=directory,
            catalog=catalog,
            waiting=self._waiting,
            way=self,
            holding=holdings.holding,
            version=self._version,
        )
        self._relay = relay
        self._catalog = catalog
        self._administration = administration
        self._holdings = holdings
        self._activations = catalog.activations

    def close(self) -> None:
        """Refuse all calls from here on; they did not run."""
        self._closed = True

    def call(self, sink: Sink, call: Call) -> None:
        """Take in a call; it is answered once, now or later."""
        load, limits = self._load, self._limits
        if load.calls >= limits.silo_calls or load.bytes > limits.silo_bytes:
            return self._refuse(
                sink,
                call,
                errors.Overloaded(
                    f"{self._silo} has {load.calls} calls with {load.bytes} bytes on its hands (limits"
                    f" {limits.silo_calls}, {limits.silo_bytes}); the call did not run. Slow down, add"
                    " silos, or raise silo_calls or silo_bytes."
                ),
            )
        if call.carried is not None and (reason := excess(call.carried)):
            text = f"{call.grain}: {reason}; the call did not run."
            return self._refuse(sink, call, errors.ArgumentError(text))
        activation = self._activations.get(call.grain)
        if activation is not None and not self._closed:
            boottime = self._boottime  # see Performer._perform
            return activation.offer(call, sink, boottime())
        return self._place(sink, call)

    def notice(self, sink: Sink, notice: Notice) -> None:
        """Take in a one-way call: it runs, or is passed on, or is dropped."""
        notice.grain = self._stored(notice.grain)
        unanswered = Unanswered(notice, self._services, sink)
        self.call(unanswered, unanswered.call)

    def stream(self, sink: Sink, message: Open) -> None:
        """Take in a request for a stream; its items and its end go to the sink."""
        stored = self._stored(message.grain)
        if stored != message.grain:
            message.grain = stored
            if not self.works_for(stored) and self._relay.take(sink, message):
                return
        self.streams.open(sink, message)

    def credit(self, sink: Sink, message: Credit) -> None:
        """The reader of a stream has room for more."""
        if not self._relay.credit(sink, message):
            self.streams.credit(sink, message)

    def lost(self, sink: Sink) -> None:
        """Whoever sent calls is gone, and nothing can be sent there any more: end what nobody waits for."""
        for stream in self.streams.lost(sink):
            self._waiting.cancel(stream, stream.call.id)
        if not self._gone:
            # Many may go at once, and each look goes through all that waits here.
            asyncio.get_running_loop().call_soon(self._end_calls, context=self._services.base)
        self._gone[id(sink)] = sink

    def _end_calls(self) -> None:
        """Drop and cancel the calls of those who are gone."""
        gone, self._gone = self._gone, {}
        self._waiting.lost(gone)
        for turn in [turn for turn in self._tracked.values() if id(turn.sink) in gone]:
            self._cancel(turn)

    def cancel(self, sink: Sink, message: Cancel) -> None:
        """The caller no longer waits for a call."""
        turn = self._tracked.get((id(sink), message.id))
        stream = self.streams.find(sink, message.id)
        if stream is not None:
            stream.cancel()
            sink = stream  # as which it may wait for its partition
        if turn is not None:
            self._cancel(turn)
        elif not self._waiting.cancel(sink, message.id) and stream is None:
            self._relay.cancel(sink, message.id)

    # Calls to grains that are not alive here ----------------------------------------------------------

    def administer(self, sink: Sink, call: Call) -> None:
        """Take in an operator's request."""
        self._place(sink, call)

    def _stored(self, grain: GrainId) -> GrainId:
        """The id under which the data lies, where a caller knows the kind by another name."""
        aliases = self._catalog.aliases
        if not aliases:
            return grain
        kind, key = split_grain_id(grain)
        return GrainId(f"{aliases[kind]}/{key}") if kind in aliases else grain

    def _place(self, sink: Sink, call: Call) -> None:
        stored = self._stored(call.grain)
        if stored != call.grain:
            return self._rename(sink, call, stored)
        refusal = self._refusal(call)
        if refusal is not None:
            return self._refuse(sink, call, refusal)
        if call.method in ANYWHERE:
            return self._administration.take(sink, call, None)
        kind = self._catalog.kind_of(call.grain)
        if kind is not None and kind.stateless and not call.method.startswith(PREFIX):
            return self._work(sink, call, kind)
        return self._place_owned(sink, call)

    def _place_owned(self, sink: Sink, call: Call) -> None:
        """Bring a call to its grain by way of its partition's owner, or to the silo that it is on."""
        partition = partition_of(call.grain, self._partitions)
        holding = self._holdings.holding(partition)
        if holding is not None:
            if call.method == HINT or not self._hosting.take(sink, call, holding):
                self.serve(sink, call, holding)
            return
        wanted = self._holdings.wanted(partition) == self._silo
        if call.method == HINT or not self._hosting.visit(sink, call, partition, wanted=wanted):
            self.send_on(sink, call, partition)

    def send_on(self, sink: Sink, call: Call, partition: int) -> None:
        """A partition is not held here: let the call wait for it, or say who should have it."""
        wanted = self._holdings.wanted(partition)
        if wanted == self._silo:
            timeout_s = call.timeout_ms / 1000
            self._waiting.hold(
                sink,
                call,
                until=lambda: self._holdings.held(partition, timeout_s),
                then=self._arrived,
                late="its partition did not arrive in time",
            )
            return
        owner = Address("") if wanted is None else address_of(wanted)
        sink.send(Moved(call.id, owner, self._version()))

    def _arrived(self, sink: Sink, call: Call, holding: Holding | None) -> None:
        """A partition has arrived, or is not to come any more."""
        partition = partition_of(call.grain, self._partitions)
        if holding is None and self._holdings.wanted(partition) == self._silo:
            why = refusals.not_serving(call.grain, "its partition is on its way here")
            return self._refuse(sink, call, why)
        return self.call(sink, call)

    def _rename(self, sink: Sink, call: Call, stored: GrainId) -> None:
        """Bring a call to the grain that its caller knows by another name.

        That is of another partition, so the caller must not be told that this one has moved.
        """
        call.grain = stored
        if self.works_for(stored) or not self._relay.take(sink, call):
            self.call(sink, call)

    def _refusal(self, call: Call) -> errors.CallError | None:
        """Why a call can be answered by no silo, or not by this one now."""
        if self._closed:
            return errors.ShuttingDown(f"{self._silo} is stopping; the call did not run.")
        kind, key = split_grain_id(call.grain)
        try:
            # Only our own clients keep the rules for keys by themselves.
            grain_id(kind, key)
        except errors.ArgumentError as exc:
            return exc
        return None

    def serve(self, sink: Sink, call: Call, place: Tenure) -> None:
        """Bring a call to a grain that is not alive and is this silo's."""
        kind = self._catalog.kind_of(call.grain)
        if call.method == WATCH:
            return self._watch(sink, call, kind, place)
        if kind is None or is_asked_of_owner(call):
            return self._administration.take(sink, call, place)
        if kind.stateless:  # nobody wakes a worker
            return self._refuse(sink, call, refusals.no_such_method(kind, call.method))
        now = self._services.clock.boottime()
        if not self._services.lease.held(now):
            return self._refuse(sink, call, refusals.lapsed(call.grain))
        quarantined = self._catalog.quarantine.refusal(call.grain, now)
        if quarantined is not None:
            return self._refuse(sink, call, quarantined)
        activation = self._catalog.create(kind, call.grain, place.partition, place.token)
        return activation.offer(call, sink, now)

    def _watch(self, sink: Sink, call: Call, kind: GrainKind | None, place: Tenure) -> None:
        """Bring a watch to a grain that is this silo's, be it alive or not."""
        if kind is None:
            return self._refuse(sink, call, refusals.no_host(call.grain, self._silo))
        held = place.partition if isinstance(place, Holding) else NOWHERE
        return self._services.observers.take(sink, call, kind, held)

    def _work(self, sink: Sink, call: Call, kind: GrainKind) -> None:
        """Bring a call to a worker; every silo has its own."""
        now = self._services.clock.boottime()
        if not self._services.lease.held(now):
            return self._refuse(sink, call, refusals.lapsed(call.grain))
        return self._catalog.workers.offer(kind, call, sink, now)

    def works_for(self, grain: GrainId) -> bool:
        """Whether this silo serves the grain wherever its calls come from."""
        kind = self._catalog.kind_of(grain)
        return grain in self._activations or (kind is not None and kind.stateless)

    def astray(self, grain: GrainId) -> bool:
        """Whether the grain may be elsewhere although its partition is here."""
        return grain not in self._activations and self._hosting.leads(grain)

    def _refuse(self, sink: Sink, call: Call, error: errors.CallError) -> None:
        """Refuse a call that is no turn yet."""
        kind = self._catalog.kind_of(call.grain)
        self._services.meters.refuse("" if kind is None else kind.name, error)
        refuse(sink, call.id, error)

    def elsewhere(self, turn: Turn) -> None:
        """Place a call anew; it did not run in its activation."""
        if turn.tracked:
            self.untrack(turn)
        turn.ended = True
        load = self._services.load
        load.calls -= 1
        load.bytes -= len(turn.call.args)
        left_s = turn.deadline - self._services.clock.boottime()
        turn.call.timeout_ms = max(1, int(left_s * 1000))
        self.call(turn.sink, turn.call)

    # Turns that can be cancelled ----------------------------------------------------------------------

    def track(self, turn: Turn) -> None:
        """Remember a turn that waits or takes its time."""
        turn.tracked = True
        self._any_tracked.set()
        self._tracked[id(turn.sink), turn.call.id] = turn

    def untrack(self, turn: Turn) -> None:
        """A tracked turn has ended, or goes elsewhere."""
        turn.tracked = False
        self._tracked.pop((id(turn.sink), turn.call.id), None)

    async def sweep(self) -> None:
        """End turns whose deadline has passed. Runs until cancelled."""
        clock = self._services.clock
        while True:
            await self._any_tracked.wait()
            await clock.sleep(_SWEEP_S)
            if not self._tracked:
                self._any_tracked.clear()
            now = clock.boottime()
            for turn in [turn for turn in self._tracked.values() if now >= turn.deadline]:
                self._cancel(turn)

    def _cancel(self, turn: Turn) -> None:
        activation = self._activations.get(turn.call.grain)
        if activation is not None:
            activation.cancel(turn)
        elif self._catalog.workers.cancel(turn):
            pass
        elif turn.task is not None:
            turn.task.cancel()

    def waiting(self) -> int:
        """How many calls wait: for others of their grain, or for its activation."""
        return sum(turn.task is None and not turn.over for turn in self._tracked.values())

    def held_up(self) -> int:
        """How many calls wait until it is known where they go."""
        return len(self._waiting)

    async def settle(self, within_s: float) -> None:
        """Return when nothing is waiting or running, or the time is up."""
        clock = self._services.clock
        until = clock.boottime() + within_s
        while self._services.load.calls and clock.boottime() < until:
            await clock.sleep(0.005)

    def __repr__(self) -> str:
        return f"<Dispatcher {self._silo} tracked={len(self._tracked)} {self._services.load!r}>"
