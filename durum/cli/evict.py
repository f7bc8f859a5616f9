"""`durum evict`: take one grain out of memory."""

from __future__ import annotations

import json

import click

from durum.cli import reach as reaching


@click.command("evict")
@click.argument("kind")
@click.argument("key")
@reaching.options
def command(*, reach: reaching.Reach, kind: str, key: str) -> None:
    """Take one grain out of memory.

    It finishes its turns first, and what it has kept stays: the next call activates it again.

    \b
    Examples:
      durum evict Account alice
    """
    was = reach.ask(lambda admin: admin.deactivate(kind, key))
    if reach.as_json:
        click.echo(json.dumps({"was_active": was}))
    else:
        click.echo(f"{kind}/{key} {'is out of memory now' if was else 'was not active'}")
