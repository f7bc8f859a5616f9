"""What a store on Redis or Valkey does for grains. Owns which script gets what; how many servers are behind
the way, and what answers mean, it does not know.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from durum import errors
from durum.ids import TOKEN_BYTES, GrainId, Token
from durum.store import redis_answers, redis_effects, redis_parts, redis_scripts
from durum.store.effects import Posted, WakeUp, check_wake
from durum.store.host_table import Host, check_place
from durum.store.parts import MARKS, PAGE_BYTES, Part
from durum.store.protocol import ID_BYTES, Commit, Committed, Record
from durum.store.redis_keys import Keys
from durum.store.redis_line import Argument, plain
from durum.store.redis_pipe import Way
from durum.store.redis_scripts import HOSTED


class RedisTurns:
    """TurnStore and Queries.

    Args:
        pipe: the way to the servers.
        keys: names of keys.
        scripts: all that the servers have.
    """

    def __init__(self, pipe: Way, keys: Keys, scripts: Mapping[str, redis_scripts.Script]) -> None:
        self._pipe = pipe
        self._keys = keys
        self._sha = {name: script.sha for name, script in scripts.items()}
        self._commit_sha = self._sha["commit"]
        self._hosted_sha = self._sha[HOSTED + "commit"]

    # -- TurnStore

    def load(
        self, partition: int, token: Token, grain: GrainId, *, raise_version: bool = False
    ) -> asyncio.Future[Record]:
        keys = self._keys.owner(partition), self._keys.grain(partition, grain)
        command = self._fenced("raise" if raise_version else "load", token, keys)
        return self._pipe.send(command, partial(redis_answers.finish_load, grain))

    def replies(
        self, partition: int, token: Token, grain: GrainId
    ) -> asyncio.Future[dict[bytes, bytes]]:
        keys = self._keys.owner(partition), self._keys.replies(partition, grain)
        command = self._fenced("replies", token, keys)
        return self._pipe.send(command, redis_answers.finish_replies)

    def commit(self, commit: Commit) -> asyncio.Future[Committed]:
        if len(commit.id) != ID_BYTES:
            raise errors.DurumBug(f"a commit's id has {len(commit.id)} bytes, not {ID_BYTES}.")
        if commit.send or commit.wake or commit.park:
            return self._with_effects(commit)
        prefix = self._keys.prefix(commit.partition)
        version = commit.version + 1
        finish = partial(redis_answers.finish_commit, version)
        if commit.replies or commit.forget or commit.parts or commit.purge:
            return self._pipe.send(self._long(prefix, commit), finish)
        state = commit.state
        return self._pipe.send(
            (
                "EVALSHA",
                self._commit_sha if len(commit.token) <= TOKEN_BYTES else self._hosted_sha,
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
        command = self._fenced("verify", token, (self._keys.owner(partition),))
        return self._pipe.send(command, redis_answers.finish_verify)

    def erase(
        self, partition: int, token: Token, grain: GrainId, version: int, *, keep_s: float
    ) -> asyncio.Future[Committed]:
        named = self._keys.grain(partition, grain), self._keys.replies(partition, grain)
        others = self._keys.index(partition), *self._keys.parts(partition, grain)
        keys = self._keys.owner(partition), *named, *others, self._keys.wake_ups(partition)
        args = version, version + 1, grain, max(1, math.ceil(keep_s))
        command = self._fenced(
            "erase", token, keys, *args, redis_effects.stem(grain), *redis_parts.bounds(MARKS)
        )
        return self._pipe.send(command, partial(redis_answers.finish_commit, version + 1))

    # -- HostTable

    def find_host(self, partition: int, grain: GrainId) -> asyncio.Future[Host | None]:
        command = ("HGET", self._keys.hosts(partition), grain)
        return self._pipe.send(command, partial(redis_answers.finish_host, grain))

    def place(
        self,
        partition: int,
        token: Token,
        grain: GrainId,
        *,
        seen: Token | None,
        host: Host | None,
    ) -> asyncio.Future[Host | None]:
        check_place(grain, seen, host)
        keys = self._keys.owner(partition), self._keys.hosts(partition)
        before = seen[:TOKEN_BYTES] if seen else b""
        after = (host.token[:TOKEN_BYTES], host.silo) if host else (b"", b"")
        command = self._command("place", keys, (token, grain, before, *after))
        return self._pipe.send(command, partial(redis_answers.finish_host, grain))

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
        command = self._fenced("load_parts", token, keys, int(contents), *names)
        return self._pipe.send(command, redis_parts.FinishLoad(names, contents=contents))

    def scan_parts(
        self, partition: int, token: Token, grain: GrainId, prefix: bytes, after: bytes, limit: int
    ) -> asyncio.Future[Sequence[Part]]:
        keys = self._keys.owner(partition), *self._keys.parts(partition, grain)
        command = self._fenced("scan_parts", token, keys, *redis_parts.page(prefix, after, limit))
        return self._pipe.send(command, redis_parts.finish_page)

    # -- EffectStore

    def posted(
        self, partition: int, token: Token, after: int, limit: int
    ) -> asyncio.Future[Sequence[Posted]]:
        keys = self._keys.owner(partition), self._keys.outbox(partition)
        command = self._command("posted", keys, (token, after, limit, PAGE_BYTES))
        return self._pipe.send(command, redis_effects.finish_posted)

    def acknowledge(
        self, partition: int, token: Token, numbers: Sequence[int]
    ) -> asyncio.Future[None]:
        keys = self._keys.owner(partition), self._keys.outbox(partition)
        command = self._command("acknowledge", keys, (token, *numbers))
        return self._pipe.send(command, redis_answers.finish_verify)

    def due(
        self,
        partition: int,
        token: Token,
        until_ms: int,
        limit: int,
        after: tuple[int, GrainId, bytes] | None = None,
    ) -> asyncio.Future[Sequence[WakeUp]]:
        keys = self._keys.owner(partition), self._keys.wake_ups(partition)
        args = token, until_ms, limit, *redis_effects.after(after)
        return self._pipe.send(self._command("due", keys, args), redis_effects.finish_due)

    def letters(self, partition: int, after: bytes, limit: int) -> asyncio.Future[Sequence[Part]]:
        args = redis_effects.letters(after, limit)
        command = self._command("letters", self._keys.letters(partition), args)
        return self._pipe.send(command, redis_parts.finish_page)

    def count_letters(self, partition: int) -> asyncio.Future[int]:
        return self._pipe.send(("ZCARD", self._keys.letters(partition)[1]), plain)

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
            return self._fenced("commit_parts", commit.token, named, *redis_parts.commit(commit))
        pairs = [part for pair in (commit.replies or {}).items() for part in pair]
        return (
            "EVALSHA",
            self._commit_sha if len(commit.token) <= TOKEN_BYTES else self._hosted_sha,
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

    def _with_effects(self, commit: Commit) -> asyncio.Future[Committed]:
        check_wake(commit.wake)
        prefix, partition = self._keys.prefix(commit.partition), commit.partition
        named = (prefix + "own", *(f"{prefix}{part}:{commit.grain}" for part in "grpn"))
        own = self._keys.outbox(partition), self._keys.wake_ups(partition)
        keys = *named, *own, *self._keys.letters(partition)
        args = redis_effects.commit(commit)
        command = self._fenced("commit_effects", commit.token, keys, *args)
        return self._pipe.send(command, partial(redis_effects.finish_commit, partition))

    def _fenced(
        self, name: str, token: Token, keys: tuple[str, ...], *args: Argument
    ) -> tuple[Argument, ...]:
        """What checks a token; a hosted one is checked by a script of its own, so that no other pays."""
        if len(token) > TOKEN_BYTES:
            name = HOSTED + name
        return ("EVALSHA", self._sha[name], len(keys), *keys, token, *args)

    def _command(
        self, name: str, keys: tuple[str, ...], args: tuple[Argument, ...]
    ) -> tuple[Argument, ...]:
        return ("EVALSHA", self._sha[name], len(keys), *keys, *args)

    def _run(
        self, name: str, keys: tuple[str, ...], args: tuple[Argument, ...]
    ) -> asyncio.Future[Any]:
        return self._pipe.send(self._command(name, keys, args), plain)
