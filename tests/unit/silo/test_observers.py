"""Watches: what an actor publishes comes, in order, once it is true; and where something is missing, that is
said. On whole silos, on virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

import durum
from durum import errors
from durum.config import Lease, Limits, SiloConfig
from durum.errors import DidRun
from durum.grains.actor import Actor
from durum.grains.events import Gap
from durum.grains.publishing import Publishes
from durum.grains.reference import options
from durum.grains.watching import Watch, watch
from durum.testing.store import Fate
from tests.support.boards import Board, Move, Reset, soon, take, watchers
from tests.support.turns import SMALL, House, outcome, simulated


class Bell(Actor, Publishes[str]):
    async def ring(self, text: str) -> None:
        self.publish(text)

    async def ring_later(self, text: str) -> None:
        self.set_timer(self.ring, text, due=1.0)


class Quiet(Actor):
    async def nothing(self) -> None:
        """Publishes nothing."""


async def silent(following: Watch[Any], for_s: float = 2.0) -> bool:
    try:
        await soon(anext(following), for_s)
    except TimeoutError:
        return True
    return False


@simulated
async def test_events_come_in_order_as_what_they_were_published_as(house: House) -> None:
    """Two events that look alike as data are of two types, and a watcher has to tell them apart."""
    cluster = await house.open([Board])
    board = cluster.actor(Board, "a")
    async with cluster.watch(board) as following:
        for x in range(5):
            await board.move(x)
        await board.reset()
        assert await take(following, 7) == [*(Move(x) for x in range(5)), Reset(), 7]
    assert repr(following) == "<Watch of Board/a over>"
    with pytest.raises(StopAsyncIteration):
        await anext(following)
    await asyncio.sleep(1)
    assert watchers(house) == 0
    assert not cluster.router._streams


@simulated
async def test_each_watcher_sees_its_own_actor_from_where_it_began(house: House) -> None:
    """Events are volatile: what came before the watch began, or from others, is not of it."""
    cluster = await house.open([Board])
    board, other = cluster.actor(Board, "a"), cluster.actor(Board, "b")
    await board.move(0)
    async with (
        cluster.watch(board) as one,
        cluster.watch(board) as two,
        cluster.watch(other) as far,
    ):
        await board.move(1)
        assert await take(one, 1) == await take(two, 1) == [Move(1)]
        assert await silent(far)
        seen = house.silo().statistics().observers
        assert (seen.watchers, seen.grains, seen.published, seen.missed) == (3, 2, 1, 0)


@simulated
async def test_turn_that_fails_publishes_nothing(house: House) -> None:
    """A watcher that is told of what was rolled back believes in what never was."""
    cluster = await house.open([Board])
    board = cluster.actor(Board, "a")
    async with cluster.watch(board) as following:
        assert isinstance(await outcome(board.fail()), ValueError)
        keyed = options(board, idempotency_key="k")
        assert isinstance(await outcome(keyed.fail()), ValueError)  # this one commits its outcome
        await board.move(1)
        assert await take(following, 1) == [Move(1)]


@simulated
async def test_what_was_saved_is_published_whatever_comes_after(house: House) -> None:
    """It is true from then on; what the turn did later is not."""
    cluster = await house.open([Board])
    board = cluster.actor(Board, "a")
    async with cluster.watch(board) as following:
        assert isinstance(await outcome(board.save_and_fail()), ValueError)
        await board.move(3)
        assert await take(following, 2) == [Move(1), Move(3)]


@simulated
async def test_nothing_is_published_before_it_is_durable(house: House) -> None:
    """A watcher must not act on what a crash may still undo."""
    cluster = await house.open([Board])
    board = cluster.actor(Board, "a")
    await board.look()
    async with cluster.watch(board) as following:
        house.next_commits(Fate(late_s=1.0))
        moving = asyncio.ensure_future(board.move(1))
        assert await silent(following, 0.9)
        assert await soon(anext(following)) == Move(1)
        await moving


@simulated
async def test_keyed_call_publishes_once_however_often_it_is_repeated(house: House) -> None:
    """The second answer is remembered, and nothing happens for it."""
    cluster = await house.open([Board])
    board = cluster.actor(Board, "a")
    keyed = options(board, idempotency_key="k")
    async with cluster.watch(board) as following:
        assert [await keyed.move(1) for _ in range(3)] == [1, 1, 1]
        assert await take(following, 1) == [Move(1)]
        assert await silent(following)


@simulated
async def test_repeated_call_under_a_key_is_refused_as_a_watch_is_none(house: House) -> None:
    """A key records what a call did; a watch does nothing."""
    cluster = await house.open([Board])
    with pytest.raises(errors.ArgumentError, match="idempotency_key"):
        await cluster.watch(options(cluster.actor(Board, "a"), idempotency_key="k")).__aenter__()


@pytest.mark.parametrize("what", ["text", "inside", "large"])
def test_publishing_is_checked_in_the_turn(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher in another process cannot be told what it cannot read; the author hears it at once."""
    if what == "large":
        monkeypatch.setattr("durum.grains.events.LIMIT_BYTES", 5)

    @simulated
    async def runs(house: House) -> None:
        cluster = await house.open([Board])
        board = cluster.actor(Board, "a")
        failed = await outcome(board.publish_wrongly(what))
        if what == "large":
            assert isinstance(failed, ValueError)
            assert "the limit is 5" in str(failed)
        else:
            assert isinstance(failed, TypeError)
            assert "Board publishes Move | Reset | int" in str(failed)
        assert await board.look() == 0

    runs()


