"""What does a call cost that commits nothing? Two yardsticks and Durum, one client and one silo each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bench.processes import Crew, Process, places
from bench.rounds import Contender, Effort, Figure, compare

LEVELS: Final = (1, 64, 256)
BAR: Final = 0.35
RICH_BAR: Final = 0.5


def figures(effort: Effort) -> Iterator[Figure]:
    """Measure on one core, where figures are steadier, and on all."""
    yield from _beside("bench.yardstick", "calls", BAR, effort)


def rich_figures(effort: Effort) -> Iterator[Figure]:
    """The same beside the yardstick that also decodes by type, keeps deadlines, contexts and mailboxes."""
    yield from _beside("bench.yardstick_rich", "calls, richer yardstick", RICH_BAR, effort)


def _beside(yardstick: str, question: str, bar: float, effort: Effort) -> Iterator[Figure]:
    for place, on in places().items():
        with Crew(on) as crew:
            for figure in compare(question, place, contenders(crew, yardstick), LEVELS, effort):
                # On two cores the figure is the scheduler's also: who waits for whom, and how long.
                promised = figure.in_flight > 1 and place == "one core"
                promised = promised and figure.contender == "durum"
                # On one core a call's CPU time is its rate, less what neighbours take of that core.
                yield figure.with_bar(bar if promised else None, by_cpu=True)


def contenders(crew: Crew, yardstick: str) -> list[Contender]:
    """Start a yardstick, and Durum with two clients.

    A reference is made for each call, as in a web handler that has only a key; the second client keeps one
    for each key.
    """
    bare = crew.python("silo", "-m", yardstick, "serve")
    bare_port = str(bare.first_line()["port"])
    bare_client = crew.python("client", "-m", yardstick, "play", bare_port)
    silo = crew.silo("memory:")
    address = str(silo.first_line()["address"])

    def client(*mode: str) -> Process:
        return crew.python("client", "-m", "bench.subject", address, "Ping", *mode)

    found = [
        Contender("yardstick", bare_client, (bare,)),
        Contender("durum", client(), (silo,)),
        Contender("durum, references held", client("held"), (silo,)),
    ]
    for each in found:
        each.client.first_line()
    return found
