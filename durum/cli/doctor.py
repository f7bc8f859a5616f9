"""`durum doctor`: is the store safe to run on, and does every silo answer? Changes nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Final

import click
import msgspec

from durum import errors
from durum.cli import exits, loops, settings
from durum.cli import reach as reaching
from durum.client.client import connect
from durum.clock import SystemClock
from durum.ids import SystemEntropy
from durum.store import checkup
from durum.store.checkup import Checkup, Finding, Verdict
from durum.store.urls import open_store
from durum.views import SiloRow, Status

_DIAL_S: Final = 3.0
_CODES: Final = {
    Verdict.FINE: exits.CLEAN,
    Verdict.WARNING: exits.FAILED,
    Verdict.UNSAFE: exits.CONFIG,
    Verdict.LOST: exits.STORE,
}
_MARKS: Final = {
    Verdict.FINE: "[green]ok[/]",
    Verdict.WARNING: "[yellow]warning[/]",
    Verdict.UNSAFE: "[red]unsafe[/]",
    Verdict.LOST: "[red]lost[/]",
}


@click.command("doctor")
@reaching.options
def command(*, reach: reaching.Reach) -> None:
    """Look over a store and its silos.

    Tells the store's version, what its settings can lose, eviction, replicas, how far its clock is
    from this host's, how fast it answers, which silos answer, and what is odd about the membership
    table. Writes nothing.

    Exit codes: 0 all fine; 1 warnings; 75 the store does not answer, or has lost data; 78 silos must
    not run on it as it is.

    \b
    Examples:
      durum doctor --store redis://redis.internal:6379/0 --cluster shop
      durum doctor --json | jq '.findings[] | select(.verdict != "fine")'
    """
    settings.refuse_missing_file(reach.store)
    found = loops.run(examine(reach))
    if reach.as_json:
        click.echo(json.dumps({**msgspec.to_builtins(found), "verdict": found.worst}))
    else:
        _show(found)
    raise click.exceptions.Exit(_CODES[found.worst])


async def examine(reach: reaching.Reach) -> Checkup:
    """Look everything over.

    Raises:
        ConfigError: the URL is wrong, or the store does not accept us.
        StoreUnavailable: it does not answer.
    """
    clock, entropy = SystemClock(), SystemEntropy()
    store = await open_store(reach.store, cluster=reach.cluster, clock=clock, entropy=entropy)
    try:
        found = await checkup.examine(store, reach.cluster, clock, entropy)
    finally:
        await store.close()
    living = [row for row in found.rows if row.status is not Status.DEAD]
    answers = await asyncio.gather(*(_dial(row, reach) for row in living))
    order = list(Verdict)
    return msgspec.structs.replace(
        found,
        findings=tuple(
            sorted((*found.findings, *answers), key=lambda one: -order.index(one.verdict))
        ),
    )


async def _dial(row: SiloRow, reach: reaching.Reach) -> Finding:
    """Connect to a silo and shake hands: a connection alone succeeds with a process that is stopped."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with connect(
            row.address,
            cluster=reach.cluster,
            secret=settings.read_secret(reach.secret_file),
            tls=settings.read_tls(*reach.tls),
            connect_timeout_s=min(_DIAL_S, reach.timeout),
        ):
            took = loop.time() - began
    except errors.DurumError as exc:
        return Finding(Verdict.WARNING, "reach", f"{row.silo} does not answer: {exc}")
    return Finding(Verdict.FINE, "reach", f"{row.silo} answers in {took * 1000:.1f} ms.")


def _show(found: Checkup) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[bold]{escape(found.cluster)}[/] on {escape(found.store)}")
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in found.facts.items():
        facts.add_row(f"[dim]{escape(name)}[/]", escape(value))
    if found.facts:
        console.print(facts)
    console.print()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in found.findings:
        table.add_row(_MARKS[one.verdict], one.topic, escape(one.text))
    console.print(table)
    console.print()
    counts = [sum(one.verdict is verdict for one in found.findings) for verdict in Verdict]
    console.print(
        ", ".join(f"{count} {verdict}" for verdict, count in zip(Verdict, counts, strict=True))
    )