@simulated
async def test_read_only_turn_cannot_publish(house: House) -> None:
    """Nothing happens in it that others could be told of, and nothing of it is ever committed."""
    cluster = await house.open([Board])
    failed = await outcome(cluster.actor(Board, "a").publish_reading())
    assert isinstance(failed, AttributeError)
    assert "@read_only" in str(failed)


@simulated
async def test_kind_without_durable_fields_publishes_at_the_ends_of_its_turns(house: House) -> None:
    """A turn that has nothing to commit still is all or nothing."""
    cluster = await house.open([Bell])
    bell = cluster.actor(Bell, "a")
    async with cluster.watch(bell) as following:
        await bell.ring("ding")
        await bell.ring_later("dong")
        assert await take(following, 2) == ["ding", "dong"]


@simulated
async def test_watch_neither_wakes_an_actor_nor_keeps_it_nor_hears_of_its_sleep(
    house: House,
) -> None:
    """Thousands may watch what changes once a day: that must not cost an activation each."""
    cluster = await house.open([Board])
    board = cluster.actor(Board, "a")
    async with cluster.watch(board) as following:
        await asyncio.sleep(1)
        assert len(house.silo().life.catalog) == 0
        await board.move(1)
        await board.leave()
        assert await take(following, 2) == [Move(1), -1]  # hooks publish at once
        assert len(house.silo().life.catalog) == 0
        await board.move(2)
        assert await take(following, 1) == [Move(2)]


@simulated
async def test_slow_watcher_gets_the_newest_and_a_gap(house: House) -> None:
    """Its events wait in bounded memory at the silo, and nobody else is held up."""
    limits = Limits(stream_window=4, watch_events=8)
    cluster = await house.open([Board], msgspec.structs.replace(SMALL, limits=limits))
    board = cluster.actor(Board, "a")
    async with cluster.watch(board) as slow, cluster.watch(board) as fast:
        reading = asyncio.ensure_future(take(fast, 20))
        for x in range(20):
            await board.move(x)
        assert await reading == [Move(x) for x in range(20)]
        seen = await take(slow, 12)  # the first sign of life took one of four
        gap = next(event for event in seen if isinstance(event, Gap))
        place = seen.index(gap)
        assert seen[:place] == [Move(x) for x in range(place)]
        assert seen[place + 1 :] == [Move(x) for x in range(20 - 8, 20)]
        assert gap == Gap(20 - 8 - place, "slow")
        assert house.silo().statistics().observers.missed == gap.missed
        await board.move(21)
        assert await take(slow, 1) == [Move(21)]


