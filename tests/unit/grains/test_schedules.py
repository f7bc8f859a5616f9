"""When reminders tick: without drift, in time zones, and what becomes of ticks whose time went by."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durum.grains import schedules
from durum.grains.schedules import GRACE_MS, Missed, Pass, Plan, Run, Standing, Wait, begin, decide

MINUTE = 60_000
HOUR = 60 * MINUTE
BERLIN = "Europe/Berlin"


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def shown(time_ms: int, zone: str) -> str:
    return datetime.fromtimestamp(time_ms / 1000, ZoneInfo(zone)).isoformat()


def ticks(plan: Plan, now_ms: int, count: int) -> list[int]:
    """Due times of the first ticks, each looked at when it is due."""
    standing: Standing | None = begin(plan, now_ms)
    found: list[int] = []
    while standing is not None and len(found) < count:
        step = decide(standing, standing.due_ms)
        assert isinstance(step, Run)
        found.append(step.tick.due_ms)
        standing = step.then
    return found


def settle(standing: Standing | None, now_ms: int) -> tuple[list[Standing], Standing | None]:
    """What runs when somebody looks now, every tick with success, and what stands then."""
    ran: list[Standing] = []
    while standing is not None:
        step = decide(standing, now_ms)
        if isinstance(step, Wait):
            break
        if isinstance(step, Run):
            ran.append(step.tick)
        standing = step.then
    return ran, standing


def test_periodic_reminder_keeps_step_with_its_first_tick_however_late_each_runs() -> None:
    """Drift would move a daily reminder by minutes in a year."""
    standing: Standing | None = begin(Plan(every_ms=HOUR), 5)
    for number in range(1, 50):
        assert standing is not None
        step = decide(standing, standing.due_ms + 1234 * number % (10 * MINUTE))
        assert isinstance(step, Run)
        assert (step.tick.number, step.tick.due_ms) == (number, 5 + number * HOUR)
        standing = step.then


def test_nothing_is_due_before_its_time() -> None:
    """Never early: not by a millisecond."""
    standing = begin(Plan(delay_ms=MINUTE), 0)
    assert decide(standing, MINUTE - 1) == Wait(MINUTE)
    assert isinstance(decide(standing, MINUTE), Run)


def test_one_shot_stands_no_more_after_its_tick() -> None:
    """It is removed by the very commit of its turn."""
    step = decide(begin(Plan(at_ms=MINUTE), 0), MINUTE)
    assert isinstance(step, Run)
    assert step.then is None


def test_period_can_keep_step_with_a_time_that_is_over() -> None:
    """`at` says where a period is anchored, and whoever sets it again each day must not be refused."""
    assert ticks(Plan(every_ms=HOUR, at_ms=MINUTE), 10 * HOUR, 2) == [
        10 * HOUR + MINUTE,
        11 * HOUR + MINUTE,
    ]


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (Plan(at_ms=4), "in the past"),
        (Plan(cron="0 0 * * *", at_ms=schedules.LAST_MS), "no time that ever comes"),
        (Plan(every_ms=HOUR, until_ms=MINUTE), "after `until`"),
        (Plan(delay_ms=schedules.LAST_MS), "after the year 9999"),
        (Plan(delay_ms=1, count=0), "count=0"),
    ],
)
def test_what_would_never_tick_is_refused(plan: Plan, text: str) -> None:
    """A reminder that is set and never comes is found out by nobody."""
    with pytest.raises(ValueError, match=text):
        begin(plan, 5)


def test_cron_follows_the_wall_clock_of_its_zone_over_the_year() -> None:
    """Nine o'clock is nine o'clock in summer and in winter: an hour's difference in UTC."""
    plan = Plan(cron="0 9 * * MON-FRI", zone=BERLIN)
    found = [shown(at, BERLIN) for at in ticks(plan, ms("2026-03-27T12:00", BERLIN), 2)]
    assert found == ["2026-03-30T09:00:00+02:00", "2026-03-31T09:00:00+02:00"]
    found = [shown(at, "UTC") for at in ticks(plan, ms("2026-10-23T12:00", BERLIN), 1)]
    assert found == ["2026-10-26T08:00:00+00:00"]


