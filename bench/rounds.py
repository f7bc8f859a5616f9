"""Contenders measured side by side. Owns rounds, medians, ratios and the form of a figure; starts nothing.

Each round plays every contender once, in turn, so that a neighbour's burst falls on all alike; a ratio
is the median of the rounds' ratios. CPU time per call is the steadier second figure.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

import msgspec

from bench.processes import Process


class Effort(msgspec.Struct, frozen=True):
    """How much time to spend.

    Args:
        rounds: of each level.
        seconds: of one round of one contender.
    """

    rounds: int
    seconds: float


FULL = Effort(7, 1.0)
QUICK = Effort(3, 0.4)


class Contender(msgspec.Struct, frozen=True):
    """One of those who are compared.

    Args:
        name: for people.
        client: makes the calls.
        others: the processes behind it, whose CPU time counts too.
    """

    name: str
    client: Process
    others: tuple[Process, ...]


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the result.

    Args:
        question: what was asked.
        contender: whose figure.
        place: "one core" or "all cores".
        in_flight: calls under way at any time.
        calls_per_s: the median of the rounds.
        cpu_us: CPU microseconds of one call, for each process and in all.
        ratio: to the yardstick, by calls per second.
        cpu_ratio: to the yardstick, by CPU time; above 1 would be less than the yardstick's.
        bar: what the ratio should reach, or None where nothing was promised.
        rounds: calls per second of each round.
    """

    question: str
    contender: str
    place: str
    in_flight: int
    calls_per_s: float
    cpu_us: dict[str, float]
    ratio: float | None = None
    cpu_ratio: float | None = None
    bar: float | None = None
    rounds: tuple[float, ...] = ()


class _Round(msgspec.Struct, frozen=True):
    calls_per_s: float
    cpu_us: dict[str, float]


def compare(
    question: str,
    place: str,
    contenders: Sequence[Contender],
    levels: Sequence[int],
    effort: Effort,
    bar: Callable[[str, int], float | None],
) -> Iterator[Figure]:
    """Measure all contenders at all levels. The first one is the yardstick of the others.

    Args:
        question: for the figures.
        place: for the figures.
        contenders: who.
        levels: numbers of calls in flight.
        effort: how long.
        bar: what a contender should reach at a level.
    """
    for level in levels:
        for each in contenders:
            each.client.play(max(level, 16), min(0.5, effort.seconds))  # warms up every actor
        rounds = [[_play(each, level, effort) for each in contenders] for _ in range(effort.rounds)]
        for index, each in enumerate(contenders):
            own = [one[index] for one in rounds]
            first = [one[0] for one in rounds] if index else None
            yield _figure(question, place, each.name, level, own, first, bar(each.name, level))


def _play(contender: Contender, in_flight: int, effort: Effort) -> _Round:
    processes = (contender.client, *contender.others)
    before = [each.cpu_s() for each in processes]
    played = contender.client.play(in_flight, effort.seconds)
    after = [each.cpu_s() for each in processes]
    cpu_us = {
        each.name: (late - early) * 1e6 / played.calls
        for each, early, late in zip(processes, before, after, strict=True)
    }
    cpu_us["all"] = sum(cpu_us.values())
    return _Round(played.calls / played.seconds, cpu_us)


def _figure(
    question: str,
    place: str,
    name: str,
    level: int,
    own: Sequence[_Round],
    first: Sequence[_Round] | None,
    bar: float | None,
) -> Figure:
    ratio = cpu_ratio = None
    if first is not None:
        pairs = list(zip(own, first, strict=True))
        ratio = round(_median(mine.calls_per_s / its.calls_per_s for mine, its in pairs), 3)
        if own[0].cpu_us["all"]:
            cpu_ratio = round(_median(its.cpu_us["all"] / o.cpu_us["all"] for o, its in pairs), 3)
    return Figure(
        question,
        name,
        place,
        level,
        round(_median(one.calls_per_s for one in own)),
        {name: round(_median(one.cpu_us[name] for one in own), 2) for name in own[0].cpu_us},
        ratio,
        cpu_ratio,
        bar,
        tuple(round(one.calls_per_s) for one in own),
    )


def _median(values: Iterator[float]) -> float:
    return statistics.median(values)
