"""`durum import`: copy the grains of a file into a service. Owns what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import click

from durum.cli import reach as reaching
from durum.cli import transfers
from durum.client.transfer import OnExisting


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--on-existing",
    type=click.Choice(get_args(OnExisting)),
    default="error",
    show_default=True,
    help="For grains that the service has already, with other content.",
)
@reaching.options
def command(*, reach: reaching.Reach, file: Path, on_existing: OnExisting) -> None:
    """Copy the grains of a file into a service that runs.

    FILE is what `durum export` has written, of this service or another one; the number of partitions may
    differ. It is read once before anything is written. Each grain is written by its owner, after its turns
    and before the next. An import that was interrupted can be run again: grains that are there already,
    equal to the last byte, are passed over.

    \b
    Examples:
      durum import shop.durum
      durum import shop.durum --on-existing replace --to 127.0.0.1:7600
    """
    with transfers.shown(reach, "imported") as told:
        done = reach.ask(lambda admin: admin.import_from(file, on_existing=on_existing, told=told))
    written = done.grains - done.same - len(done.skipped)
    if reach.as_json:
        click.echo(
            json.dumps(
                {
                    "grains": done.grains,
                    "written": written,
                    "same": done.same,
                    "skipped": done.skipped,
                }
            )
        )
        return
    click.echo(f"{done.grains:,} grains: {written:,} written, {done.same:,} were there already")
    if done.skipped:
        click.echo(f"{len(done.skipped):,} left as they are, with other content:", err=True)
        for grain in done.skipped[: transfers.SHOWN]:
            click.echo(f"  {grain}", err=True)
