"""The simulated store: what may go wrong between a silo and its store does, and only that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from durum import errors
from durum.ids import Address, GrainId, SeededEntropy, Token, hosted_token, silo_id
from durum.store.effects import Outgoing, WakeUp
from durum.store.host_table import Host
from durum.store.protocol import NEVER_OWNED, Commit, Committed, Genesis, Level, Store, Take
from durum.store.urls import open_store
from durum.testing import hosts, loop
from durum.testing.clock import SimClock
from durum.testing.links import Cut
from durum.testing.loop import SimulationError
from durum.testing.run import run
from durum.testing.spans import check_log
from durum.testing.store import Chances, Fate, FaultyStore, Stage
from durum.testing.store_client import HostStore, Operation
from durum.views import SiloRow, Status

GENESIS = Genesis(mark="0" * 32, cluster="test", partitions=4, ring=1)
ANN = GrainId("Cart/ann")
A = silo_id(Address("a:7600"), 1)
ONE, TWO = Token(b"1" * 16), Token(b"2" * 16)


class Rig:
    """A store with genesis, whose partition 0 belongs to silo a under token ONE."""

    def __init__(self, store: FaultyStore) -> None:
        self.store = store
        self.loop = store.loop
        self.a = store.host("a")
        self.b = store.host("b")

    async def set_up(self) -> Rig:
        await self.a.create(GENESIS)
        await self.take(self.a, NEVER_OWNED, ONE)
        return self

    async def take(self, store: Store, seen: Token, token: Token) -> bool:
        take = Take(partition=0, seen=seen, token=token, silo=A)
        (owner,) = await store.take(GENESIS.mark, [take])
        return owner.token == token

    def commit(
        self, number: int, *, store: HostStore | None = None, token: Token = ONE
    ) -> asyncio.Future[Committed]:
        """Ask for the commit that follows version number - 1, in its host's context."""
        store = store or self.a
        commit = Commit(
            partition=0,
            token=token,
            grain=ANN,
            id=b"%016d" % number,
            version=number - 1,
            state=b"%d" % number,
        )
        return hosts.context(store.host).run(store.commit, commit)

    async def state(self, token: Token = ONE) -> bytes | None:
        return (await self.b.load(0, token, ANN)).state

    async def fails(
        self, future: Awaitable[object], *, applied: bool | None, within_s: float = 1.6
    ) -> None:
        before = self.loop.time()
        with pytest.raises(errors.StoreUnavailable) as caught:
            await future
        assert caught.value.applied is applied
        assert self.loop.time() - before <= within_s


def simulate(test: Callable[[Rig], Awaitable[None]], seed: int = 1) -> None:
    async def main() -> None:
        running = loop.current()

        async def make() -> Store:
            return await open_store(
                "memory:",
                cluster="test",
                clock=SimClock(running),
                entropy=SeededEntropy(seed),
                threads=False,
            )

        store = await FaultyStore.open(running, make)
        await test(await Rig(store).set_up())
        store.heal_all()
        await asyncio.sleep(100)
        await store.close()

    run(main(), seed)


def test_store_without_faults_does_what_the_one_inside_does() -> None:
    """A fake that behaves on its own account would test itself."""

    async def test(rig: Rig) -> None:
        assert await rig.a.genesis() == GENESIS
        assert (await rig.a.durability()).level is Level.D0
        assert await rig.commit(1) == Committed(1, 1)
        assert await rig.commit(2) == Committed(2, 2)
        assert await rig.state() == b"2"
        assert await rig.a.replies(0, ONE, ANN) == {}
        await rig.a.verify(0, ONE)
        with pytest.raises(errors.Superseded):
            await rig.b.verify(0, TWO)
        with pytest.raises(errors.Superseded):
            await rig.commit(9)
        assert [one.silo for one in await rig.b.owners(GENESIS.mark)] == [A, None, None, None]
        assert [one.commit.id for one in rig.store.log.commits] == [b"%016d" % n for n in (1, 2)]
        assert [one.token for one in rig.store.log.takes] == [ONE]
        assert rig.a.url == "memory:"

    simulate(test)


@pytest.mark.parametrize("seed", range(10))
def test_store_keeps_the_order_of_what_one_process_sends(seed: int) -> None:
    """One connection: a later commit never overtakes an earlier one."""

    async def test(rig: Rig) -> None:
        found = await asyncio.gather(*(rig.commit(number) for number in range(1, 50)))
        assert found == [Committed(number, number) for number in range(1, 50)]

    simulate(test, seed)


