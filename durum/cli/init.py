"""`durum init`: create a service's data, once. Owns what is told of it; the store does the work."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import click

from durum.cli import loops, settings
from durum.clock import SystemClock
from durum.config import SiloConfig
from durum.ids import SystemEntropy
from durum.placement.ring import RING_VERSION
from durum.store.protocol import Genesis
from durum.store.urls import open_store


@dataclass(frozen=True, slots=True)
class Created:
    """A service's data.

    Args:
        store: its URL, without secrets.
        cluster: the service's name.
        mark: its genesis.
        partitions: P, for ever.
        new: whether it was made just now.
        level: durability level, D0 to D3.
        durability: what the store can lose, in words.
    """

    store: str
    cluster: str
    mark: str
    partitions: int
    new: bool
    level: str
    durability: str


@click.command("init")
@settings.store
@settings.cluster
@click.option(
    "--partitions",
    type=click.IntRange(1, 65_534),
    default=SiloConfig().partitions,
    show_default=True,
    help="Slices of all actors; the unit that moves between silos. Fixed for the service's life.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(*, store: str, cluster: str, partitions: int, as_json: bool) -> None:
    """Create a service's data in a store.

    A silo never does this by itself: data that is missing must be an alarm, not a fresh start.
    (durum dev does it for the store in ./.durum.) Doing it again changes nothing.

    \b
    Examples:
      durum init --store redis://redis.internal:6379/0 --cluster shop
      durum init --store sqlite:////var/lib/shop.db
    """
    created = loops.run(create(store, cluster=cluster, partitions=partitions))
    if as_json:
        click.echo(json.dumps(asdict(created)))
        return
    if created.new:
        click.echo(f"Created the service {created.cluster!r} in {created.store}:")
    else:
        click.echo(f"The service {created.cluster!r} is in {created.store} already:")
    click.echo(f"  {created.partitions} partitions, genesis {created.mark}")
    click.echo(f"  durability {created.level}: {created.durability}")


async def create(url: str, *, cluster: str, partitions: int | None = None) -> Created:
    """Create the service unless it exists.

    Args:
        url: the store.
        cluster: the service's name.
        partitions: P for a new one; None for the default.

    Raises:
        ConfigError: the URL is wrong, or the store belongs to another service.
        StoreError: the store does not answer, or has lost data.
    """
    entropy = SystemEntropy()
    store = await open_store(url, cluster=cluster, clock=SystemClock(), entropy=entropy)
    try:
        wanted = Genesis(
            mark=entropy.token().hex(),
            cluster=cluster,
            partitions=partitions or SiloConfig().partitions,
            ring=RING_VERSION,
        )
        genesis = await store.create(wanted)
        durability = await store.durability()
        return Created(
            store=store.url,
            cluster=cluster,
            mark=genesis.mark,
            partitions=genesis.partitions,
            new=genesis.mark == wanted.mark,
            level=durability.level.name,
            durability=durability.summary,
        )
    finally:
        await store.close()
