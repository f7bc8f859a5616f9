"""`durum reminders`: what comes due, for people. Owns how it is asked for and shown."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Final

import click
import msgspec

from durum.cli import reach as reaching
from durum.client.admin import Admin
from durum.client.reminders import Found
from durum.grains.reminders import Reminder
from durum.grains.schedules import Missed

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


def _duration(text: str) -> timedelta:
    """A length of time, such as 90s, 15m, 1h30m or 2d."""
    found = _DURATION.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise click.BadParameter(f"{text!r} is no length of time. Write 90s, 15m, 1h30m or 2d.")
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in found))


def _moment(text: str) -> datetime:
    """A time, such as 2026-12-24T18:00+01:00."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time. Write 2026-12-24T18:00+01:00.") from None


@click.group("reminders")
def command() -> None:
    """List, show, set and cancel reminders.

    A reminder belongs to one actor, whose on_reminder is called when it is due, whichever silo lives then.

    \b
    Examples:
      durum reminders ls Till
      durum reminders set Till berlin close --cron "0 22 * * MON-SAT" --timezone Europe/Berlin
      durum reminders cancel Till berlin close
    """


@command.command("ls")
@click.argument("kind")
@click.option("--prefix", default="", metavar="TEXT", help="Only actors whose keys begin so.")
@reaching.paged
@reaching.options
def ls(*, reach: reaching.Reach, kind: str, prefix: str, limit: int, after: str) -> None:
    """List the reminders of all actors of one kind."""
    found, rest = reach.ask(lambda admin: _some(admin, kind, prefix, after, limit))
    if reach.as_json:
        rows = [{"key": each.key, "name": each.name, "due": _text(each.due)} for each in found]
        click.echo(json.dumps({"reminders": rows, "after": rest}))
        return
    for each in sorted(found, key=lambda one: (one.due, one.key, one.name)):
        click.echo(f"{_text(each.due)}  {each.key}  {each.name}")
    if rest:
        click.echo(f"There are more: --after {rest!r}", err=True)


@command.command("show")
@click.argument("kind")
@click.argument("key")
@click.argument("name", required=False)
@reaching.options
def show(*, reach: reaching.Reach, kind: str, key: str, name: str | None) -> None:
    """Show the reminders of one actor, or one of them."""
    found = reach.ask(lambda admin: admin.reminders.list(kind, key))
    if name is not None:
        found = [each for each in found if each.name == name]
    if reach.as_json:
        click.echo(json.dumps([_plain(each) for each in found]))
    elif not found:
        click.echo(f"{kind}/{key} has no such reminder" if name else f"{kind}/{key} has none")
    else:
        for each in found:
            _show(each)
    if name is not None and not found:
        raise click.exceptions.Exit(1)


@command.command("set")
@click.argument("kind")
@click.argument("key")
@click.argument("name")
@click.option(
    "--at", type=_moment, metavar="TIME", help="When it is due, such as 2026-12-24T18:00+01:00."
)
@click.option(
    "--delay", type=_duration, metavar="LENGTH", help="How long from now, such as 90s or 1h30m."
)
@click.option(
    "--every",
    type=_duration,
    metavar="LENGTH",
    help="From one tick to the next, such as 15m or 1d.",
)
@click.option("--cron", metavar="TEXT", help='Five fields, such as "0 9 * * MON-FRI".')
@click.option("--timezone", metavar="NAME", help="Such as Europe/Berlin; UTC by default.")
@click.option("--payload", metavar="JSON", help="For each tick.")
@click.option(
    "--missed",
    type=click.Choice(["once", "all", "skip"]),
    default="once",
    show_default=True,
    help="What becomes of ticks whose time went by.",
)
@click.option("--until", type=_moment, metavar="TIME", help="No tick is due after that.")
@click.option("--count", type=click.IntRange(min=1), help="How many ticks there are.")
@reaching.options
def set_(
    *,
    reach: reaching.Reach,
    kind: str,
    key: str,
    name: str,
    at: datetime | None,
    delay: timedelta | None,
    every: timedelta | None,
    cron: str | None,
    timezone: str | None,
    payload: str | None,
    missed: Missed,
    until: datetime | None,
    count: int | None,
) -> None:
    """Set a reminder of one actor, as the actor itself would. One of the same name is replaced."""
    try:
        content = None if payload is None else msgspec.json.decode(payload)
    except msgspec.DecodeError as exc:
        raise click.BadParameter(f"{payload!r} is not JSON: {exc}", param_hint="--payload") from exc
    found = reach.ask(
        lambda admin: admin.reminders.set(
            kind,
            key,
            name,
            at=at,
            delay=delay,
            every=every,
            cron=cron,
            timezone=timezone,
            payload=content,
            missed=missed,
            until=until,
            count=count,
        )
    )
    if reach.as_json:
        click.echo(json.dumps(_plain(found)))
    else:
        _show(found)


