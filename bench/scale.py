"""Does a call cost more where there are more actors? One silo for each number of them, called alike.

Without durable fields: all are active. With one: all are in the store, and those called are active; a million
commits were fed to the store before the silo began. Of each number a thousand are called, spread evenly, or
all of ten. What it costs beyond that to call ever others, so that no cache of the processor or of ours
holds them, is shown beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bench.processes import Crew, Process, cores
from bench.rounds import Contender, Effort, Figure, compare

BAR: Final = round(1 / 1.15, 3)
"""By CPU time: at most 15 per cent more than with ten."""
_ACTIVE: Final = (10, 1_000, 100_000)
_STORED: Final = (10, 1_000, 100_000, 1_000_000)
_IN_FLIGHT: Final = (1, 64)
_DURABLE_IN_FLIGHT: Final = (1, 8)  # fewer than ten: turns of one actor wait for each other
_CALLED: Final = 1_000


def figures(effort: Effort) -> Iterator[Figure]:
    """Measure on one core, where figures are steadier."""
    on = cores()[-1:]
    with Crew(on) as crew:
        question = "calls, by number of active actors"
        for figure in compare(question, "one core", _active(crew), _IN_FLIGHT, effort):
            promised = figure.cpu_ratio is not None and "all called" not in figure.contender
            yield figure.with_bar(BAR if promised else None, by_cpu=True)
    for store in ("SQLite", "Redis"):
        with Crew(on) as crew:
            question = f"durable turn, {store}, by number of stored actors"
            contenders = [_stored(crew, store, count) for count in _STORED]
            for figure in compare(question, "one core", contenders, _DURABLE_IN_FLIGHT, effort):
                promised = figure.cpu_ratio is not None
                yield figure.with_bar(BAR if promised else None, by_cpu=True)


def _active(crew: Crew) -> list[Contender]:
    found = []
    for count in _ACTIVE:
        silo = crew.silo("memory:")
        address = str(silo.first_line()["address"])
        everyone = _client(crew, address, "Ping", count, count)
        _call_all(everyone, count)
        some = _client(crew, address, "Ping", count, _CALLED)
        found.append(Contender(f"{count:,}", some, (silo,)))
        if count > _CALLED:
            found.append(Contender(f"{count:,}, all called in turn", everyone, (silo,)))
    return found


def _stored(crew: Crew, store: str, count: int) -> Contender:
    others: tuple[Process, ...] = ()
    if store == "Redis":
        redis, port = crew.redis()
        url, others = f"redis://127.0.0.1:{port}/0", (redis,)
    else:
        url = f"sqlite:///{crew.folder}/{count}.db"
    crew.python("fill", "-m", "bench.raw_store", "fill", url, str(count)).first_line()
    silo = crew.silo(url)
    address = str(silo.first_line()["address"])
    client = _client(crew, address, "Counter", count, _CALLED)
    _call_all(client, min(count, _CALLED))
    return Contender(f"{count:,}", client, (silo, *others))


def _client(crew: Crew, address: str, kind: str, actors: int, called: int) -> Process:
    command = ("-m", "bench.subject", address, kind, "held", str(actors), str(called))
    client = crew.python("client", *command)
    client.first_line()
    return client


def _call_all(client: Process, count: int) -> None:
    """Call until every actor is active."""
    calls = 0
    while calls < 2 * count:
        calls += client.play(_IN_FLIGHT[-1], 1.0).calls
