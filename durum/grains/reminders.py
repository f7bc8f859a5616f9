"""A reminder, as an actor's code and people see it. Owns how one is asked for; schedules knows when it ticks.

class Till(Actor):
    async def open(self) -> None:
        self.remind("close", cron="0 22 * * MON-SAT", timezone="Europe/Berlin")

    async def on_reminder(self, name: str, tick: Tick) -> None:
        ...
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, Protocol

import msgspec

from durum import errors
from durum.errors import DidRun
from durum.grains import schedules
from durum.grains.schedules import Missed, Plan, Standing
from durum.wire import values
from durum.wire.shapes import Misfit

NAME_LIMIT: Final = 256
"""Bytes of a reminder's name."""


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """One time that a reminder was due.

    A tick comes at least once: where a silo dies at the wrong moment, the same one comes again, with the same
    number and due time. So what leaves the cluster, such as a request to another system, needs a key made
    of them.

    Args:
        number: which tick it is, from 1; ticks that were left out have numbers too.
        due: when it was due, in the reminder's time zone. It is never called earlier.
        payload: what the reminder was set with, as plain values: text, numbers, lists, dicts.
        missed: how many ticks before this one were left out since the last one that ran.
        attempt: 1, and more where `on_reminder` has failed for this tick.
    """

    number: int
    due: datetime
    payload: Any = None
    missed: int = 0
    attempt: int = 1


class Reminder(msgspec.Struct, frozen=True, kw_only=True):
    """One reminder as it stands.

    Args:
        name: which of its actor's.
        due: when the next tick is due.
        number: that tick's number.
        every: from one tick to the next, if it repeats so.
        cron: the expression, if it repeats so; or "".
        timezone: the expression's; "" is UTC.
        payload: what it was set with, as plain values.
        missed: what becomes of ticks whose time went by.
        until: no tick is due after that.
        count: the number of the last tick.
        attempts: how often `on_reminder` has failed for the next tick.
        retry: when that is tried again.
        error: how it failed last, or "".
    """

    name: str
    due: datetime
    number: int
    every: timedelta | None
    cron: str
    timezone: str
    payload: Any
    missed: Missed
    until: datetime | None
    count: int | None
    attempts: int
    retry: datetime | None
    error: str


class Keeper(Protocol):
    """Who has the reminders of one activation."""

    def cancel_reminder(self, name: str) -> None:
        """Take one away with the running turn's commit.

        Raises:
            CommitFailed: no turn runs whose commit it would be part of.
        """
        ...

    async def reminders(self) -> Mapping[str, Standing]:
        """All of them, as the running turn has them."""
        ...


class Reminders:
    """What `self.context.reminders` is: the reminders of the actor itself.

    Args:
        keeper: see Keeper.
    """

    __slots__ = ("_keeper",)

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def cancel(self, name: str) -> None:
        """Take a reminder away, with the running turn's commit; no tick begins after that.

        One that is not there does no harm.

        Raises:
            CommitFailed: no turn runs whose commit it would be part of.
        """
        check_name(name)
        self._keeper.cancel_reminder(name)

    async def get(self, name: str) -> Reminder | None:
        """One reminder, as this turn has it; None where there is none of that name."""
        found = (await self._keeper.reminders()).get(name)
        return None if found is None else describe(name, found)

    async def list(self) -> list[Reminder]:
        """All reminders of this actor, as this turn has them, by their names."""
        found = await self._keeper.reminders()
        return [describe(name, found[name]) for name in sorted(found)]

    def __repr__(self) -> str:
        return "<Reminders>"


class _Nobody:
    """The keeper where there is no actor."""

    def cancel_reminder(self, name: str) -> None:
        raise errors.CommitFailed(
            f"there is no actor whose reminder {name!r} this would be; nothing was done.",
            DidRun.NO,
        )

    async def reminders(self) -> Mapping[str, Standing]:
        return {}


NO_REMINDERS: Final = Reminders(_Nobody())


def check_name(name: object) -> None:
    """Refuse what cannot be a reminder's name.

    Raises:
        ArgumentError: it is no text of 1 to 256 bytes.
    """
    try:
        if isinstance(name, str) and 1 <= len(name.encode()) <= NAME_LIMIT:
            return
    except UnicodeEncodeError:
        pass
    raise errors.ArgumentError(
        f"a reminder's name is a text of 1 to {NAME_LIMIT} bytes, not {str(name)[:50]!r}; nothing was set."
    )


