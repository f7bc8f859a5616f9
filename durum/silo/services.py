"""What every activation of a silo shares, handed over as one value. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from itertools import count

from durum.client.router import Router
from durum.clock import Clock
from durum.config import SiloConfig
from durum.grains.carried import CARRIED
from durum.grains.filters import NO_FILTERS, Filters, around
from durum.grains.kind import GrainKind, Method
from durum.ids import Token
from durum.silo.effects import Office
from durum.silo.lease import Lease
from durum.silo.meters import Meter, Meters
from durum.silo.observers import Observers
from durum.silo.steps import Steps
from durum.store.protocol import TurnStore
from durum.tasks import TaskOwner


class Load:
    """How much a silo has on its hands, and how its turns ended.

    Attributes:
        tick: a coarse time, for knowing who has been idle; the collector raises it.
        calls: waiting or running.
        bytes: of their arguments.
        committed, rolled_back, fenced: turns since the start.
        dropped: one-way calls that did not run.
        told: messages that were run and committed here.
        parked: messages that were put aside as dead letters here.
    """

    __slots__ = (
        *("bytes", "calls", "committed"),
        *("dropped", "fenced", "parked", "rolled_back", "tick", "told"),
    )

    def __init__(self) -> None:
        self.tick = 0
        self.calls = 0
        self.bytes = 0
        self.committed = 0
        self.rolled_back = 0
        self.fenced = 0
        self.dropped = 0
        self.told = 0
        self.parked = 0

    def __repr__(self) -> str:
        return f"<Load calls={self.calls} bytes={self.bytes} committed={self.committed}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One silo's ports and shared objects.

    Args:
        config: see SiloConfig.
        clock: for leases and deadlines.
        life: 8 random bytes of this silo's life; ids of commits begin with them.
        store: grains.
        lease: whether this silo may answer now.
        router: for calls that grains make.
        tasks: owner of the tasks that turns need.
        store_time: the store's clock as this silo reckons it, seconds.
        reckoned: a time, likewise, that the store's clock has surely reached.
        committed: told each partition's commit counter as commits return it, with the token that they
            carried and whether they were sent more than once.
        halt: told of what no silo may go on after.
        fraction: a number in [0, 1), for jitter.
        base: context variables that every turn starts from.
        meters: see Meters.
        filters: around calls.
        offices: told of effects that have become true.
        load: see Load.
        steps: runs what never waits.
        turns: numbers for turns, unique in this silo's life.
        commits: numbers for commits, likewise.

    Attributes:
        fork: a copy of base.
        held: the lease's.
        next_turn: the next of turns.
        observers: who watches grains of this silo.
    """

    config: SiloConfig
    clock: Clock
    life: bytes
    store: TurnStore
    lease: Lease
    router: Router
    tasks: TaskOwner
    store_time: Callable[[], float]
    reckoned: Callable[[], float]
    committed: Callable[[int, Token, int, bool], None]
    halt: Callable[[BaseException], None]
    fraction: Callable[[], float]
    base: Context
    meters: Meters
    filters: Filters = NO_FILTERS
    offices: list[Office] = field(default_factory=list)
    load: Load = field(default_factory=Load)
    steps: Steps = field(default_factory=Steps)
    turns: count[int] = field(default_factory=lambda: count(1))
    commits: count[int] = field(default_factory=lambda: count(1))
    fork: Callable[[], Context] = field(init=False)
    held: Callable[[float], bool] = field(init=False)
    next_turn: Callable[[], int] = field(init=False)
    observers: Observers = field(init=False)

    def __post_init__(self) -> None:
        """Look up once what every activation calls for every turn: each look-up would be an object."""
        self.base.run(CARRIED.set, None)  # who starts a silo is no caller
        for name, function in (
            ("fork", self.base.copy),
            ("held", self.lease.held),
            ("next_turn", self.turns.__next__),
        ):
            object.__setattr__(self, name, function)
        observers = Observers(
            self.config.limits,
            self.clock,
            self.lease,
            self.tasks,
            self.base,
            self.filters.incoming,
        )
        object.__setattr__(self, "observers", observers)

    def methods(self, kind: GrainKind) -> Mapping[str, tuple[Method, Meter]]:
        """A kind's public methods by name, as they run here, each with its meter."""
        served = self.meters.serve(kind)
        incoming = self.filters.incoming
        if not incoming:
            return served
        return {
            name: (around(kind.name, method, incoming), meter)
            for name, (method, meter) in served.items()
        }

    def next_commit_id(self) -> bytes:
        """Sixteen bytes that no other commit has."""
        return self.life + next(self.commits).to_bytes(8, "big")
