"""A store without a silo before it: commits fed to it directly, as fast as so many loops can.

Owns a holding of every partition, and each record's version; knows no call, no actor and no wire.

    python -m bench.raw_store play URL           commits, as told on standard input
    python -m bench.raw_store fill URL COUNT     creates the service with so many counters in it
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import zlib
from typing import Final

import msgspec

from bench import load
from bench.yardstick import CounterState
from durum.cli import init
from durum.clock import SystemClock
from durum.ids import GrainId, SiloId, SystemEntropy, Token
from durum.store.protocol import Commit, Committed, Store, Take
from durum.store.urls import open_store

KIND: Final = "Counter"
_AT_ONCE: Final = 512
_CLUSTER: Final = "default"
_encode = msgspec.msgpack.Encoder().encode


class Counter:
    """One record."""

    __slots__ = ("grain", "partition", "sending", "total")

    def __init__(self, key: str, partitions: int) -> None:
        self.grain = GrainId(f"{KIND}/{key}")
        self.partition = zlib.crc32(self.grain.encode()) % partitions
        self.total = 0  # and its version: each commit adds one
        self.sending: asyncio.Future[Committed] | None = None


class Holder:
    """Whoever holds all partitions of a store.

    Args:
        store: which.
        tokens: of each partition.
    """

    def __init__(self, store: Store, tokens: list[Token]) -> None:
        self._store = store
        self.tokens = tokens
        self._numbers = itertools.count(1)

    async def put(self, counter: Counter) -> None:
        """Add one to a counter, and commit it."""
        while counter.sending is not None:
            await asyncio.wait([counter.sending])
        counter.total += 1
        counter.sending = sending = self._store.commit(
            Commit(
                partition=counter.partition,
                token=self.tokens[counter.partition],
                grain=counter.grain,
                id=b"8 bytes!" + next(self._numbers).to_bytes(8, "big"),
                version=counter.total - 1,
                state=_encode(CounterState(counter.total)),
            )
        )
        await sending
        counter.sending = None


async def hold(store: Store, mark: str, silo: SiloId | None) -> list[Token]:
    """Take all partitions, or release them."""
    entropy = SystemEntropy()
    owners = await store.owners(mark)
    takes = [
        Take(partition=o.partition, seen=o.token, token=entropy.token(), silo=silo) for o in owners
    ]
    return [owner.token for owner in await store.take(mark, takes)]


async def play(url: str) -> None:
    """Commit as told."""
    store, holder = await _open(url)
    counters = {key: Counter(key, len(holder.tokens)) for key in load.KEYS}
    await load.obey(lambda key: holder.put(counters[key]))
    await store.close()


async def fill(url: str, count: int) -> None:
    """Create that many records, and let go."""
    store, holder = await _open(url)
    keys = iter(load.keys(count, count))

    async def some() -> None:
        for key in keys:
            await holder.put(Counter(key, len(holder.tokens)))

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
    genesis = await store.genesis()
    assert genesis is not None
    await hold(store, genesis.mark, None)
    await store.close()
    load.say({"filled": count})


async def _open(url: str) -> tuple[Store, Holder]:
    created = await init.create(url, cluster=_CLUSTER)
    store = await open_store(
        url, cluster=_CLUSTER, clock=SystemClock(), entropy=SystemEntropy(), store_timeout_s=30.0
    )
    return store, Holder(store, await hold(store, created.mark, SiloId("127.0.0.1:1@1")))


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        load.run(fill(sys.argv[2], int(sys.argv[3])))
    else:
        load.run(play(sys.argv[2]))
