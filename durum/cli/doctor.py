"""`durum doctor`: is the store safe to run on, and does every silo answer? Changes nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import msgspec

from durum import errors
from durum.cli import exits, loops, settings
from durum.client.client import connect
from durum.clock import SystemClock
from durum.config import Tls
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
@settings.store
@settings.cluster
@settings.secret
@settings.tls
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    *,
    store: str,
    cluster: str,
    secret_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    tls_server_name: str | None,
    as_json: bool,
) -> None:
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
    settings.refuse_missing_file(store)
    way = _Way(
        cluster,
        settings.read_secret(secret_file),
        settings.read_tls(tls_cert, tls_key, tls_ca, tls_server_name),
    )
    found = loops.run(examine(store, way))
    if as_json:
        click.echo(json.dumps({**msgspec.to_builtins(found), "verdict": found.worst}))
    else:
        _show(found)
    raise click.exceptions.Exit(_CODES[found.worst])


@dataclass(frozen=True, slots=True)
class _Way:
    """How silos are reached: the service's name, its secrets, certificates."""

    cluster: str
    secret: list[str] | None
    tls: Tls | None


async def examine(url: str, way: _Way) -> Checkup:
    """Look everything over.

    Raises:
        ConfigError: the URL is wrong, or the store does not accept us.
        StoreUnavailable: it does not answer.
    """
    clock, entropy = SystemClock(), SystemEntropy()
    store = await open_store(url, cluster=way.cluster, clock=clock, entropy=entropy, confirm=False)
    try:
        found = await checkup.examine(store, way.cluster, clock, entropy)
    finally:
        await store.close()
    living = [row for row in found.rows if row.status is not Status.DEAD]
    answers = await asyncio.gather(*(_dial(row, way) for row in living))
    order = list(Verdict)
    return msgspec.structs.replace(
        found,
        findings=tuple(
            sorted((*found.findings, *answers), key=lambda one: -order.index(one.verdict))
        ),
    )


async def _dial(row: SiloRow, way: _Way) -> Finding:
    """Connect to a silo and shake hands: a connection alone succeeds with a process that is stopped."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with connect(
            row.address,
            cluster=way.cluster,
            secret=way.secret,
            tls=way.tls,
            connect_timeout_s=_DIAL_S,
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