def test_lost_answer_leaves_the_effect_and_nobody_knows() -> None:
    """The fault that doubles money wherever it is taken for a failure."""

    async def test(rig: Rig) -> None:
        rig.store.next("a", "commit", Fate(replies=False))
        await rig.fails(rig.commit(1), applied=None)
        assert await rig.state() == b"1"
        assert await rig.commit(1) == Committed(1, 1)
        assert len(rig.store.log.commits) == 1

    simulate(test)


def test_lost_request_leaves_no_effect_and_nobody_knows() -> None:
    """It looks the same to the caller as a lost answer."""

    async def test(rig: Rig) -> None:
        rig.store.next("a", "commit", Fate(lands=False))
        await rig.fails(rig.commit(1), applied=None)
        assert await rig.state() is None

    simulate(test)


def test_ghost_lands_after_its_caller_gave_up_and_died() -> None:
    """A write that sat in some buffer; only the fence stands between it and the data."""

    async def test(rig: Rig) -> None:
        rig.store.next("a", "commit", Fate(late_s=30))
        await rig.fails(rig.commit(1), applied=None)
        rig.loop.kill("a")
        await asyncio.sleep(20)
        assert await rig.state() is None
        await asyncio.sleep(20)
        assert await rig.state() == b"1"
        assert rig.store.log.commits[0].at - rig.store.log.commits[0].sent_at >= 30

    simulate(test)


def test_ghost_of_a_fenced_owner_changes_nothing() -> None:
    """What the fence is for."""

    async def test(rig: Rig) -> None:
        rig.store.next("a", "commit", Fate(late_s=30))
        await rig.fails(rig.commit(1), applied=None)
        assert await rig.take(rig.b, ONE, TWO)
        await asyncio.sleep(40)
        assert await rig.state(TWO) is None
        assert rig.store.log.commits == []

    simulate(test)


def test_refusal_says_that_nothing_was_done() -> None:
    """READONLY and its kin are certain: such a write may be sent again."""

    async def test(rig: Rig) -> None:
        rig.store.next("a", "commit", Fate(refused="MISCONF"))
        await rig.fails(rig.commit(1), applied=False)
        assert await rig.state() is None
        assert await rig.commit(1) == Committed(1, 1)

    simulate(test)


def test_cut_host_hears_nothing_and_some_of_its_writes_land_after_the_heal() -> None:
    """A cut cable keeps what the kernel has already taken."""

    def landed(seed: int) -> bool:
        found: list[bool] = []

        async def test(rig: Rig) -> None:
            rig.store.cut("a")
            await rig.fails(rig.commit(1), applied=None)
            assert await rig.state() is None
            rig.store.heal("a")
            await asyncio.sleep(30)
            found.append(await rig.state() == b"1")

        simulate(test, seed)
        return found[0]

    assert {landed(seed) for seed in range(12)} == {True, False}


def test_short_cut_is_only_a_delay() -> None:
    """Whoever still waits when the link is back gets an answer."""

    async def test(rig: Rig) -> None:
        future = rig.commit(1)
        rig.store.cut("a")
        await asyncio.sleep(0.3)
        rig.store.heal("a")
        assert await future == Committed(1, 1)

    simulate(test)


def test_cut_catches_answers_too() -> None:
    """Applied, then silence."""

    async def test(rig: Rig) -> None:
        rig.store.watch(lambda _, stage: rig.store.cut("a") if stage is Stage.APPLIED else None)
        await rig.fails(rig.commit(1), applied=None)
        assert len(rig.store.log.commits) == 1

    simulate(test)


def test_rejected_host_knows_what_surely_did_not_happen() -> None:
    """A refused connection is certain; one that broke after the request had left is not."""

    async def test(rig: Rig) -> None:
        future = rig.commit(1)
        rig.store.cut("a", Cut.REJECT)
        await rig.fails(future, applied=None, within_s=0.01)
        await rig.fails(rig.commit(1), applied=False, within_s=0.01)
        rig.store.heal("a")
        rig.store.watch(
            lambda _, stage: rig.store.cut("a", Cut.REJECT) if stage is Stage.APPLIED else None
        )
        await rig.fails(rig.commit(1), applied=None, within_s=0.01)
        assert len(rig.store.log.commits) == 1

    simulate(test)


