"""Reminders on one silo and on several: never early, never lost, at least once, part of their commit."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from durum import errors
from durum.client.reminders import Found
from durum.config import Limits, SiloConfig
from durum.grains.actor import Actor, read_only
from durum.grains.placement import StatelessWorker
from durum.grains.reminders import Tick
from durum.silo import store_clock
from durum.silo.silo import Silo
from durum.silo.wakeups import WakeUps
from durum.testing import worlds
from tests.support.turns import SMALL, Fate, House, outcome, simulated

EPOCH = 1_700_000_000.0
SECRET = "known to every silo here"
CALM = msgspec.structs.replace(worlds.CALM, partitions=8)
FEW = SiloConfig(partitions=8, limits=Limits(reminders=3, reminder_bytes=100, call_timeout_s=5.0))

heard: list[tuple[str, int, float]] = []
"""Who was called for which tick, and when by the simulator's time, whether or not it was committed."""


ASKED: dict[str, dict[str, Any]] = {}
"""What `set` asks for, by the reminder's name: not all of it could be an argument."""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    heard.clear()


def now() -> float:
    return asyncio.get_running_loop().time()


class Bell(Actor):
    rung: list[tuple[str, int]] = []
    fails: int = 0
    _told: list[Tick] = []

    async def set(self, name: str) -> None:
        self.remind(name, **ASKED[name])

    async def set_and_fail(self) -> None:
        self.remind("never", delay=1)
        raise ValueError("taken back")

    async def set_fails(self, times: int) -> None:
        self.fails = times

    async def cancel(self, name: str) -> None:
        self.context.reminders.cancel(name)

    async def standing(self) -> list[tuple[str, int]]:
        return [(each.name, each.number) for each in await self.context.reminders.list()]

    async def change_twice(self) -> list[tuple[str, int]]:
        """What a turn has asked for is what it sees."""
        self.remind("b", every=60)
        self.context.reminders.cancel("a")
        self.remind("c", delay=5)
        self.context.reminders.cancel("c")
        return [(each.name, each.number) for each in await self.context.reminders.list()]

    @read_only
    async def ring(self) -> list[tuple[str, int]]:
        return self.rung

    @read_only
    async def set_reading(self) -> None:
        self.remind("x", delay=1)

    async def set_later(self) -> None:
        async def later() -> None:
            await asyncio.sleep(1)
            try:
                self.remind("x", delay=1)
            except errors.CommitFailed as exc:
                heard.append((str(exc), 0, now()))

        self._task = asyncio.get_running_loop().create_task(later())

    async def leave(self) -> None:
        self.deactivate()

    async def on_reminder(self, name: str, tick: Tick) -> None:
        heard.append((name, tick.number, now()))
        self.rung.append((name, tick.number))
        if name == "slow":
            await asyncio.sleep(60)
        if name == "again" and tick.payload is None:
            self.remind(name, delay=10, payload="last")
        if name == "enough" and tick.number == 2:
            self.context.reminders.cancel(name)
        if tick.attempt <= self.fails:
            raise ValueError(f"attempt {tick.attempt}")


def at(since: float) -> list[float]:
    return [round(when - since, 1) for _, _, when in heard]


@simulated
async def test_reminder_ticks_in_step_and_never_early(house: House) -> None:
    """Never early by the store's time, and no drift: each tick is due a period after the one before."""
    bell = (await house.open([Bell], CALM)).actor(Bell, "b")
    began = now()
    await ask(bell, "hour", {"every": timedelta(hours=1)})
    await asyncio.sleep(5 * 3600 + 10)
    assert await bell.ring() == [("hour", number) for number in range(1, 6)]
    for number, (_, _, when) in enumerate(heard, 1):
        assert 0 <= when - began - number * 3600 < 3


@simulated
async def test_reminder_is_set_with_its_turn_or_not_at_all(house: House) -> None:
    """A turn is a transaction: what is rolled back must not ring."""
    bell = (await house.open([Bell])).actor(Bell, "b")
    await outcome(bell.set_and_fail())
    house.next_commits(Fate(refused="MISCONF"), *[Fate(refused="MISCONF")] * 200)
    refused = await outcome(ask(bell, "x", {"delay": 1}))
    assert isinstance(refused, errors.CommitFailed)
    house.store.heal_all()
    await asyncio.sleep(30)
    assert heard == []
    assert await bell.standing() == []


