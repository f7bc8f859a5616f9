"""What a store promises, in words that the conformance kit tests. Bytes in, bytes out: it knows no
grain class. Providers do not inherit from these Protocols; the kit in tests/store decides.

Every operation may raise StoreUnavailable. Its `applied` is False where the store surely did nothing,
None where a write's fate is unknown: then send the very same operation again (all are idempotent), or
drop whatever was built on it. A store that lacks what must be there raises DataLoss, never "empty".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from enum import IntEnum
from typing import Protocol

import msgspec

from durum.ids import GrainId, SiloId, Token
from durum.store.batches import Batches
from durum.store.effect_store import EffectStore
from durum.store.effects import Outgoing
from durum.store.host_table import HostTable
from durum.store.part_store import PartStore
from durum.store.queries import Queries
from durum.views import SiloRow, Status, View

NEVER_OWNED = Token(b"")
"""The token of a partition that nobody has held since genesis."""

ID_BYTES = 16
"""The length of a commit's id."""


class Genesis(msgspec.Struct, frozen=True, kw_only=True):
    """The mark a service's data gets once, at its creation.

    Args:
        mark: 32 random hex digits; two services never share one.
        cluster: the service's name.
        partitions: P, for ever.
        ring: version of the placement algorithm that all silos must speak.
    """

    mark: str
    cluster: str
    partitions: int
    ring: int


class Level(IntEnum):
    """What a store keeps when its host loses power."""

    D0 = 0  # nothing
    D1 = 1  # all but the last second or so
    D2 = 2  # everything acknowledged
    D3 = 3  # that, and on replicas too


class Durability(msgspec.Struct, frozen=True, kw_only=True):
    """What the store's present settings can lose, for people.

    Args:
        level: the strongest promise that holds.
        summary: one sentence: what can be lost, and when.
        unsafe: settings that silos refuse to run on, each with the change to make.
        warnings: settings worth a line in the log.
        facts: what was found, by name: version, persistence and so on.
    """

    level: Level
    summary: str
    unsafe: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, str] = {}


class TableRead(msgspec.Struct, frozen=True, kw_only=True):
    """The membership table at one instant.

    Args:
        view: rows and version.
        heartbeats: how often each silo has renewed; only equality and growth mean anything.
        loads: what each silo told of its load at its last renewal; 0 before it.
        time: the store's clock, seconds since 1970.
        identity: changes when another process or role answers as the store.
    """

    view: View
    heartbeats: Mapping[SiloId, int]
    loads: Mapping[SiloId, int] = {}
    time: float
    identity: str


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a renewal.

    Args:
        status: the row's status; DEAD means that nothing was renewed.
        heartbeat: the count after this renewal.
        version: the table's version, a hint that the view has moved.
        time: the store's clock, seconds since 1970.
        identity: as in TableRead.
    """

    status: Status
    heartbeat: int
    version: int
    time: float
    identity: str


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """A partition's owner record.

    Args:
        partition: 0 to P-1.
        silo: who holds it, or None.
        epoch: how often it has changed hands; for people.
        token: the present holding; NEVER_OWNED before the first.
        commits: the partition's commit counter.
        posted: how many messages are in its outbox. This and the next two are told by `take` only.
        first_posted_epoch: the epoch of the first of them, or 0.
        earliest_due_ms: when its first wake-up is due, or None where it has none.
    """

    partition: int
    silo: SiloId | None
    epoch: int
    token: Token
    commits: int
    posted: int = 0
    first_posted_epoch: int = 0
    earliest_due_ms: int | None = None


class Take(msgspec.Struct, frozen=True, kw_only=True):
    """A compare-and-set of one owner record, by its token.

    Args:
        partition: which.
        seen: the token that the record must still have.
        token: the new random one, never used before; also for a release, so that whatever the old
            holder still has on its way is fenced.
        silo: the new holder, or None to release.
    """

    partition: int
    seen: Token
    token: Token
    silo: SiloId | None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is durable of one grain, without its remembered replies.

    Args:
        version: how many commits it has had; 0 where it has none.
        state: its encoded state, or None where it never had one.
    """

    version: int
    state: bytes | None


class Commit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A turn's effects: all become true together, or none.

    Args:
        partition: the grain's partition.
        token: the holding under which the turn ran.
        grain: which grain.
        id: 16 bytes, unique to this commit; the same bytes sent again change nothing and get the
            first answer.
        version: the version that the turn began from.
        state: the new state, or None to leave it.
        replies: remembered replies to set, by 16-byte key.
        forget: keys of remembered replies to drop.
        parts: parts of the record to set, or for None to drop, by name; see parts.py.
        purge: ranges of names, each from the first up to but not including the second, of which
            PURGED_PER_COMMIT parts are dropped, the least first.
        send: messages to append to the partition's outbox, numbered in this order.
        send_limit: the commit is refused if the outbox would then hold more; 0 for no limit.
        wake: the grain's wake-ups to set, in milliseconds of store time, or for None to drop, by name.
        park: the partition's dead letters to set, or for None to drop, by name.
    """

    partition: int
    token: Token
    grain: GrainId
    id: bytes
    version: int
    state: bytes | None = None
    replies: Mapping[bytes, bytes] | None = None
    forget: Sequence[bytes] = ()
    parts: Mapping[bytes, bytes | None] | None = None
    purge: Sequence[tuple[bytes, bytes]] = ()
    send: Sequence[Outgoing] = ()
    send_limit: int = 0
    wake: Mapping[bytes, int | None] = {}
    park: Mapping[bytes, bytes | None] = {}


class Committed(msgspec.Struct, frozen=True, gc=False):
    """The answer to a commit.

    Args:
        version: the grain's version after it.
        commits: the partition's commit counter after it; a smaller one than seen before is DataLoss.
        first: the number of the first message that it sent; 0 where it sent none.
    """

    version: int
    commits: int
    first: int = 0


class Service(Protocol):
    """The life of one service's data."""

    async def create(self, genesis: Genesis) -> Genesis:
        """Write genesis and all P owner records, unless the service exists.

        Returns:
            The genesis that is in effect: this one, or the one that was there. After a crash in the
            middle, calling it again completes the owner records of the genesis in effect; it never
            touches a record that exists.
        """
        ...

    async def genesis(self) -> Genesis | None:
        """The service's genesis, or None in a store that never had one."""
        ...

    async def durability(self) -> Durability:
        """What the present settings can lose. Read anew at each call."""
        ...

    def batches(self) -> Batches:
        """How many operations have travelled together. A copy, or one that goes on counting."""
        ...

    async def close(self) -> None:
        """Let go of connections, files and threads. Operations under way end in StoreUnavailable."""
        ...


