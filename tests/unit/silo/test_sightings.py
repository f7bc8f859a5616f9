"""The stopwatches of hold-off and standstill."""

from __future__ import annotations

import pytest

from durum.config import Lease
from durum.ids import SiloId
from durum.silo.sightings import Sightings

A, B = SiloId("a:1@1"), SiloId("b:1@1")
HEALTHY_S = 2.5


@pytest.fixture
def seen() -> Sightings:
    return Sightings(Lease())


def test_holdoff_counts_from_first_seeing_the_last_heartbeat(seen: Sightings) -> None:
    """Seeing the same heartbeat again proves nothing new, so it must not prolong the wait."""
    seen.read({A: 7}, 100.0, healthy_gap_s=HEALTHY_S)
    seen.read({A: 7}, 103.0, healthy_gap_s=HEALTHY_S)
    assert seen.fenced_at(A, 104.0) == pytest.approx(106.3)


def test_holdoff_starts_over_with_a_newer_heartbeat(seen: Sightings) -> None:
    """A renewal that landed just before its silo was declared dead begins another lease."""
    seen.read({A: 7}, 100.0, healthy_gap_s=HEALTHY_S)
    seen.read({A: 8}, 102.0, healthy_gap_s=HEALTHY_S)
    assert seen.fenced_at(A, 104.0) == pytest.approx(108.3)


def test_holdoff_of_a_silo_never_seen_counts_from_now_once(seen: Sightings) -> None:
    """A record may name a silo that was pruned; asked twice, the wait must not grow."""
    assert seen.fenced_at(A, 100.0) == pytest.approx(106.3)
    assert seen.fenced_at(A, 103.0) == pytest.approx(106.3)


def test_stopwatches_start_over_when_another_process_answers_as_the_store(seen: Sightings) -> None:
    """It may have forgotten renewals that its predecessor confirmed."""
    seen.read({A: 7, B: 1}, 100.0, healthy_gap_s=HEALTHY_S)
    seen.restart(105.0)
    assert seen.fenced_at(A, 106.0) == pytest.approx(111.3)
    assert repr(seen) == "<Sightings of 2 silos>"


def test_a_heartbeat_that_stands_still_condemns_after_the_observers_healthy_time(
    seen: Sightings,
) -> None:
    """After 1.25 leases it has surely fenced itself."""
    for second in range(8):
        seen.read({A: 7, B: second}, 100.0 + second, healthy_gap_s=HEALTHY_S)
    assert seen.stalled([A, B]) == ()
    seen.read({A: 7, B: 8}, 107.6, healthy_gap_s=HEALTHY_S)
    assert seen.stalled([A, B, SiloId("never seen")]) == (A,)


def test_a_pause_of_the_observer_or_the_store_starts_standstill_over(seen: Sightings) -> None:
    """A store that was away for ten seconds must not condemn every silo at its return."""
    for second in range(6):
        seen.read({A: 7}, 100.0 + second, healthy_gap_s=HEALTHY_S)
    seen.read({A: 7}, 120.0, healthy_gap_s=HEALTHY_S)
    seen.read({A: 7}, 127.0, healthy_gap_s=0.0)
    assert seen.stalled([A]) == ()


def test_only_old_stopwatches_of_unlisted_silos_are_forgotten(seen: Sightings) -> None:
    """Dead rows come and go for years; but a wait that still matters must not begin anew."""
    seen.read({A: 7, B: 7}, 100.0, healthy_gap_s=HEALTHY_S)
    seen.forget([A], 140.0)
    assert seen.fenced_at(B, 140.0) == pytest.approx(106.3)
    seen.forget([A], 170.0)
    assert seen.fenced_at(A, 170.0) == pytest.approx(106.3)
    assert seen.fenced_at(B, 170.0) == pytest.approx(176.3)