@simulated
async def test_tick_and_what_it_changes_are_one_commit(house: House) -> None:
    """A one-shot is removed by the very commit of its turn: otherwise a crash between loses or doubles it."""
    bell = (await house.open([Bell])).actor(Bell, "b")
    await ask(bell, "once", {"delay": 10, "payload": {"to": ["ann"]}})
    before = len(house.commits())
    await asyncio.sleep(11)
    assert len(house.commits()) == before + 1
    commit = house.commits()[-1].args[0]
    assert commit.state is not None
    assert (dict(commit.parts), dict(commit.wake)) == ({b"\x00ronce": None}, {b"ronce": None})
    assert await bell.standing() == []
    await asyncio.sleep(100)
    assert heard == [("once", 1, heard[0][2])]


@simulated
async def test_silo_that_dies_with_the_commit_of_a_tick_has_it_ticked_again(house: House) -> None:
    """At least once, with the same number: whoever makes a key of it does nothing twice."""
    config = SiloConfig(partitions=8)
    await house.start("a", [Bell], config, secret=SECRET)
    await house.start("b", [Bell], config, secret=SECRET)
    cluster = await house.connect("a", "b", config=config, secret=SECRET)
    for key in map(str, range(12)):
        await ask(cluster.actor(Bell, key), "x", {"every": 30, "count": 3})
    await asyncio.sleep(29)
    for _ in range(100):
        house.store.next("a", "commit", Fate(lands=False))
    await asyncio.sleep(2)
    house.kill("a")
    await asyncio.sleep(100)
    for key in map(str, range(12)):
        rung = await cluster.actor(Bell, key).ring()
        assert rung == [("x", 1), ("x", 2), ("x", 3)]
    assert len(heard) > 36, "some were called twice, and committed once"


@simulated
async def test_failing_tick_is_kept_and_tried_again_less_and_less_often(house: House) -> None:
    """What it changed is taken back; number and due time stay, and people can see why it fails."""
    cluster = await house.open([Bell])
    bell = cluster.actor(Bell, "b")
    await bell.set_fails(3)
    began = now()
    await ask(bell, "x", {"every": 60})
    await asyncio.sleep(62)
    (shown,) = await cluster.admin.reminders.list("Bell", "b")
    assert (shown.number, shown.attempts) == (1, 2)
    assert shown.error == "ValueError: attempt 2"
    assert shown.retry is not None
    await asyncio.sleep(10)
    assert at(began) == [60.0, 61.0, 63.0, 67.0]
    assert await bell.ring() == [("x", 1)]
    await bell.set_fails(0)
    await asyncio.sleep(60)
    assert await bell.ring() == [("x", 1), ("x", 2)]
    (shown,) = await cluster.admin.reminders.list(Bell, "b")
    assert (shown.attempts, shown.error) == (0, "")


@simulated
async def test_tick_that_takes_too_long_counts_as_failed(house: House) -> None:
    """Otherwise it would be tried again at once, and again, for ever."""
    cluster = await house.open([Bell], FEW)
    await ask(cluster.actor(Bell, "b"), "slow", {"delay": 1})
    await asyncio.sleep(6.5)
    shown = await cluster.admin.reminders.get("Bell", "b", "slow")
    assert shown is not None
    assert (shown.attempts, shown.error) == (1, "it took longer than 5 s")


@simulated
async def test_on_reminder_can_set_and_cancel_the_very_reminder(house: House) -> None:
    """What it says counts, and not how the reminder would have gone on."""
    bell = (await house.open([Bell])).actor(Bell, "b")
    await ask(bell, "again", {"every": 100})
    await ask(bell, "enough", {"every": 100})
    began = now()
    await asyncio.sleep(1000)
    assert at(began) == [100.0, 100.0, 110.0, 200.0]
    assert [name for name, *_ in heard] == ["again", "enough", "again", "enough"]
    assert await bell.standing() == []


@simulated
async def test_turn_sees_what_it_has_asked_for(house: House) -> None:
    """Reading one's own writes, before they are committed."""
    bell = (await house.open([Bell])).actor(Bell, "b")
    await ask(bell, "a", {"every": 10})
    assert await bell.change_twice() == [("b", 1)]
    assert await bell.standing() == [("b", 1)]


