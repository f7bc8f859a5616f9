"""Counters that dashboards are built upon."""

from __future__ import annotations

from itertools import count

import durum
from durum import errors
from durum.errors import DidRun
from durum.grains.kind import kind_of
from durum.silo.meters import BOUNDS_S, Durations, Meter, Meters
from durum.store.batches import BOUNDS, Batches
from durum.wire.messages import Failure, Reply


class Shelf(durum.Actor):
    async def put(self) -> None:
        """Nothing."""


class Watch:
    """A clock that ticks a millisecond at each look."""

    def __init__(self) -> None:
        self._ticks = count(1)

    def __call__(self) -> float:
        return next(self._ticks) / 1000


def failure(error: str) -> Failure:
    return Failure(1, error, DidRun.NO, "")


def test_durations_fall_into_the_bucket_whose_bound_they_do_not_exceed() -> None:
    """Prometheus' `le` means less or equal."""
    durations = Durations()
    for bound in BOUNDS_S:
        durations.add(bound)
    assert durations.buckets == [1] * len(BOUNDS_S) + [0]
    durations.add(BOUNDS_S[-1] + 1)
    assert durations.buckets[-1] == 1
    assert durations.seconds == sum(BOUNDS_S) + BOUNDS_S[-1] + 1


def test_bounds_grow() -> None:
    """The search in them is a bisection."""
    assert list(BOUNDS_S) == sorted(set(BOUNDS_S))
    assert list(BOUNDS) == [2**power for power in range(len(BOUNDS))]


def test_calls_in_one_go_are_counted_one_by_one_and_timed_one_in_sixteen() -> None:
    """What the hot path pays for."""
    clock = Watch()
    meter = Meter("Shelf", "put", clock)
    for number in range(1, 161):
        meter.at_once(0.0)
        assert meter.answered == number
    assert sum(meter.took.buckets) == 160
    assert clock() == 0.011, "the clock was read for more than one in sixteen"


def test_outcomes_add_up_to_the_answers() -> None:
    """A rate of failures is one divided by the other."""
    meter = Meter("Shelf", "put", Watch())
    meter.at_once(0.0)
    meter.ended(0.0, Reply(1, b""))
    meter.ended(0.0, failure(""))
    meter.ended(0.0, failure("CommitFailed"))
    meter.ended(0.0, failure("CommitFailed"))
    assert meter.outcomes() == {"ok": 2, "raised": 1, "CommitFailed": 2}
    assert sum(meter.outcomes().values()) == meter.answered == 5


def test_what_strangers_make_up_becomes_no_label() -> None:
    """Else anybody could fill the memory of silo and Prometheus with names."""
    meters = Meters(Watch())
    for name in ("one", "two"):
        meters.refuse("", errors.NoSuchKind(name))
    (found,) = meters.methods()
    assert (found.kind, found.method, found.outcomes) == ("", "", {"NoSuchKind": 2})


def test_only_what_has_counted_is_told() -> None:
    """A kind may have a hundred methods that nobody calls."""
    meters = Meters(Watch())
    served = meters.serve(kind_of(Shelf))
    assert meters.serve(kind_of(Shelf)) is served
    assert meters.methods() == ()
    served["put"][1].at_once(0.0)
    assert [each.method for each in meters.methods()] == ["put"]


def test_activations_come_and_go() -> None:
    """How many grains are in memory is told without counting them."""
    meters = Meters(Watch())
    meters.appeared("Shelf")
    meters.appeared("Shelf")
    meters.vanished("Shelf")
    (found,) = meters.kinds()
    assert (found.kind, found.active, found.begun) == ("Shelf", 1, 2)


def test_batches_are_counted_by_size() -> None:
    """Whether commits travel together decides what a store can take."""
    batches = Batches()
    for size in (1, 2, 3, 4, 512, 513, 100_000):
        batches.add(size)
    sizes = dict(zip((*BOUNDS, "more"), batches.sizes, strict=True))
    assert {bound: n for bound, n in sizes.items() if n} == {1: 1, 2: 1, 4: 2, 512: 1, "more": 2}
    assert batches.operations == 1 + 2 + 3 + 4 + 512 + 513 + 100_000
    both = Batches.sum([batches, batches])
    assert (both.operations, sum(both.sizes)) == (2 * batches.operations, 14)