@simulated
async def test_what_waits_for_a_slow_watcher_is_bounded_in_bytes(house: House) -> None:
    """Two hundred large events would be a hundred megabytes for each of a thousand watchers."""
    limits = Limits(stream_window=1, watch_events=100, watch_bytes=1000)
    cluster = await house.open([Bell], msgspec.structs.replace(SMALL, limits=limits))
    bell = cluster.actor(Bell, "a")
    async with cluster.watch(bell) as following:
        await bell.ring("first")
        for n in range(10):
            await bell.ring(f"{n}" * 300)
        assert await soon(anext(following)) == "first"
        assert await soon(anext(following)) == Gap(7, "slow")
        assert await take(following, 3) == [f"{n}" * 300 for n in (7, 8, 9)]


@simulated
async def test_one_turn_may_publish_more_than_a_watcher_can_hold(house: House) -> None:
    """That too is a gap, and no error of the turn."""
    limits = Limits(stream_window=4, watch_events=8)
    cluster = await house.open([Board], msgspec.structs.replace(SMALL, limits=limits))
    board = cluster.actor(Board, "a")
    async with cluster.watch(board) as following:
        await board.burst(1000)
        seen: list[object] = []
        while not seen or seen[-1] != 999:
            seen.append(await soon(anext(following)))
        missed = sum(event.missed or 0 for event in seen if isinstance(event, Gap))
        assert missed + len([event for event in seen if isinstance(event, int)]) == 1000


@simulated
async def test_commit_of_unknown_outcome_is_a_gap(house: House) -> None:
    """The state may be what a watcher was never told of: only a look shows it."""
    config = msgspec.structs.replace(SMALL, limits=Limits(call_timeout_s=2.0))
    cluster = await house.open([Board], config)
    board = cluster.actor(Board, "a")
    await board.look()
    async with cluster.watch(board) as following:
        house.next_commits(*[Fate(replies=False)] * 100)
        failed = await outcome(board.move(1))
        assert isinstance(failed, errors.CallError)
        assert await soon(anext(following)) == Gap(None, "uncertain")


@simulated
async def test_watch_goes_on_after_its_silo_was_killed(house: House) -> None:
    """And says that something may be missing: nobody can know what the dead silo had still to tell."""
    await house.start("a", [Board])
    await house.start("b", [Board])
    cluster = await house.connect("a", "b")
    await asyncio.sleep(5)
    keys = [f"k{n}" for n in range(20)]
    following = [await cluster.watch(cluster.actor(Board, key)).__aenter__() for key in keys]
    held = watchers(house)
    assert 0 < held < 20
    house.kill("a")
    reading = [asyncio.ensure_future(anext(each)) for each in following]
    await asyncio.sleep(30)
    for key in keys:
        await cluster.actor(Board, key).move(1)
    first = [await soon(each) for each in reading]
    assert (first.count(Gap(None, "moved")), first.count(Move(1))) == (held, 20 - held)
    for each, event in zip(following, first, strict=True):
        if isinstance(event, Gap):
            assert await soon(anext(each)) == Move(1)
        await each.aclose()
    await asyncio.sleep(1)
    assert watchers(house, "b") == 0


@simulated
async def test_watch_moves_with_its_actor_in_a_hand_over(house: House) -> None:
    """A newcomer takes half of the partitions; of those alone the watches begin anew, each with a gap."""
    await house.start("a", [Board])
    cluster = await house.connect("a")
    keys = [f"k{n}" for n in range(20)]
    following = [await cluster.watch(cluster.actor(Board, key)).__aenter__() for key in keys]
    await house.start("b", [Board])
    await asyncio.sleep(10)
    reading = [asyncio.ensure_future(anext(each)) for each in following]
    await asyncio.sleep(5)
    there = watchers(house, "b")
    assert there + watchers(house, "a") == 20
    assert 0 < there < 20
    for key in keys:
        await cluster.actor(Board, key).move(1)
    first = [await soon(each) for each in reading]
    assert first.count(Gap(None, "moved")) == there
    assert first.count(Move(1)) == 20 - there
    for each, event in zip(following, first, strict=True):
        if isinstance(event, Gap):
            assert await soon(anext(each)) == Move(1)
        await each.aclose()


