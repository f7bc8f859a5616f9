"""Store time as a silo reckons it, and the jumps that it must not mistake for slowness."""

from __future__ import annotations

import pytest

from durum.silo.store_clock import StoreClock


@pytest.fixture
def clock() -> StoreClock:
    """One that was read once: the store said 1000 at some instant between 10 and 10.5."""
    clock = StoreClock()
    assert clock.read(1000.0, 10.0, 10.5) == 0.0
    return clock


def test_time_goes_on_between_readings(clock: StoreClock) -> None:
    """Reminders and votes are stamped with it, and nobody asks the store for each of them."""
    assert clock.known
    assert clock.at(12.5) == 1002.0
    assert repr(clock) == "<StoreClock known=True>"


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 3.0, -3.0])
def test_clock_that_was_set_is_noticed(clock: StoreClock, seconds: float) -> None:
    """Forward and back; what is told is at least how far."""
    jump = clock.read(1010.0 + seconds, 20.0, 20.5)
    assert abs(jump - seconds) <= 0.5
    assert abs(jump) > 2


@pytest.mark.parametrize("seconds", [1.5, -1.5])
def test_small_corrections_are_no_jump(clock: StoreClock, seconds: float) -> None:
    """Time servers make them all day."""
    assert clock.read(1010.0 + seconds, 20.0, 20.5) == 0.0


def test_slow_answer_is_no_jump(clock: StoreClock) -> None:
    """The store may have looked at its clock at any instant while we waited: a pause is not a jump."""
    assert clock.read(1010.0, 20.0, 50.0) == 0.0
    assert clock.read(1041.0, 51.0, 51.1) == 0.0
    assert clock.read(1051.0 + 3600, 61.0, 61.1) > 3500
    assert clock.read(1061.0 + 3600, 71.0, 71.1) == 0.0, "told once"