async def ask(bell: Bell, name: str, given: dict[str, Any]) -> None:
    """Have an actor set a reminder."""
    ASKED[name] = given
    await bell.set(name)


class Daily(Actor, idle_after=timedelta(seconds=30)):
    async def on_activate(self) -> None:
        self.remind("daily", every=timedelta(days=1))

    async def touch(self) -> None: ...

    async def on_reminder(self, name: str, tick: Tick) -> None:
        heard.append((name, tick.number, now()))


@simulated
async def test_reminder_set_at_each_activation_is_not_put_off_by_it(house: House) -> None:
    """An actor called once an hour, and put away in between: its day would never end. It costs no commit."""
    daily = (await house.open([Daily], CALM)).actor(Daily, "d")
    for _ in range(50):
        await daily.touch()
        await asyncio.sleep(3600)
    assert [number for _, number, _ in heard] == [1, 2]
    assert len(house.commits()) == 3, "set once, ticked twice"


class Loose(Actor, reentrant=True):
    """Commits by save() only, and has no durable field."""

    async def go(self) -> None:
        self.remind("x", delay=5)
        await self.save()

    async def on_reminder(self, name: str, tick: Tick) -> None:
        heard.append((name, tick.number, now()))


@simulated
async def test_kinds_without_fields_and_reentrant_ones_have_reminders_too(house: House) -> None:
    """A reminder is no field, and must not need one."""
    loose = (await house.open([Loose])).actor(Loose, "l")
    await loose.go()
    await asyncio.sleep(100)
    assert [(name, number) for name, number, _ in heard] == [("x", 1)]


@simulated
async def test_commit_of_unknown_outcome_that_set_a_reminder_does_not_lose_it(house: House) -> None:
    """The store has it, and nobody was told so: nothing but that silo would ever look."""
    cluster = await house.open([Bell], FEW)
    house.next_commits(*[Fate(replies=False)] * 100)
    failed = await outcome(ask(cluster.actor(Bell, "b"), "x", {"delay": 20}))
    assert isinstance(failed, errors.CallError)
    house.store.heal_all()
    house.store._fates.clear()
    await asyncio.sleep(30)
    assert [(name, number) for name, number, _ in heard] == [("x", 1)]


class Deaf(Actor):
    async def set(self) -> None:
        self.remind("x", delay=1)


class Worker(Actor, placement=StatelessWorker(max_local=2)):
    async def set(self) -> None:
        self.remind("x", delay=1)

    async def on_reminder(self, name: str, tick: Tick) -> None: ...


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "say at="),
    ({"at": datetime(2020, 1, 1, tzinfo=UTC)}, "in the past"),
    ({"at": datetime(2030, 1, 1)}, "has no time zone"),
    ({"at": datetime(2030, 1, 1, tzinfo=UTC), "delay": 1}, "give one"),
    ({"delay": -1}, "0 or more"),
    ({"delay": float("nan")}, "write a timedelta, or seconds"),
    ({"every": -5}, "a millisecond or more"),
    ({"every": 0.0001}, "a millisecond or more"),
    ({"cron": "every day"}, "Write five fields"),
    ({"cron": ""}, "cron=''"),
    ({"cron": "* * * * *", "every": 5}, "leave every="),
    ({"cron": "0 9 * * *", "timezone": "Mars/Olympus"}, "none that this machine knows"),
    ({"delay": 1, "payload": "x" * 200}, "limit 100"),
    ({"delay": 1, "missed": "maybe"}, 'write "once"'),
    ({"every": 10, "count": 0}, "a whole number above 0"),
    ({"every": 10, "until": datetime(2020, 1, 1, tzinfo=UTC)}, "after `until`"),
    ({"delay": 10**15}, "longer than"),
]


@simulated
async def test_what_makes_no_sense_is_refused_and_says_what_to_write(house: House) -> None:
    """Nothing is set by halves, and nothing fails only when it is due."""
    cluster = await house.open([Bell, Deaf, Worker], FEW)
    bell = cluster.actor(Bell, "b")
    for given, text in BAD:
        found = await outcome(cluster.admin.reminders.set(Bell, "b", "x", **given))
        assert isinstance(found, errors.ArgumentError), (given, found)
        assert text in str(found), (given, str(found))
    for name in ("", "x" * 257):
        assert isinstance(await outcome(ask(bell, name, {"delay": 1})), errors.ArgumentError)
    deaf = await outcome(cluster.actor(Deaf, "d").set())
    assert "has no `async def on_reminder" in str(deaf)
    assert "stateless worker" in str(await outcome(cluster.actor(Worker, "w").set()))
    reading = await outcome(bell.set_reading())
    assert isinstance(reading, AttributeError)
    await bell.set_later()
    await asyncio.sleep(2)
    assert "outside of a turn" in heard[0][0]
    assert await bell.standing() == []


