"""Volatile timers: each tick is a turn, none overlap, and they end with their activation."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import msgspec
import pytest

from durum import errors
from durum.config import Limits
from durum.grains.actor import Actor, read_only
from durum.grains.timers import Timer
from tests.support.turns import SMALL, Fate, House, outcome, simulated

ticks: list[tuple[str, float]] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    ticks.clear()


class Heart(Actor):
    beats: int = 0
    _timer: Timer | None = None

    async def beat(self, every: float, work: float = 0.0, *, keep_alive: bool = False) -> str:
        self._timer = self.set_timer(
            self._tick, "beat", work, every=every, name="heart", keep_alive=keep_alive
        )
        return self._timer.name

    async def once(self, due: float, what: str) -> bool:
        timer = self.set_timer(self._tick, what, 0.0, due=timedelta(seconds=due))
        return timer.active

    async def watch(self, every: float) -> None:
        self.set_timer(self._look, every=every)

    async def fail_later(self) -> None:
        self.set_timer(self._fail, due=1)

    async def count_down(self) -> None:
        self._timer = self.set_timer(self._last, every=1)

    async def hush(self) -> bool:
        assert self._timer is not None
        self._timer.cancel()
        self._timer.cancel()
        return self._timer.active

    async def wrong(self, what: str) -> None:
        if what == "other":
            self.set_timer(asyncio.Event().wait, due=1)
        if what == "plain":
            self.set_timer(self._plain, due=1)  # type: ignore[arg-type]
        if what == "never":
            self.set_timer(self._look)
        if what == "negative":
            self.set_timer(self._look, due=-1)
        if what == "always":
            self.set_timer(self._look, every=0)

    async def hold(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return self.beats

    @read_only
    async def count(self) -> int:
        return self.beats

    async def leave(self) -> None:
        self.deactivate()

    def _plain(self) -> None: ...

    async def _tick(self, what: str, work: float) -> None:
        self.beats += 1
        ticks.append((what, asyncio.get_running_loop().time()))
        if work:
            await asyncio.sleep(work)

    @read_only
    async def _look(self) -> None:
        ticks.append((f"saw {self.beats}", asyncio.get_running_loop().time()))
        self.beats = 7

    async def _fail(self) -> None:
        self.beats += 100
        raise ValueError("the heart stops")

    async def _last(self) -> None:
        self.beats += 1
        if self.beats == 3:
            await self.hush()


class Waking(Actor, idle_after=timedelta(seconds=10)):
    async def on_activate(self) -> None:
        ticks.append(("woke", asyncio.get_running_loop().time()))
        self.set_timer(self._tick, due=0, every=3)

    async def touch(self) -> None: ...

    async def stay(self) -> None:
        self.set_timer(self._tick, every=100, name="stay", keep_alive=True)

    async def _tick(self) -> None:
        ticks.append(("tick", asyncio.get_running_loop().time()))


def times(since: float) -> list[float]:
    return [round(at - since, 3) for _, at in ticks]


@simulated
async def test_ticks_are_turns_whose_changes_are_committed(house: House) -> None:
    """What a timer changes has to survive as what a call changes does."""
    cluster = await house.open([Heart])
    heart = cluster.actor(Heart, "a")
    assert await heart.beat(2) == "heart"
    since = house.loop.time()
    await asyncio.sleep(7)
    assert times(since) == pytest.approx([2, 4, 6], abs=0.1)
    assert await heart.count() == 3
    await heart.leave()
    await asyncio.sleep(5)
    assert await heart.count() == 3  # from the store, and nothing ticked since


@simulated
async def test_ticks_never_overlap_and_keep_step(house: House) -> None:
    """A tick that takes longer than the pause must not pile others up behind it."""
    cluster = await house.open([Heart])
    heart = cluster.actor(Heart, "a")
    await heart.beat(1, 2.5)
    since = house.loop.time()
    await asyncio.sleep(8.2)
    assert times(since) == pytest.approx([1, 4, 7], abs=0.1)


@simulated
async def test_a_tick_waits_its_turn(house: House) -> None:
    """One turn at a time holds for ticks too."""
    cluster = await house.open([Heart])
    heart = cluster.actor(Heart, "a")
    await heart.once(1, "late")
    since = house.loop.time()
    assert await heart.hold(3) == 0
    assert await heart.count() == 1
    assert times(since) == pytest.approx([3], abs=0.1)


@simulated
async def test_a_tick_that_raises_is_taken_back_and_logged(house: House) -> None:
    """Nobody waits for it, so a log is the only place where its failure can show."""
    records = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    handler = Recorder()
    logging.getLogger("durum.timers").addHandler(handler)
    try:
        cluster = await house.open([Heart])
        heart = cluster.actor(Heart, "a")
        await heart.fail_later()
        await asyncio.sleep(2)
        assert await heart.count() == 0
    finally:
        logging.getLogger("durum.timers").removeHandler(handler)
    assert len(records) == 1
    assert "the heart stops" in str(vars(records[0]))


@simulated
async def test_a_tick_whose_commit_fails_is_taken_back(house: House) -> None:
    """A tick is a transaction like any turn."""
    cluster = await house.open([Heart])
    heart = cluster.actor(Heart, "a")
    await heart.once(1, "x")
    house.next_commits(*[Fate(lands=False)] * 500)
    await asyncio.sleep(100)
    house.store.heal_all()
    assert await heart.count() == 0
    assert house.busy() == 0


@simulated
async def test_a_cancelled_timer_ticks_no_more(house: House) -> None:
    """Also from inside its own tick, and twice without harm."""
    cluster = await house.open([Heart])
    heart, other = cluster.actor(Heart, "a"), cluster.actor(Heart, "b")
    await heart.beat(1)
    await asyncio.sleep(2.5)
    assert await heart.hush() is False
    await other.count_down()
    await asyncio.sleep(10)
    assert (await heart.count(), await other.count()) == (2, 3)


@simulated
async def test_a_waiting_tick_can_be_withdrawn(house: House) -> None:
    """A timer that is replaced while its tick waits must not tick after that."""
    cluster = await house.open([Heart])
    heart = cluster.actor(Heart, "a")
    await heart.beat(1)
    holding = asyncio.ensure_future(heart.hold(2))
    await asyncio.sleep(0.1)
    again = asyncio.ensure_future(heart.beat(50))  # in line before the tick
    await asyncio.gather(holding, again)
    await asyncio.sleep(1)
    assert await heart.count() == 0
    assert house.busy() == 0


@simulated
async def test_a_read_only_tick_may_not_assign(house: House) -> None:
    """The mark means the same on a timer's method."""
    cluster = await house.open([Heart])
    heart = cluster.actor(Heart, "a")
    await heart.watch(1)
    await asyncio.sleep(2.5)
    assert await heart.count() == 0
    assert [what for what, _ in ticks] == ["saw 0", "saw 0"]


