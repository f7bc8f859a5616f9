"""Commits whose answer is lost, late, refused or never comes: what the caller is told, and what is kept."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from durum import errors
from durum.config import Limits
from durum.errors import DidRun
from durum.grains.actor import Actor, read_only
from durum.grains.reference import options
from durum.ids import Token
from durum.store.protocol import Take
from durum.testing.links import Cut
from durum.testing.store import Chances
from tests.support.turns import SMALL, Fate, House, outcome, settled, simulated

ran: list[str] = []
NEVER = [Fate(lands=False)] * 500


class Purse(Actor):
    coins: int = 0

    async def add(self, coins: int) -> int:
        ran.append(f"add {coins}")
        self.coins += coins
        return self.coins

    async def save_and_go_on(self, coins: int) -> str:
        self.coins += coins
        try:
            await self.save()
        except errors.CommitFailed as exc:
            ran.append(f"save {exc.did_run}")
            raise
        return "saved"

    async def save_and_swallow(self, coins: int) -> str:
        self.coins += coins
        try:
            await self.save()
        except errors.CommitFailed:
            self.coins += 100
            return f"swallowed at {self.coins}"
        return "saved"

    @read_only
    async def count(self) -> int:
        ran.append(f"count {self.coins}")
        return self.coins

    @read_only
    async def count_slowly(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return self.coins


class Strict(Actor, strict_reads=True):
    coins: int = 0

    async def add(self, coins: int) -> int:
        self.coins += coins
        return self.coins

    @read_only
    async def count(self) -> int:
        return self.coins


def loads(house: House) -> list[bool]:
    """For each load, whether it raised the version."""
    found = [operation for operation in house.operations if operation.name == "load"]
    return [bool(operation.options.get("raise_version")) for operation in found]


async def steal(house: House, purse: Actor) -> None:
    """Give the grain's partition another token, as another owner would."""
    partition = purse._durum_target.hash % SMALL.partitions  # type: ignore[attr-defined]
    inside = house.store.inside
    genesis = await inside.genesis()
    assert genesis is not None
    owner = (await inside.owners(genesis.mark))[partition]
    taken = Take(partition=partition, seen=owner.token, token=Token(b"t" * 16), silo=None)
    await inside.take(genesis.mark, [taken])


@simulated
async def test_commit_whose_answer_was_lost_is_sent_again_as_it_was_and_applied_once(
    house: House,
) -> None:
    """The store knows it by its id: a new one would be a second deposit."""
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "p")
    house.next_commits(Fate(replies=False), Fate(lands=False), Fate(replies=False))
    assert await purse.add(5) == 5
    sent = [operation.args[0] for operation in house.commits()]
    assert len(sent) == 4
    assert len({commit.id for commit in sent}) == 1
    assert all(commit == sent[0] for commit in sent)
    assert await purse.add(1) == 6
    assert house.commits()[-1].args[0].version == 1
    assert loads(house) == [False]


@simulated
async def test_commit_that_is_never_answered_may_have_run(house: House) -> None:
    """Nobody can tell, so nobody may say otherwise; the activation goes, its memory being worth nothing."""
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "p")
    await purse.count()
    house.next_commits(Fate(replies=False), *NEVER)
    with pytest.raises(errors.CallError) as caught:
        await options(purse, timeout=2.0).add(5)
    assert caught.value.did_run is DidRun.MAYBE
    await asyncio.sleep(2.0)
    assert len(house.silo().life.catalog) == 0
    house.store.heal_all()
    assert await purse.count() == 5, "it had landed"
    assert loads(house) == [False, True]