@simulated
async def test_reminders_of_one_actor_are_bounded(house: House) -> None:
    """A loop that sets them must not fill the store; those that are there can be changed all the same."""
    bell = (await house.open([Bell], FEW)).actor(Bell, "b")
    for name in "abc":
        await ask(bell, name, {"every": 100})
    assert "limit 3" in str(await outcome(ask(bell, "d", {"every": 100})))
    await bell.leave()
    await asyncio.sleep(1)
    assert "limit 3" in str(await outcome(ask(bell, "d", {"every": 100})))
    await ask(bell, "a", {"every": 200})
    await bell.cancel("b")
    await ask(bell, "d", {"every": 100})
    assert [name for name, _ in await bell.standing()] == ["a", "c", "d"]


@simulated
async def test_reminders_are_set_shown_and_cancelled_from_outside(house: House) -> None:
    """People must be able to mend what code has set; the actor's own turns see it at once."""
    cluster = await house.open([Bell])
    bell, desk = cluster.actor(Bell, "b"), cluster.admin.reminders
    when = datetime.fromtimestamp(EPOCH + 3600, UTC)
    shown = await desk.set(Bell, "b", "x", at=when, payload={"a": 1})
    assert (shown.due, shown.payload, shown.number) == (when, {"a": 1}, 1)
    assert await bell.standing() == [("x", 1)]
    await ask(bell, "y", {"cron": "0 9 * * *", "timezone": "Europe/Berlin"})
    found = await desk.list("Bell", "b")
    assert [(each.name, each.cron, each.timezone) for each in found] == [
        ("x", "", ""),
        ("y", "0 9 * * *", "Europe/Berlin"),
    ]
    assert await desk.cancel(Bell, "b", "x") is True
    assert await desk.cancel(Bell, "b", "x") is False
    assert await bell.standing() == [("y", 1)]
    assert await desk.get(Bell, "b", "x") is None
    assert await desk.list(Bell, "nobody") == []


@simulated
async def test_reminders_of_a_kind_are_listed_page_by_page(house: House) -> None:
    """Over all partitions, each once, whatever else is due there."""
    cluster = await house.open([Bell, Loose])
    for key in range(20):
        await ask(cluster.actor(Bell, f"eu-{key}"), "x", {"delay": 1000 + key})
        await ask(cluster.actor(Bell, f"us-{key}"), "x", {"delay": 1000 + key})
    desk = cluster.admin.reminders
    found: list[Found] = []
    after = ""
    while True:
        page = await desk.find(Bell, prefix="eu-", after=after, limit=7)
        assert len(page.found) <= 7
        found += page.found
        after = page.after
        if not after:
            break
    assert sorted(each.key for each in found) == sorted(f"eu-{key}" for key in range(20))
    assert len([each async for each in desk.every("Bell")]) == 40
    assert [each async for each in desk.every("Loose")] == []
    bad = await outcome(desk.find(Bell, after="nonsense"))
    assert isinstance(bad, errors.ArgumentError)


@simulated
async def test_deleted_actor_is_not_reminded(house: House) -> None:
    """What is gone must not come back by a tick."""
    cluster = await house.open([Bell])
    await ask(cluster.actor(Bell, "b"), "x", {"every": 10})
    await cluster.admin.delete(Bell, "b")
    await asyncio.sleep(100)
    assert heard == []
    assert (await cluster.admin.inspect(Bell, "b")).state is None