@pytest.mark.parametrize("what", ["other", "plain", "never", "negative", "always"])
def test_a_timer_that_cannot_be_is_refused(what: str) -> None:
    """A mistake shows where it is made, not when nothing ticks."""

    @simulated
    async def refused(house: House) -> None:
        cluster = await house.open([Heart])
        end = await outcome(cluster.actor(Heart, "a").wrong(what))
        assert isinstance(end, errors.ArgumentError)
        assert "nothing was set" in str(end)

    refused()


@simulated
async def test_timers_begin_in_on_activate_and_keep_nothing_alive(house: House) -> None:
    """Else a grain with a timer would stay in memory for ever."""
    config = msgspec.structs.replace(SMALL, limits=Limits(idle_after_s=10))
    cluster = await house.open([Waking], config)
    await cluster.actor(Waking, "a").touch()
    await asyncio.sleep(40)
    assert len(house.silo().life.catalog) == 0
    count = len(ticks)
    assert ticks[0][0] == "woke"
    assert 3 < count < 10
    await asyncio.sleep(40)
    assert len(ticks) == count


@simulated
async def test_keep_alive_keeps_an_activation(house: House) -> None:
    """For what has to go on without being called."""
    config = msgspec.structs.replace(SMALL, limits=Limits(idle_after_s=10))
    cluster = await house.open([Waking], config)
    await cluster.actor(Waking, "a").stay()
    await asyncio.sleep(90)
    assert [what for what, _ in ticks].count("woke") == 1
    assert len(house.silo().life.catalog) == 1


@simulated
async def test_timers_end_with_their_silo(house: House) -> None:
    """A tick on a silo that has lost its grain would act on what others own."""
    cluster = await house.open([Heart])
    await cluster.actor(Heart, "a").beat(1)
    await asyncio.sleep(1.5)
    await house.silo().close()
    await asyncio.sleep(10)
    assert len(ticks) == 1
