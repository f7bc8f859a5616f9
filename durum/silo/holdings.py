"""What one silo holds now. Owns which partition may be served from when, and who waits for it; knows no store
and no view.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, Self

from durum.ids import Token
from durum.store.protocol import Owner

_SKIPPED_LIMIT: Final = 4096


class Holding:
    """One holding of one partition.

    Args:
        partition: which.
        epoch: how often the partition had changed hands, for people.
        token: what every commit under it must carry.
        serve_from: boottime from which it may be served.
        commits: the partition's commit counter when it was taken.

    Attributes:
        commits: the highest counter seen.
        posted: messages in its outbox when it was taken.
        first_posted_epoch: the epoch of the first of them, or 0.
        earliest_due_ms: when its first wake-up was due then, or None where it had none.
        draining: it is on its way out, or lost: nothing new begins under it.
    """

    __slots__ = (
        *("_floor", "_shared", "_skipped", "commits", "draining", "earliest_due_ms", "epoch"),
        *("first_posted_epoch", "partition", "posted", "ready", "serve_from", "token"),
    )

    def __init__(
        self, partition: int, epoch: int, token: Token, serve_from: float, commits: int
    ) -> None:
        self.partition: Final = partition
        self.epoch: Final = epoch
        self.token: Final = token
        self.serve_from = serve_from
        self.commits = commits
        self._floor = commits  # numbers up to here are not judged
        self._skipped: set[int] = set()  # numbers of commits whose answers have not come
        self.draining = False
        self.ready = False
        self._shared = False
        self.posted = 0
        self.first_posted_epoch = 0
        self.earliest_due_ms: int | None = None

    @classmethod
    def of(cls, record: Owner, serve_from: float) -> Self:
        """One that a take has just begun."""
        holding = cls(record.partition, record.epoch, record.token, serve_from, record.commits)
        holding.posted = record.posted
        holding.first_posted_epoch = record.first_posted_epoch
        holding.earliest_due_ms = record.earliest_due_ms
        return holding

    def share(self) -> None:
        """Others commit in this partition too, under hosted tokens: their numbers are not ours to judge."""
        self._shared = True
        self._skipped.clear()

    def counts(self, commits: int) -> bool:
        """Take in the partition's commit counter, as a commit's answer gives it.

        Unless it is shared nobody else commits in the partition, so each number is given once: to one
        commit of ours.

        Returns:
            False where another commit has had the number: the store went back in time in between.
        """
        if commits == self.commits + 1 or self._shared:
            self.commits = max(commits, self.commits)
            return True
        if commits > self.commits:
            if commits - self.commits > _SKIPPED_LIMIT or len(self._skipped) > _SKIPPED_LIMIT:
                self._floor = commits - 1
                self._skipped.clear()
            else:
                self._skipped.update(range(self.commits + 1, commits))
            self.commits = commits
            return True
        if commits in self._skipped:
            self._skipped.discard(commits)
            return True
        return commits <= self._floor

    def __repr__(self) -> str:
        state = "draining" if self.draining else "ready" if self.ready else "waiting"
        return f"<Holding {self.partition} epoch={self.epoch} commits={self.commits} {state}>"


@dataclass(frozen=True, slots=True)
class Lodging:
    """Under what a grain is served here that is hosted by itself; as a Holding, of the one grain.

    Args:
        partition: the grain's.
        token: the hosted one.
        epoch: of no partition, so 0.
    """

    partition: int
    token: Token
    epoch: int = 0


Tenure = Holding | Lodging
"""Under what a grain is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnershipStatistics:
    """A silo's partitions at one moment.

    Args:
        wanted: it should own, by the newest view.
        held: it holds, served or not.
        ready: it serves, as long as its lease lasts.
        draining: it is letting go of.
    """

    wanted: int
    held: int
    ready: int
    draining: int


class Tenant(Protocol):
    """Who does something for each partition while it is served. Told at once, and must not wait."""

    def held(self, holding: Holding) -> None:
        """It is served from now on."""
        ...

    def left(self, partition: int) -> None:
        """It is not served any more."""
        ...


class Holdings:
    """The holdings of a silo, by partition.

    Args:
        partitions: P.
        now: boottime.
    """

    def __init__(self, partitions: int, now: Callable[[], float]) -> None:
        self._now = now
        self._held: list[Holding | None] = [None] * partitions
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self.count = 0
        self.tenants: list[Tenant] = []

    def ready(self, partition: int) -> Holding | None:
        """The holding under which a turn may begin now, or None."""
        holding = self._held[partition]
        if holding is None or holding.draining:
            return None
        # Once the time has come it stays so; the hot path reads no clock.
        if holding.ready:
            return holding
        if self._now() < holding.serve_from:
            return None
        holding.ready = True
        for tenant in self.tenants:
            tenant.held(holding)
        return holding

    def get(self, partition: int) -> Holding | None:
        """The holding, ready or not."""
        return self._held[partition]

    def all(self) -> list[Holding]:
        """All holdings, by partition."""
        return [holding for holding in self._held if holding is not None]

    def put(self, holding: Holding) -> None:
        """A partition is held now."""
        if self._held[holding.partition] is None:
            self.count += 1
        self._held[holding.partition] = holding
        if self.ready(holding.partition):
            self.wake(holding.partition)

    def drop(self, partition: int) -> Holding | None:
        """A partition is not held any more. Returns what was."""
        holding = self._held[partition]
        if holding is not None:
            holding.draining = True
            self._held[partition] = None
            self.count -= 1
            for tenant in self.tenants:
                tenant.left(partition)
        return holding

    def wake(self, partition: int) -> None:
        """Have those who wait for a partition look again."""
        for waiter in self._waiters.pop(partition, ()):
            if not waiter.done():
                waiter.set_result(None)

    def wake_all(self) -> None:
        """Have all who wait look again."""
        for partition in list(self._waiters):
            self.wake(partition)

    def waiter(self, partition: int) -> asyncio.Future[None]:
        """A future that is done once it is worth looking again."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(partition, []).append(waiter)
        return waiter

    def forget(self, partition: int, waiter: asyncio.Future[None]) -> None:
        """Nobody waits for this future any more."""
        waiters = self._waiters.get(partition)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[partition]

    def statistics(self, wanted: int) -> OwnershipStatistics:
        """The counters as they are now."""
        held = self.all()
        return OwnershipStatistics(
            wanted=wanted,
            held=len(held),
            ready=sum(self.ready(holding.partition) is not None for holding in held),
            draining=sum(holding.draining for holding in held),
        )

    def next_ready_in_s(self) -> float | None:
        """How long until the next holding may be served, or None where none waits."""
        pending = [
            holding.serve_from
            for holding in self._held
            if holding is not None and not holding.ready and not holding.draining
        ]
        return max(min(pending) - self._now(), 0.0) if pending else None

    def __repr__(self) -> str:
        return f"<Holdings {self.count} of {len(self._held)}>"
