"""The store's Protocols on one Redis or Valkey server. Owns the meaning of commands and answers.

Grains, partitions and the membership table go through one pipe; renewals have their own, since nothing
may stand before them. redis-py serves what is rare: hints and the server's settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Final

import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.exceptions

from durum import errors
from durum.clock import Clock
from durum.ids import Entropy, GrainId, SiloId, Token
from durum.store import redis_answers, redis_durability, redis_scripts, redis_url, rows
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
from durum.store.redis_keys import Keys
from durum.store.redis_line import Argument
from durum.store.redis_pipe import Pipe
from durum.views import SiloRow, Status

_HINT_PAUSE_S: Final = 0.5


class RedisStore:
    """All Protocols of the store on Redis. Made by `open_redis`.

    Args:
        place: the parsed URL.
        pipe: for everything but renewals; open.
        beats: for renewals; open.
        cluster: the service's name.
        clock: for pauses.
        entropy: jitter of those.
    """

    shared = True

    def __init__(
        self,
        place: redis_url.Place,
        pipe: Pipe,
        beats: Pipe,
        scripts: dict[str, redis_scripts.Script],
        *,
        cluster: str,
        clock: Clock,
        entropy: Entropy,
        store_timeout_s: float,
    ) -> None:
        self.url = place.endpoint.url
        self._place = place
        self._pipe = pipe
        self._beats = beats
        self._cluster = cluster
        self._clock = clock
        self._entropy = entropy
        self._keys = Keys(cluster)
        self._sha = {name: script.sha for name, script in scripts.items()}
        self._commit_sha = self._sha["commit"]
        self._closed = False
        # Its default would send a command again that may have run.
        self._client = redis.asyncio.Redis(
            **place.redis_py,
            decode_responses=True,
            retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
            socket_timeout=store_timeout_s,
            socket_connect_timeout=store_timeout_s,
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
            await asyncio.gather(
                *(
                    self._run("own", (self._keys.owner(partition),), (mark,))
                    for partition in range(effective.partitions)
                )
            )
            if await self._run("ready", (members,), (mark,)) == -1:
                raise redis_answers.other_genesis(effective.mark)
        return effective

    async def genesis(self) -> Genesis | None:
        mark, partitions, ring, ready = await self._pipe.send(
            ("HMGET", self._keys.members, "m", "p", "r", "ready"), redis_answers.as_it_is
        )
        if mark is None or ready is None:
            return None  # a creation that was cut short has served nobody; create() completes it
        return Genesis(
            mark=mark.decode(), cluster=self._cluster, partitions=int(partitions), ring=int(ring)
        )

    async def durability(self) -> Durability:
        try:
            info = await self._client.info()
            try:
                config = await self._client.config_get("*append*")
            except redis.exceptions.ResponseError:
                config = {}
        except (redis.exceptions.RedisError, OSError) as exc:
            raise errors.StoreUnavailable(f"{self.url}: {exc}.", applied=False) from exc
        return redis_durability.judge(
            {str(name): str(value) for name, value in info.items()},
            {str(name): str(value) for name, value in config.items()},
            peer_host=self._pipe.peer_host,
            password=self._place.has_password,
        )

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._pipe.close()
            await self._beats.close()
            await self._client.aclose()

    # -- MembershipTable

    async def read_table(self, mark: str) -> TableRead:
        reply, replication = await asyncio.gather(
            self._run("table", (self._keys.members,), (mark,)),
            self._pipe.send(("INFO", "replication"), redis_answers.as_it_is),
        )
        identity = redis_answers.identity(self._pipe.run_id, replication)
        return redis_answers.table(reply, mark, identity)

    async def write_row(
        self, mark: str, row: SiloRow, *, seen: SiloRow | None, version: int
    ) -> int | None:
        removes = rows.check_write(row, seen)
        # The rows are compared here, by meaning; the script then compares the very bytes.
        raw: bytes | None = await self._pipe.send(
            ("HGET", self._keys.members, f"s:{row.silo}"), redis_answers.as_it_is
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
        reply, replication = await asyncio.gather(
            self._beats.send(command, redis_answers.as_it_is),
            self._beats.send(("INFO", "replication"), redis_answers.as_it_is),
        )
        identity = redis_answers.identity(self._beats.run_id, replication)
        return redis_answers.beat(reply, mark, silo, identity)

    async def hints(self) -> AsyncIterator[None]:
        while not self._closed:
            pubsub = self._client.pubsub()
            try:
                await pubsub.subscribe(self._keys.channel)
                yield  # for what was missed before
                while not self._closed:
                    message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
                    if message is not None:
                        yield
            except (redis.exceptions.RedisError, OSError):
                pass  # polling is the truth; this only makes it faster
            finally:
                await pubsub.aclose()  # type: ignore[no-untyped-call]
            await self._clock.sleep(_HINT_PAUSE_S * (1 + self._entropy.fraction()))

    # -- PartitionTable

    async def owners(self, mark: str) -> Sequence[Owner]:
        partitions = await self._check_mark(mark)
        found = await asyncio.gather(
            *(
                self._pipe.send(
                    ("HMGET", self._keys.owner(partition), "m", "s", "e", "t", "c"),
                    redis_answers.as_it_is,
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
        if commit.replies or commit.forget:
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

    # -- inside

    def _long(self, prefix: str, commit: Commit) -> tuple[Argument, ...]:
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
        return self._pipe.send(self._command(name, keys, args), redis_answers.as_it_is)

    async def _check_mark(self, mark: str) -> int:
        found, partitions = await self._pipe.send(
            ("HMGET", self._keys.members, "m", "p"), redis_answers.as_it_is
        )
        if found is None or found.decode() != mark:
            raise redis_answers.other_genesis(mark)
        return int(partitions)


async def open_redis(
    url: str, *, cluster: str, clock: Clock, entropy: Entropy, store_timeout_s: float = 1.5
) -> RedisStore:
    """Connect to a server.

    Args:
        url: `redis://[USER:PASSWORD@]HOST[:PORT][/DB]` or `unix:///SOCKET[?db=DB]`.
        cluster: the service's name.
        clock: for time limits and pauses.
        entropy: jitter.
        store_timeout_s: an operation that takes longer ends in StoreUnavailable.

    Raises:
        ConfigError: the URL is wrong, or the server does not accept what it says.
        StoreUnavailable: it cannot be reached.
    """
    place = redis_url.parse(url)
    scripts = redis_scripts.read_scripts()

    def pipe() -> Pipe:
        return Pipe(
            place.endpoint,
            scripts.values(),
            clock=clock,
            entropy=entropy,
            store_timeout_s=store_timeout_s,
        )

    main, beats = pipe(), pipe()
    await main.open()
    try:
        await beats.open()
    except errors.DurumError:
        await main.close()
        raise
    return RedisStore(
        place,
        main,
        beats,
        scripts,
        cluster=cluster,
        clock=clock,
        entropy=entropy,
        store_timeout_s=store_timeout_s,
    )