@pytest.mark.parametrize(
    ("missed", "expected"), [("once", [3, 4]), ("all", [1, 2, 3, 4]), ("skip", [4])]
)
def test_ticks_missed_while_no_silo_lived_come_as_was_asked(
    missed: str, expected: list[int]
) -> None:
    """A service that is down over night, and each reminder's own idea of what then."""

    @simulated
    async def scenario(house: House) -> None:
        cluster = await house.open([Bell])
        await ask(cluster.actor(Bell, "b"), "x", {"every": 1000, "missed": missed})
        await cluster.close()
        house.clusters.clear()
        await house.silos.pop("a").close()
        await asyncio.sleep(3500)
        silo: Silo = await house.start("a", [Bell], SMALL)
        await asyncio.sleep(1000)
        assert [number for _, number, _ in heard] == expected
        assert silo.statistics().wake_ups.woken >= len(expected)

    scenario()


@simulated
async def test_reminder_of_a_kind_that_nobody_hosts_is_kept(house: House) -> None:
    """A release that drops a class by mistake must not lose what it has promised."""
    cluster = await house.open([Bell])
    await ask(cluster.actor(Bell, "b"), "x", {"delay": 50})
    await house.silos.pop("a").close()
    await house.start("a", [Daily], SMALL)
    await asyncio.sleep(2000)
    assert heard == []
    await house.silos.pop("a").close()
    await house.start("a", [Bell], SMALL)
    await asyncio.sleep(1)
    assert [(name, number) for name, number, _ in heard] == [("x", 1)]


@simulated
async def test_actors_without_reminders_and_reminders_of_next_week_ask_nothing(
    house: House,
) -> None:
    """Whoever uses none pays nothing, and what is far away costs nothing until it is near."""
    cluster = await house.open([Bell])
    bell = cluster.actor(Bell, "b")
    await ask(bell, "x", {"every": timedelta(days=7)})
    await bell.set_fails(0)
    house.operations.clear()
    await asyncio.sleep(3600)
    await bell.set_fails(1)
    quiet = {"read_table", "beat", "commit", "load"}
    assert {each.name for each in house.operations} <= quiet
    assert all(not each.args[0].wake for each in house.commits())


@simulated
async def test_store_clock_that_jumps_ahead_is_followed_only_after_a_while(house: House) -> None:
    """A clock set wrongly by an hour would ring everything of that hour at once."""
    bell = (await house.open([Bell])).actor(Bell, "b")
    began = now()
    await ask(bell, "x", {"delay": 1800})
    await asyncio.sleep(10)
    house.clock.step_wall(3600)
    await asyncio.sleep(500)
    assert heard == []
    assert house.silo().statistics().store.clock_ahead_s == pytest.approx(3600, abs=5)
    await asyncio.sleep(120)
    assert 600 < at(began)[0] < 630
    assert house.silo().statistics().store.clock_ahead_s == 0


@simulated
async def test_operator_can_say_that_the_store_clock_is_right(house: House) -> None:
    """Nobody wants to wait ten minutes for what is known to be right."""
    cluster = await house.open([Bell])
    await ask(cluster.actor(Bell, "b"), "x", {"delay": 1800})
    assert list((await cluster.admin.reminders.trust_clock()).values()) == [0.0]
    await asyncio.sleep(10)
    house.clock.step_wall(3600)
    await asyncio.sleep(5)
    assert heard == []
    (ahead,) = (await cluster.admin.reminders.trust_clock()).values()
    assert ahead == pytest.approx(3600, abs=5)
    await asyncio.sleep(5)
    assert len(heard) == 1


@simulated
async def test_store_clock_that_is_set_back_makes_ticks_wait_with_it(house: House) -> None:
    """Never early, by the store's own time."""
    bell = (await house.open([Bell])).actor(Bell, "b")
    began = now()
    await ask(bell, "x", {"delay": 100})
    await asyncio.sleep(50)
    house.clock.step_wall(-3600)
    await asyncio.sleep(3600)
    assert heard == []
    await asyncio.sleep(100)
    assert at(began)[0] == pytest.approx(3700, abs=1)


def test_mutant_that_does_not_follow_up_doubts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is worth something only if it can fail."""
    monkeypatch.setattr(WakeUps, "doubted", lambda *_: None)
    with pytest.raises(AssertionError):
        test_commit_of_unknown_outcome_that_set_a_reminder_does_not_lose_it()


def test_mutant_that_believes_a_clock_at_once_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise."""
    monkeypatch.setattr(store_clock, "FOLLOW_S", 0.0)
    with pytest.raises(AssertionError):
        test_store_clock_that_jumps_ahead_is_followed_only_after_a_while()