@command.command("cancel")
@click.argument("kind")
@click.argument("key")
@click.argument("name")
@reaching.options
def cancel(*, reach: reaching.Reach, kind: str, key: str, name: str) -> None:
    """Take a reminder away. A tick that runs goes on to its end, and none begins after it."""
    existed = reach.ask(lambda admin: admin.reminders.cancel(kind, key, name))
    if reach.as_json:
        click.echo(json.dumps({"existed": existed}))
    else:
        done = "is cancelled" if existed else "was not there"
        click.echo(f"{name} of {kind}/{key} {done}")


@command.command("trust-clock")
@reaching.options
def trust_clock(*, reach: reaching.Reach) -> None:
    """Say that the store's clock, which was set forward, is right.

    Silos that notice such a jump go by the time from before for ten minutes, so that a mistake does not
    make everything due at once. Told so, they follow at once.
    """
    found = reach.ask(lambda admin: admin.reminders.trust_clock())
    if reach.as_json:
        click.echo(json.dumps(dict(found)))
        return
    for silo, ahead_s in sorted(found.items()):
        moved = f"moves {ahead_s:.1f} s ahead" if ahead_s else "has noticed no jump"
        click.echo(f"{silo}  {moved}")


async def _some(
    admin: Admin, kind: str, prefix: str, after: str, limit: int
) -> tuple[list[Found], str]:
    found: list[Found] = []
    while True:
        size = min(1000, limit - len(found))
        page = await admin.reminders.find(kind, prefix=prefix, after=after, limit=size)
        found += page.found
        after = page.after
        if not after or len(found) >= limit:
            return found, after


def _plain(each: Reminder) -> dict[str, object]:
    return {
        "name": each.name,
        "due": _text(each.due),
        "number": each.number,
        "every_s": None if each.every is None else each.every.total_seconds(),
        "cron": each.cron,
        "timezone": each.timezone,
        "payload": json.loads(msgspec.json.encode(each.payload)),
        "missed": each.missed,
        "until": None if each.until is None else _text(each.until),
        "count": each.count,
        "attempts": each.attempts,
        "retry": None if each.retry is None else _text(each.retry),
        "error": each.error,
    }


def _show(each: Reminder) -> None:
    zone = f" {each.timezone}" if each.timezone else ""
    how = (
        f"cron {each.cron}{zone}" if each.cron else f"every {each.every}" if each.every else "once"
    )
    click.echo(f"{click.style(each.name, bold=True)}  tick {each.number} {_text(each.due)}  {how}")
    bounds = [f"until {_text(each.until)}"] if each.until is not None else []
    bounds += [f"{each.count} ticks"] if each.count is not None else []
    if each.every or each.cron:
        bounds.append(f"missed: {each.missed}")
    if each.payload is not None:
        bounds.append(f"payload {msgspec.json.encode(each.payload).decode()}")
    if bounds:
        click.echo(f"  {', '.join(bounds)}")
    if each.attempts and each.retry is not None:
        again = _text(each.retry)
        click.echo(f"  failed {each.attempts} times, again {again}: {each.error}")


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
