"""`durum dead-letters`: messages that could not be taken. Owns how they are asked for and shown."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime

import click

from durum.cli import reach as reaching
from durum.client.admin import Admin
from durum.client.letters import DeadLetter


@click.group("dead-letters")
def command() -> None:
    """List, show, retry and drop messages that could not be taken.

    A message whose method raises is tried again, less and less often. After its last attempt it is put aside
    as a dead letter, and those behind it go on. It stays until somebody sends it again or drops it.

    \b
    Examples:
      durum dead-letters ls Ledger
      durum dead-letters show Ledger 1997-03 0000019340aa1b2c5d6e7f8091a2b3c4
      durum dead-letters retry --kind Ledger --all
      durum dead-letters waiting
    """


@command.command("ls")
@click.argument("kind", default="")
@click.option("--prefix", default="", metavar="TEXT", help="Only actors whose keys begin so.")
@reaching.paged
@reaching.options
def ls(*, reach: reaching.Reach, kind: str, prefix: str, limit: int, after: str) -> None:
    """List dead letters, of all actors or of one kind."""
    found, rest = reach.ask(lambda admin: _some(admin, kind, prefix, after, limit))
    if reach.as_json:
        click.echo(json.dumps({"letters": [_plain(each) for each in found], "after": rest}))
        return
    for each in found:
        click.echo(
            f"{_time(each.parked)}  {each.kind}/{each.key}  {each.method}  {each.error}: {each.text}"
        )
        click.echo(f"  {each.id}  after {each.attempts} attempts")
    if rest:
        click.echo(f"There are more: --after {rest!r}", err=True)


@command.command("show")
@click.argument("kind")
@click.argument("key")
@click.argument("letter")
@reaching.options
def show(*, reach: reaching.Reach, kind: str, key: str, letter: str) -> None:
    """Show one dead letter with its arguments and its error. Exit code 1 if there is none."""
    found = reach.ask(lambda admin: admin.messages.show(kind, key, letter))
    if reach.as_json:
        click.echo(json.dumps(None if found is None else _plain(found)))
    elif found is None:
        click.echo(f"{kind}/{key} has no such dead letter")
    else:
        click.echo(f"{found.kind}/{found.key}.{found.method}  message {found.message}")
        click.echo(f"from {found.sender or 'a client'}, sent {_time(found.sent)}")
        click.echo(f"parked {_time(found.parked)}, after {found.attempts} attempts")
        click.echo(f"arguments: {found.args if found.args is not None else 'pickled'}")
        click.echo(f"{found.error}: {found.text}")
        if found.traceback:
            click.echo(found.traceback.rstrip())
    if found is None:
        raise click.exceptions.Exit(1)


@command.command("retry")
@click.argument("kind", default="")
@click.argument("key", default="")
@click.argument("letter", default="")
@click.option("--all", "every", is_flag=True, help="All of KIND, or all where no KIND is given.")
@reaching.options
def retry(*, reach: reaching.Reach, kind: str, key: str, letter: str, every: bool) -> None:
    """Send the message of a dead letter again, behind those that wait. Exit code 1 if there is none."""
    _act(reach, "retry", kind, key, letter, every=every)


@command.command("drop")
@click.argument("kind", default="")
@click.argument("key", default="")
@click.argument("letter", default="")
@click.option("--all", "every", is_flag=True, help="All of KIND, or all where no KIND is given.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@reaching.options
def drop(
    *, reach: reaching.Reach, kind: str, key: str, letter: str, every: bool, yes: bool
) -> None:
    """Take a dead letter away for good. Exit code 1 if there is none."""
    if not yes:
        what = f"all dead letters of {kind or 'all kinds'}" if every else f"{kind}/{key} {letter}"
        click.confirm(f"Drop {what}? The messages are lost then", abort=True, err=True)
    _act(reach, "drop", kind, key, letter, every=every)


@command.command("waiting")
@reaching.options
def waiting(*, reach: reaching.Reach) -> None:
    """List for whom messages wait, and why those that fail do."""
    found = reach.ask(lambda admin: admin.messages.waiting())
    if reach.as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in found]))
        return
    for each in found:
        failing = f"  {each.failures} attempts in vain: {each.why}" if each.failures else ""
        click.echo(f"{each.messages:>8,}  {each.kind}/{each.key}  at {each.silo}{failing}")
    if not found:
        click.echo("no message waits")


def _act(reach: reaching.Reach, act: str, kind: str, key: str, letter: str, *, every: bool) -> None:
    if every == bool(letter):
        raise click.UsageError(f"Write durum dead-letters {act} KIND KEY LETTER, or --all.")
    done = reach.ask(lambda admin: _see_to(admin, act, kind, key, letter, every=every))
    if reach.as_json:
        click.echo(json.dumps({"done": done}))
    else:
        said = {"retry": "sent again", "drop": "dropped"}[act]
        click.echo(f"{done} dead letter{'' if done == 1 else 's'} {said}")
    if not done:
        raise click.exceptions.Exit(1)


async def _see_to(admin: Admin, act: str, kind: str, key: str, letter: str, *, every: bool) -> int:
    found: list[DeadLetter]
    if every:
        # Read all of them first: one that fails again comes back behind.
        found = [each async for each in admin.messages.every_dead_letter(kind, prefix=key)]
    else:
        one = await admin.messages.show(kind, key, letter)
        found = [] if one is None else [one]
    see_to = admin.messages.retry if act == "retry" else admin.messages.drop
    return sum([await see_to(each) for each in found])


async def _some(
    admin: Admin, kind: str, prefix: str, after: str, limit: int
) -> tuple[list[DeadLetter], str]:
    found: list[DeadLetter] = []
    while True:
        page = await admin.messages.dead_letters(
            kind, prefix=prefix, after=after, limit=limit - len(found)
        )
        found += page.letters
        after = page.after
        if not after or len(found) >= limit:
            return found, after


def _plain(letter: DeadLetter) -> dict[str, object]:
    fields = dataclasses.asdict(letter)
    return fields | {"sent": _time(letter.sent), "parked": _time(letter.parked)}


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
