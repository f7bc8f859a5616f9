"""`durum grains`: the grains of one kind. Reads only."""

from __future__ import annotations

import json

import click

from durum.cli import reach as reaching
from durum.client.admin import Admin

_PAGE = 1000


@click.command("grains")
@click.argument("kind")
@click.option("--prefix", default="", metavar="TEXT", help="Only keys that begin so.")
@reaching.paged
@click.option("--count", is_flag=True, help="Only say how many there are.")
@reaching.options
def command(
    *, reach: reaching.Reach, kind: str, prefix: str, limit: int, after: str, count: bool
) -> None:
    """List the grains of one kind.

    Those that have kept something: committed at least once, and not deleted since. They come in no order
    that means anything; where there are more than --limit, the last line says how to go on.

    \b
    Examples:
      durum grains Account
      durum grains Account --prefix eu- --count
      durum grains Account --limit 1000 --json
    """
    if count:
        total = reach.ask(lambda admin: admin.count(kind, prefix=prefix))
        click.echo(json.dumps({"count": total}) if reach.as_json else str(total))
        return
    keys, rest = reach.ask(lambda admin: _some(admin, kind, prefix, after, limit))
    if reach.as_json:
        click.echo(json.dumps({"keys": keys, "after": rest}))
        return
    for key in sorted(keys):
        click.echo(key)
    if rest:
        click.echo(f"There are more: --after {rest!r}", err=True)


async def _some(
    admin: Admin, kind: str, prefix: str, after: str, limit: int
) -> tuple[list[str], str]:
    keys: list[str] = []
    while True:
        size = min(_PAGE, limit - len(keys))
        page = await admin.grains(kind, prefix=prefix, after=after, limit=size)
        keys += page.keys
        after = page.after
        if not after or len(keys) >= limit:
            return keys, after
