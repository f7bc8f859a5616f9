"""The store's Protocols on Redis or Valkey. Owns the tables of silos and partitions; grains are with
RedisTurns, on which it stands.

Grains, partitions and the membership table go one way; renewals have their own, since nothing may
stand before them. How many servers are behind a way, this does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from durum import errors
from durum.clock import Clock
from durum.ids import TOKEN_BYTES, Entropy, SiloId
from durum.store import redis_answers, redis_scripts, redis_survey, rows
from durum.store.batches import Batches
from durum.store.protocol import (
    Beat,
    Durability,
    Genesis,
    Owner,
    TableRead,
    Take,
)
from durum.store.redis_hints import Hints
from durum.store.redis_keys import Keys
from durum.store.redis_line import plain
from durum.store.redis_pipe import Guide, Pipe, Way
from durum.store.redis_turns import RedisTurns
from durum.store.redis_url import Place
from durum.views import SiloRow, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The ways to the servers.

    Args:
        main: for everything but renewals; open.
        beats: for renewals; open.
        guide: closed after them.
        home: the pipe to the server with the membership table.
    """

    main: Way
    beats: Way
    guide: Guide
    home: Callable[[], Pipe | None]


class RedisStore(RedisTurns):
    """All Protocols of the store on Redis. Made by `open_redis`.

    Args:
        place: the parsed URL.
        links: the ways to the servers.
        scripts: all that the servers have.
        cluster: the service's name.
        clock: for pauses.
        entropy: jitter of those.
        store_timeout_s: time limit of an operation.
        replicas: how many should have a write before it counts.
        confirm: whether that is waited for.
    """

    shared = True

    def __init__(
        self,
        place: Place,
        links: Links,
        scripts: dict[str, redis_scripts.Script],
        *,
        cluster: str,
        clock: Clock,
        entropy: Entropy,
        store_timeout_s: float,
        replicas: int,
        confirm: bool,
    ) -> None:
        self.url = place.url
        self._place = place
        self._guide = links.guide
        self._replicas = replicas
        self._confirm = confirm
        super().__init__(links.main, Keys(cluster), scripts)
        self._beats = links.beats
        self._cluster = cluster
        self._closed = False
        self._hints = Hints(
            place,
            links.home,
            self._keys.channel,
            clock=clock,
            entropy=entropy,
            store_timeout_s=store_timeout_s,
        )

    def __repr__(self) -> str:
        return f"<RedisStore {self.url} {self._pipe!r} beats={self._beats!r}>"

    # -- Service

    async def create(self, genesis: Genesis) -> Genesis:
        members = self._keys.members
        mark, partitions, ring, ready = await self._run(
            "create", (members,), (genesis.mark, genesis.partitions, genesis.ring)
        )
        effective = redis_answers.genesis(self._cluster, mark, partitions, ring)
        # Once all records were written, one that is missing is a loss, and not ours to invent.
        if ready is None:
            written = await asyncio.gather(
                *(
                    self._run("own", (self._keys.owner(partition),), (mark,))
                    for partition in range(effective.partitions)
                )
            )
            if -1 in written:
                raise redis_answers.orphans(written.count(-1))
            if await self._run("ready", (members,), (mark,)) == -1:
                raise redis_answers.other_genesis(effective.mark)
        return effective

    async def genesis(self) -> Genesis | None:
        mark, partitions, ring, ready = await self._pipe.send(
            ("HMGET", self._keys.members, "m", "p", "r", "ready"), plain
        )
        if mark is None or ready is None:
            return None  # a creation that was cut short has served nobody; create() completes it
        return redis_answers.genesis(self._cluster, mark, partitions, ring)

    def batches(self) -> Batches:
        return Batches.sum(pipe.batches for pipe in self._pipe.pipes())

    async def durability(self) -> Durability:
        return await redis_survey.durability(self._place, self._pipe.pipes(), self._replicas)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._hints.close()
            await self._pipe.close()
            await self._beats.close()
            await self._guide.close()

    # -- MembershipTable

    async def read_table(self, mark: str) -> TableRead:
        # Where writes wait for replicas, a promotion may lose what nobody was told yet. Who compares what
        # it has read must not have read that, or it would take it for a loss.
        reply, identity = await asyncio.gather(
            self._run("table", (self._keys.members,), (mark, int(self._confirm))),
            self._pipe.identity(),
        )
        return redis_answers.table(reply, mark, identity)

    async def write_row(
        self, mark: str, row: SiloRow, *, seen: SiloRow | None, version: int
    ) -> int | None:
        removes = rows.check_write(row, seen)
        # The rows are compared here, by meaning; the script then compares the very bytes.
        raw: bytes | None = await self._pipe.send(
            ("HGET", self._keys.members, f"s:{row.silo}"), plain
        )
        found = None if raw is None else rows.decode(raw)
        differs = found != seen
        if differs or (seen is not None and seen.status is Status.DEAD and not removes):
            await self._check_mark(mark)
            return None
        written: int = await self._run(
            "row",
            (self._keys.members,),
            (
                mark,
                row.silo,
                raw or b"",
                b"" if removes else rows.encode(row, raw),
                version,
                self._keys.channel,
            ),
        )
        if written == -1:
            raise redis_answers.other_genesis(mark)
        return None if written < 0 else written

    async def beat(self, mark: str, silo: SiloId, load: int = 0) -> Beat:
        command = self._command("beat", (self._keys.members,), (mark, silo, load))
        reply, identity = await asyncio.gather(
            self._beats.send(command, plain), self._beats.identity()
        )
        return redis_answers.beat(reply, mark, silo, identity)

    def hints(self) -> AsyncIterator[None]:
        return self._hints.listen()

    # -- PartitionTable

    async def owners(self, mark: str) -> Sequence[Owner]:
        partitions = await self._check_mark(mark)
        found = await asyncio.gather(
            *(
                self._pipe.send(
                    ("HMGET", self._keys.owner(partition), "m", "s", "e", "t", "c"),
                    plain,
                )
                for partition in range(partitions)
            )
        )
        return [
            redis_answers.owner(partition, record[1:] if record[0] == mark.encode() else -1)
            for partition, record in enumerate(found)
        ]

    async def take(self, mark: str, takes: Sequence[Take]) -> Sequence[Owner]:
        for one in takes:
            if len(one.token) != TOKEN_BYTES:
                raise errors.DurumBug(f"partition {one.partition} gets a token of another length.")
        found = await asyncio.gather(
            *(
                self._run(
                    "take",
                    (
                        self._keys.owner(one.partition),
                        self._keys.outbox(one.partition),
                        self._keys.wake_ups(one.partition),
                    ),
                    (mark, one.seen, one.token, one.silo or ""),
                )
                for one in takes
            )
        )
        return [
            redis_answers.owner(one.partition, record)
            for one, record in zip(takes, found, strict=True)
        ]

    # -- inside

    async def _check_mark(self, mark: str) -> int:
        found, partitions = await self._pipe.send(("HMGET", self._keys.members, "m", "p"), plain)
        if found != mark.encode():
            raise redis_answers.other_genesis(mark)
        return redis_answers.genesis(self._cluster, found, partitions, b"0").partitions