def test_placing_whose_answer_was_lost_is_noted_once_and_lasts() -> None:
    """It travels as everything else does, and a roll-back plays it again."""

    async def test(rig: Rig) -> None:
        host = Host(A, hosted_token(TWO, ANN))
        rig.store.next("a", "place", Fate(replies=False))
        await rig.fails(rig.a.place(0, ONE, ANN, seen=None, host=host), applied=None)
        assert await rig.a.place(0, ONE, ANN, seen=None, host=host) == host
        assert await rig.b.find_host(0, ANN) == host
        assert await rig.commit(1, token=host.token) == Committed(1, 1)
        snapshot = rig.store.snapshot()
        await rig.a.place(0, ONE, ANN, seen=host.token, host=None)
        assert [one.record for one in rig.store.log.places] == [host, None]
        assert check_log(rig.store.log) == []
        await rig.store.roll_back(snapshot)
        assert await rig.b.find_host(0, ANN) == host
        assert [one.record for one in rig.store.log.places] == [host]

    simulate(test)


def test_effects_travel_with_commits_and_are_played_again() -> None:
    """A roll-back has the outbox as it was, and what was acknowledged since is there again."""

    async def test(rig: Rig) -> None:
        turn = Commit(
            partition=0,
            token=ONE,
            grain=ANN,
            id=b"x" * 16,
            version=0,
            send=[Outgoing(ANN, b"1"), Outgoing(ANN, b"2")],
            wake={b"w": 7},
            park={b"l": b"letter"},
        )
        rig.store.next("a", "commit", Fate(replies=False))
        await rig.fails(rig.a.commit(turn), applied=None)
        assert await rig.a.commit(turn) == Committed(1, 1, 1)
        await rig.a.acknowledge(0, ONE, [1])
        snapshot = rig.store.snapshot()
        await rig.a.acknowledge(0, ONE, [2])
        assert await rig.b.posted(0, ONE, 0, 9) == []
        await rig.store.roll_back(snapshot)
        assert [one.number for one in await rig.b.posted(0, ONE, 0, 9)] == [2]
        assert await rig.b.due(0, ONE, 7, 9) == [WakeUp(7, ANN, b"w")]
        assert await rig.b.letters(0, b"", 9) == [(b"l", b"letter")]
        assert await rig.b.count_letters(0) == 1

    simulate(test)


def test_blocked_host_lands_late() -> None:
    """A stall longer than the timeout makes ghosts, a shorter one only waits."""

    async def test(rig: Rig) -> None:
        rig.store.block("a", 1)
        assert await rig.commit(1) == Committed(1, 1)
        rig.store.block("a", 10)
        await rig.fails(rig.commit(2), applied=None)
        assert await rig.state() == b"1"
        await asyncio.sleep(10)
        assert await rig.state() == b"2"

    simulate(test)


def test_stopped_store_does_everything_when_it_goes_on() -> None:
    """As a stopped Redis does, for clients that gave up long ago."""

    async def test(rig: Rig) -> None:
        rig.store.stop()
        await rig.fails(rig.commit(1), applied=None)
        await rig.fails(rig.b.genesis(), applied=None)
        await asyncio.sleep(20)
        rig.store.go_on()
        assert await rig.state() == b"1"

    simulate(test)


def test_rolled_back_store_has_forgotten_and_says_who_it_is() -> None:
    """A failover to a lagging replica: acknowledged writes are gone, and the identity tells."""

    async def test(rig: Rig) -> None:
        row = SiloRow(silo=A, status=Status.ACTIVE)
        assert await rig.a.write_row(GENESIS.mark, row, seen=None, version=0) is not None
        before = await rig.a.beat(GENESIS.mark, A)
        await rig.commit(1)
        await rig.a.load(0, ONE, ANN, raise_version=True)
        snapshot = rig.store.snapshot()
        await rig.commit(3)
        assert await rig.take(rig.a, ONE, TWO)
        await rig.store.roll_back(snapshot)
        assert await rig.state() == b"1"
        assert (await rig.b.load(0, ONE, ANN)).version == 2
        after = await rig.a.beat(GENESIS.mark, A)
        assert before.identity != after.identity
        assert after.heartbeat == before.heartbeat + 1
        assert (await rig.a.read_table(GENESIS.mark)).identity == after.identity
        assert [one.commit.version for one in rig.store.log.commits] == [0]
        assert [one.commit.version for one in rig.store.log.lost] == [2]
        assert await rig.commit(3) == Committed(3, 2)
        late = rig.store.snapshot()
        await rig.store.roll_back(snapshot)
        with pytest.raises(SimulationError):
            await rig.store.roll_back(late)

    simulate(test)


def test_wiped_store_is_empty() -> None:
    """An outage with a clear message, never a fresh start."""

    async def test(rig: Rig) -> None:
        await rig.commit(1)
        await rig.store.wipe()
        assert await rig.a.genesis() is None
        with pytest.raises(errors.DataLoss):
            await rig.commit(2)

    simulate(test)