@simulated
async def test_silo_that_may_not_answer_any_more_ends_its_watches(house: House) -> None:
    """Another silo may be the actor's own already: who still listened here would hear nothing for ever."""
    config = SiloConfig(partitions=8, lease=Lease(lease_s=3.0, renew_s=1.0, store_timeout_s=0.5))
    cluster = await house.open([Board], config)
    board = cluster.actor(Board, "a")
    async with cluster.watch(board) as following:
        house.store.cut("a")
        await asyncio.sleep(6)
        assert watchers(house) == 0
        house.store.heal_all()
        assert await soon(anext(following), 30) == Gap(None, "moved")
        await board.move(1)
        assert await take(following, 1) == [Move(1)]


@simulated
async def test_silent_silo_is_taken_for_lost(house: House) -> None:
    """A path that swallows everything says nothing of it; the watch would wait for ever."""
    cluster = await house.open([Board])
    board = cluster.actor(Board, "a")
    async with cluster.watch(options(board, timeout=3.0)) as following:
        await asyncio.sleep(60)
        assert await silent(following, 10.0), "signs of life are no events, and no gaps"
        house.network.cut("a", "client")
        reading = asyncio.ensure_future(anext(following))
        await asyncio.sleep(20)
        assert not reading.done()
        house.network.heal("a", "client")
        assert await soon(reading, 10) == Gap(None, "moved")
        await board.move(1)
        assert await take(following, 1) == [Move(1)]


@simulated
async def test_client_that_vanishes_leaves_no_watch_behind(house: House) -> None:
    """Whoever is gone must not be told of things for ever."""
    await house.start("a", [Board])
    other = await house.connect("a", host="other")
    cluster = await house.connect("a")
    board = cluster.actor(Board, "a")
    following = await cluster.watch(board).__aenter__()
    assert watchers(house) == 1
    await cluster.close()
    await asyncio.sleep(1)
    assert watchers(house) == 0
    with pytest.raises(errors.ShuttingDown):
        await soon(anext(following))
    assert await other.actor(Board, "a").move(1) == 1


@simulated
async def test_watch_that_nobody_refers_to_ends(house: House) -> None:
    """As after a `break` without the block."""
    cluster = await house.open([Board])
    board = cluster.actor(Board, "a")

    async def glance() -> object:
        async for event in cluster.watch(board):
            return event
        return None

    looking = asyncio.ensure_future(glance())
    await asyncio.sleep(1)
    assert watchers(house) == 1
    await board.move(1)
    assert await soon(looking) == Move(1)
    del looking
    await asyncio.sleep(1)
    assert watchers(house) == 0


@simulated
async def test_waiting_for_an_event_may_be_cancelled_and_loses_none(house: House) -> None:
    """`asyncio.timeout` around one step is how a reader looks up between events."""
    cluster = await house.open([Board])
    board = cluster.actor(Board, "a")
    async with cluster.watch(board) as following:
        for x in range(10):
            moving = asyncio.ensure_future(board.move(x))
            seen: list[object] = []
            while not seen:
                waiting = asyncio.ensure_future(anext(following))
                await asyncio.sleep(0.0005)
                if waiting.done():
                    seen.append(waiting.result())
                else:
                    waiting.cancel()
            assert seen == [Move(x)]
            await moving


@simulated
async def test_watches_of_one_actor_are_bounded(house: House) -> None:
    """Each event is sent once for each of them, between two turns."""
    limits = Limits(watchers_per_grain=2, watchers=3)
    cluster = await house.open([Board], msgspec.structs.replace(SMALL, limits=limits))
    board, other = cluster.actor(Board, "a"), cluster.actor(Board, "b")
    one, two = cluster.watch(board), cluster.watch(board)
    async with one:
        async with two:
            with pytest.raises(errors.Overloaded, match="watchers_per_grain") as caught:
                await cluster.watch(board).__aenter__()
            assert caught.value.did_run is DidRun.NO
            async with cluster.watch(other):
                with pytest.raises(errors.Overloaded):
                    await cluster.watch(other).__aenter__()
        await asyncio.sleep(0.5)
        async with cluster.watch(board):
            assert watchers(house) == 2


