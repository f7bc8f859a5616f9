"""The store's Protocols on Redis or Valkey. Owns the meaning of commands and answers.

Grains, partitions and the membership table go one way; renewals have their own, since nothing may
stand before them. How many servers are behind a way, this does not know.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from durum import errors
from durum.clock import Clock
from durum.ids import Entropy, GrainId, SiloId, Token
from durum.store import redis_answers, redis_parts, redis_scripts, redis_survey, rows
from durum.store.batches import Batches
from durum.store.parts import Part
from durum.store.protocol import (
    ID_BYTES,
    NEVER_OWNED,
    Beat,
    Commit,
    Committed,
    Durability,
    Genesis,
    Owner,
    Record,
    TableRead,
    Take,
)
from durum.store.redis_hints import Hints
from durum.store.redis_keys import Keys
from durum.store.redis_line import Argument, plain
from durum.store.redis_pipe import Guide, Pipe, Way
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


class RedisStore:
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
        self._pipe = links.main
        self._beats = links.beats
        self._cluster = cluster
        self._keys = Keys(cluster)
        self._sha = {name: script.sha for name, script in scripts.items()}
        self._commit_sha = self._sha["commit"]
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
        effective = Genesis(
            mark=mark.decode(), cluster=self._cluster, partitions=int(partitions), ring=int(ring)
        )
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
        return Genesis(
            mark=mark.decode(), cluster=self._cluster, partitions=int(partitions), ring=int(ring)
        )

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

    async def beat(self, mark: str, silo: SiloId) -> Beat:
        command = self._command("beat", (self._keys.members,), (mark, silo))
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
            if one.token == NEVER_OWNED:
                raise errors.DurumBug(f"partition {one.partition} cannot get an empty token.")
        found = await asyncio.gather(
            *(
                self._run(
                    "take",
                    (self._keys.owner(one.partition),),
                    (mark, one.seen, one.token, one.silo or ""),
                )
                for one in takes
            )
        )
        return [
            redis_answers.owner(one.partition, record)
            for one, record in zip(takes, found, strict=True)
        ]

    # -- TurnStore

    def load(
        self, partition: int, token: Token, grain: GrainId, *, raise_version: bool = False
    ) -> asyncio.Future[Record]:
        keys = self._keys.owner(partition), self._keys.grain(partition, grain)
        name = "raise" if raise_version else "load"
        return self._pipe.send(self._command(name, keys, (token,)), redis_answers.finish_load)

    def replies(
        self, partition: int, token: Token, grain: GrainId
    ) -> asyncio.Future[dict[bytes, bytes]]:
        keys = self._keys.owner(partition), self._keys.replies(partition, grain)
        command = self._command("replies", keys, (token,))
        return self._pipe.send(command, redis_answers.finish_replies)

    def commit(self, commit: Commit) -> asyncio.Future[Committed]:
        if len(commit.id) != ID_BYTES:
            raise errors.DurumBug(f"a commit's id has {len(commit.id)} bytes, not {ID_BYTES}.")
        prefix = self._keys.prefix(commit.partition)
        version = commit.version + 1
        finish = partial(redis_answers.finish_commit, version)
        if commit.replies or commit.forget or commit.parts or commit.purge:
            return self._pipe.send(self._long(prefix, commit), finish)
        state = commit.state
        return self._pipe.send(
            (
                "EVALSHA",
                self._commit_sha,
                2,
                prefix + "own",
                f"{prefix}g:{commit.grain}",
                commit.token,
                commit.id,
                commit.version,
                version,
                0 if state is None else 1,
                state or b"",
            ),
            finish,
        )

    def verify(self, partition: int, token: Token) -> asyncio.Future[None]:
        command = self._command("verify", (self._keys.owner(partition),), (token,))
        return self._pipe.send(command, redis_answers.finish_verify)

    def erase(
        self, partition: int, token: Token, grain: GrainId, version: int, *, keep_s: float
    ) -> asyncio.Future[Committed]:
        named = self._keys.grain(partition, grain), self._keys.replies(partition, grain)
        others = self._keys.index(partition), *self._keys.parts(partition, grain)
        keys = self._keys.owner(partition), *named, *others
        args = token, version, version + 1, grain, max(1, math.ceil(keep_s))
        command = self._command("erase", keys, args)
        return self._pipe.send(command, partial(redis_answers.finish_commit, version + 1))

    # -- PartStore

    def load_parts(
        self,
        partition: int,
        token: Token,
        grain: GrainId,
        names: Sequence[bytes],
        *,
        contents: bool = True,
    ) -> asyncio.Future[Mapping[bytes, bytes]]:
        keys = self._keys.owner(partition), self._keys.parts(partition, grain)[0]
        command = self._command("load_parts", keys, (token, int(contents), *names))
        return self._pipe.send(command, redis_parts.FinishLoad(names, contents=contents))

    def scan_parts(
        self, partition: int, token: Token, grain: GrainId, prefix: bytes, after: bytes, limit: int
    ) -> asyncio.Future[Sequence[Part]]:
        keys = self._keys.owner(partition), *self._keys.parts(partition, grain)
        args = token, *redis_parts.page(prefix, after, limit)
        return self._pipe.send(self._command("scan_parts", keys, args), redis_parts.finish_page)

    # -- Queries

    def scan(
        self, partition: int, prefix: str, after: str, limit: int
    ) -> asyncio.Future[Sequence[GrainId]]:
        first = prefix.encode()
        least = b"(" + after.encode() if after.encode() >= first else b"[" + first
        key = self._keys.index(partition)
        command = ("ZRANGEBYLEX", key, least, b"(" + first + b"\xff", "LIMIT", 0, limit)
        return self._pipe.send(command, redis_answers.finish_scan)

    def count(self, partition: int, prefix: str) -> asyncio.Future[int]:
        # UTF-8 has no 0xff: with it at its end, it is above all that begin so.
        first = prefix.encode()
        key = self._keys.index(partition)
        return self._pipe.send(("ZLEXCOUNT", key, b"[" + first, b"(" + first + b"\xff"), plain)

    # -- inside

    def _long(self, prefix: str, commit: Commit) -> tuple[Argument, ...]:
        if commit.parts or commit.purge:
            named = (prefix + "own", *(f"{prefix}{part}:{commit.grain}" for part in "grpn"))
            return self._command("commit_parts", named, redis_parts.commit(commit))
        pairs = [part for pair in (commit.replies or {}).items() for part in pair]
        return (
            "EVALSHA",
            self._commit_sha,
            3,
            prefix + "own",
            f"{prefix}g:{commit.grain}",
            f"{prefix}r:{commit.grain}",
            commit.token,
            commit.id,
            commit.version,
            commit.version + 1,
            0 if commit.state is None else 1,
            commit.state or b"",
            len(commit.forget),
            *commit.forget,
            *pairs,
        )

    def _command(
        self, name: str, keys: tuple[str, ...], args: tuple[Argument, ...]
    ) -> tuple[Argument, ...]:
        return ("EVALSHA", self._sha[name], len(keys), *keys, *args)

    def _run(
        self, name: str, keys: tuple[str, ...], args: tuple[Argument, ...]
    ) -> asyncio.Future[Any]:
        return self._pipe.send(self._command(name, keys, args), plain)

    async def _check_mark(self, mark: str) -> int:
        found, partitions = await self._pipe.send(("HMGET", self._keys.members, "m", "p"), plain)
        if found is None or found.decode() != mark:
            raise redis_answers.other_genesis(mark)
        return int(partitions)
