"""`durum demo`: the shop on several silos, one of which is killed. Owns the course of events."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from durum import errors
from durum.cli import demo_report, exits, fleet, init, loops, valkey
from durum.client.client import Cluster, connect
from durum.demo import play, purchases, shop
from durum.demo.purchases import Purchase
from durum.grains.reference import options
from durum.ids import SystemEntropy

IN_FLIGHT: Final = 256
"""Purchases under way at once: enough that commits travel together."""

WATCHED: Final = 300
"""Customers that are asked from the moment of the kill until each has answered."""


@click.command("demo")
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=purchases.SAMPLE,
    help="Purchases to play instead of the sample; the full CDNOW set works too.",
)
@click.option("--lines", type=click.IntRange(min=1), help="Play only so many of them.")
@click.option("--silos", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--store",
    default="sqlite",
    show_default=True,
    metavar="sqlite|redis|URL",
    help="sqlite: a file in a temporary directory. redis: a Valkey server that the demo starts."
    " With a URL, the demo's data stays there, under a cluster name of its own.",
)
@click.option("--no-kill", is_flag=True, help="Let every silo live.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
def command(
    *, data: Path, lines: int | None, silos: int, store: str, no_kill: bool, as_json: bool
) -> int:
    """Watch three silos serve a shop while one of them is killed.

    Plays a real shop's purchases (CDNOW, 1997 to 1998) through actors on three silo processes,
    kills one of them with SIGKILL in the middle, starts another, and compares what every customer,
    day and month then says with the file, to the cent. Exit code 1 if anything differs.

    \b
    Examples:
      durum demo
      durum demo --store redis
      durum demo --data CDNOW_master.txt --silos 5
      durum demo --no-kill --json
    """
    try:
        played = purchases.read(data, lines)
    except purchases.BadLine as exc:
        raise errors.ConfigError(str(exc)) from exc
    kill = not no_kill
    if kill and silos < 2:
        raise errors.ConfigError(
            "--silos 1 leaves nobody to take over from the one that is killed. Add --no-kill, or"
            " take two or more."
        )
    screen = demo_report.Screen(total=len(played), as_json=as_json)
    result = loops.run(_demo(_Plan(played, silos, store, kill), screen))
    screen.show(result)
    return exits.CLEAN if result.right else exits.FAILED


@dataclass(frozen=True, slots=True)
class _Plan:
    purchases: Sequence[Purchase]
    silos: int
    store: str
    kill: bool


async def _demo(plan: _Plan, screen: demo_report.Screen) -> demo_report.Result:
    me = asyncio.current_task()
    assert me is not None  # noqa: S101 - we run in one
    # As Ctrl-C does: the silos, the server and the directory go before we do.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    with tempfile.TemporaryDirectory(prefix="durum-demo-") as directory:
        home = Path(directory)
        async with _store(plan.store, home) as url:
            screen.step("creating the service")
            name = f"demo-{SystemEntropy().token().hex()[:8]}"
            created = await init.create(url, cluster=name, partitions=None)
            app = [shop.__file__, "--store", url, "--cluster", name]
            async with fleet.Fleet(app, home) as silos:
                screen.step(f"starting {plan.silos} silos")
                async with asyncio.TaskGroup() as starting:
                    for number in range(plan.silos):
                        starting.create_task(silos.start(), name=f"start silo {number}")
                addresses = [member.address for member in silos.members]
                async with connect(addresses, cluster=name) as cluster:
                    run = _Run(plan, screen, silos, cluster)
                    return await run.to_the_end(created)


@asynccontextmanager
async def _store(wish: str, home: Path) -> AsyncIterator[str]:
    """The URL of the store to play on, started first where that is wished."""
    if wish == "sqlite":
        yield f"sqlite:///{home / 'shop.db'}"
    elif wish in ("redis", "valkey"):
        async with valkey.serve(home) as url:
            yield url
    else:
        yield wish


class _Run:
    """One play of the purchases, with the kill in its middle."""

    def __init__(
        self, plan: _Plan, screen: demo_report.Screen, silos: fleet.Fleet, cluster: Cluster
    ) -> None:
        self._plan = plan
        self._screen = screen
        self._silos = silos
        self._cluster = cluster
        self._bought = 0
        self._middle = asyncio.Event()
        self._failover: demo_report.Failover | None = None

    async def to_the_end(self, created: init.Created) -> demo_report.Result:
        now = asyncio.get_running_loop().time
        expected = purchases.sum_up(self._plan.purchases)
        with self._screen.playing():
            began = now()
            async with asyncio.TaskGroup() as tasks:
                if self._plan.kill:
                    tasks.create_task(self._kill_in_the_middle(), name="killer")
                await play.play(
                    self._cluster, self._plan.purchases, in_flight=IN_FLIGHT, bought=self._count
                )
        self._screen.step("waiting until every message has arrived")
        await play.settle(self._cluster, expected, IN_FLIGHT)
        seconds = now() - began
        self._screen.step("waiting until reminders have closed the days")
        closed = await play.close_days(self._cluster, expected, IN_FLIGHT)
        self._screen.step("asking every customer, day and month for its sums")
        told = await play.ask(self._cluster, expected, IN_FLIGHT)
        return demo_report.Result(
            purchases=len(self._plan.purchases),
            turns=len(self._plan.purchases) * play.TURNS_PER_PURCHASE,
            seconds=seconds,
            days_closed=closed,
            silos=self._plan.silos,
            store=created.store,
            durability=created.durability,
            failover=self._failover,
            expected=expected,
            told=told,
            verdict=play.compare(expected, told),
        )

    def _count(self) -> None:
        self._bought += 1
        self._screen.advance()
        if self._bought >= len(self._plan.purchases) // 2:
            self._middle.set()

    async def _kill_in_the_middle(self) -> None:
        await self._middle.wait()
        now = asyncio.get_running_loop().time
        known = list(dict.fromkeys(p.customer for p in self._plan.purchases[: self._bought]))
        watched = known[:: max(1, len(known) // WATCHED)]
        victim = self._silos.members[-1]
        after, killed_at = self._bought, now()
        await self._silos.kill(victim)
        self._screen.note(f"killed {victim.name} (pid {victim.process.pid}) with SIGKILL")
        async with asyncio.TaskGroup() as tasks:
            joining = tasks.create_task(self._silos.start(), name="start another silo")
            await play.for_each(watched, self._hear_from, len(watched))
            seconds = now() - killed_at
            self._screen.note(f"every key answers again, {seconds:.2f} s after the kill")
        joined = joining.result()
        self._screen.note(f"started {joined.name} (pid {joined.process.pid})")
        self._failover = demo_report.Failover(
            killed=victim.name,
            after_purchases=after,
            watched=len(watched),
            seconds=round(seconds, 3),
            joined=joined.name,
        )

    async def _hear_from(self, customer: str) -> None:
        """Ask until there is an answer: what breaks under way is no answer, but harms nobody."""
        reference = self._cluster.actor(shop.Customer, customer)
        while True:
            try:
                await options(reference, timeout=play.PATIENCE_S).totals()
            except errors.SiloLost:
                continue
            return
