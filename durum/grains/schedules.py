"""When a reminder is due. Pure: a plan and the time in, the next step out. Knows no grain and no store.

All times are the store's, in milliseconds since 1970. Ticks are counted from 1 by their due times, those that
are left out included, so that a number stands for one due time for ever, and nothing drifts: each due time
follows from the one before, never from when a tick ran.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError

Missed = Literal["once", "all", "skip"]
"""What becomes of ticks whose time went by: one of them runs for all, each runs, or none."""

GRACE_MS: Final = 60_000
"""Under "skip" a tick that could not begin so long after its due time counts as missed."""
LAST_MS: Final = 253_402_300_799_000
"""The end of the year 9999."""
STEP: Final = 250
"""Ticks of a cron expression that are left out in one step, so that no step takes long."""
_FIRST_PAUSE_MS: Final = 1_000
_LAST_PAUSE_MS: Final = 300_000
_ERROR_LENGTH: Final = 2_000


class Plan(msgspec.Struct, array_like=True, frozen=True):
    """What was asked for.

    Args:
        every_ms: from one tick to the next; 0: not so.
        cron: an expression of five fields, or six that begin with seconds; "": not so.
        zone: the time zone that the expression is meant in; "" is UTC.
        at_ms: the first tick's time, or None. With `every_ms` it may be over; then ticks keep step with it.
        delay_ms: how long after it was asked for the first tick comes, or None.
        missed: see Missed.
        until_ms: no tick is due after that.
        count: the number of the last tick.
        payload: encoded, for each tick.
    """

    every_ms: int = 0
    cron: str = ""
    zone: str = ""
    at_ms: int | None = None
    delay_ms: int | None = None
    missed: Missed = "once"
    until_ms: int | None = None
    count: int | None = None
    payload: bytes = b"\xc0"

    @property
    def repeats(self) -> bool:
        """Whether there may be more than one tick."""
        return bool(self.every_ms or self.cron)


class Standing(msgspec.Struct, array_like=True, frozen=True):
    """One reminder, and how far it has come: what is durable of it.

    Args:
        plan: what was asked for.
        due_ms: when the next tick is due.
        number: that tick's number.
        left_out: ticks before it that were left out since the last one that ran.
        attempts: how often it was tried and failed.
        retry_ms: when it is tried again, where it has failed.
        error: how it failed last.
        set_ms: when it was set.
    """

    plan: Plan
    due_ms: int
    number: int = 1
    left_out: int = 0
    attempts: int = 0
    retry_ms: int = 0
    error: str = ""
    set_ms: int = 0

    @property
    def wake_ms(self) -> int:
        """When somebody has to look at it."""
        return self.retry_ms if self.attempts else self.due_ms


class Wait(msgspec.Struct, frozen=True):
    """Nothing is due before then."""

    until_ms: int


class Pass(msgspec.Struct, frozen=True):
    """Ticks are left out; look again at once.

    Args:
        then: what stands from here on; None: nothing any more.
    """

    then: Standing | None


class Run(msgspec.Struct, frozen=True):
    """A tick is to run.

    Args:
        tick: the reminder as it stands with this tick as its next one.
        then: what stands once it has run; None: nothing any more.
    """

    tick: Standing
    then: Standing | None


def check(plan: Plan) -> None:
    """Refuse a plan that makes no sense at any time.

    Raises:
        ValueError: the message says what to write.
    """
    if plan.cron and (plan.every_ms or plan.delay_ms is not None):
        raise ValueError("cron=... says all its times; leave every=... and delay=... out")
    if plan.at_ms is not None and plan.delay_ms is not None:
        raise ValueError("at=... and delay=... both say when it begins; give one")
    if not plan.repeats and plan.at_ms is None and plan.delay_ms is None:
        raise ValueError("say at=..., delay=..., every=... or cron=...")
    if plan.every_ms < 0 or (plan.delay_ms or 0) < 0:
        raise ValueError("every=... and delay=... count forward; write what is above 0")
    if plan.count is not None and plan.count < 1:
        raise ValueError(f"count={plan.count}; write a whole number above 0")
    if plan.cron:
        check_cron(plan.cron)
    zone_of(plan.zone)


def begin(plan: Plan, now_ms: int) -> Standing:
    """Set a reminder.

    Raises:
        ValueError: it makes no sense, or would never tick; the message says why.
    """
    check(plan)
    due_ms = _first(plan, now_ms)
    if due_ms > LAST_MS:
        raise ValueError("its first tick would be after the year 9999")
    if plan.until_ms is not None and due_ms > plan.until_ms:
        raise ValueError("its first tick would be after `until`")
    return Standing(plan, due_ms, set_ms=now_ms)


def _first(plan: Plan, now_ms: int) -> int:
    if plan.cron:
        after_ms = now_ms if plan.at_ms is None else max(now_ms, plan.at_ms - 1)
        found = next(_following(plan.cron, plan.zone, after_ms), None)
        if found is None:
            raise ValueError(f"cron={plan.cron!r} names no time that ever comes")
        return found
    if plan.at_ms is not None:
        if plan.at_ms >= now_ms:
            return plan.at_ms
        if not plan.every_ms:
            raise ValueError(f"at={_shown(plan.at_ms)} is in the past")
        behind = now_ms - plan.at_ms
        return now_ms + (-behind) % plan.every_ms
    return now_ms + (plan.every_ms if plan.delay_ms is None else plan.delay_ms)


def goes_on(before: Standing | None, asked: Plan) -> bool:
    """Whether a reminder that stands is the one that is asked for again, so that nothing changes by it.

    One that repeats goes on as it was: where it is set at each activation, an activation must not push the
    next tick away. One that does not is set anew.
    """
    return before is not None and asked.repeats and before.plan == asked


def decide(standing: Standing, now_ms: int) -> Wait | Pass | Run:
    """What is to be done about a reminder."""
    if now_ms < standing.wake_ms:
        return Wait(standing.wake_ms)
    if standing.attempts or standing.plan.missed == "all":
        return _run(standing)  # one that failed comes again, whatever came due meanwhile
    newest, all_seen = _newest(standing, now_ms)
    if not all_seen:
        return Pass(newest)
    if standing.plan.missed == "once" or _is_fresh(standing, newest, now_ms):
        return _run(newest)
    return Pass(newest if newest is not standing else _next(standing, standing.left_out + 1))


def _is_fresh(standing: Standing, newest: Standing, now_ms: int) -> bool:
    return newest is standing and now_ms - standing.due_ms <= GRACE_MS


def failed(tick: Standing, now_ms: int, error: str) -> Standing:
    """A tick has failed: it stays, and is tried again after a while.

    Args:
        tick: as it was to run.
        now_ms: now.
        error: for people.
    """
    pause_ms = min(_LAST_PAUSE_MS, _FIRST_PAUSE_MS * 2 ** min(tick.attempts, 20))
    return msgspec.structs.replace(
        tick,
        attempts=tick.attempts + 1,
        retry_ms=now_ms + pause_ms,
        error=error[:_ERROR_LENGTH],
    )


def _run(tick: Standing) -> Run:
    return Run(tick, _next(tick, 0))


def _newest(standing: Standing, now_ms: int) -> tuple[Standing, bool]:
    """The last tick that is due by now, as far as one step goes, and whether it is the last."""
    plan = standing.plan
    until_ms = now_ms if plan.until_ms is None else min(now_ms, plan.until_ms)
    most = STEP if plan.count is None else min(STEP, plan.count - standing.number)
    if plan.every_ms:
        skipped = (until_ms - standing.due_ms) // plan.every_ms
        if plan.count is not None:
            skipped = min(skipped, plan.count - standing.number)
        skipped, due_ms = max(0, skipped), standing.due_ms + max(0, skipped) * plan.every_ms
        all_seen = True
    elif plan.cron:
        skipped, due_ms, all_seen = 0, standing.due_ms, True
        for each in _following(plan.cron, plan.zone, standing.due_ms):
            if each > until_ms:
                break
            if skipped == most:
                all_seen = most < STEP  # else there may be more to leave out
                break
            skipped, due_ms = skipped + 1, each
    else:
        return standing, True
    if not skipped:
        return standing, all_seen
    return msgspec.structs.replace(
        standing,
        due_ms=due_ms,
        number=standing.number + skipped,
        left_out=standing.left_out + skipped,
    ), all_seen


def _next(tick: Standing, left_out: int) -> Standing | None:
    plan = tick.plan
    due_ms: int | None = None
    if plan.every_ms:
        due_ms = tick.due_ms + plan.every_ms
    elif plan.cron:
        due_ms = next(_following(plan.cron, plan.zone, tick.due_ms), None)
    if due_ms is None or due_ms > LAST_MS:
        return None
    if plan.until_ms is not None and due_ms > plan.until_ms:
        return None
    if plan.count is not None and tick.number >= plan.count:
        return None
    return Standing(plan, due_ms, tick.number + 1, left_out, set_ms=tick.set_ms)


# Cron expressions -----------------------------------------------------------------------------------------


def check_cron(cron: str) -> None:
    """Refuse what is no cron expression.

    Raises:
        ValueError: it is none; the message says which field is wrong.
    """
    try:
        CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as exc:
        raise ValueError(
            f"cron={cron!r}: {str(exc).lower()}. Write five fields, minute hour day month weekday, such as"
            ' "0 9 * * MON-FRI"; or six that begin with seconds'
        ) from exc


@lru_cache(maxsize=1024)
def zone_of(name: str) -> tzinfo:
    """A time zone by its name; "" is UTC.

    Raises:
        ValueError: there is none of that name.
    """
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as exc:
        raise ValueError(
            f"timezone={name!r} is none that this machine knows. Write a name such as"
            ' "Europe/Berlin", or install the tzdata package'
        ) from exc


def _following(cron: str, zone: str, after_ms: int) -> Iterator[int]:
    """The expression's times after one, in order.

    Where clocks are set back, an expression that names hours may give a time twice or go back an hour; and
    where they are set forward, it gives the first moment after the gap.
    """
    last_ms, there = after_ms, zone_of(zone)
    try:
        for each in CronSim(cron, datetime.fromtimestamp(after_ms / 1000, there)):
            due_ms = int(each.timestamp()) * 1000
            if due_ms > last_ms:
                last_ms = due_ms
                yield due_ms
    except (OverflowError, ValueError):
        return  # beyond the year 9999


def _shown(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(sep=" ")
