"""Durum as the benchmark uses it: two kinds of actor, and a client that calls them through the public API.

The silo is `durum silo bench/subject.py`, as in production.

    python -m bench.subject ADDRESS Ping|Counter [held] [ACTORS [CALLED]]    calls, as told on standard input
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import durum
from bench import load


class Ping(durum.Actor):
    """Without durable fields: its turns commit nothing."""

    _total: int = 0

    async def add(self, amount: int) -> int:
        self._total += amount
        return self._total


class Counter(durum.Actor):
    """With one durable field: each turn is a commit."""

    total: int = 0

    async def add(self, amount: int) -> int:
        self.total += amount
        return self.total


KINDS: Final[dict[str, type[Ping] | type[Counter]]] = {"Ping": Ping, "Counter": Counter}


async def play(address: str, kind_name: str, keys: Sequence[str], *, held: bool) -> None:
    """Make calls as told.

    Args:
        address: the silo's.
        kind_name: of KINDS.
        keys: of the actors that are called.
        held: keep one reference for each key, instead of making one for each call.
    """
    kind = KINDS[kind_name]
    async with durum.connect(address) as cluster:
        if held:
            references = {key: cluster.actor(kind, key) for key in keys}
            await load.obey(lambda key: references[key].add(1), keys)
        else:
            await load.obey(lambda key: cluster.actor(kind, key).add(1), keys)


if __name__ == "__main__":
    numbers = [int(each) for each in sys.argv[3:] if each.isdigit()]
    load.run(play(sys.argv[1], sys.argv[2], load.keys(*numbers), held="held" in sys.argv))