@simulated
async def test_watch_that_cannot_begin_says_so_in_time(house: House) -> None:
    """As any call."""
    cluster = await house.open([Board])
    board = options(cluster.actor(Board, "a"), timeout=2.0)
    house.kill("a")
    before = house.loop.time()
    with pytest.raises(errors.CallTimeout):
        await cluster.watch(board).__aenter__()
    assert house.loop.time() - before < 3.0


@simulated
async def test_only_what_publishes_can_be_watched(house: House) -> None:
    """Said before anything is sent where the class shows it, and by the silo where its class is another."""
    cluster = await house.open([Board, Quiet])
    quiet: Any = cluster.actor(Quiet, "a")
    with pytest.raises(errors.ArgumentError, match="publishes nothing"):
        cluster.watch(quiet)
    with pytest.raises(errors.ArgumentError, match="expected a reference"):
        watch(Quiet)  # type: ignore[arg-type]
    other = await house.connect("a", host="other")
    with pytest.raises(errors.ArgumentError, match="another connection"):
        other.watch(cluster.actor(Board, "a"))

    class Newer(Actor, Publishes[int], kind="Quiet"):
        pass

    with pytest.raises(errors.NoSuchMethod, match="publishes nothing here"):
        await cluster.watch(cluster.actor(Newer, "a")).__aenter__()

    class Unknown(Actor, Publishes[int]):
        pass

    with pytest.raises(errors.NoSuchKind):
        await cluster.watch(cluster.actor(Unknown, "a")).__aenter__()


@simulated
async def test_event_of_a_type_that_this_side_lacks_is_a_gap(house: House) -> None:
    """In a rolling upgrade the silos may publish what older clients do not know."""
    cluster = await house.open([Board])

    class Older(Actor, Publishes[Reset], kind="Board"):
        pass

    async with cluster.watch(cluster.actor(Older, "a")) as following:
        await cluster.actor(Board, "a").move(1)
        await cluster.actor(Board, "a").reset()
        assert await take(following, 3) == [Gap(1, "unknown"), Reset(), Gap(1, "unknown")]


@simulated
async def test_watch_under_an_alias_is_one_of_the_same_actor(house: House) -> None:
    """Its data lies under the kind's own name, and so do its watches, wherever callers look for it."""

    class Renamed(Actor, Publishes[int], kind="New", aliases=("Old",)):
        async def say(self, n: int) -> None:
            self.publish(n)

    class Formerly(Actor, Publishes[int], kind="Old"):
        pass

    await house.start("a", [Renamed])
    await house.start("b", [Renamed])
    await asyncio.sleep(5)
    cluster = await house.connect("a", "b")
    for n in range(8):
        async with cluster.watch(cluster.actor(Formerly, f"k{n}")) as following:
            await cluster.actor(Renamed, f"k{n}").say(n)
            assert await take(following, 1) == [n]


@simulated
async def test_gateway_passes_watches_on(house: House) -> None:
    """A client that reaches one silo only watches actors of all."""
    await house.start("a", [Board])
    await house.start("b", [Board])
    await asyncio.sleep(5)
    cluster = await house.connect("a", routing="gateway")
    direct = await house.connect("a", "b", host="other")
    keys = [f"k{n}" for n in range(12)]
    following = [await cluster.watch(cluster.actor(Board, key)).__aenter__() for key in keys]
    assert watchers(house, "b") > 0
    for key in keys:
        for x in range(50):
            await direct.actor(Board, key).move(x)
    for each in following:
        assert await take(each, 50) == [Move(x) for x in range(50)]
        await each.aclose()
    await asyncio.sleep(1)
    assert watchers(house, "a") + watchers(house, "b") == 0


def test_what_is_published_is_checked_when_the_class_is_made() -> None:
    """A mistake shows on import, and not when the first event is lost."""
    with pytest.raises(errors.ConfigError, match="publishes"):

        class Unfit(Actor, Publishes[object]):
            pass

    with pytest.raises(errors.ConfigError, match="StatelessWorker"):

        class Spread(Actor, Publishes[int], placement=durum.StatelessWorker()):
            pass


def test_names_of_publishing_are_free_for_all_others() -> None:
    """Actors that publish nothing have none of it."""

    class Editor(Actor):
        text: str = ""

        async def publish(self, text: str) -> None:
            self.text = text

    assert "publish" in Editor.__dict__
