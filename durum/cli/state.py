"""`durum state`: what is kept of one grain. Reads only."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict

import click

from durum.cli import reach as reaching
from durum.client.sights import Grain


@click.command("state")
@click.argument("kind")
@click.argument("key")
@reaching.options
def command(*, reach: reaching.Reach, kind: str, key: str) -> None:
    """Show what is kept of one grain.

    Its durable fields are shown as JSON, whether the class is at hand or not; beside them its version, how
    many keyed calls it remembers, where it lies and who owns it. It is not activated by that.

    \b
    Examples:
      durum state Account alice
      durum state Account alice --json --to 10.0.0.7:7600
    """
    found = reach.ask(lambda admin: admin.inspect(kind, key))
    if reach.as_json:
        shown = asdict(found)
        if found.undecoded is not None:
            shown["undecoded"] = base64.b64encode(found.undecoded).decode()
        click.echo(json.dumps(shown))
    else:
        _show(found)


def _show(found: Grain) -> None:
    name = click.style(f"{found.kind}/{found.key}", bold=True)
    if found.version:
        written = "" if found.class_version is None else f", by class version {found.class_version}"
        click.echo(f"{name}  version {found.version}{written}, {found.replies} remembered replies")
    else:
        click.echo(f"{name}  nothing is kept of it")
    active = "not active"
    if found.active:
        active = f"{found.active}, {found.running} running, {found.waiting} waiting"
    click.echo(f"partition {found.partition}, epoch {found.epoch}, at {found.silo}: {active}")
    if found.state is not None:
        click.echo(json.dumps(found.state, indent=2, ensure_ascii=False))
    elif found.undecoded is not None:
        click.echo(f"its {len(found.undecoded)} bytes are no state that Durum wrote; see --json")
    elif found.version:
        click.echo("it has no durable fields, or was deleted")