@simulated
async def test_doubt_about_a_commit_goes_with_its_partition(house: House) -> None:
    """The next holding's token keeps the ghost out; a list of doubts that only grows would fill the silo."""
    cluster = await house.open([Purse])
    purses = [cluster.actor(Purse, f"p{n}") for n in range(16)]
    for purse in purses:
        await purse.count()
    house.store.chances("a", Chances(unanswered=1.0))
    await settled(*(asyncio.ensure_future(options(purse, timeout=2.0).add(5)) for purse in purses))
    house.store.heal_all()
    life = house.silo().life
    assert set(life.catalog._doubtful.values()) > {0, 1}
    await house.start("b", [Purse])
    await asyncio.sleep(10)
    held = {each.partition for each in life.ownership._holdings.all()}
    assert 0 < len(held) < SMALL.partitions
    assert set(life.catalog._doubtful.values()) <= held


@pytest.mark.parametrize("key", ["", "k"])
def test_first_commit_after_a_deletion_succeeds_though_what_was_kept_of_it_has_gone(
    key: str,
) -> None:
    """The version goes with the remembered replies, a day later as a rule: no fault of this turn's."""

    @simulated
    async def check(house: House) -> None:
        config = msgspec.structs.replace(SMALL, limits=Limits(reply_window_s=5.0))
        cluster = await house.open([Purse], config)
        purse, other = cluster.actor(Purse, "p"), cluster.actor(Purse, "q")
        await other.add(1)
        assert await purse.add(1) == 1
        assert await cluster.admin.delete(Purse, "p")
        assert await purse.count() == 0
        await asyncio.sleep(6.0)
        assert await cluster.admin.delete(Purse, "q")  # the embedded store tidies up now and then
        assert (await cluster.admin.inspect(Purse, "p")).version == 0
        assert await (options(purse, idempotency_key=key) if key else purse).add(2) == 2
        assert await purse.add(1) == 3
        assert house.silo().statistics().fenced == 0
        house.kill("a")
        await house.start("a#2", [Purse], config)
        assert await purse.count() == 3

    check()


@simulated
async def test_ghost_of_a_commit_cannot_land_after_the_next_load(house: House) -> None:
    """Once somebody was told that it did not happen, it must never happen."""
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "p")
    assert await purse.add(1) == 1
    house.next_commits(Fate(late_s=20.0), *NEVER)
    ended = await outcome(options(purse, timeout=2.0).add(5))
    assert isinstance(ended, errors.CallError)
    assert ended.did_run is DidRun.MAYBE
    await asyncio.sleep(3.0)
    house.store.heal_all()
    assert await purse.count() == 1
    await asyncio.sleep(30.0)
    assert await purse.count() == 1
    house.kill("a")
    await house.start("a#2", [Purse])
    assert await purse.count() == 1, "the ghost has landed"


@simulated
async def test_mark_of_an_unknown_outcome_outlives_the_loss_of_another_partition(
    house: House,
) -> None:
    """The version must be raised whatever else happens on the silo until the next load."""
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "p")
    other = next(
        actor
        for actor in (cluster.actor(Purse, str(n)) for n in range(50))
        if actor._durum_target.hash % 8 != purse._durum_target.hash % 8  # type: ignore[attr-defined]
    )
    await purse.count()
    await other.count()
    house.next_commits(*NEVER)
    await outcome(options(purse, timeout=1.0).add(5))
    await asyncio.sleep(2.0)
    house.store.heal_all()
    house.silo().life.catalog.drop(other._durum_target.hash % 8)  # type: ignore[attr-defined]
    assert await purse.count() == 0
    assert loads(house)[-1]


@simulated
async def test_commit_that_was_surely_not_applied_kept_nothing(house: House) -> None:
    """The store said so each time: the caller may repeat it, and the activation may stay."""
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "p")
    await purse.add(1)
    house.next_commits(*[Fate(refused="READONLY")] * 500)
    sink = asyncio.ensure_future(outcome(options(purse, timeout=2.0).add(5)))
    await asyncio.sleep(2.6)
    house.store.heal_all()
    assert isinstance(await sink, errors.CallError)
    assert await purse.count() == 1
    assert await purse.add(2) == 3
    assert loads(house) == [False]


