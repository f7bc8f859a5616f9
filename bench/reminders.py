"""What do reminders cost? 100,000 due within a minute beside calls, and a million that are not due.

    python -m bench.reminders seed URL COUNT FIRST_S SPREAD_S    set them, in a store that no silo serves
    python -m bench.reminders call ADDRESS COUNT UNTIL_S         call other actors until all have ticked

They are set behind the silos' back, since a silo takes a while to be asked so often.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Final

import msgspec

import durum
from bench.processes import ROOT, Crew
from bench.rounds import QUICK, Effort, Reading
from durum.clock import SystemClock
from durum.grains.kind import kind_of
from durum.grains.reminders import Tick
from durum.grains.schedules import Plan, begin
from durum.ids import GrainId, SystemEntropy, Token
from durum.placement.partitions import partition_of
from durum.silo.effects import Staged
from durum.silo.reminders import stage
from durum.store.protocol import Commit, Take
from durum.store.urls import open_store

_DUE: Final = 100_000
_FUTURE: Final = 1_000_000
_SPREAD_S: Final = 60.0
_LEAD_S: Final = 20.0
_LATE_BAR_S: Final = 30.0
_P99_BAR_MS: Final = 50.0
_AT_ONCE: Final = 512
_CALLS_PER_S: Final = 100
_rung: Final = [0, 0.0]


class Bell(durum.Actor):
    """Ticks once."""

    rung: int = 0

    async def on_reminder(self, name: str, tick: Tick) -> None:  # noqa: ARG002 - the hook's signature
        self.rung += 1
        _rung[0] += 1
        _rung[1] = max(_rung[1], time.time() - tick.due.timestamp())


class Census(durum.Actor):
    """What has ticked in its process."""

    @durum.read_only
    async def rung(self) -> tuple[int, float]:
        return int(_rung[0]), _rung[1]


class Counter(durum.Actor):
    """Called meanwhile; each turn is a commit."""

    total: int = 0

    async def add(self, amount: int) -> int:
        self.total += amount
        return self.total


def figures(effort: Effort) -> Iterator[Reading]:
    """Measure on SQLite, and on Redis where it is there."""
    scale = 1 if effort.rounds > QUICK.rounds else 10
    for store in ("SQLite", "Redis"):
        with Crew() as crew:
            url = f"sqlite:///{crew.folder}/due.db"
            if store == "Redis":
                url = f"redis://127.0.0.1:{crew.redis()[1]}/0"
            yield from _due(crew, store, url, _DUE // scale)
    yield from _idle(_FUTURE // scale)


def _due(crew: Crew, store: str, url: str, count: int) -> Iterator[Reading]:
    """Many due within a minute, and calls beside them."""
    lead_s = _LEAD_S + count / 3_000
    first_s = time.time() + lead_s
    _seed(url, count, first_s, _SPREAD_S)
    silo = crew.silo(url, app="bench/reminders.py")
    address = str(silo.first_line()["address"])
    client = crew.python(
        "client", "-m", "bench.reminders", "call", address, str(count), str(first_s)
    )
    found = client.first_line()
    question = f"{count:,} reminders due within {_SPREAD_S:.0f} s, {store}"
    yield Reading(
        question=question,
        name="all delivered after the last was due",
        value=float(str(found["after_s"])),
        unit="s",
        bar=_LATE_BAR_S,
        note=f"the latest by {found['latest_s']} s; silo CPU {silo.cpu_s():.1f} s",
    )
    yield Reading(
        question=question,
        name="p99 of durable calls meanwhile",
        value=float(str(found["p99_ms"])),
        unit="ms",
        bar=_P99_BAR_MS,
        note=f"median {found['median_ms']} ms, {found['calls']} calls; before: p99 {found['before_ms']} ms",
    )


def _idle(count: int) -> Iterator[Reading]:
    """A silo with a million reminders of next year, beside one without."""
    for many in (0, count):
        with Crew() as crew:
            url = f"sqlite:///{crew.folder}/future.db"
            _seed(url, many, time.time() + 31_536_000, 86_400.0)
            began = time.perf_counter()
            silo = crew.silo(url, app="bench/reminders.py")
            silo.first_line()
            ready_s = time.perf_counter() - began
            time.sleep(10.0)  # what comes with the start
            before = silo.cpu_s()
            time.sleep(20.0)
            idle = (silo.cpu_s() - before) / 20.0
            question = f"{many:,} reminders of next year, SQLite"
            yield Reading(question, "silo until ready", round(ready_s * 1000), "ms")
            yield Reading(question, "CPU of the idle silo", round(idle * 100, 2), "%")


def _seed(url: str, count: int, first_s: float, spread_s: float) -> None:
    command = [sys.executable, "-m", "bench.reminders", "seed", url, str(count)]
    subprocess.run([*command, str(first_s), str(spread_s)], cwd=ROOT, check=True)


async def seed(url: str, count: int, first_s: float, spread_s: float) -> None:
    """Make a service, and set a reminder for each of many actors."""
    init = [sys.executable, "-m", "durum", "init", "--store", url]
    subprocess.run(init, check=True, stdout=subprocess.DEVNULL)  # noqa: ASYNC221 - nothing else runs
    store = await open_store(url, cluster="default", clock=SystemClock(), entropy=SystemEntropy())
    genesis = await store.genesis()
    assert genesis is not None
    owners = await store.owners(genesis.mark)
    takes = [
        Take(partition=each.partition, seen=each.token, token=Token(os.urandom(16)), silo=None)
        for each in owners
    ]
    tokens = [each.token for each in await store.take(genesis.mark, takes)]
    name, now_ms = kind_of(Bell).name, int(time.time() * 1000)
    for start in range(0, count, _AT_ONCE):
        sent = []
        for number in range(start, min(start + _AT_ONCE, count)):
            grain, staged = GrainId(f"{name}/{number}"), Staged()
            at_ms = int((first_s + spread_s * number / count) * 1000)
            stage(staged, "bell", begin(Plan(at_ms=at_ms), now_ms))
            partition = partition_of(grain, genesis.partitions)
            sent.append(
                store.commit(
                    Commit(
                        partition=partition,
                        token=tokens[partition],
                        grain=grain,
                        id=os.urandom(16),
                        version=0,
                        parts=staged.parts,
                        wake=staged.wake,
                    )
                )
            )
        await asyncio.gather(*sent)
    await store.close()


async def call(address: str, count: int, first_s: float) -> None:
    """Call durable actors at a steady rate until all reminders have ticked, and say how it went."""
    async with durum.connect(address) as cluster:
        took: list[tuple[float, float]] = []
        tasks: set[asyncio.Task[None]] = set()

        async def one(number: int) -> None:
            began = time.perf_counter()
            await cluster.actor(Counter, f"c-{number % 100}").add(1)
            took.append((time.time(), time.perf_counter() - began))

        number, rung, latest_s, asked = 0, 0, 0.0, 0.0
        while rung < count and time.time() < first_s + 300:
            number += 1
            task = asyncio.get_running_loop().create_task(one(number))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(1 / _CALLS_PER_S)
            if time.time() - asked > 0.5:
                asked = time.time()
                rung, latest_s = await cluster.actor(Census, "c").rung()
        done = time.time()
        await asyncio.gather(*tasks)
    before = [seconds for at, seconds in took if at < first_s]
    during = [seconds for at, seconds in took if at >= first_s]
    answer = {
        "after_s": round(max(0.0, done - first_s - _SPREAD_S), 1),
        "rung": rung,
        "latest_s": round(latest_s, 2),
        "calls": len(during),
        "p99_ms": _p99_ms(during),
        "median_ms": round(statistics.median(during) * 1000, 1),
        "before_ms": _p99_ms(before),
    }
    print(msgspec.json.encode(answer).decode(), flush=True)


def _p99_ms(seconds: list[float]) -> float:
    return round(statistics.quantiles(seconds, n=100)[98] * 1000, 1) if len(seconds) > 1 else 0.0


def main() -> None:
    """Be one of the processes."""
    match sys.argv[1:]:
        case ["seed", url, count, first_s, spread_s]:
            asyncio.run(seed(url, int(count), float(first_s), float(spread_s)))
        case ["call", address, count, first_s]:
            asyncio.run(call(address, int(count), float(first_s)))


if __name__ == "__main__":
    main()
