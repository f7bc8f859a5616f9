"""Ownership under faults, on virtual time: one holder a partition, nothing stale, lost or left unserved.

World checks at every instant that no two silos would answer for one partition, that no read is older than
what was acknowledged, and that all see the same views. The mutants show that these checks can fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pytest

from durum import errors
from durum.ids import SiloId, Token
from durum.silo import lease, takeover, votes
from durum.silo.holdings import OwnershipStatistics
from durum.silo.records import Records
from durum.silo.releases import Releases
from durum.silo.sightings import Sightings
from durum.silo.takeover import Standing
from durum.store.protocol import NEVER_OWNED, Take
from durum.testing.run import run
from durum.testing.store import Fate, Stage
from durum.testing.store_client import Operation
from durum.views import SiloRow, View
from tests.support.nemesis import MACHINES, Nemesis
from tests.support.silos import MARK, PARTITIONS, SimSilo, Violation, World

Scenario = Callable[[World], Coroutine[Any, Any, None]]
MUTANT_SEEDS = 30


def simulate(scenario: Scenario, seed: int = 1) -> None:
    """Run a scenario in a world of its own."""

    async def main() -> None:
        world = await World.open()
        await scenario(world)
        await world.close()
        world.check_log()

    run(main(), seed)


def rage(seed: int, seconds: float = 40.0) -> None:
    """Let faults fall on four silos, heal, and look that all is well again."""

    async def scenario(world: World) -> None:
        nemesis = Nemesis(world)
        try:
            await world.cluster(*MACHINES)
            await nemesis.rage(seconds)
            await nemesis.healed(30.0)
            await world.run_for(2.0)
        except BaseException as exc:
            exc.add_note("\n".join(nemesis.log))
            raise
        assert world.reads > 1000

    simulate(scenario, seed)


@pytest.mark.parametrize("seed", range(16))
def test_no_partition_is_served_twice_whatever_falls(seed: int) -> None:
    """The heart of it: crashes, pauses, partitions, ghost writes, lost answers, all at once."""
    rage(seed)


def first_failing_seed(seeds: Iterable[int] = range(MUTANT_SEEDS)) -> int | None:
    for seed in seeds:
        try:
            rage(seed)
        except Violation:
            return seed
    return None


def test_checks_fail_with_a_lease_that_counts_from_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer may be read long after the renewal that it confirms."""
    monkeypatch.setattr(lease, "counted_from", lambda _, answered_at: answered_at)
    assert first_failing_seed() is not None


def test_checks_fail_without_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silo that sleeps and wakes would go on answering."""
    monkeypatch.setattr(lease.Lease, "held", lambda *_: True)
    assert first_failing_seed() is not None


def dead(view: View, silo: SiloId) -> tuple[SiloRow, SiloRow]:
    """A row declared dead early, as if votes had come in before the lease was over."""
    row = view.by_id[silo]
    since = max(one.since for one in view.rows)
    return votes.condemned(row, since, "for the test", gone=False), row


async def condemned_early(world: World) -> None:
    """A silo is stopped, declared dead at once, and goes on while its lease lasts."""
    stopped, heir = await world.cluster("a", "b")
    await world.run_for(3)
    world.loop.freeze(stopped.host)
    await asyncio.sleep(0.1)
    await heir.membership.change(lambda view: dead(view, stopped.me))
    await world.until(lambda: world.settled(1) or stopped.serves(0), 8.0)
    await world.run_for(8)
    world.loop.thaw(stopped.host)
    await world.run_for(1)
    assert world.settled(1)


def test_who_takes_over_waits_until_the_dead_have_surely_fenced_themselves() -> None:
    """A stopped silo knows nothing of its death, and answers reads when it goes on."""
    simulate(condemned_early)


def test_checks_fail_without_holdoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test above."""
    monkeypatch.setattr(takeover, "waited_out", lambda *_, **__: takeover.AT_ONCE)
    with pytest.raises(Violation, match="both serve"):
        simulate(condemned_early)


