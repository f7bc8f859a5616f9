"""A service in a store, with short ways to hold partitions and commit. For tests of stores."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from durum.ids import GrainId, SiloId, SystemEntropy, Token
from durum.store.protocol import Commit, Genesis, Store, Take
from durum.views import SiloRow, Status

ENTROPY = SystemEntropy()
ALICE = GrainId("Account/alice")
BOB = GrainId("Account/bob")
SILO = SiloId("127.0.0.1:7600@1")
OTHER = SiloId("127.0.0.1:7601@1")
_ids = itertools.count(1)


def commit_id() -> bytes:
    """Sixteen bytes that no other commit has."""
    return next(_ids).to_bytes(16, "big")


def row(silo: SiloId = SILO, status: Status = Status.JOINING, **fields: object) -> SiloRow:
    """A silo's row."""
    return SiloRow(silo=silo, status=status, **fields)  # type: ignore[arg-type]


class Service:
    """A created service."""

    def __init__(self, store: Store, genesis: Genesis) -> None:
        self.store = store
        self.genesis = genesis
        self.mark = genesis.mark

    @classmethod
    async def create(cls, store: Store, partitions: int = 8) -> Service:
        cluster = store._cluster  # type: ignore[attr-defined]
        genesis = Genesis(
            mark=ENTROPY.token().hex(), cluster=cluster, partitions=partitions, ring=1
        )
        return cls(store, await store.create(genesis))

    async def hold(self, partition: int = 0, silo: SiloId = SILO) -> Token:
        """Take a partition from whoever has it; return the new token."""
        (owner,) = [one for one in await self.store.owners(self.mark) if one.partition == partition]
        token = ENTROPY.token()
        take = Take(partition=partition, seen=owner.token, token=token, silo=silo)
        (taken,) = await self.store.take(self.mark, [take])
        assert taken.token == token
        return token


async def first_hint(store: Store) -> None:
    """Wait for one hint, and leave no listening behind."""
    hints = store.hints()
    try:
        async with asyncio.timeout(5):
            await anext(hints)
    finally:
        await hints.aclose()  # type: ignore[attr-defined] # a generator's


def commit(
    token: Token,
    *,
    partition: int = 0,
    grain: GrainId = ALICE,
    id: bytes | None = None,  # noqa: A002 - the field's name
    version: int = 0,
    state: bytes | None = b"state",
    replies: Mapping[bytes, bytes] | None = None,
    forget: Sequence[bytes] = (),
    parts: Mapping[bytes, bytes | None] | None = None,
    purge: Sequence[tuple[bytes, bytes]] = (),
    **effects: Any,
) -> Commit:
    """A commit with everything that a test does not care about filled in."""
    return Commit(
        partition=partition,
        token=token,
        grain=grain,
        id=commit_id() if id is None else id,
        version=version,
        state=state,
        replies=replies,
        forget=forget,
        parts=parts,
        purge=purge,
        **effects,
    )
