"""A silo at one moment, for pages, metrics and tests. Pure values; counts nothing by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from durum.ids import SiloId
from durum.silo.holdings import OwnershipStatistics
from durum.store.protocol import Durability
from durum.views import Status
from durum.wire.statistics import ServerStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationStatistics:
    """A histogram of durations, bounded as in durum.silo.meters.

    Args:
        buckets: how many lay up to each bound and above the one before; the last: above them all.
        seconds: their sum.
    """

    buckets: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodStatistics:
    """Calls of one method since the silo's start.

    Args:
        kind: the kind; "" for calls of kinds that the silo does not host.
        method: the method; "" for calls that were refused before they were anybody's turn.
        outcomes: how many ended in which way: "ok", "raised", or the class of a Durum error.
        took: from arrival to answer, where a method was found; some stand for sixteen.
    """

    kind: str
    method: str
    outcomes: Mapping[str, int]
    took: DurationStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class KindStatistics:
    """Activations of one kind.

    Args:
        kind: its name.
        active: now.
        begun: since the start.
    """

    kind: str
    active: int
    begun: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverStatistics:
    """Watches of one silo's actors.

    Args:
        watchers: now.
        grains: that are watched now.
        published: events since the start, of grains that were watched.
        missed: of what watchers should have seen, how many were left out because they read too slowly.
    """

    watchers: int
    grains: int
    published: int
    missed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeUpStatistics:
    """Reminders and other things that come due.

    Args:
        waiting: due within seconds, and in memory.
        under_way: of those, being delivered.
        woken: delivered since the start.
        failed: attempts to deliver that failed.
        late: how late reminders' ticks began, against their due times.
    """

    waiting: int
    under_way: int
    woken: int
    failed: int
    late: DurationStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatistics:
    """The way to the store.

    Args:
        url: without secrets.
        durability: what its settings can lose.
        trouble: why the last renewal failed, or "".
        loads: activations' reads.
        commits: from sending to answer.
        batches: sizes of what travelled together, bounded as in durum.store.batches.
        operations: in all of them.
        clock_ahead_s: how far its clock was set ahead of the time that is still believed; 0: not at all.
    """

    url: str
    durability: Durability
    trouble: str
    loads: DurationStatistics
    commits: DurationStatistics
    batches: tuple[int, ...]
    operations: int
    clock_ahead_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LuggageStatistics:
    """Values that actors take along to another silo; see on_dehydrate.

    Args:
        sent: that their next owner has taken in.
        used: that came from another silo and were given to on_rehydrate.
        dropped: that were too much, too late, or could not be used.
        waiting: here, for their partition.
    """

    sent: int
    used: int
    dropped: int
    waiting: int


@dataclass(frozen=True, slots=True)
class PostStatistics:
    """What a silo has to deliver.

    Args:
        waiting: messages in the outboxes of its partitions.
        receivers: for whom they are.
        failing: of those, how many did not take their last one.
        in_flight: batches under way.
        told: messages that were run and committed here.
        parked: messages that were put aside as dead letters here.
    """

    waiting: int
    receivers: int
    failing: int
    in_flight: int
    told: int
    parked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SiloStatistics:
    """All of it.

    Args:
        silo: its id.
        cluster: the service's name.
        status: its row's, in the newest view.
        lease_left_s: how long it may still answer without a renewal; below 0: it may not.
        view: the newest view's version.
        silos: how many rows have each status.
        suspected: votes that are in the table, by the silo they are against.
        partitions: P.
        ownership: of those, the silo's.
        clients: connected.
        peers: connections that other silos have made.
        server: connections by how they ended.
        calls: waiting or running.
        bytes: of their arguments.
        waiting: of the calls, those behind others of their grain, or for its activation.
        held_up: of the calls, those for a partition that is on its way.
        committed, rolled_back, fenced: turns since the start.
        dropped: one-way calls that did not run.
        luggage: see LuggageStatistics.
        loop_blocked: how often the loop was held for too long.
        methods: see MethodStatistics.
        kinds: see KindStatistics.
        observers: see ObserverStatistics.
        wake_ups: see WakeUpStatistics.
        post: see PostStatistics.
        store: see StoreStatistics.
    """

    silo: SiloId
    cluster: str
    status: Status
    lease_left_s: float
    view: int
    silos: Mapping[Status, int]
    suspected: Mapping[SiloId, int]
    partitions: int
    ownership: OwnershipStatistics
    clients: int
    peers: int
    server: ServerStatistics
    calls: int
    bytes: int
    waiting: int
    held_up: int
    committed: int
    rolled_back: int
    fenced: int
    dropped: int
    luggage: LuggageStatistics
    loop_blocked: int
    methods: tuple[MethodStatistics, ...]
    kinds: tuple[KindStatistics, ...]
    observers: ObserverStatistics
    wake_ups: WakeUpStatistics
    post: PostStatistics
    store: StoreStatistics

    @property
    def alive(self) -> bool:
        """Whether its lease holds."""
        return self.lease_left_s > 0

    @property
    def ready(self) -> bool:
        """Whether it serves all that it should own, and stays."""
        served = self.ownership.ready >= self.ownership.wanted
        return self.alive and self.status is Status.ACTIVE and served