def test_checks_fail_with_a_holdoff_shorter_than_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly a lease is not enough."""
    fenced_at = Sightings.fenced_at

    def hasty(self: Sightings, silo: SiloId, now: float) -> float:
        return fenced_at(self, silo, now) - 2.5

    monkeypatch.setattr(Sightings, "fenced_at", hasty)
    with pytest.raises(Violation, match="both serve"):
        simulate(condemned_early)


async def answer_read_late(world: World) -> None:
    """A silo is stopped with the answer to its renewal unread, and goes on cut off from the store."""
    stopped, heir = await world.cluster("a", "b")
    await world.run_for(1)

    def stop(operation: Operation, stage: Stage) -> None:
        late = stage is Stage.ANSWERED and operation.name == "beat"
        if late and operation.host == stopped.host and not world.loop.is_frozen(stopped.host):
            world.loop.freeze(stopped.host)
            world.store.cut(stopped.host)

    world.store.watch(stop)
    await world.until(lambda: world.loop.is_frozen(stopped.host), 3.0)
    await asyncio.sleep(0.1)
    await heir.membership.change(lambda view: dead(view, stopped.me))
    await world.run_for(4)
    world.loop.thaw(stopped.host)
    await world.run_for(10)
    assert all(heir.serves(p) for p in range(PARTITIONS))


def test_a_renewal_whose_answer_is_read_late_prolongs_nothing() -> None:
    """The others have counted from the heartbeat."""
    simulate(answer_read_late)


def test_checks_fail_for_an_answer_read_late_if_the_lease_counts_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The test of the test above."""
    monkeypatch.setattr(lease, "counted_from", lambda _, answered_at: answered_at)
    with pytest.raises(Violation, match="both serve"):
        simulate(answer_read_late)


async def two_deaths(world: World) -> None:
    """One silo is stopped; who takes over from it is killed before the first one's lease is over."""
    stopped, heir, _ = await world.cluster("a", "b", "c")
    await world.run_for(3)
    stopped.clock.set_rate(0.98)
    world.loop.freeze(stopped.host)
    await asyncio.sleep(0.1)
    await heir.membership.change(lambda view: dead(view, stopped.me))
    took = {p for p in range(PARTITIONS) if stopped.ownership.holding(p)}
    await world.until(
        lambda: (
            any(heir.ownership.wanted(p) == heir.me for p in took)
            and all(
                heir.ownership._holdings.get(p) for p in took if heir.ownership.wanted(p) == heir.me
            )
        ),
        2.0,
    )
    world.loop.kill(heir.host)
    await world.run_for(3)
    world.loop.thaw(stopped.host)
    await world.until(lambda: world.settled(1), 15.0)


def test_an_heir_that_dies_leaves_the_first_ones_lease_to_be_waited_out() -> None:
    """Being gone itself, it must not shorten the wait for the one before it."""
    simulate(two_deaths)


def test_checks_fail_if_only_the_owner_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test above."""

    def owner_only(view: Any, owner: SiloId, fenced_at: Any, *, fast_failover: bool) -> float:
        row = view.by_id.get(owner)
        gone = row is not None and row.gone and fast_failover
        return takeover.AT_ONCE if gone else float(fenced_at(owner))

    monkeypatch.setattr(takeover, "waited_out", owner_only)
    with pytest.raises(Violation, match="both serve"):
        simulate(two_deaths)


async def release_in_holdoff(world: World) -> None:
    """A partition changes hands again while its new holder waits out the lease of a stopped one."""
    stopped, heir = await world.cluster("a", "b")
    await world.run_for(3)
    world.loop.freeze(stopped.host)
    await asyncio.sleep(0.1)
    await heir.membership.change(lambda view: dead(view, stopped.me))
    await world.until(lambda: all(heir.ownership._holdings.get(p) for p in range(PARTITIONS)), 2.0)
    world.start("c")
    await world.run_for(3)
    world.loop.thaw(stopped.host)
    await world.until(lambda: world.settled(2), 15.0)


def test_a_partition_in_its_holdoff_is_not_handed_over() -> None:
    """Who takes from a live silo serves at once, so that one must have waited."""
    simulate(release_in_holdoff)


def test_checks_fail_if_a_partition_is_handed_over_in_its_holdoff(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The test of the test above."""
    begin = Releases.begin

    def hasty(self: Releases, partitions: Iterable[int]) -> None:
        wanted = list(partitions)
        for partition in wanted:
            if holding := self._holdings.get(partition):
                holding.ready = True
        begin(self, wanted)

    monkeypatch.setattr(Releases, "begin", hasty)
    with pytest.raises(Violation, match="both serve"):
        simulate(release_in_holdoff)