@simulated
async def test_commit_waits_for_a_store_that_comes_back_in_time(house: House) -> None:
    """A restart of the store fails nobody who has the time."""
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "p")
    await purse.count()
    house.next_commits(*[Fate(refused="LOADING")] * 5)
    assert await purse.add(5) == 5


@simulated
async def test_fenced_commit_kept_nothing_and_the_activation_goes(house: House) -> None:
    """Another owner has taken over: what is in memory here is history."""
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "p")
    await purse.add(1)
    await steal(house, purse)
    with pytest.raises(errors.CommitFailed, match="refused its commit") as caught:
        await purse.add(5)
    assert caught.value.did_run is DidRun.ROLLED_BACK
    assert await purse.add(2) == 3
    assert house.silo().life.services.load.fenced == 1


@simulated
async def test_calls_behind_a_fenced_commit_run_where_the_grain_lives_now(house: House) -> None:
    """They did not run; running them on the old state would refuse them all for nothing."""
    ran.clear()
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "p")
    await purse.add(1)
    await steal(house, purse)
    calls = [asyncio.ensure_future(purse.add(n)) for n in (5, 10, 20)]
    ended = await settled(*calls)
    assert isinstance(ended[0], errors.CommitFailed)
    assert ended[1:] == [11, 31]


@simulated
async def test_fence_after_a_lost_answer_leaves_the_outcome_open(house: House) -> None:
    """The first attempt may have landed before the other owner came."""
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "p")
    await purse.add(1)
    house.next_commits(Fate(lands=False))
    call = asyncio.ensure_future(outcome(purse.add(5)))
    await asyncio.sleep(0.5)
    await steal(house, purse)
    ended = await call
    assert isinstance(ended, errors.CommitFailed)
    assert ended.did_run is DidRun.MAYBE


@simulated
async def test_save_of_unknown_outcome_is_told_as_such_and_ends_the_activation(
    house: House,
) -> None:
    """To say `rolled_back` would invite a second run of what may be durable already."""
    ran.clear()
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "p")
    await purse.count()
    catalog = house.silo().life.catalog
    house.next_commits(Fate(replies=False), *NEVER)
    ended = await outcome(options(purse, timeout=4.0).save_and_go_on(5))
    assert isinstance(ended, errors.CallError)
    assert ended.did_run is DidRun.MAYBE
    await asyncio.sleep(3.0)
    assert len(catalog) == 0
    house.store.heal_all()
    assert await purse.count() == 5
    assert loads(house)[-1]


@simulated
async def test_turn_that_goes_on_after_a_save_of_unknown_outcome_keeps_nothing_more(
    house: House,
) -> None:
    """Its fields are back at what was committed before, and no silo may build on that any more."""
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "p")
    await purse.count()
    house.next_commits(Fate(replies=False), *NEVER)
    life = house.silo().life
    activation = life.catalog.activations[purse._durum_target.grain]  # type: ignore[attr-defined]
    ended = await outcome(options(purse, timeout=40.0).save_and_swallow(5))
    assert isinstance(ended, errors.CommitFailed)
    assert ended.did_run is DidRun.MAYBE
    assert activation.state.name == "GONE"
    house.store.heal_all()
    assert await purse.count() == 5


@simulated
async def test_slow_reader_does_not_answer_after_its_grain_was_lost(house: House) -> None:
    """By then another silo may have changed what it has read."""
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "p")
    await purse.add(1)
    slow = asyncio.ensure_future(outcome(purse.count_slowly(2.0)))
    await asyncio.sleep(0.2)
    grain = purse._durum_target.grain  # type: ignore[attr-defined]
    activation = house.silo().life.catalog.activations[grain]
    activation._durable.lost = True
    activation.drop()
    ended = await slow
    assert isinstance(ended, errors.CommitFailed)
    assert ended.did_run is DidRun.ROLLED_BACK


