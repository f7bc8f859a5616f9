"""What does a durable turn cost? One counter field, on Redis beside the yardstick, and on SQLite alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence

from bench.processes import ROOT, Crew, cores
from bench.rounds import Contender, Effort, Figure, compare

LEVELS = (1, 64, 256)
BAR = 0.3


def figures(effort: Effort) -> Iterator[Figure]:
    """Measure on one core and on all."""
    places: dict[str, Sequence[int]] = {"all cores": cores()}
    if cores():
        places = {"one core": cores()[-1:], **places}
    for place, on in places.items():
        with Crew(on) as crew:
            yield from compare("durable turn, Redis", place, on_redis(crew), LEVELS, effort, _bar)
        with Crew(on) as crew:
            yield from compare("durable turn, SQLite", place, on_sqlite(crew), LEVELS, effort, _no_bar)


def on_redis(crew: Crew) -> list[Contender]:
    """The yardstick and Durum on one server."""
    redis, port = crew.redis()
    bare = crew.python("silo", "-m", "bench.yardstick", "serve", str(port))
    bare_port = str(bare.first_line()["port"])
    bare_client = crew.python("client", "-m", "bench.yardstick", "play", bare_port, "durable")
    bare_client.first_line()
    return [
        Contender("yardstick", bare_client, (bare, redis)),
        _durum(crew, f"redis://127.0.0.1:{port}/0", (redis,)),
    ]


def on_sqlite(crew: Crew) -> list[Contender]:
    """Durum on a file of its own."""
    return [_durum(crew, f"sqlite:///{crew.folder}/bench.db", ())]


def _durum(crew: Crew, url: str, others: tuple[()] | tuple[object, ...]) -> Contender:
    subprocess.run(
        [sys.executable, "-m", "durum", "init", "--store", url],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    silo = crew.python("silo", "-m", "durum", "silo", "bench/subject.py", "--store", url)
    address = str(silo.first_line()["address"])
    client = crew.python("client", "-m", "bench.subject", address, "default", "Counter")
    client.first_line()
    return Contender("durum", client, (silo, *others))


def _bar(name: str, in_flight: int) -> float | None:
    return BAR if name == "durum" and in_flight == 256 else None


def _no_bar(name: str, in_flight: int) -> float | None:
    del name, in_flight
    return None
