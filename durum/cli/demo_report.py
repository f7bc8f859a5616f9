"""What the demo shows: progress while it runs, the table at its end. Owns words and columns only."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal

import click

from durum.demo.play import Verdict
from durum.demo.purchases import Books, Sums

_NEXT = """\
from durum import Actor

class Greeter(Actor):
    greeted: int = 0

    async def hello(self, name: str) -> str:
        self.greeted += 1
        return f"Hello {name}, you are number {self.greeted}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failover:
    """What became of the kill.

    Args:
        killed: which silo.
        after_purchases: how many had been made.
        watched: how many customers were asked from that instant on.
        seconds: from the kill until each of them had answered.
        joined: the silo that was started in its place.
    """

    killed: str
    after_purchases: int
    watched: int
    seconds: float
    joined: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How the demo went.

    Args:
        purchases: how many were made.
        turns: of actors, for them: calls and messages.
        seconds: until the last of them had ended, failover included.
        days_closed: by their reminders.
        silos: how many served.
        store: where the data is.
        durability: what that store can lose.
        failover: of the kill, if there was one.
        expected: the books computed from the file.
        told: the books as the actors have them.
        verdict: how they differ.
    """

    purchases: int
    turns: int
    seconds: float
    days_closed: int
    silos: int
    store: str
    durability: str
    failover: Failover | None
    expected: Books
    told: Books
    verdict: Verdict

    @property
    def right(self) -> bool:
        """Whether all books agree, and every day is closed."""
        return self.verdict.right and self.days_closed == len(self.expected.days)

    def as_json(self) -> dict[str, object]:
        """The same for machines; money as text, so that no cent is rounded."""
        return {
            "right": self.right,
            "purchases": self.purchases,
            "customers": len(self.expected.customers),
            "days": len(self.expected.days),
            "months": len(self.expected.months),
            "days_closed": self.days_closed,
            "turns": self.turns,
            "seconds": round(self.seconds, 3),
            "turns_per_s": round(self.turns / self.seconds),
            "silos": self.silos,
            "store": self.store,
            "durability": self.durability,
            "failover": None if self.failover is None else dataclasses.asdict(self.failover),
            "lost": self.verdict.lost,
            "doubled": self.verdict.doubled,
            "wrong": list(self.verdict.wrong),
            "totals": {
                name: {"purchases": s.purchases, "cds": s.cds, "dollars": str(s.dollars)}
                for name, s in self.totals().items()
            },
        }

    def totals(self) -> dict[str, Sums]:
        """The grand total by each way of counting; all must be equal."""
        return {
            "file": _total(self.expected.customers.values()),
            "customers": _total(self.told.customers.values()),
            "days": _total(self.told.days.values()),
            "months": _total(self.told.months.values()),
        }


def _total(parts: Iterable[Sums]) -> Sums:
    total = Sums()
    for part in parts:
        total.purchases += part.purchases
        total.cds += part.cds
        total.dollars += part.dollars
    return total


class Screen:
    """Where the demo is seen. For machines, all but the result goes to standard error.

    Args:
        total: purchases to make.
        as_json: whether the result is one JSON object.
    """

    def __init__(self, *, total: int, as_json: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._as_json = as_json
        self._console = Console(stderr=as_json, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._bar = self._progress.add_task("purchases", total=total, rate="")

    def step(self, text: str) -> None:
        """Say what happens now."""
        self._console.print(f"[dim]{text}[/dim]")

    def note(self, text: str) -> None:
        """Say what has happened, above the bar."""
        self._progress.console.print(f"[bold]{text}[/bold]")

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Show the bar meanwhile."""
        with self._progress:
            yield

    def advance(self) -> None:
        """One purchase has been made."""
        self._progress.advance(self._bar)

    def show(self, result: Result) -> None:
        """Print the result."""
        if self._as_json:
            click.echo(json.dumps(result.as_json()))
            return
        from rich.table import Table

        facts = Table(show_header=False, title="Durum's shop", title_justify="left")
        for name, value in _facts(result):
            facts.add_row(name, value)
        sums = Table(title="Totals, counted four ways", title_justify="left")
        for column in ("", "purchases", "CDs", "dollars"):
            sums.add_column(column, justify="left" if not column else "right")
        for name, total in result.totals().items():
            label = "straight from the file" if name == "file" else f"the {name}' actors"
            sums.add_row(label, f"{total.purchases:,}", f"{total.cds:,}", _money(total.dollars))
        self._console.print()
        self._console.print(facts)
        self._console.print(sums)
        self._verdict(result.verdict)
        if result.days_closed < len(result.expected.days):
            still = len(result.expected.days) - result.days_closed
            self._console.print(f"[bold red]WRONG: {still} days were not closed in time.[/]")
        if result.right:
            self._next()

    def _verdict(self, verdict: Verdict) -> None:
        if verdict.right:
            self._console.print(
                "[bold green]Equal to the cent: no purchase was lost, none was doubled.[/]"
            )
            return
        self._console.print(
            f"[bold red]WRONG: {verdict.lost} entries lost, {verdict.doubled} doubled.[/]"
        )
        for line in verdict.wrong[:10]:
            self._console.print(f"  {line}")

    def _next(self) -> None:
        from rich.syntax import Syntax

        self._console.print("\nYour turn. Put this into [bold]hello.py[/bold]:\n")
        self._console.print(Syntax(_NEXT, "python", background_color="default"))
        durum = (
            "durum"
            if shutil.which("durum")
            else min(os.path.relpath(sys.argv[0]), sys.argv[0], key=len)
        )
        self._console.print(
            "then run\n\n"
            f"    {durum} dev hello.py\n"
            f"    {durum} call Greeter bob hello Ann      [dim](in another terminal)[/dim]\n"
        )


def _facts(result: Result) -> Iterator[tuple[str, str]]:
    yield "purchases", f"{result.purchases:,}"
    yield "customers", f"{len(result.expected.customers):,}"
    yield "ledgers", f"{len(result.expected.days):,} days, {len(result.expected.months):,} months"
    yield "silos", f"{result.silos} processes on {result.store}"
    yield "if the power fails", result.durability
    rate = result.turns / result.seconds
    yield (
        "durable turns",
        f"{result.turns:,} (a call and two messages each) in {result.seconds:.1f} s: {rate:,.0f} per s",
    )
    yield "closed by reminders", f"{result.days_closed:,} days"
    if result.failover is None:
        yield "killed", "nobody"
        return
    gone = result.failover
    yield "killed", f"{gone.killed} with SIGKILL, after {gone.after_purchases:,} purchases"
    yield "failover", f"{gone.seconds:.2f} s until all of {gone.watched} keys answered again"
    yield "joined", gone.joined


def _money(amount: Decimal) -> str:
    return f"{amount:,.2f}"