def test_cron_ticks_once_in_the_night_when_an_hour_comes_twice() -> None:
    """A nightly job that runs twice a year twice is found in the books."""
    plan = Plan(cron="30 2 * * *", zone=BERLIN)
    found = [shown(at, BERLIN) for at in ticks(plan, ms("2026-10-24T12:00", BERLIN), 3)]
    assert found == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
        "2026-10-27T02:30:00+01:00",
    ]


def test_cron_set_within_the_hour_that_comes_twice_is_not_due_in_the_past() -> None:
    """Half past two has been, at ten past two of the second time around; a tick then would come at once."""
    second = int(datetime(2026, 10, 25, 2, 10, tzinfo=ZoneInfo(BERLIN), fold=1).timestamp() * 1000)
    found = ticks(Plan(cron="30 2 * * *", zone=BERLIN), second, 1)
    assert shown(found[0], BERLIN) == "2026-10-26T02:30:00+01:00"


def test_cron_ticks_after_the_gap_in_the_night_when_an_hour_is_missing() -> None:
    """A nightly job must not be left out because its hour is."""
    plan = Plan(cron="30 2 * * *", zone=BERLIN)
    found = [shown(at, BERLIN) for at in ticks(plan, ms("2026-03-28T12:00", BERLIN), 2)]
    assert found == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]


def test_hourly_cron_ticks_each_hour_of_a_day_of_twenty_five() -> None:
    """What is meant by the hour is not meant by the clock's face."""
    found = ticks(Plan(cron="0 * * * *", zone=BERLIN), ms("2026-10-25T00:30", BERLIN), 4)
    assert [b - a for a, b in itertools.pairwise(found)] == [HOUR] * 3


@pytest.mark.parametrize(
    ("missed", "ran"),
    [("once", [(4, 3)]), ("all", [(1, 0), (2, 0), (3, 0), (4, 0)]), ("skip", [(4, 3)])],
)
def test_missed_ticks_are_treated_as_was_asked(missed: Missed, ran: list[tuple[int, int]]) -> None:
    """After an outage of hours: one tick for all, or each, or only the one whose time has just come."""
    found, then = settle(begin(Plan(every_ms=HOUR, missed=missed), 0), 4 * HOUR + 1000)
    assert [(tick.number, tick.left_out) for tick in found] == ran
    assert then is not None
    assert (then.number, then.due_ms, then.left_out) == (5, 5 * HOUR, 0)


def test_skip_leaves_out_a_tick_whose_time_is_over_and_counts_it() -> None:
    """Lunch at six is no lunch."""
    found, then = settle(begin(Plan(every_ms=HOUR, missed="skip"), 0), 4 * HOUR + GRACE_MS + 1)
    assert not found
    assert then is not None
    assert (then.number, then.left_out) == (5, 4)
    (tick,), _ = settle(then, 5 * HOUR)
    assert tick.left_out == 4


def test_skip_drops_a_one_shot_whose_time_is_over() -> None:
    """It was asked for: rather not at all than late."""
    assert settle(begin(Plan(at_ms=HOUR, missed="skip"), 0), 2 * HOUR) == ([], None)


def test_a_year_of_missed_seconds_is_left_out_in_bounded_steps_with_exact_numbers() -> None:
    """Counting them all at once would hold the loop; not counting them would give a number twice."""
    standing = begin(Plan(cron="* * * * * *"), 0)
    step = decide(standing, 3_600_000)
    assert isinstance(step, Pass)
    assert step.then is not None
    assert step.then.number == 1 + schedules.STEP
    (tick,), then = settle(standing, 3_600_000)
    assert (tick.number, tick.due_ms, tick.left_out) == (3600, 3_600_000, 3599)
    assert then is not None
    assert then.due_ms == 3_601_000