async def newer_than_the_view(world: World) -> None:
    """A silo that has missed a join reads owner records that name the newcomer."""
    blind, _ = await world.cluster("a", "b")
    old = blind.table.view
    newcomer = world.start("c")
    await world.until(lambda: world.settled(3), 5.0)
    held = [p for p in range(PARTITIONS) if newcomer.serves(p)]
    async with blind.table._reading:  # its view stays as old as we make it
        blind.table._view = old
        blind.ownership._on_view(old)
        blind.ownership._records.doubt(range(PARTITIONS))
        await world.run_for(0.5)
        assert [p for p in range(PARTITIONS) if newcomer.serves(p)] == held
    await world.until(lambda: world.settled(3), 10.0)


def test_a_holder_unknown_to_the_view_is_not_taken_for_dead() -> None:
    """Rows that are not listed are dead by the view, but it may be older than they are."""
    simulate(newer_than_the_view)


def test_checks_fail_if_a_holder_unknown_to_the_view_counts_as_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The test of the test above."""
    monkeypatch.setattr(Standing, "unknown", lambda *_: False)
    with pytest.raises(AssertionError):
        simulate(newer_than_the_view)


def lose_a_record(world: World, partition: int) -> None:
    writer: Any = world.store.inside
    writer._writer._db.execute("DELETE FROM owners WHERE partition = ?", (partition,))


def find_records(world: World) -> None:
    """Put records in place of missing ones, as if their partitions had never been held."""
    writer: Any = world.store.inside
    writer._writer._db.executemany(
        "INSERT OR IGNORE INTO owners VALUES (?, ?, NULL, 0, ?, 0)",
        [(partition, MARK, NEVER_OWNED) for partition in range(PARTITIONS)],
    )


def test_a_missing_owner_record_halts_who_reads_it() -> None:
    """It must never read as a partition that nobody has held."""

    async def scenario(world: World) -> None:
        await world.cluster("a", "b")
        lose_a_record(world, 3)
        newcomer = world.start("c")
        await world.until(lambda: newcomer.done, 5.0)
        assert isinstance(newcomer.ended, errors.DataLoss)

    simulate(scenario)


def test_checks_fail_if_a_missing_owner_record_reads_as_never_owned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The test of the test above."""
    read = Records.read
    worlds: list[World] = []

    async def forgiving(self: Records) -> Any:
        try:
            return await read(self)
        except errors.DataLoss:
            find_records(worlds[0])
            return await read(self)

    async def main() -> None:
        world = await World.open(load=False)
        worlds.append(world)
        await world.cluster("a", "b")
        for partition in range(PARTITIONS):
            lose_a_record(world, partition)
        world.start("c")
        await world.run_for(5.0)
        await world.close()

    monkeypatch.setattr(Records, "read", forgiving)
    with pytest.raises(Violation, match="both serve"):
        run(main(), 1)


def longest_gap_s(world: World, silos: list[SimSilo], seconds: float) -> Coroutine[Any, Any, float]:
    """Watch how long the longest time is during which nobody serves some partition."""

    async def watch() -> float:
        since = [world.loop.time()] * PARTITIONS
        longest, until = 0.0, world.loop.time() + seconds
        while world.loop.time() < until:
            now = world.loop.time()
            for partition in range(PARTITIONS):
                if any(silo.serves(partition) for silo in world.alive()):
                    since[partition] = now
                longest = max(longest, now - since[partition])
            await asyncio.sleep(0.002)
        return longest

    return watch()


@pytest.mark.parametrize("seed", range(3))
def test_a_hand_over_leaves_a_partition_alone_for_milliseconds_only(seed: int) -> None:
    """Calls wait meanwhile; a rolling restart must not be felt."""

    async def scenario(world: World) -> None:
        silos = await world.cluster("a", "b", "c")
        world.start("d")
        assert await longest_gap_s(world, silos, 5.0) < 0.1
        silos[0].stop()
        assert await longest_gap_s(world, silos, 5.0) < 0.1
        assert world.settled(3)

    simulate(scenario, seed)


