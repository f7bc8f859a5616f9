"""The living table of `durum ps --watch`. Owns its columns and its pace; reads only.

Rows come from the store, so that there is a table also when no silo answers; what a silo says of itself
stands beside its row where it was reached.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Final

import click
import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from durum import errors
from durum.cli.ps import Cluster, Line
from durum.cli.reach import Reach
from durum.client import client
from durum.ids import SiloId, address_of
from durum.views import Status
from durum.wire.administration import Now

_CONNECT_S: Final = 2.0
_NUMBERS: Final = ("held", "active", "calls/s", "in hand", "waiting", "commits/s", "lease")
_STYLES: Final = {Status.ACTIVE: "green", Status.DEAD: "red"}

Told = Mapping[str, Now]
"""By silo, what it says of itself."""
Show = Callable[[Cluster, Told], None]


async def watch(
    look: Callable[[], Awaitable[Cluster]], reach: Reach, *, every_s: float, times: int | None
) -> None:
    """Show the cluster again and again.

    Args:
        look: reads the table.
        reach: how to ask the silos themselves.
        every_s: how long to pause.
        times: how often; None: until interrupted.
    """
    async with AsyncExitStack() as stack:
        cluster = await _client(stack, reach)
        show: Show = _as_line
        if not reach.as_json:
            live = Live(console=Console(highlight=False), auto_refresh=False)
            show = Screen(stack.enter_context(live)).show
        while True:
            found, told = await asyncio.gather(look(), _tell(cluster))
            show(found, told)
            if times is not None:
                times -= 1
                if times <= 0:
                    return
            await asyncio.sleep(every_s)


async def _client(stack: AsyncExitStack, reach: Reach) -> client.Cluster | None:
    """A client, where one is let in."""
    try:
        return await stack.enter_async_context(reach.client(_CONNECT_S))
    except errors.ClusterError:
        return None


async def _tell(cluster: client.Cluster | None) -> Told:
    if cluster is None:
        return {}
    try:
        found = await cluster.admin.silos()
    except errors.DurumError:
        return {}
    return {each.silo: each.now for each in found if each.now is not None}


def _as_line(found: Cluster, told: Told) -> None:
    line = asdict(found)
    for silo in line["silos"]:
        now = told.get(silo["silo"])
        silo["now"] = None if now is None else msgspec.structs.asdict(now)
    click.echo(json.dumps(line))


class Screen:
    """A table that is drawn anew.

    Args:
        live: where to draw.
        now: seconds; for rates.
    """

    def __init__(self, live: Live, now: Callable[[], float] = time.monotonic) -> None:
        self._live = live
        self._now = now
        self._before: Told = {}
        self._before_at = 0.0

    def show(self, found: Cluster, told: Told) -> None:
        """Draw it."""
        at = self._now()
        self._live.update(self._drawn(found, told, at - self._before_at), refresh=True)
        self._before, self._before_at = told, at

    def _drawn(self, found: Cluster, told: Told, passed_s: float) -> Group:
        table = Table(box=None, header_style="bold")
        for name in ("silo", "status"):
            table.add_column(name, no_wrap=True)
        for name in _NUMBERS:
            table.add_column(name, justify="right")
        for line in found.silos:
            table.add_row(*self._row(line, told.get(line.silo), passed_s))
        unheld = f", {found.unheld} of {found.partitions} partitions unheld" if found.unheld else ""
        head = Text.assemble(
            (found.cluster, "bold"),
            f" on {found.store}, view {found.version}, durability {found.level}",
            (unheld, "red"),
        )
        troubles = [
            Text(f"{silo}: {now.trouble}", style="red") for silo, now in told.items() if now.trouble
        ]
        return Group(head, table, *troubles)

    def _row(self, line: Line, now: Now | None, passed_s: float) -> tuple[str, ...]:
        style = _STYLES.get(Status(line.status), "yellow")
        votes = f", {len(line.votes)} votes" if line.votes else ""
        # Its address alone: the table has to fit, and `durum ps` has the whole id.
        who = (
            address_of(SiloId(line.silo)),
            f"[{style}]{line.status}[/]{votes}",
            str(line.partitions),
        )
        if now is None:
            return (*who, *("-" for _ in _NUMBERS[1:]))
        before = self._before.get(line.silo)
        calls = commits = "-"
        if before is not None and passed_s > 0:
            calls = f"{max(0, now.answered - before.answered) / passed_s:,.0f}"
            commits = f"{max(0, now.committed - before.committed) / passed_s:,.0f}"
        return (
            *who,
            f"{sum(now.activations.values()):,}",
            calls,
            f"{now.calls:,}",
            f"{now.waiting:,}",
            commits,
            f"{now.lease_left_s:.1f} s" if now.lease_left_s > 0 else "[red]lapsed[/]",
        )
