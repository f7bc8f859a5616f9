"""Counters of one silo's calls and of its way to the store. Owns plain numbers; formats and sends nothing.

They are read when somebody asks. What a call pays is one addition; only each sixteenth of the calls that run
from start to end in one go is also timed, and stands for the others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from durum.grains.kind import GrainKind, Method
from durum.silo.statistics import DurationStatistics, KindStatistics, MethodStatistics
from durum.wire.messages import Failure, Reply

BOUNDS_S: Final = (
    *(0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5),
    *(0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
"""Upper bounds of the buckets of all durations; one more bucket takes what is above them all."""
RAISED: Final = "raised"
"""The outcome of a call whose method raised an exception of its own."""
OK: Final = "ok"
_SAMPLED: Final = 16
_MASK: Final = _SAMPLED - 1


class Durations:
    """A histogram of durations."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.seconds = 0.0

    def add(self, took_s: float, weight: int = 1) -> None:
        """Count one, or one that stands for several."""
        self.buckets[bisect_left(BOUNDS_S, took_s)] += weight
        self.seconds += took_s * weight

    def statistics(self) -> DurationStatistics:
        """As counted so far."""
        return DurationStatistics(buckets=tuple(self.buckets), seconds=self.seconds)

    def __repr__(self) -> str:
        return f"<Durations {sum(self.buckets)} in {self.seconds:.3f} s>"


class Meter:
    """Calls of one method of one kind.

    Args:
        kind: the kind's name.
        method: the method's.
        now: boottime.

    Attributes:
        answered: all that were.
        failed: of those, how many by each outcome but "ok".
        took: from arrival to answer, waiting included.
    """

    __slots__ = ("_now", "answered", "failed", "kind", "method", "took")

    def __init__(self, kind: str, method: str, now: Callable[[], float]) -> None:
        self.kind: Final = kind
        self.method: Final = method
        self._now = now
        self.answered = 0
        self.failed: dict[str, int] = {}
        self.took = Durations()

    def at_once(self, since: float) -> None:
        """A call was answered by a value in one go. The hot path.

        Args:
            since: boottime of its arrival.
        """
        self.answered = answered = self.answered + 1
        if not answered & _MASK:
            self.took.add(self._now() - since, _SAMPLED)

    def ended(self, since: float, outcome: Reply | Failure) -> None:
        """A call was answered.

        Args:
            since: boottime of its arrival.
            outcome: the answer.
        """
        self.answered += 1
        self.took.add(self._now() - since)
        if type(outcome) is Failure:
            name = outcome.error or RAISED
            self.failed[name] = self.failed.get(name, 0) + 1

    def refused(self, outcome: str) -> None:
        """A call was refused before it was anybody's turn.

        Args:
            outcome: the error's class.
        """
        self.answered += 1
        self.failed[outcome] = self.failed.get(outcome, 0) + 1

    def outcomes(self) -> dict[str, int]:
        """How many were answered in which way."""
        good = self.answered - sum(self.failed.values())
        return {OK: good, **self.failed} if self.method else dict(self.failed)

    def __repr__(self) -> str:
        return f"<Meter {self.kind}.{self.method} answered={self.answered} failed={self.failed}>"


class Alive:
    """Activations of one kind.

    Attributes:
        active: now, those that come or go included.
        begun: since the start.
    """

    __slots__ = ("active", "begun")

    def __init__(self) -> None:
        self.active = 0
        self.begun = 0


class Meters:
    """All counters of one silo's life.

    Args:
        now: boottime.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._served: dict[str, Mapping[str, tuple[Method, Meter]]] = {}
        self._refused: dict[str, Meter] = {}
        self._timers: dict[tuple[str, str], Meter] = {}
        self.alive: dict[str, Alive] = {}
        self.loads = Durations()
        self.reads = Durations()  # of entries of collections
        self.commits = Durations()
        self.lateness = Durations()  # of reminders' ticks, against their due times

    def serve(self, kind: GrainKind) -> Mapping[str, tuple[Method, Meter]]:
        """A kind's public methods by name, each with its meter."""
        found = self._served.get(kind.name)
        if found is None:
            found = self._served[kind.name] = {
                name: (method, Meter(kind.name, name, self._now))
                for name, method in kind.methods.items()
            }
        return found

    def timer(self, kind: str, method: str) -> Meter:
        """Where the ticks of timers with one callback are counted."""
        return self._timers.setdefault((kind, method), Meter(kind, method, self._now))

    def refuse(self, kind: str, error: Exception) -> None:
        """Count a call that was refused before it was anybody's turn.

        Args:
            kind: one that this silo hosts, or "": what strangers make up must not become a label.
            error: why.
        """
        meter = self._refused.get(kind)
        if meter is None:
            meter = self._refused[kind] = Meter(kind, "", self._now)
        meter.refused(type(error).__name__)

    def appeared(self, kind: str) -> None:
        """A grain of a kind begins to be active."""
        alive = self.alive.get(kind)
        if alive is None:
            alive = self.alive[kind] = Alive()
        alive.active += 1
        alive.begun += 1

    def vanished(self, kind: str) -> None:
        """A grain of a kind is no longer active."""
        self.alive[kind].active -= 1

    def all(self) -> Sequence[Meter]:
        """Every meter that has counted something."""
        served = (meter for methods in self._served.values() for _, meter in methods.values())
        others = (*self._refused.values(), *self._timers.values())
        return [meter for meter in (*served, *others) if meter.answered]

    def methods(self) -> tuple[MethodStatistics, ...]:
        """Calls as counted so far."""
        return tuple(
            MethodStatistics(
                kind=meter.kind,
                method=meter.method,
                outcomes=meter.outcomes(),
                took=meter.took.statistics(),
            )
            for meter in self.all()
        )

    def kinds(self) -> tuple[KindStatistics, ...]:
        """Activations as counted so far."""
        return tuple(
            KindStatistics(kind=kind, active=alive.active, begun=alive.begun)
            for kind, alive in self.alive.items()
        )

    def __repr__(self) -> str:
        return f"<Meters {len(self.all())} methods, {self.commits!r}>"