@simulated
async def test_strict_reads_ask_the_store_and_never_answer_for_another_owner(house: House) -> None:
    """For kinds whose readers must not trust clocks."""
    cluster = await house.open([Strict])
    strict = cluster.actor(Strict, "s")
    await strict.add(1)
    house.operations.clear()
    assert await strict.count() == 1
    assert [o.name for o in house.operations if o.name == "verify"] == ["verify"]
    await steal(house, strict)
    assert await strict.count() == 1, "by the next activation"
    assert len([o for o in house.operations if o.name == "load"]) == 1
    house.store.next("a", "verify", *[Fate(refused="LOADING")] * 3)
    assert await strict.count() == 1


@simulated
async def test_silo_that_was_stopped_answers_nothing_stale_when_it_wakes(house: House) -> None:
    """Calls wait in its sockets; by the time it reads them others have changed the grain."""
    ran.clear()
    await house.start("a", [Purse])
    await house.start("b", [Purse])
    cluster = await house.connect("a", "b")
    purse = cluster.actor(Purse, "p")
    await asyncio.sleep(5)
    await purse.add(1)
    holder, other = ("a", "b") if len(house.silo("a").life.catalog) else ("b", "a")
    # This client hears nothing of the holder's death, so its calls stay where they are.
    house.network.host("lonely")
    house.network.cut("lonely", other, Cut.REJECT)
    lonely = await house.connect(holder, host="lonely")
    asked = options(lonely.actor(Purse, "p"), timeout=300.0)
    assert await asked.count() == 1
    ran.clear()
    house.loop.freeze(holder)
    queued = [asyncio.ensure_future(outcome(asked.count())) for _ in range(3)]
    await asyncio.sleep(40)
    assert await purse.add(5) == 6
    assert ran == ["add 5"]
    house.loop.thaw(holder)
    await asyncio.sleep(5)
    assert "count 1" not in ran, "it has served a call that came before it was stopped"
    for task in queued:
        task.cancel()
    assert 1 not in await settled(*queued)


@simulated
async def test_counter_is_exact_whatever_the_store_does(house: House) -> None:
    """Acknowledged or unknown: the final value lies between, and each keyed call counts once."""
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "p")
    house.store.chances("a", Chances(lost=0.1, ghost=0.1, unanswered=0.1, refused=0.1, ghost_s=3.0))
    sure = maybe = 0
    for number in range(60):
        one = options(purse, timeout=4.0)
        if number % 2:
            one = options(one, idempotency_key=str(number), timeout=60.0)
        ended = await outcome(one.add(1))
        if isinstance(ended, int):
            sure += 1
        elif isinstance(ended, errors.CallError) and ended.did_run is DidRun.MAYBE:
            maybe += 1
    house.store.heal_all()
    await asyncio.sleep(5)
    assert sure >= 30
    assert len(house.commits()) > 70, "faults fell"
    assert sure <= await purse.count() <= sure + maybe


@simulated
async def test_commit_that_the_store_keeps_refusing_is_rolled_back_with_the_reason(
    house: House,
) -> None:
    """A full or read-only store has applied nothing: waiting out the deadline would tell less, later."""
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "one")
    assert await purse.add(1) == 1
    house.next_commits(*[Fate(refused="OOM command not allowed")] * 500)
    began = asyncio.get_running_loop().time()
    error = await outcome(purse.add(5))
    took = asyncio.get_running_loop().time() - began
    assert isinstance(error, errors.CommitFailed)
    assert error.did_run is DidRun.ROLLED_BACK
    assert "OOM" in str(error)
    assert 2 < took < 5, took
    assert await purse.count() == 1


@simulated
async def test_caller_is_told_of_an_unknown_outcome_before_it_gives_up(house: House) -> None:
    """Its own time-out knows less: not that the method ran, and not why nobody can tell the rest."""
    cluster = await house.open([Purse])
    purse = cluster.actor(Purse, "one")
    assert await purse.add(1) == 1
    house.next_commits(*NEVER)
    error = await outcome(options(purse, timeout=5).add(5))
    assert isinstance(error, errors.CommitFailed)
    assert error.did_run is DidRun.MAYBE
