"""What does a call cost that commits nothing? One client process, one silo process, the yardstick beside them."""

from __future__ import annotations

from collections.abc import Iterator

from bench.processes import Crew, cores
from bench.rounds import Contender, Effort, Figure, compare

LEVELS = (1, 64, 256)
BAR = 0.3


def figures(effort: Effort) -> Iterator[Figure]:
    """Measure on one core, where more can be compared, and on all."""
    places = {"one core": cores()[-1:], "all cores": cores()} if cores() else {"all cores": ()}
    for place, on in places.items():
        with Crew(on) as crew:
            yield from compare("calls", place, contenders(crew), LEVELS, effort, _bar(place))


def contenders(crew: Crew) -> list[Contender]:
    """Start them."""
    bare = crew.python("silo", "-m", "bench.yardstick", "serve")
    port = str(bare.first_line()["port"])
    bare_client = crew.python("client", "-m", "bench.yardstick", "play", port)
    silo = crew.python("silo", "-m", "durum", "silo", "bench/subject.py", "--store", "memory:")
    address = str(silo.first_line()["address"])
    client = crew.python("client", "-m", "bench.subject", address, "default", "Ping")
    holder = crew.python("client", "-m", "bench.subject", address, "default", "Ping", "held")
    for each in (bare_client, client, holder):
        each.first_line()
    return [
        Contender("yardstick", bare_client, (bare,)),
        Contender("durum", client, (silo,)),
        Contender("durum, references held", holder, (silo,)),
    ]


def _bar(place: str):  # type: ignore[no-untyped-def]
    def bar(name: str, in_flight: int) -> float | None:
        # With one call in flight and two cores, the figure is the scheduler's.
        promised = in_flight > 1 or place == "one core"
        return BAR if name == "durum" and promised else None

    return bar
