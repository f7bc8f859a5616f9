"""`durum delete`: take one grain's state away. Owns the question whether that is meant."""

from __future__ import annotations

import json

import click

from durum.cli import reach as reaching


@click.command("delete")
@click.argument("kind")
@click.argument("key")
@click.option("--yes", is_flag=True, help="Do not ask.")
@reaching.options
def command(*, reach: reaching.Reach, kind: str, key: str, yes: bool) -> None:
    """Take one grain's state away.

    It finishes its turns first. The next call finds it with the defaults of its class, as on its first
    day. Keyed calls that it has answered stay remembered for their window, so that a client that repeats
    one does not run it again.

    \b
    Examples:
      durum delete Account alice
      durum delete Account alice --yes --json
    """
    if not yes:
        click.confirm(f"Delete {kind}/{key}? What it has kept is gone then", abort=True, err=True)
    existed = reach.ask(lambda admin: admin.delete(kind, key))
    if reach.as_json:
        click.echo(json.dumps({"existed": existed}))
    else:
        click.echo(f"{kind}/{key} {'is deleted' if existed else 'had kept nothing'}")