def test_a_hand_over_waits_for_the_turn_that_runs() -> None:
    """The partition goes when it is idle, the others go before."""

    async def scenario(world: World) -> None:
        holder, other = await world.cluster("a", "b")
        slow = next(p for p in range(PARTITIONS) if holder.serves(p))
        drain = holder.drain

        async def linger(partition: int, within_s: float, free: Token) -> None:
            if partition == slow:
                await asyncio.sleep(4.0)
            await drain(partition, within_s, free)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(holder, "drain", linger)
            holder.stop()
            await world.run_for(1.0)
            assert [p for p in range(PARTITIONS) if not other.serves(p)] == [slow]
            assert holder.ownership.statistics() == OwnershipStatistics(
                wanted=0, held=1, ready=0, draining=1
            )
            await world.until(lambda: other.serves(slow), 4.0)

    simulate(scenario)


def test_a_drain_that_fails_costs_the_partitions_turns_and_not_the_hand_over() -> None:
    """Whatever became of its turns, the partition has to go."""

    async def scenario(world: World) -> None:
        holder, _ = await world.cluster("a", "b")

        async def fail(*_: object) -> None:
            raise RuntimeError("a bug in user code")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(holder, "drain", fail)
            holder.stop()
            await world.until(lambda: holder.done and world.settled(1), 2.0)

    simulate(scenario)


@pytest.mark.parametrize("name", ["take", "owners", "read_table", "write_row"])
@pytest.mark.parametrize("fate", [Fate(replies=False), Fate(lands=False), Fate(late_s=3.0)])
def test_answers_that_never_come_cost_time_only(name: str, fate: Fate) -> None:
    """What was done is found out by reading, what was not is done again."""

    async def scenario(world: World) -> None:
        await world.cluster("a", "b")
        for host in ("a#1", "b#1", "c#1"):
            world.store.next(host, name, fate, Fate(), fate)
        newcomer = world.start("c")
        await world.until(lambda: world.settled(3) or newcomer.done, 20.0)
        if newcomer.done:
            # It could not join, said so and ended; whoever runs it starts it again.
            assert isinstance(newcomer.ended, errors.StoreUnavailable)
            world.start("c")
            await world.until(lambda: world.settled(3), 20.0)

    simulate(scenario, 3)


def test_a_release_whose_answer_is_lost_is_sent_again_until_it_is_known() -> None:
    """Else the partition would be nobody's, and known to nobody."""

    async def scenario(world: World) -> None:
        holder, _ = await world.cluster("a", "b")
        world.store.next(holder.host, "take", Fate(replies=False), Fate(lands=False))
        holder.stop()
        await world.until(lambda: holder.done and world.settled(1), 8.0)

    simulate(scenario)


def test_a_take_that_lands_after_it_was_given_up_is_given_back() -> None:
    """Its silo lives, so nobody takes it away; and the silo itself knows nothing of it."""

    async def scenario(world: World) -> None:
        holder, other = await world.cluster("a", "b")
        partition = next(p for p in range(PARTITIONS) if holder.serves(p))
        holding = holder.ownership.holding(partition)
        assert holding is not None
        ghost = Take(
            partition=partition, seen=holding.token, token=Token(b"ghost".ljust(16)), silo=other.me
        )
        await world.store.host("ghost").take(MARK, [ghost])
        await world.until(lambda: not holder.serves(partition), 5.0)
        await world.until(lambda: world.settled(2), 2.0)

    simulate(scenario)


def test_a_superseded_partition_is_dropped_and_taken_back() -> None:
    """Another owner's token in the record means that nothing of ours counts any more."""

    async def scenario(world: World) -> None:
        holder, other = await world.cluster("a", "b")
        partition = next(p for p in range(PARTITIONS) if holder.serves(p))
        holding = holder.ownership.holding(partition)
        assert holding is not None
        thief = Take(
            partition=partition, seen=holding.token, token=Token(b"thief".ljust(16)), silo=other.me
        )
        await world.store.host("thief").take(MARK, [thief])
        await world.until(lambda: not holder.serves(partition), 5.0)
        await world.until(lambda: world.settled(2), 10.0)
        newer = holder.ownership.holding(partition)
        assert newer is not None
        assert newer.token != holding.token

    simulate(scenario)


