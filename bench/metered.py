"""What do metrics cost? The same calls with the counters taken out, with them, and with scrapes besides.

python -m bench.metered silo              a silo whose counters count nothing
python -m bench.metered scrape ADDRESS    asks for its /metrics each second
"""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Iterator
from typing import Final

from bench import load
from bench.processes import Crew, Process, cores
from bench.rounds import Contender, Effort, Figure, compare
from durum.cli import main
from durum.silo.meters import Durations, Meter

BAR: Final = round(1 / 1.05, 3)
"""By CPU time: at most 5 per cent more than without counters."""
_LEVELS: Final = (256,)
_SCRAPE_S: Final = 1.0
_SILO: Final = ("silo", "bench/subject.py", "--log-level", "warning", "--store", "memory:")


def figures(effort: Effort) -> Iterator[Figure]:
    """Measure on one core, where figures are steadier; each round is long enough for a scrape."""
    # A few per cent need more rounds than a factor does.
    long = Effort(3 * effort.rounds, max(effort.seconds, _SCRAPE_S))
    with Crew(cores()[-1:]) as crew:
        for figure in compare("metrics", "one core", _contenders(crew), _LEVELS, long):
            promised = figure.cpu_ratio is not None
            yield figure.with_bar(BAR if promised else None, by_cpu=True)


def _contenders(crew: Crew) -> list[Contender]:
    without = crew.python("silo", "-m", "bench.metered", "silo")
    scraped = crew.python("silo", "-m", "durum", *_SILO, "--metrics-port", "0")
    return [
        _contender(crew, "no counters", without),
        _contender(crew, "counters", crew.silo("memory:")),
        _contender(crew, "counters, scraped each second", scraped),
    ]


def _contender(crew: Crew, name: str, silo: Process) -> Contender:
    told = silo.first_line()
    client = crew.python("client", "-m", "bench.subject", str(told["address"]), "Ping")
    client.first_line()
    if told.get("pages"):
        crew.python("scraper", "-m", "bench.metered", "scrape", str(told["pages"])).first_line()
    return Contender(name, client, (silo,))


def scrape(address: str) -> None:
    """Ask for the metrics until the silo is gone."""
    connection = http.client.HTTPConnection(address, timeout=10)
    while True:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        page = answer.read()
        if answer.status != 200 or b"durum_" not in page:
            raise RuntimeError(f"{address} answered {answer.status}: {page[:80]!r}")
        load.say({"bytes": len(page)})
        time.sleep(_SCRAPE_S)


def uncounted() -> None:
    """Run a silo whose counters count nothing."""
    for cls, name in ((Meter, "at_once"), (Meter, "ended"), (Durations, "add")):
        setattr(cls, name, _nothing)
    sys.argv = ["durum", *_SILO]
    sys.exit(main.main())


def _nothing(*_: object) -> None:
    pass


if __name__ == "__main__":
    if sys.argv[1] == "silo":
        uncounted()
    else:
        scrape(sys.argv[2])
