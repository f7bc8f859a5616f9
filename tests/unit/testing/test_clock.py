"""Simulated clocks: each host's own truth."""

from __future__ import annotations

import asyncio

import pytest

from durum.testing import loop
from durum.testing.clock import EPOCH, SimClock
from durum.testing.loop import SimulationError
from durum.testing.run import run


def test_clock_counts_at_its_own_rate() -> None:
    """Leases have to hold between hosts whose clocks differ by two in a hundred each."""

    async def main() -> tuple[float, float]:
        fast = SimClock(loop.current(), rate=1.02, booted_s=0)
        slow = SimClock(loop.current(), rate=0.98, booted_s=0)
        await asyncio.sleep(100)
        return fast.boottime(), slow.boottime()

    assert run(main(), 1) == pytest.approx((102, 98))


def test_clock_sleeps_by_its_own_seconds() -> None:
    """A slow clock's two seconds take longer than two."""

    async def main() -> float:
        clock = SimClock(loop.current(), rate=0.5)
        before = clock.boottime()
        await clock.sleep(2)
        assert clock.boottime() - before == pytest.approx(2)
        return loop.current().time()

    assert run(main(), 1) == 4


def test_clock_goes_on_while_its_host_is_frozen() -> None:
    """A silo that is woken has to see that its lease is over."""

    async def main() -> None:
        running = loop.current()
        clock = SimClock(running)
        running.freeze("a")
        before = clock.boottime()
        await asyncio.sleep(30)
        assert clock.boottime() - before == 30

    run(main(), 1)


def test_clock_keeps_its_count_when_its_rate_changes() -> None:
    """A change of pace is no jump."""

    async def main() -> float:
        clock = SimClock(loop.current(), booted_s=0)
        await asyncio.sleep(10)
        clock.set_rate(2)
        assert clock.rate == 2
        await asyncio.sleep(10)
        return clock.boottime()

    assert run(main(), 1) == 30


def test_wall_clock_may_be_wrong_and_jump_without_the_boot_time() -> None:
    """Whoever keeps leases by the wall clock fails here."""

    async def main() -> None:
        clock = SimClock(loop.current(), wall_offset_s=-60, booted_s=500)
        assert clock.boottime() == 500
        assert clock.wall() == EPOCH - 60
        clock.step_wall(3600)
        assert clock.wall() == EPOCH + 3540
        assert clock.boottime() == 500

    run(main(), 1)


def test_clock_refuses_to_stand_or_go_back() -> None:
    """BOOTTIME never does; a test that wants a jump means the wall clock."""

    async def main() -> None:
        with pytest.raises(SimulationError):
            SimClock(loop.current(), rate=0)
        with pytest.raises(SimulationError):
            SimClock(loop.current()).set_rate(-1)

    run(main(), 1)


def test_seeded_clocks_belong_to_machines() -> None:
    """A restarted process finds its machine's clock, and no two machines agree on their boot times."""

    async def main() -> None:
        running = loop.current()
        one, other, again = (SimClock.seeded(running, host) for host in ("a", "b", "a#2"))
        assert one.boottime() != other.boottime()
        assert one.boottime() == again.boottime()
        assert 0.98 <= one.rate <= 1.02

    run(main(), 1)
