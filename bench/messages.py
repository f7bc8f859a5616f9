"""What does a message cost? A durable turn that tells another actor, beside one that tells nobody, on Redis.

Each pays for the whole of it: the silo is left alone again only when all messages have arrived.

    python -m bench.messages ADDRESS plain|tell    calls, as told on standard input
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import durum
from bench import load
from bench.processes import ROOT, Crew, Process, places
from bench.rounds import Contender, Effort, Figure, compare

LEVELS: Final = (1, 64, 256)
BAR: Final = 0.4
_LOOKS_S: Final = 0.002
_arrived = 0  # in the silo's process, which is one


class Sender(durum.Actor):
    """With one durable field: each turn is a commit, with a message or without."""

    total: int = 0

    async def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    async def add_and_tell(self, amount: int) -> int:
        self.total += amount
        self.tell(self.actor(Receiver, self.key).take, amount)
        return self.total


class Receiver(durum.Actor):
    """With one durable field: each message is a commit."""

    total: int = 0

    async def take(self, amount: int) -> None:
        global _arrived  # noqa: PLW0603 - to be asked for without a call to each
        self.total += amount
        _arrived += 1


class Observer(durum.Actor):
    """Knows how many messages have arrived at all receivers."""

    async def arrived(self) -> int:
        return _arrived


def figures(effort: Effort) -> Iterator[Figure]:
    """Measure on one core, where figures are steadier, and on all."""
    for place, on in places().items():
        with Crew(on) as crew:
            for figure in compare("message, Redis", place, contenders(crew), LEVELS, effort):
                promised = figure.in_flight == 256 and figure.contender == "turn that tells"
                yield figure.with_bar(BAR if promised else None)


def contenders(crew: Crew) -> list[Contender]:
    """Two clients of one silo."""
    redis, port = crew.redis()
    url = f"redis://127.0.0.1:{port}/0"
    create = [sys.executable, "-m", "durum", "init", "--store", url]
    subprocess.run(create, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    silo = crew.silo(url, "bench/messages.py")
    address = str(silo.first_line()["address"])

    def client(how: str) -> Process:
        process = crew.python("client", "-m", "bench.messages", address, how)
        process.first_line()
        return process

    return [
        Contender("plain turn", client("plain"), (silo, redis)),
        Contender("turn that tells", client("tell"), (silo, redis)),
    ]


async def play(address: str, how: str) -> None:
    """Make calls as told."""
    async with durum.connect(address) as cluster:
        observer = cluster.actor(Observer, "only")
        due = await observer.arrived()

        async def settled(calls: int) -> None:
            nonlocal due
            due += calls
            while await observer.arrived() < due:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(_LOOKS_S)

        if how == "plain":
            await load.obey(lambda key: cluster.actor(Sender, key).add(1))
        else:
            await load.obey(lambda key: cluster.actor(Sender, key).add_and_tell(1), after=settled)


if __name__ == "__main__":
    load.run(play(sys.argv[1], sys.argv[2]))
