"""How long actors are away when their silo is killed or stopped. Owns the faults and the stopwatch.

    python -m bench.failover [--store URL] [--kills 10] [--stops 3] [--json]

Three silo processes serve two hundred durable actors while callers keep calling. A fault falls on one silo;
the figure is the time from the signal until every actor has answered again. A killed silo is replaced before
the next fault; so is a stopped one, after it was continued and has ended by itself.

The store is a Redis of its own unless another is named. On an SQLite file a silo that is stopped within a
write keeps the file's lock, and all others wait until it goes on: that would measure SQLite.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

import durum
from bench import processes, subject
from durum import errors
from durum.cli import exits, init
from durum.cli.fleet import Fleet, Member
from durum.client.client import Cluster

KEYS: Final = tuple(f"user-{number}" for number in range(200))
CALLERS: Final = 8
SILOS: Final = 3
APP: Final = str(Path(subject.__file__))
_PAUSE_S: Final = 0.03  # of each caller, so that the machine is not what is measured
_PATIENCE_S: Final = 60.0


class Figure(msgspec.Struct, frozen=True):
    """What one kind of fault did.

    Args:
        fault: "SIGKILL" or "SIGSTOP".
        bar_s: what the median should stay under.
        median_s: of all times.
        times_s: of each fault, seconds until every actor had answered.
        unknown: calls that ended in an error; each says that it may have run.
    """

    fault: str
    bar_s: float
    median_s: float
    times_s: tuple[float, ...]
    unknown: int


class Callers:
    """Calls that go on all the while.

    Args:
        cluster: whom to call through.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.unknown = 0
        self.over = False

    async def call(self, first: int) -> None:
        for number in itertools.count(first):
            if self.over:
                return
            counter = self._cluster.actor(subject.Counter, KEYS[number * 7 % len(KEYS)])
            try:
                await durum.options(counter, timeout=_PATIENCE_S).add(1)
            except errors.CallError:
                self.unknown += 1
            await asyncio.sleep(_PAUSE_S)

    async def all_answer(self) -> None:
        """Call every actor, with a key, so that a call under way at the fault is repeated."""
        await asyncio.gather(*(self._answer(key) for key in KEYS))

    async def _answer(self, key: str) -> None:
        counter = self._cluster.actor(subject.Counter, key)
        once = os.urandom(8).hex()
        await durum.options(counter, timeout=_PATIENCE_S, idempotency_key=once).add(1)


async def strike(fleet: Fleet, member: Member, callers: Callers, number: signal.Signals) -> float:
    """Let a fault fall on one silo; return how long it took until all actors had answered."""
    began = time.monotonic()
    os.kill(member.process.pid, number)
    await callers.all_answer()
    took_s = time.monotonic() - began
    if number is signal.SIGSTOP:
        os.kill(member.process.pid, signal.SIGCONT)
    async with asyncio.timeout(_PATIENCE_S):
        code = await member.process.wait()
    expected = exits.DECLARED_DEAD if number is signal.SIGSTOP else -signal.SIGKILL
    if code != expected:
        raise RuntimeError(f"{member.name} ended with {code}, not {expected}: see {member.log}")
    await fleet.start()
    await callers.all_answer()
    return took_s


async def measure(url: str, kills: int, stops: int) -> list[Figure]:
    """Measure both faults."""
    with tempfile.TemporaryDirectory(prefix="durum-bench-") as folder:
        cluster_name = f"failover-{os.urandom(4).hex()}"
        await init.create(url, cluster=cluster_name)
        arguments = [APP, "--store", url, "--cluster", cluster_name]
        async with Fleet(arguments, Path(folder)) as fleet:
            for _ in range(SILOS):
                await fleet.start()
            addresses = [member.address for member in fleet.members]
            async with (
                durum.connect(addresses, cluster=cluster_name) as cluster,
                asyncio.TaskGroup() as tasks,
            ):
                callers = Callers(cluster)
                for number in range(CALLERS):
                    tasks.create_task(callers.call(number * 13))
                await callers.all_answer()
                figures = []
                for fault, bar_s, count in (
                    (signal.SIGKILL, 2.0, kills),
                    (signal.SIGSTOP, 10.0, stops),
                ):
                    if count:
                        figures.append(await _figure(fleet, callers, fault, bar_s, count))
                callers.over = True
            return figures


async def _figure(
    fleet: Fleet, callers: Callers, fault: signal.Signals, bar_s: float, count: int
) -> Figure:
    unknown = callers.unknown
    times = []
    for round_number in range(count):
        # The oldest first, then the others in turn.
        member = fleet.members[round_number % SILOS]
        times.append(await strike(fleet, member, callers, fault))
    return Figure(
        fault=fault.name,
        bar_s=bar_s,
        median_s=statistics.median(times),
        times_s=tuple(times),
        unknown=callers.unknown - unknown,
    )


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and tell by the exit code whether the bars were met."""
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__)
    parser.add_argument("--store", help="a store's URL; a Redis of its own by default")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--stops", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with processes.Crew() as crew:
        url = options.store or f"redis://127.0.0.1:{crew.redis()[1]}/0"
        figures = asyncio.run(measure(url, options.kills, options.stops))
    if options.json:
        print(json.dumps([msgspec.to_builtins(figure) for figure in figures]))
    else:
        for figure in figures:
            times = " ".join(f"{each:.2f}" for each in figure.times_s)
            print(
                f"{figure.fault}: median {figure.median_s:.2f} s (bar {figure.bar_s:g} s), worst"
                f" {max(figure.times_s):.2f} s; calls of unknown outcome {figure.unknown}; {times}"
            )
    return 0 if all(figure.median_s < figure.bar_s for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
