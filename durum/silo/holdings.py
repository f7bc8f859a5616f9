"""What one silo holds now. Owns which partition may be served from when, and who waits for it; knows no store
and no view.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from durum.ids import Token

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
        draining: it is on its way out, or lost: nothing new begins under it.
    """

    __slots__ = (
        *("_floor", "_skipped", "commits", "draining", "epoch"),
        *("partition", "ready", "serve_from", "token"),
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

    def counts(self, commits: int) -> bool:
        """Take in the partition's commit counter, as a commit's answer gives it.

        Nobody else commits under this holding, so each number is given once: to one commit of ours.

        Returns:
            False where another commit has had the number: the store went back in time in between.
        """
        if commits == self.commits + 1:
            self.commits = commits
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

    def ready(self, partition: int) -> Holding | None:
        """The holding under which a turn may begin now, or None."""
        holding = self._held[partition]
        if holding is None or holding.draining:
            return None
        # Once the time has come it stays so; the hot path reads no clock.
        if holding.ready or self._now() >= holding.serve_from:
            holding.ready = True
            return holding
        return None

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