def test_count_and_until_bound_ticks_that_were_missed_too() -> None:
    """Ten times means ten due times, also where a silo slept through some."""
    (tick,), then = settle(begin(Plan(every_ms=HOUR, count=3), 0), 100 * HOUR)
    assert (tick.number, tick.due_ms, then) == (3, 3 * HOUR, None)
    (tick,), then = settle(begin(Plan(cron="0 * * * *", until_ms=5 * HOUR), 1), 100 * HOUR)
    assert (tick.due_ms, then) == (5 * HOUR, None)


def test_failed_tick_stays_the_same_and_is_tried_less_and_less_often() -> None:
    """Whoever makes a key of number and due time needs the same ones at each attempt."""
    step = decide(begin(Plan(every_ms=MINUTE), 0), 3 * MINUTE)
    assert isinstance(step, Run)
    tick, now, pauses = step.tick, 3 * MINUTE, []
    for _ in range(12):
        standing = schedules.failed(tick, now, "boom")
        pauses.append(standing.wake_ms - now)
        assert isinstance(decide(standing, standing.wake_ms - 1), Wait)
        now = standing.wake_ms
        again = decide(standing, now)
        assert isinstance(again, Run)
        tick = again.tick
        assert (tick.number, tick.due_ms, tick.left_out) == (3, 3 * MINUTE, 2)
    assert pauses[:4] == [1000, 2000, 4000, 8000]
    assert pauses[-1] == 300_000
    step = decide(tick, now)
    assert isinstance(step, Run)
    assert step.then is not None
    assert (step.then.number, step.then.attempts, step.then.error) == (4, 0, "")


def test_same_period_asked_for_again_goes_on_and_anything_else_begins_anew() -> None:
    """Set at each activation, a daily reminder of an actor woken hourly would never come."""
    plan = Plan(every_ms=HOUR, payload=b"\x01")
    standing = begin(plan, 0)
    assert schedules.goes_on(standing, Plan(every_ms=HOUR, payload=b"\x01"))
    assert not schedules.goes_on(standing, Plan(every_ms=HOUR, payload=b"\x02"))
    assert not schedules.goes_on(None, plan)
    once = Plan(delay_ms=MINUTE)
    assert not schedules.goes_on(begin(once, 0), once), "asked for again, it is put off"


@pytest.mark.parametrize("cron", ["", "* * *", "61 * * * *", "0 0 30 2 *", "a b c d e", "@daily"])
def test_bad_cron_text_says_what_to_write(cron: str) -> None:
    """Five stars are soon mistyped."""
    with pytest.raises(ValueError, match="Write five fields"):
        schedules.check_cron(cron)


def test_unknown_zone_says_what_to_write() -> None:
    """zoneinfo's own errors are of four types."""
    for name in ("Europe/Berlina", "../../etc/passwd", "Europe", "", "\0"):
        if name:
            with pytest.raises(ValueError, match="none that this machine knows"):
                schedules.zone_of(name)
    assert schedules.zone_of("") is UTC


PLANS = st.builds(
    Plan,
    every_ms=st.integers(1, 50),
    missed=st.sampled_from(["once", "all", "skip"]),
    until_ms=st.none() | st.integers(60, 400),
    count=st.none() | st.integers(1, 20),
)


@given(plan=PLANS, looks=st.lists(st.integers(0, 300), max_size=12))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_ticks_are_those_of_a_list_written_out(plan: Plan, looks: list[int]) -> None:
    """Against the simplest model: the list of all due times, and what was due at each look."""
    standing: Standing | None = begin(plan, 0)
    last = min(10**6 if plan.until_ms is None else plan.until_ms, 10**4)
    due = list(range(plan.every_ms, last + 1, plan.every_ms))[: plan.count]
    done, now = 0, 0
    for gap in looks:
        now += gap
        ran, standing = settle(standing, now)
        ready = [number for number in range(done + 1, len(due) + 1) if due[number - 1] <= now]
        expected = ready if plan.missed == "all" else ready[-1:]
        assert [tick.number for tick in ran] == expected
        assert [tick.due_ms for tick in ran] == [due[number - 1] for number in expected]
        if ready:
            done = ready[-1]
        if done == len(due) < 10**4 // plan.every_ms:
            assert standing is None
        else:
            assert standing is not None
            assert standing.wake_ms == due[done]