def plan(
    *,
    at: datetime | None = None,
    delay: float | timedelta | None = None,
    every: float | timedelta | None = None,
    cron: str | None = None,
    timezone: str | tzinfo | None = None,
    payload: object = None,
    missed: Missed = "once",
    until: datetime | None = None,
    count: int | None = None,
) -> Plan:
    """Check what is asked for.

    Args: as those of Actor.remind.

    Raises:
        ArgumentError: it makes no sense; the message says what to write.
    """
    try:
        return _plan(
            at=at,
            delay_ms=None if delay is None else _milliseconds("delay", delay, least=0),
            every_ms=0 if every is None else _milliseconds("every", every, least=1),
            cron=cron,
            zone=_zone_name(timezone),
            payload=_encoded(payload),
            missed=missed,
            until=until,
            count=count,
        )
    except ValueError as exc:
        raise refused(exc) from exc


def refused(reason: ValueError) -> errors.ArgumentError:
    """A reminder cannot be set so."""
    return errors.ArgumentError(f"remind(): {reason}. Nothing was set.")


def _plan(
    *,
    at: datetime | None,
    delay_ms: int | None,
    every_ms: int,
    cron: str | None,
    zone: str,
    payload: bytes,
    missed: Missed,
    until: datetime | None,
    count: int | None,
) -> Plan:
    if missed not in ("once", "all", "skip"):
        raise ValueError(f'missed={missed!r}; write "once", "all" or "skip"')
    if count is not None and (type(count) is not int or count < 1):
        raise ValueError(f"count={count!r}; write a whole number above 0")
    if cron is not None and not cron:
        raise ValueError(f'cron={cron!r}; write a text such as "0 9 * * MON-FRI"')
    found = Plan(
        every_ms=every_ms,
        cron=cron or "",
        zone=zone,
        at_ms=None if at is None else _instant("at", at, zone),
        delay_ms=delay_ms,
        missed=missed,
        until_ms=None if until is None else _instant("until", until, zone),
        count=count,
        payload=payload,
    )
    schedules.check(found)
    return found


def _milliseconds(what: str, given: float | timedelta, *, least: int) -> int:
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    if type(seconds) not in (int, float) or not math.isfinite(seconds):
        raise ValueError(f"{what}={given!r}; write a timedelta, or seconds")
    found = round(seconds * 1000)
    if found < least or (seconds > 0) != (found > 0):
        bound = "0 or more" if least == 0 else "a millisecond or more"
        raise ValueError(f"{what}={given!r}; write {bound}")
    if found > schedules.LAST_MS:
        raise ValueError(f"{what}={given!r} is longer than people have counted years")
    return found


def _zone_name(zone: object) -> str:
    if zone is None or zone is UTC:
        return ""
    name = zone if isinstance(zone, str) else getattr(zone, "key", None)
    if not isinstance(name, str):
        raise ValueError(  # noqa: TRY004 - one way out for all that is asked for wrongly
            f'timezone={zone!r}; write a name such as "Europe/Berlin", or a zoneinfo.ZoneInfo'
        )
    return name


def _instant(what: str, given: object, zone: str) -> int:
    if not isinstance(given, datetime):
        raise ValueError(f"{what}={given!r}; write a datetime")  # noqa: TRY004 - as above
    if given.tzinfo is None:
        if not zone:
            raise ValueError(
                f"{what}={given!r} has no time zone. Write datetime(..., tzinfo=UTC), or give"
                ' timezone="Europe/Berlin" or whichever it is meant in'
            )
        given = given.replace(tzinfo=schedules.zone_of(zone))
    return math.ceil(given.timestamp() * 1000)


def _encoded(payload: object) -> bytes:
    try:
        return values.codec(Any).verify(payload)
    except Misfit as exc:
        raise ValueError(
            f"payload: {exc}; it may hold text, numbers, bytes, lists and dicts"
        ) from exc


# As people see it -----------------------------------------------------------------------------------------


def describe(name: str, standing: Standing) -> Reminder:
    """A reminder as it stands."""
    asked = standing.plan
    return Reminder(
        name=name,
        due=moment(standing.due_ms, asked.zone),
        number=standing.number,
        every=timedelta(milliseconds=asked.every_ms) if asked.every_ms else None,
        cron=asked.cron,
        timezone=asked.zone,
        payload=values.decode_plain(asked.payload),
        missed=asked.missed,
        until=None if asked.until_ms is None else moment(asked.until_ms, asked.zone),
        count=asked.count,
        attempts=standing.attempts,
        retry=moment(standing.retry_ms, asked.zone) if standing.attempts else None,
        error=standing.error,
    )


def tick_of(standing: Standing) -> Tick:
    """The tick that stands next."""
    asked = standing.plan
    return Tick(
        number=standing.number,
        due=moment(standing.due_ms, asked.zone),
        payload=values.decode_plain(asked.payload),
        missed=standing.left_out,
        attempt=standing.attempts + 1,
    )


def moment(time_ms: int, zone: str) -> datetime:
    """A time of the store's, for people. In UTC where the zone is not known here."""
    try:
        there = schedules.zone_of(zone)
    except ValueError:
        there = UTC
    return datetime.fromtimestamp(time_ms / 1000, there)