def test_a_number_that_two_commits_were_given_is_data_loss() -> None:
    """A store that went back may have made up the count since: only the number given twice shows it."""

    async def scenario(world: World) -> None:
        (silo,) = await world.cluster("a")
        await world.run_for(2.0)
        holding = silo.ownership.holding(0)
        assert holding is not None
        last = holding.commits
        assert not silo.ownership.committed(0, holding.token, last)
        assert silo.ownership.committed(0, holding.token, last, repeated=True)
        assert silo.ownership.committed(0, Token(b"another holding"), last)
        assert silo.ownership.holding(0) is holding

    simulate(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_has_lost_commits_halts_their_owner(seed: int) -> None:
    """No renewal is missing, only a second of acknowledged commits, as after a power cut."""

    async def main() -> None:
        world = await World.open()
        (silo,) = await world.cluster("a")
        await world.run_for(2.5)
        snapshot = world.store.snapshot()
        await world.run_for(0.5 + seed / 4)
        world.store_regressed = True
        await world.store.roll_back(snapshot)
        await world.until(lambda: silo.done, 5.0)
        assert isinstance(silo.ended, errors.DataLoss)
        await world.close()

    run(main(), seed)


def test_waiting_for_a_partition_ends_with_it_or_with_the_time_or_elsewhere() -> None:
    """Calls wait while a hand-over is under way, and never longer than they can."""

    async def scenario(world: World) -> None:
        first, second = await world.cluster("a", "b")
        mine = next(p for p in range(PARTITIONS) if first.serves(p))
        theirs = next(p for p in range(PARTITIONS) if second.serves(p))
        assert await first.ownership.held(mine, 1.0) is first.ownership.holding(mine)
        assert await first.ownership.held(theirs, 1.0) is None
        world.store.stop()
        world.loop.kill(second.host)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(first.ownership, "_wanted", [first.me] * PARTITIONS)
            assert await first.ownership.held(theirs, 0.5) is None
        world.store.go_on()
        await world.until(lambda: first.ownership.wanted(theirs) == first.me, 5.0)
        assert await first.ownership.held(theirs, 5.0) is first.ownership.holding(theirs)

    simulate(scenario)


def test_partitions_are_never_owned_before_the_first_silo() -> None:
    """The very first holding has nobody to wait for."""

    async def scenario(world: World) -> None:
        records = await world.store.host("look").owners(MARK)
        assert {record.token for record in records} == {NEVER_OWNED}
        await world.cluster("a")
        assert world.loop.time() < 0.5

    simulate(scenario)


def test_a_stray_take_from_the_dead_is_not_given_away_before_their_lease_has_ended() -> None:
    """Who takes a free partition serves it at once; nothing may be free while somebody may answer for it."""

    async def scenario(world: World) -> None:
        d, x = await world.cluster("d", "x")
        await world.run_for(3)
        world.start("z")
        await world.until(lambda: len(x.table.view.active) == 3, 5)
        world.loop.freeze(d.host)
        await asyncio.sleep(0.05)
        world.store.next(x.host, "take", Fate(replies=False))
        await x.membership.change(lambda view: dead(view, d.me))
        world.start("w")
        await world.run_for(8)

    simulate(scenario)


SENT_TAKE = "take", Stage.SENT


async def rechecked_during_a_take(world: World) -> None:
    """Another process answers as the store while an heir's takes are on their way."""
    stopped, heir = await world.cluster("a", "b")
    await world.run_for(3)
    world.loop.freeze(stopped.host)
    await world.run_for(1)
    # The first finds that the record it knows is old.
    world.store.next(heir.host, "take", Fate(), Fate(late_s=0.5))
    takes: list[Operation] = []
    world.store.watch(lambda one, at: takes.append(one) if (one.name, at) == SENT_TAKE else None)
    await heir.membership.change(lambda view: dead(view, stopped.me))
    await world.until(lambda: len(takes) == 2, 4.0)
    taken = heir.ownership._taking
    heir.table.sightings.restart(heir.clock.boottime())
    await heir.ownership.recheck()
    assert heir.ownership._taking == taken
    await world.until(lambda: not heir.ownership._taking, 4.0)
    since = heir.table.sightings.fenced_at(stopped.me, 0.0)
    holdings = [heir.ownership._holdings.get(partition) for partition in taken]
    assert [each.serve_from for each in holdings if each] == [since] * len(taken)
    world.loop.thaw(stopped.host)
    await world.run_for(10)


def test_a_take_on_its_way_heeds_stopwatches_that_were_started_over() -> None:
    """Its hold-off was reckoned by renewals of which the store may have lost the newest."""
    simulate(rechecked_during_a_take)
