"""What does a durable turn cost? One counter field: on Redis beside the yardstick, which runs the same commit
script, and on SQLite beside its own store, to which the same commits are fed without silo and wire."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from bench.processes import ROOT, Crew, Process, places
from bench.rounds import Contender, Effort, Figure, compare

LEVELS: Final = (1, 64, 256)
REDIS_BAR: Final = 0.4
SQLITE_BAR: Final = 0.3


def figures(effort: Effort) -> Iterator[Figure]:
    """Measure on one core, where figures are steadier, and on all."""
    for place, on in places().items():
        with Crew(on) as crew:
            for figure in compare("durable turn, Redis", place, on_redis(crew), LEVELS, effort):
                promised = figure.in_flight == 256 and figure.contender == "durum"
                yield figure.with_bar(REDIS_BAR if promised else None)
        with Crew(on) as crew:
            for figure in compare("durable turn, SQLite", place, on_sqlite(crew), LEVELS, effort):
                promised = figure.in_flight == 256 and figure.contender == "durum"
                yield figure.with_bar(SQLITE_BAR if promised else None)


def on_redis(crew: Crew) -> list[Contender]:
    """The yardstick and Durum on one server: append-only file, fsync each second."""
    redis, port = crew.redis()
    bare = crew.python("silo", "-m", "bench.yardstick", "serve", str(port))
    bare_port = str(bare.first_line()["port"])
    bare_client = crew.python("client", "-m", "bench.yardstick", "play", bare_port, "durable")
    bare_client.first_line()
    return [
        Contender("yardstick", bare_client, (bare, redis)),
        _durum(crew, f"redis://127.0.0.1:{port}/0", redis),
    ]


def on_sqlite(crew: Crew) -> list[Contender]:
    """The store by itself and Durum, each on a file of its own."""
    raw = crew.python("store", "-m", "bench.raw_store", "play", f"sqlite:///{crew.folder}/raw.db")
    raw.first_line()
    return [
        Contender("store alone", raw, ()),
        _durum(crew, f"sqlite:///{crew.folder}/bench.db"),
    ]


def _durum(crew: Crew, url: str, *others: Process) -> Contender:
    create = [sys.executable, "-m", "durum", "init", "--store", url]
    subprocess.run(create, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    silo = crew.silo(url)
    address = str(silo.first_line()["address"])
    client = crew.python("client", "-m", "bench.subject", address, "Counter")
    client.first_line()
    return Contender("durum", client, (silo, *others))