def test_chances_make_every_fault_by_themselves() -> None:
    """A random run must reach each kind of failure without a script."""

    async def test(rig: Rig) -> None:
        rig.store.chances("a", Chances(lost=0.1, ghost=0.1, unanswered=0.1, refused=0.1))
        outcomes: dict[str, int] = {}
        version = 0
        for number in range(1, 300):
            commit = Commit(
                partition=0, token=ONE, grain=ANN, id=b"%016d" % number, version=version
            )
            try:
                version = (await rig.a.commit(commit)).version
                outcome = "ok"
            except errors.StoreUnavailable as exc:
                outcome = f"applied={exc.applied}"
            if outcome == "applied=None":
                await asyncio.sleep(rig.loop.seed)
            if outcome != "ok":
                version = (await rig.b.load(0, ONE, ANN)).version
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        assert set(outcomes) == {"ok", "applied=None", "applied=False"}
        assert any(one.at - one.sent_at > 1.5 for one in rig.store.log.commits)

    simulate(test, 3)


def test_frozen_host_hears_its_answers_when_it_goes_on() -> None:
    """The answer came in time; a process that was stopped must still get it, not a timeout."""

    async def test(rig: Rig) -> None:
        async def work() -> Committed:
            return await rig.commit(1)

        task = rig.loop.start("a", work())
        await asyncio.sleep(0)
        assert rig.store.writers() == ["a"]
        rig.loop.freeze("a")
        await asyncio.sleep(30)
        assert not task.done()
        rig.loop.thaw("a")
        assert await task == Committed(1, 1)
        assert rig.store.writers() == []

    simulate(test)


def test_killed_host_leaves_what_it_sent_and_sends_nothing_more() -> None:
    """A crash point right after the commit has left: it lands, nobody hears of it."""

    async def test(rig: Rig) -> None:
        stages: list[Stage] = []

        def crash(operation: Operation, stage: Stage) -> None:
            if operation.name == "commit":
                assert operation.host == "a"
                stages.append(stage)
                rig.loop.kill("a")

        rig.store.watch(crash)

        async def work() -> None:
            await rig.commit(1)
            await rig.commit(2)

        task = rig.loop.start("a", work())
        await asyncio.sleep(5)
        assert not task.done()
        assert await rig.state() == b"1"
        assert stages == [Stage.SENT, Stage.APPLIED, Stage.ANSWERED]
        assert rig.store.writers() == []
        assert not rig.commit(2).done()

    simulate(test)


def test_hints_come_after_changes_of_the_table_and_may_be_lost() -> None:
    """A hint is only a hint: whoever does not poll as well misses changes."""

    async def test(rig: Rig) -> None:
        heard: list[float] = []

        async def listen() -> None:
            async for _ in rig.b.hints():
                heard.append(rig.loop.time())  # noqa: PERF401 - it is read meanwhile

        task = rig.loop.start("b", listen())
        version: int | None = 0
        seen: SiloRow | None = None
        for weight in range(60):
            row = SiloRow(silo=A, status=Status.JOINING, weight=weight)
            version = await rig.a.write_row(GENESIS.mark, row, seen=seen, version=version or 0)
            assert version is not None
            seen = row
            await asyncio.sleep(1)
        assert 30 < len(heard) < 60
        stale = SiloRow(silo=A, status=Status.JOINING, weight=99)
        assert await rig.a.write_row(GENESIS.mark, stale, seen=None, version=0) is None
        await rig.b.close()
        await task

    simulate(test)


def test_bug_in_the_store_inside_ends_the_run() -> None:
    """Otherwise it would look like a lost answer, of which there are many."""

    async def test(rig: Rig) -> None:
        rig.store.inside.verify = None  # type: ignore[assignment, method-assign]
        await rig.a.verify(0, ONE)

    with pytest.raises(SimulationError, match="verify") as caught:
        simulate(test)
    assert isinstance(caught.value.__cause__, TypeError)


def test_closed_face_refuses_and_ends_what_was_under_way() -> None:
    """A silo that stops must not hang on its own last operation."""

    async def test(rig: Rig) -> None:
        future = rig.commit(1)
        await rig.a.close()
        await rig.fails(future, applied=None, within_s=0)
        await rig.fails(rig.a.genesis(), applied=False, within_s=0)
        assert "closed=True" in repr(rig.a)
        await asyncio.sleep(0)
        assert "under_way=0" in repr(rig.store)

    simulate(test)
