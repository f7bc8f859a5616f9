"""`durum export`: copy a service into a file. Owns what is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from durum.cli import reach as reaching
from durum.cli import transfers


@click.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--kind", help="Only grains of this kind.")
@click.option("--prefix", default="", metavar="TEXT", help="Of that kind, only keys that begin so.")
@reaching.options
def command(*, reach: reaching.Reach, file: Path, kind: str | None, prefix: str) -> None:
    """Copy a service into a file, while it runs.

    Each grain is copied as it was at one instant: its state, collections and remembered replies. Different
    grains are copied at different instants; where that matters, let the service rest meanwhile. FILE must not
    exist yet, and appears only once it is whole.

    \b
    Examples:
      durum export shop.durum
      durum export accounts.durum --kind Account --prefix eu- --json
    """
    if prefix and kind is None:
        raise click.UsageError("--prefix needs a --kind.")
    ids = "" if kind is None else f"{kind}/{prefix}"
    with transfers.shown(reach, "exported") as told:
        done = reach.ask(lambda admin: admin.export_to(file, prefix=ids, told=told))
    size = file.stat().st_size
    if reach.as_json:
        click.echo(json.dumps({"file": str(file), "grains": done.grains, "bytes": size}))
    else:
        click.echo(f"{done.grains:,} grains are in {file} ({size:,} bytes)")
