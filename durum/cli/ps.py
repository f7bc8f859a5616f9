"""`durum ps`: the silos of a cluster, as its membership table has them. Reads only."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import timedelta

import click

from durum import errors
from durum.cli import loops, settings
from durum.cli import reach as reaching
from durum.clock import SystemClock
from durum.ids import SystemEntropy
from durum.store.urls import open_store
from durum.views import Status


@dataclass(frozen=True, slots=True)
class Line:
    """One silo.

    Args:
        silo: its id.
        status: joining, active, leaving or dead.
        partitions: how many it holds.
        since_s: seconds since its status changed.
        votes: who suspects it.
        kinds: what it hosts, with class versions.
        pid: its process, on its own host.
        reason: why it left.
    """

    silo: str
    status: str
    partitions: int
    since_s: float
    votes: tuple[str, ...]
    kinds: dict[str, int]
    pid: int
    reason: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster at one instant.

    Args:
        cluster: the service's name.
        store: its URL, without secrets.
        level: durability level.
        durability: what the store can lose.
        version: of the membership table.
        partitions: P.
        unheld: how many partitions nobody holds.
        silos: one line each.
    """

    cluster: str
    store: str
    level: str
    durability: str
    version: int
    partitions: int
    unheld: int
    silos: tuple[Line, ...]


@click.command("ps")
@click.option(
    "--all", "with_dead", is_flag=True, help="Also those that left or were declared dead."
)
@click.option("--watch", is_flag=True, help="Show it again and again, with what each silo does.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=1.0, show_default=True, metavar="SECONDS"
)
@click.option("--times", type=click.IntRange(min=1), help="Stop watching after so many looks.")
@reaching.options
def command(
    *, reach: reaching.Reach, with_dead: bool, watch: bool, every: float, times: int | None
) -> None:
    """List a cluster's silos.

    Reads the membership table from the store, so that it also works when no silo answers. With --watch it
    asks the silos too: grains in memory, calls and commits a second, calls in hand and waiting, how
    long the lease still holds. With --json that is one line for each look.

    \b
    Examples:
      durum ps
      durum ps --watch --every 2
      durum ps --store redis://redis.internal:6379/0 --cluster shop --json
    """
    store, cluster = reach.store, reach.cluster
    if watch or times is not None:
        from durum.cli import ps_watch

        async def again() -> Cluster:
            return await look(store, cluster=cluster, with_dead=with_dead)

        loops.run(ps_watch.watch(again, reach, every_s=every, times=times))
        return
    found = loops.run(look(store, cluster=cluster, with_dead=with_dead))
    if reach.as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        _show(found)


async def look(url: str, *, cluster: str, with_dead: bool) -> Cluster:
    """Read who is there.

    Raises:
        ConfigError: the URL is wrong, or nobody has created the service there.
        StoreError: the store does not answer, or has lost data.
    """
    settings.refuse_missing_file(url)
    store = await open_store(
        url, cluster=cluster, clock=SystemClock(), entropy=SystemEntropy(), confirm=False
    )
    try:
        genesis = await store.genesis()
        if genesis is None:
            raise errors.ConfigError(
                f"{store.url} has no service {cluster!r}. Create it with: durum init, or name"
                " another with --store and --cluster."
            )
        read = await store.read_table(genesis.mark)
        owners = await store.owners(genesis.mark)
        durability = await store.durability()
    finally:
        await store.close()
    held = Counter(owner.silo for owner in owners)
    rows = read.view.rows if with_dead else read.view.live
    lines = tuple(
        Line(
            silo=row.silo,
            status=row.status,
            partitions=held[row.silo],
            since_s=round(max(0.0, read.time - row.since), 1),
            votes=tuple(vote.by for vote in row.suspicions),
            kinds=row.kinds,
            pid=row.pid,
            reason=row.reason,
        )
        for row in sorted(rows, key=lambda row: row.silo)
    )
    return Cluster(
        cluster=cluster,
        store=store.url,
        level=durability.level.name,
        durability=durability.summary,
        version=read.view.version,
        partitions=genesis.partitions,
        unheld=held[None],
        silos=lines,
    )


def _show(found: Cluster) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[bold]{found.cluster}[/] on {found.store}, view {found.version}")
    console.print(f"durability {found.level}: {found.durability}", style="dim")
    if not found.silos:
        console.print("no silo is running. Start one with: durum silo APP, or durum dev APP")
        return
    table = Table(box=None, header_style="bold")
    for name in ("silo", "status", "partitions", "since", "pid", "kinds"):
        table.add_column(name, justify="right" if name in ("partitions", "since") else "left")
    styles = {Status.ACTIVE: "green", Status.DEAD: "red"}
    for line in found.silos:
        style = styles.get(Status(line.status), "yellow")
        status = f"[{style}]{line.status}[/]" + (f", {len(line.votes)} votes" if line.votes else "")
        since = str(timedelta(seconds=round(line.since_s)))
        kinds = ", ".join(sorted(line.kinds))
        table.add_row(line.silo, status, str(line.partitions), since, str(line.pid or ""), kinds)
    console.print(table)
    if found.unheld:
        console.print(f"{found.unheld} of {found.partitions} partitions are held by nobody")
