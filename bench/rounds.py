"""Contenders measured side by side. Owns rounds, medians, ratios and the form of a figure; starts nothing.

Each round plays every contender once, in turn, so that a neighbour's burst falls on all alike; a ratio
is the median of the rounds' ratios. CPU time per call is the steadier second figure.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

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


FULL = Effort(9, 0.4)
QUICK = Effort(3, 0.4)


class Reading(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the result that is no rate.

    Args:
        question: what was asked.
        name: of what it is the measure.
        value: the median.
        unit: its unit.
        bar: what it should stay under, or None where nothing was promised.
        note: for people.
        load: as in Figure.
    """

    question: str
    name: str
    value: float
    unit: str
    bar: float | None = None
    note: str = ""
    load: float = 0.0

    @property
    def short(self) -> bool:
        """It is above its bar."""
        return self.bar is not None and self.value > self.bar


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


class _Round(msgspec.Struct, frozen=True):
    calls_per_s: float
    cpu_us: dict[str, float]


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the result.

    Args:
        question: what was asked.
        contender: whose figure.
        place: "one core" or "all cores".
        in_flight: calls under way at any time.
        calls_per_s: the median of the rounds.
        cpu_us: CPU microseconds of one call, for each process and in all.
        rounds: calls per second of each round.
        ratio: to the yardstick, by calls per second.
        cpu_ratio: to the yardstick, by CPU time; 1 would be as little as the yardstick needs.
        spread: first and third quartile of the ratio by CPU time.
        bar: what the ratio should reach, or None where nothing was promised.
        by_cpu: the bar is for the ratio by CPU time: a difference of a few per cent drowns in the other.
        load: of the machine when this was found: its load average over a minute, ours included.
    """

    question: str
    contender: str
    place: str
    in_flight: int
    calls_per_s: int
    cpu_us: dict[str, float]
    rounds: tuple[int, ...]
    ratio: float | None = None
    cpu_ratio: float | None = None
    spread: tuple[float, float] | None = None
    bar: float | None = None
    by_cpu: bool = False
    load: float = 0.0

    @property
    def short(self) -> bool:
        """It does not reach its bar."""
        reached = self.cpu_ratio if self.by_cpu else self.ratio
        return self.bar is not None and reached is not None and reached < self.bar

    def with_bar(self, bar: float | None, *, by_cpu: bool = False) -> Figure:
        """The same with what it should reach."""
        return msgspec.structs.replace(self, bar=bar, by_cpu=by_cpu)

    def beside(self, own: Sequence[_Round], first: Sequence[_Round]) -> Figure:
        """The same with ratios to the yardstick's rounds."""
        pairs = list(zip(own, first, strict=True))
        rate = _median(mine.calls_per_s / its.calls_per_s for mine, its in pairs)
        with_ratio = msgspec.structs.replace(self, ratio=round(rate, 3))
        if not all(mine.cpu_us["all"] for mine in own):
            return with_ratio  # this system does not tell
        cpu = [its.cpu_us["all"] / mine.cpu_us["all"] for mine, its in pairs]
        low, middle, high = statistics.quantiles(cpu, n=4) if len(cpu) > 1 else cpu * 3
        return msgspec.structs.replace(
            with_ratio, cpu_ratio=round(middle, 3), spread=(round(low, 3), round(high, 3))
        )


def compare(
    question: str,
    place: str,
    contenders: Sequence[Contender],
    levels: Sequence[int],
    effort: Effort,
) -> Iterator[Figure]:
    """Measure all contenders at all levels. The first one is the yardstick of the others.

    Args:
        question: for the figures.
        place: for the figures.
        contenders: who.
        levels: numbers of calls in flight.
        effort: how long.
    """
    for level in levels:
        for each in contenders:
            each.client.play(max(level, 16), min(0.5, effort.seconds))  # warms up every actor
        rounds = [[_play(each, level, effort) for each in contenders] for _ in range(effort.rounds)]
        for index, each in enumerate(contenders):
            own = [one[index] for one in rounds]
            figure = Figure(question, each.name, place, level, *_medians(own))
            yield figure if index == 0 else figure.beside(own, [one[0] for one in rounds])


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


def _medians(own: Sequence[_Round]) -> tuple[int, dict[str, float], tuple[int, ...]]:
    rates = tuple(round(one.calls_per_s) for one in own)
    cpu_us = {name: round(_median(one.cpu_us[name] for one in own), 2) for name in own[0].cpu_us}
    return round(statistics.median(rates)), cpu_us, rates


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
