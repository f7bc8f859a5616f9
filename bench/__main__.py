"""Runs the benchmarks: one JSON line for each figure on standard output, one for people on standard error.

calls     calls that commit nothing, beside a bare yardstick
rich      the same, beside a yardstick that decodes by type, keeps deadlines, contexts and mailboxes
durable   durable turns: Redis beside the yardstick, SQLite beside its own store
scale     cost of a call from ten actors to a million
metrics   cost of counting and scraping
starts    import, command, silo until ready
memory    bytes of an activation
messages  durable turns that tell another actor, beside those that do not
reminders 100,000 due in a minute beside calls; a million that are not due
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from bench import calls, durable, memory, messages, metered, reminders, report, scale, starts
from bench.processes import ROOT
from bench.rounds import FULL, QUICK, Effort, Figure, Reading

QUESTIONS: Final[dict[str, Callable[[Effort], Iterator[Figure | Reading]]]] = {
    "calls": calls.figures,
    "rich": calls.rich_figures,
    "durable": durable.figures,
    "scale": scale.figures,
    "metrics": metered.figures,
    "starts": starts.figures,
    "memory": memory.figures,
    "messages": messages.figures,
    "reminders": reminders.figures,
}

RESULTS: Final = ROOT / "bench" / "RESULTS.md"


def main() -> int:
    """Measure what was asked for.

    Returns:
        1 with --check where a figure is below its bar, else 0.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("question", nargs="*", help=f"{', '.join(QUESTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="three minutes instead of ten or more")
    parser.add_argument("--write", action="store_true", help="write bench/RESULTS.md")
    parser.add_argument(
        "--page", nargs="+", metavar="FILE", help="write it from figures that were printed before"
    )
    parser.add_argument("--check", action="store_true", help="fail where a bar is missed")
    given = parser.parse_args()
    if unknown := [each for each in given.question if each not in QUESTIONS]:
        parser.error(f"no question {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    effort = QUICK if given.quick else FULL
    if given.page:
        RESULTS.write_text(report.results(report.read(given.page), effort), encoding="utf-8")
        return 0
    found: list[Figure | Reading] = []
    for name in given.question or QUESTIONS:
        for one in QUESTIONS[name](effort):
            figure = msgspec.structs.replace(one, load=round(os.getloadavg()[0], 1))
            found.append(figure)
            print(report.as_json(figure), flush=True)
            print(report.as_text(figure), file=sys.stderr, flush=True)
    if given.write:
        RESULTS.write_text(report.results(found, effort), encoding="utf-8")
    return int(given.check and any(figure.short for figure in found))


if __name__ == "__main__":
    sys.exit(main())
