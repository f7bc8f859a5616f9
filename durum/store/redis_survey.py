"""Asks servers for their settings, for redis_durability to judge. Changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from durum.ids import Address, join_address
from durum.store import redis_durability, redis_errors, redis_info
from durum.store.protocol import Durability
from durum.store.redis_durability import Asked
from durum.store.redis_line import plain
from durum.store.redis_pipe import Pipe
from durum.store.redis_url import Form, Place

# Redis 6.2 takes one pattern at a time.
_SETTINGS: Final = ("*append*", "min-replicas-*", "cluster-require-full-coverage")
_NOT_ALLOWED: Final = frozenset(("NOPERM", "ERR"))


async def durability(place: Place, pipes: Sequence[Pipe], replicas: int) -> Durability:
    """What the present settings of all primaries can lose.

    Args:
        place: the parsed URL.
        pipes: one to each primary.
        replicas: how many should have a write before it counts.

    Raises:
        StoreUnavailable: one does not answer.
    """
    if not pipes:
        raise redis_errors.unreachable(place.url, "no primary is known")
    asked = await asyncio.gather(*(_ask(place, pipe, replicas) for pipe in pipes))
    found: dict[Address, Durability] = {}
    for pipe, one in zip(pipes, asked, strict=True):
        found[join_address(*pipe.target)] = redis_durability.judge(one)
    if place.form is not Form.CLUSTER:
        return next(iter(found.values()))
    state = redis_info.fields(await pipes[0].send(("CLUSTER", "INFO"), plain))
    return redis_durability.merge(found, state)


async def _ask(place: Place, pipe: Pipe, replicas: int) -> Asked:
    raw, config = await asyncio.gather(pipe.send(("INFO",), plain), _config(pipe))
    return Asked(
        form=place.form,
        info=redis_info.fields(raw),
        config=config,
        peer_host=pipe.peer_host,
        trusted=place.trusted,
        wait=replicas,
    )


async def _config(pipe: Pipe) -> Mapping[str, str] | None:
    answers: list[Any] = await asyncio.gather(
        *(pipe.send(("CONFIG", "GET", pattern), plain) for pattern in _SETTINGS),
        return_exceptions=True,
    )
    found: dict[str, str] = {}
    for answer in answers:
        if isinstance(answer, redis_errors.Refused) and answer.code in _NOT_ALLOWED:
            return None  # a user without the right, or a service that has no such command
        if isinstance(answer, BaseException):
            raise answer
        found.update(
            (name.decode(), value.decode())
            for name, value in zip(answer[::2], answer[1::2], strict=True)
        )
    return found