class MembershipTable(Protocol):
    """Rows of silos under one version."""

    async def read_table(self, mark: str) -> TableRead:
        """All rows, at one instant.

        Raises:
            DataLoss: the genesis is missing or is not `mark`.
        """
        ...

    async def write_row(
        self, mark: str, row: SiloRow, *, seen: SiloRow | None, version: int
    ) -> int | None:
        """Set one row if it still equals `seen` (None: absent) and the table still has `version`.

        Row and version change together or not at all. A dead row is never changed. A row given with
        `seen` equal to `row` is removed instead, which is for dead rows only.

        Returns:
            The new version, or None where anything had changed: read the table and decide anew. A
            lost reply looks like None the second time; the row that is then read tells.
        """
        ...

    async def beat(self, mark: str, silo: SiloId, load: int = 0) -> Beat:
        """Renew the silo's lease: a write, on a connection that nothing else can block.

        Args:
            mark: the genesis.
            silo: whose lease.
            load: how much it has to do; for those who choose a silo.

        Raises:
            DataLoss: the genesis is missing or is not `mark`, or the silo has no row.
        """
        ...

    def hints(self) -> AsyncIterator[None]:
        """Yield when the table may have changed. Only a hint: some are lost, some are false."""
        ...


class PartitionTable(Protocol):
    """Owner records."""

    async def owners(self, mark: str) -> Sequence[Owner]:
        """All P records, in order, each read atomically (not all at one instant).

        Raises:
            DataLoss: a record is missing or has another genesis.
        """
        ...

    async def take(self, mark: str, takes: Sequence[Take]) -> Sequence[Owner]:
        """Change owner records, each by its own compare-and-set.

        After a take has succeeded, no commit under an earlier token succeeds.

        Returns:
            The record in effect for each, in order. The take succeeded where its token is the
            record's. Sent again after a lost reply it succeeds again.

        Raises:
            DataLoss: a record is missing or has another genesis.
        """
        ...


class TurnStore(PartStore, HostTable, EffectStore, Protocol):
    """Grains. Plain functions that return futures: the hot path makes no task. Where a hosted token is
    given, "the partition has another token" means the grain's host record."""

    def load(
        self, partition: int, token: Token, grain: GrainId, *, raise_version: bool = False
    ) -> asyncio.Future[Record]:
        """Read a grain under a holding.

        Args:
            partition: the grain's partition.
            token: the holding.
            grain: which grain.
            raise_version: also raise its version, in the same fenced step, so that no commit sent
                before can land any more. For the first load after a commit of unknown outcome.

        Raises:
            Superseded: the partition has another token.
            Hosted: the token is the owner's, and the grain has a host.
            DataLoss: the owner record is missing.
        """
        ...

    def replies(
        self, partition: int, token: Token, grain: GrainId
    ) -> asyncio.Future[dict[bytes, bytes]]:
        """All remembered replies of a grain, by key. Raises as `load` does, but for Hosted."""
        ...

    def commit(self, commit: Commit) -> asyncio.Future[Committed]:
        """Make a turn's effects true, in one atomic step.

        In this order: was this very commit applied already (then its answer again)? is the token the
        partition's (else Superseded)? is the version the grain's (else Superseded)? has the outbox room
        (else Overfull)? then write all. Version and commit counter grow by one. Commits issued in one
        loop tick travel together; each succeeds or fails alone.

        The future is not to be cancelled: once sent, a commit's fate is the store's.

        Raises:
            Superseded: the token or the version is not the store's; nothing was written.
            Overfull: it sends more than `send_limit` leaves room for; nothing was written.
            DataLoss: the owner record is missing.
            StoreUnavailable: `applied` says whether it may have been written.
        """
        ...

    def verify(self, partition: int, token: Token) -> asyncio.Future[None]:
        """Succeed if the partition still has the token. Raises as `load` does."""
        ...

    def erase(
        self, partition: int, token: Token, grain: GrainId, version: int, *, keep_s: float
    ) -> asyncio.Future[Committed]:
        """Take a grain's state, parts and wake-ups away, in one atomic step.

        Version and commit counter grow by one, as by a commit, so that nothing sent before can land.
        Remembered replies, marks (parts.MARKS) and the version stay, and go once the time is over,
        unless the grain has been committed again. Sent again, it finds itself done.

        Args:
            partition: the grain's partition.
            token: the holding.
            grain: which grain.
            version: the version it must have.
            keep_s: how long remembered replies and marks stay.

        Raises:
            Superseded, DataLoss, StoreUnavailable: as `commit` does.
        """
        ...


class Store(Service, MembershipTable, PartitionTable, TurnStore, Queries, Protocol):
    """All of it, behind one URL.

    Attributes:
        url: how it was opened, without secrets, for logs and messages.
        shared: whether other processes can open it.
    """

    url: str
    shared: bool
