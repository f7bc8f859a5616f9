"""Membership under faults, on virtual time: who is declared dead, when, and who must not be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from durum import errors
from durum.config import Lease, Probing, SiloConfig
from durum.silo import votes
from durum.silo.detector import Detector
from durum.testing.links import Cut
from durum.testing.run import run
from durum.views import SiloRow, Status, Suspicion
from tests.support.silos import PARTITIONS, USUAL, SimSilo, World

SEEDS = range(3)
Scenario = Callable[[World], Coroutine[Any, Any, None]]


def simulate(scenario: Scenario, seed: int, config: SiloConfig | None = None) -> None:
    """Run a scenario in a world of its own."""

    async def main() -> None:
        world = await World.open(USUAL if config is None else config, load=False)
        await scenario(world)
        await world.close()

    run(main(), seed)


def served_elsewhere(world: World, victim: SimSilo) -> Callable[[], bool]:
    def served() -> bool:
        others = [silo for silo in world.alive() if silo is not victim]
        return all(any(silo.serves(p) for silo in others) for p in range(PARTITIONS))

    return served


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_silos_partitions_are_served_elsewhere_within_two_seconds(seed: int) -> None:
    """Its kernel closes its connections and refuses new ones, which a living silo does not."""

    async def scenario(world: World) -> None:
        victim, *_ = await world.cluster("a", "b", "c")
        await world.run_for(3 + seed / 3)
        world.loop.kill(victim.host)
        await world.until(served_elsewhere(world, victim), 2.0)
        assert world.evicted() == [victim.me]

    simulate(scenario, seed)


def test_a_kill_on_the_same_host_is_noticed_at_once() -> None:
    """The host itself tells of its processes' ends."""

    async def scenario(world: World) -> None:
        first, second = world.start("a", 7600), world.start("a", 7601)
        await world.until(lambda: world.settled(2), 20.0)
        await world.run_for(1.5)
        world.network.cut("a", "a")  # no broken connection can tell
        world.loop.kill(first.host)
        await world.until(served_elsewhere(world, first), 0.1)
        row = second.table.view.by_id[first.me]
        assert row.gone
        assert row.reason == "its process has ended"

    simulate(scenario, 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stopped_silos_partitions_are_served_elsewhere_within_ten_seconds(seed: int) -> None:
    """Its kernel accepts connections for it; only unanswered probes tell. Woken, it stops by itself."""

    async def scenario(world: World) -> None:
        victim, *_ = await world.cluster("a", "b", "c")
        await world.run_for(3 + seed / 3)
        world.loop.freeze(victim.host)
        await world.until(served_elsewhere(world, victim), 10.0)
        await world.run_for(15)
        world.loop.thaw(victim.host)
        await world.until(lambda: victim.done, 3.0)
        assert isinstance(victim.ended, errors.DeclaredDead)

    simulate(scenario, seed)


@pytest.mark.parametrize("silos", [2, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_stall_under_four_seconds_evicts_nobody(seed: int, silos: int) -> None:
    """Garbage collection, a suspended disk or a busy neighbour are no deaths."""

    async def scenario(world: World) -> None:
        members = await world.cluster(*"abc"[:silos])
        for round_number in range(6):
            victim = members[round_number % silos]
            await world.run_for(1.3 + 0.17 * (seed + round_number))
            world.loop.freeze(victim.host)
            await asyncio.sleep(3.95)
            world.loop.thaw(victim.host)
            await world.until(lambda: world.settled(silos), 5.0)
        await world.run_for(10)
        assert world.evicted() == []

    simulate(scenario, seed)


def test_a_stall_of_all_silos_evicts_nobody() -> None:
    """A suspended host wakes with every timer run out and every answer unread."""

    async def scenario(world: World) -> None:
        members = await world.cluster("a", "b", "c")
        for seconds in (3.0, 5.0):
            await world.run_for(4)
            for silo in members:
                world.loop.freeze(silo.host)
            await asyncio.sleep(seconds)
            for silo in members:
                world.loop.thaw(silo.host)
            await world.until(lambda: world.settled(3), 5.0)
        assert world.evicted() == []

    simulate(scenario, 3)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("machines", ["ab", "abc", "abcd"])
def test_at_most_one_side_of_a_partition_is_evicted(seed: int, machines: str) -> None:
    """Both reach the store, where only one of two votes on each other can come first."""

    async def scenario(world: World) -> None:
        members = await world.cluster(*machines)
        half = len(machines) // 2
        sides = [members[:half], members[half:]]
        world.network.partition(machines[:half], machines[half:])
        await world.run_for(30)
        evicted = world.evicted()
        hit = [side for side in sides if any(silo.me in evicted for silo in side)]
        assert len(hit) == 1
        survivors = next(side for side in sides if side not in hit)
        assert all(any(silo.serves(p) for silo in survivors) for p in range(PARTITIONS))

    simulate(scenario, seed)


def test_a_cut_between_two_silos_that_a_third_sees_evicts_nobody() -> None:
    """Calls can go through the third."""

    async def scenario(world: World) -> None:
        await world.cluster("a", "b", "c")
        world.network.cut("a", "b")
        await world.run_for(60)
        assert world.evicted() == []
        world.network.heal("a", "b")
        await world.run_for(10)
        assert world.settled(3)

    simulate(scenario, 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_way_loss_evicts_at_most_one_and_does_not_flap(seed: int) -> None:
    """Who hears but is not heard has its veto; who is not heard has not."""

    async def scenario(world: World) -> None:
        await world.cluster("a", "b")
        world.network.cut("a", "b", one_way=True)
        await world.run_for(60)
        assert len(world.evicted()) <= 1

    simulate(scenario, seed)


def test_a_lossy_network_evicts_nobody() -> None:
    """Five per cent loss and some milliseconds are an ordinary bad day."""

    async def scenario(world: World) -> None:
        await world.cluster("a", "b", "c")
        for pair in ("ab", "bc", "ac"):
            world.network.slow(*pair, latency_s=0.02, jitter_s=0.02, loss=0.05)
        await world.run_for(120)
        assert world.evicted() == []

    simulate(scenario, 5)


def test_a_silo_cut_from_the_store_stops_answering_and_is_replaced() -> None:
    """It answers probes as ever; its heartbeat stands still, and by then it has fenced itself."""

    async def scenario(world: World) -> None:
        victim, *_ = await world.cluster("a", "b", "c")
        await world.run_for(3)
        world.store.cut(victim.host)
        await world.until(lambda: not victim.lease.held(victim.clock.boottime()), 6.2)
        await world.until(served_elsewhere(world, victim), 5.0)
        reason = world.views[max(world.views)].by_id[victim.me].reason
        assert reason == "its heartbeat stood still"
        world.store.heal(victim.host)
        await world.until(lambda: isinstance(victim.ended, errors.DeclaredDead), 10.0)

    simulate(scenario, 2)


def test_a_short_cut_from_the_store_costs_nothing() -> None:
    """Within the lease nobody notices."""

    async def scenario(world: World) -> None:
        victim, *_ = await world.cluster("a", "b", "c")
        world.store.cut(victim.host, Cut.REJECT)
        await asyncio.sleep(3.5)
        assert victim.lease.held(victim.clock.boottime())
        world.store.heal(victim.host)
        await world.run_for(10)
        assert world.evicted() == []

    simulate(scenario, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_store_that_was_away_evicts_nobody_at_its_return(seed: int) -> None:
    """All heartbeats stood still, and that was not their doing."""

    async def scenario(world: World) -> None:
        await world.cluster("a", "b", "c")
        await world.run_for(2 + seed / 5)
        world.store.stop()
        await world.run_for(20)
        assert not any(silo.serves(p) for silo in world.alive() for p in range(PARTITIONS))
        world.store.go_on()
        await world.until(lambda: world.settled(3), 3.0)
        await world.run_for(20)
        assert world.evicted() == []

    simulate(scenario, seed)


def test_a_store_that_cannot_write_evicts_nobody_once_it_can() -> None:
    """Reads go on meanwhile and show heartbeats that stand still."""

    async def refuse(*_: object) -> None:
        raise errors.StoreUnavailable("MISCONF: the disk is full", applied=False)

    async def scenario(world: World) -> None:
        await world.cluster("a", "b", "c")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(world.store.inside), "beat", refuse)
            await world.run_for(20)
        await world.until(lambda: world.settled(3), 5.0)
        await world.run_for(10)
        assert world.evicted() == []

    simulate(scenario, 4)


def test_another_process_that_answers_as_the_store_costs_a_pause_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It lacks nothing, as everybody finds out by reading anew."""

    async def scenario(world: World) -> None:
        await world.cluster("a", "b", "c")
        await world.run_for(3)
        world.store.change_identity()
        await world.run_for(3)
        await world.until(lambda: world.settled(3), 0.5)
        await world.run_for(10)
        assert world.evicted() == []

    simulate(scenario, 1)
    told = [text for text in caplog.messages if "another process answers as the store" in text]
    assert len(told) == 3


@pytest.mark.parametrize("lost_s", [2.5, 6.0])
def test_a_store_that_went_back_in_time_halts_every_silo(lost_s: float) -> None:
    """Renewals that it had confirmed are missing; nothing may be built upon that."""

    async def scenario(world: World) -> None:
        members = await world.cluster("a", "b", "c")
        await world.run_for(4)
        snapshot = world.store.snapshot()
        await world.run_for(lost_s)
        world.store_regressed = True
        await world.store.roll_back(snapshot)
        await world.until(lambda: all(silo.done for silo in members), 10.0)
        assert all(isinstance(silo.ended, errors.DataLoss) for silo in members)

    simulate(scenario, 1)


def test_an_emptied_store_halts_every_silo() -> None:
    """Missing data must never read as a fresh start."""

    async def scenario(world: World) -> None:
        members = await world.cluster("a", "b", "c")
        await world.run_for(4)
        world.store_regressed = True
        await world.store.wipe()
        await world.until(lambda: all(silo.done for silo in members), 10.0)
        assert all(isinstance(silo.ended, errors.DataLoss) for silo in members)

    simulate(scenario, 1)


def test_a_silo_leaves_within_a_second() -> None:
    """Everything is handed over, then its row says that it is gone."""

    async def scenario(world: World) -> None:
        victim, *others = await world.cluster("a", "b", "c")
        await world.run_for(3)
        victim.stop()
        await world.until(lambda: victim.done and world.settled(2), 1.0)
        assert victim.ended is None
        await world.run_for(2)
        row = others[0].table.view.by_id[victim.me]
        assert (row.status, row.gone, row.reason) == (Status.DEAD, True, "left")

    simulate(scenario, 1)


def test_the_last_silo_leaves_everything_free() -> None:
    """The next one then has nobody to wait for."""

    async def scenario(world: World) -> None:
        (only,) = await world.cluster("a")
        only.stop()
        await world.until(lambda: only.done, 2.0)
        world.start("a")
        await world.until(lambda: world.settled(1), 1.0)

    simulate(scenario, 1)


def test_a_second_silo_at_a_living_ones_address_is_refused() -> None:
    """Two silos under one address would take each other's calls."""

    async def scenario(world: World) -> None:
        first, *_ = await world.cluster("a", "b")
        second = world.start("c", 7600, advertise=first.address)
        await world.until(lambda: second.done, 10.0)
        assert isinstance(second.ended, errors.ConfigError)
        assert str(first.me) in str(second.ended)
        assert world.settled(2)

    simulate(scenario, 1)


def test_a_living_silo_that_cannot_be_reached_keeps_its_address() -> None:
    """Its heartbeat moves, whoever answers at the address."""

    async def scenario(world: World) -> None:
        first, *_ = await world.cluster("a", "b")
        world.network.host("c")
        world.network.cut("a", "c")
        second = world.start("c", 7600, advertise=first.address)
        await world.until(lambda: second.done, 10.0)
        assert isinstance(second.ended, errors.ConfigError)
        await world.run_for(1)
        assert world.settled(2)

    simulate(scenario, 1)


def test_a_restarted_silo_replaces_its_own_dead_life() -> None:
    """Nobody else is there to declare it dead."""

    async def scenario(world: World) -> None:
        (first,) = await world.cluster("a")
        world.loop.kill(first.host)
        second = world.start("a")
        await world.until(lambda: world.settled(1), 1.0)
        row = second.table.view.by_id[first.me]
        assert (row.status, row.gone) == (Status.DEAD, True)
        assert second.me > first.me

    simulate(scenario, 1)


def test_a_silo_replaces_the_dead_life_of_another_host_once_it_has_watched_it() -> None:
    """The address moved to another machine; only the heartbeat can tell that the old life is over."""

    async def scenario(world: World) -> None:
        (first,) = await world.cluster("a")
        world.loop.kill(first.host)
        world.start("b", 7600, advertise=first.address)
        took = await world.until(lambda: world.settled(1), 12.0)
        assert took > 3.0

    simulate(scenario, 1)


def test_a_silo_waits_for_the_life_that_leaves_its_address() -> None:
    """A rolling restart may start the next one while the last one still hands over."""

    async def scenario(world: World) -> None:
        first, *_ = await world.cluster("a", "b")
        with pytest.MonkeyPatch.context() as patch:

            async def slow(*_: object) -> None:
                await asyncio.sleep(5)

            patch.setattr(first, "drain", slow)
            first.stop()
            await world.run_for(0.5)
            second = world.start("c", 7600, advertise=first.address)
            await world.until(lambda: first.done, 8.0)
            await world.until(lambda: second.status is Status.ACTIVE, 8.0)
        assert first.ended is None

    simulate(scenario, 1)


def test_a_rejecting_firewall_evicts_one_side_and_serves_nothing_twice() -> None:
    """It refuses in the silo's name; without fast failover everybody waits out the lease."""
    config = SiloConfig(lease=Lease(fast_failover=False))

    async def scenario(world: World) -> None:
        await world.cluster("a", "b", "c")
        world.network.isolate("a", Cut.REJECT)
        await world.run_for(30)
        assert len(world.evicted()) == 1

    simulate(scenario, 1, config)


def test_old_rows_of_the_dead_are_removed_and_a_late_one_knows_it_was_declared_dead() -> None:
    """A silo that slept for longer than its row lived has lost no data, it is only dead."""
    config = SiloConfig(probing=Probing(prune_s=15))

    async def scenario(world: World) -> None:
        victim, other, _ = await world.cluster("a", "b", "c")
        world.loop.freeze(victim.host)
        await world.until(lambda: world.evicted() == [victim.me], 10.0)
        await world.until(lambda: victim.me not in other.table.view.by_id, 20.0)
        world.loop.thaw(victim.host)
        await world.until(lambda: victim.done, 5.0)
        assert isinstance(victim.ended, errors.DeclaredDead)

    simulate(scenario, 1, config)


def test_a_row_declared_dead_by_hand_stops_its_silo() -> None:
    """Whoever writes it, dead is final."""

    async def scenario(world: World) -> None:
        victim, other = await world.cluster("a", "b")
        await other.membership.change(
            lambda view: (
                votes.condemned(
                    view.by_id[victim.me], other.table.store_time(), "by hand", gone=False
                ),
                view.by_id[victim.me],
            )
        )
        await world.until(lambda: victim.done, 2.5)
        assert isinstance(victim.ended, errors.DeclaredDead)
        assert "by hand" in str(victim.ended)

    simulate(scenario, 1)


def test_suspicions_are_withdrawn_when_the_suspect_answers_again() -> None:
    """Else the next doubt, an hour of luck later, would be the second vote."""

    async def scenario(world: World) -> None:
        members = await world.cluster("a", "b", "c")
        doubt = Suspicion(by=members[1].me, at=members[1].table.store_time())

        def suspect(view: Any) -> tuple[SiloRow, SiloRow]:
            row = view.by_id[members[0].me]
            return msgspec.structs.replace(row, suspicions=(doubt,)), row

        await members[1].membership.change(suspect)
        await world.until(lambda: not members[2].table.view.by_id[members[0].me].suspicions, 3.0)
        assert world.evicted() == []

    simulate(scenario, 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_silos_that_start_at_once_all_join(seed: int) -> None:
    """Each of them loses against the others' writes a few times."""

    async def scenario(world: World) -> None:
        await world.cluster(*"abcdefgh")
        assert len({silo.me for silo in world.alive()}) == 8

    simulate(scenario, seed)


def test_a_detector_without_patience_is_caught() -> None:
    """The test of the test: with one miss instead of five, a stall under four seconds evicts."""

    def hasty(self: Detector, *_: object) -> bool:
        return True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Detector, "_missed", hasty)
        with pytest.raises(AssertionError):
            test_a_stall_under_four_seconds_evicts_nobody(0, 3)
