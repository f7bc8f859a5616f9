"""Which partitions this silo serves. Owns the way from wanted to held and back; knows no grains: a Drainer
finishes their turns. The planning is in takeover, the way out in releases.

The law: a partition is served only by who has seen its own token in the record, waited out the dead before
it, and not begun to let go; and every commit carries that token.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from durum import errors
from durum.ids import SiloId, Token
from durum.silo import takeover
from durum.silo.holdings import Holding, Holdings, OwnershipStatistics
from durum.silo.patience import answered, cause, pause
from durum.silo.peers import Peers
from durum.silo.ports import Ports
from durum.silo.records import Records
from durum.silo.releases import Drainer, Releases
from durum.silo.table import Table
from durum.silo.takeover import Standing
from durum.store.protocol import Owner, Take
from durum.telemetry import Log
from durum.views import Status, View
from durum.wire.connection import Connection
from durum.wire.messages import HandOver

Place = Callable[[View], Sequence[SiloId | None]]
"""From a view to the silo that should own each partition."""

_BATCH: Final = 256
_RETRY_S: Final = 0.25
_log = Log("durum.ownership")


class Ownership:
    """One silo's partitions.

    Args:
        ports: see Ports.
        table: views and stopwatches.
        peers: live holders to ask.
        place: who should own what.
        drainer: finishes turns.
    """

    def __init__(
        self, ports: Ports, table: Table, peers: Peers, place: Place, drainer: Drainer
    ) -> None:
        self._me: Final = table.me
        self._ports = ports
        self._clock = ports.clock
        self._config = ports.config
        self._table = table
        self._peers = peers
        self._place = place
        self._drainer = drainer
        self._holdings = Holdings(ports.partitions, ports.clock.boottime)
        self.tenants: Final = self._holdings.tenants
        self._records = Records(ports, self._holdings)
        self._releases = Releases(
            ports, self._holdings, drainer, self._on_release, self._tell_of_free
        )
        self._wanted: Sequence[SiloId | None] = [None] * ports.partitions
        self._unwanted_since = math.inf
        self._pruned: dict[SiloId, None] = {}
        self._asked: dict[int, SiloId] = {}
        self._taking: frozenset[int] = frozenset()
        self._soon = asyncio.Event()
        self._empty = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        peers.on_hand_over = self._on_hand_over
        peers.on_released = self._on_released
        table.listen(self._on_view)

    def holding(self, partition: int) -> Holding | None:
        """The holding under which a turn may begin, or None. The lease is the turn's own business."""
        return self._holdings.ready(partition)

    def wanted(self, partition: int) -> SiloId | None:
        """Who should own a partition by the newest view."""
        return self._wanted[partition]

    async def held(self, partition: int, timeout_s: float) -> Holding | None:
        """Wait until a partition is ready here.

        Returns:
            The holding, or None where the time is over, or another silo should own it.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while (holding := self._holdings.ready(partition)) is None:
                    if self._wanted[partition] != self._me:
                        return None
                    waiter = self._holdings.waiter(partition)
                    try:
                        await waiter
                    finally:
                        self._holdings.forget(partition, waiter)
                return holding
        except TimeoutError:
            return None

    def superseded(self, partition: int) -> None:
        """The store has another token for the partition than ours: drop it, and look why."""
        if self._releases.going(partition):
            return  # its release will find the same, and the drain must not be cut short
        if self._holdings.drop(partition) is not None:
            _log.warning("partition superseded", silo=self._me, partition=partition)
            self._drainer.drop(partition)
            self._records.doubt([partition])
            self._soon.set()

    def committed(
        self, partition: int, token: Token, commits: int, *, repeated: bool = False
    ) -> bool:
        """A commit under a token returned the partition's commit counter.

        Args:
            partition: which.
            token: the holding that the commit was made under.
            commits: the counter.
            repeated: the commit was sent more than once, and the answer may be an earlier one's.

        Returns:
            False where another commit had been given that number: the store has lost what it had
            acknowledged, and may have made up the count since.
        """
        holding = self._holdings.get(partition)
        if holding is None or holding.token != token:
            self._records.counted(partition, commits)
            return True
        return holding.counts(commits) or repeated

    async def run(self) -> None:
        """Take what should be ours and let go of what should not, until cancelled.

        Raises:
            DataLoss: the store lacks owner records or commits that it had confirmed.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._releases.run(tasks), name=f"{self._me}: release")
                await self._claim_loop()
        except BaseExceptionGroup as group:
            raise cause(group) from group
        finally:
            self._tasks = None

    async def emptied(self, within_s: float) -> bool:
        """Wait until nothing is held any more. For a silo whose row says that it is leaving."""
        try:
            async with asyncio.timeout(within_s):
                while self._holdings.count or self._releases.busy:
                    self._soon.set()
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def statistics(self) -> OwnershipStatistics:
        """The counters as they are now."""
        return self._holdings.statistics(sum(owner == self._me for owner in self._wanted))

    async def recheck(self) -> None:
        """Compare what is held with the store, where another process may answer as it now.

        Raises:
            DataLoss: a record is missing, older, or has fewer commits than were confirmed.
            StoreUnavailable: the store does not answer; nothing is known.
        """
        await self._read_records()
        for holding in self._holdings.all():
            # Their stopwatches have just been started over.
            if not holding.ready and not holding.draining:
                holding.serve_from = max(holding.serve_from, self.waited_out(self._me))

    async def _claim_loop(self) -> None:
        while True:
            wait_s: float | None
            try:
                wait_s = await self._step()
            except errors.StoreUnavailable as exc:
                _log.warning("partitions not taken yet", silo=self._me, error=str(exc))
                wait_s = _RETRY_S
            if wait_s is None:
                await self._soon.wait()
                self._soon.clear()
            else:
                await pause(self._soon, wait_s)

    async def _step(self) -> float | None:
        """Do what can be done now.

        Returns:
            After how long there is more to do, 0 for at once; None: after the next event.
        """
        self._let_go()
        for holding in self._holdings.all():
            if self._holdings.ready(holding.partition):
                self._holdings.wake(holding.partition)
        missing = [
            partition
            for partition, owner in enumerate(self._wanted)
            if owner == self._me
            and self._holdings.get(partition) is None
            and not self._releases.going(partition)
        ]
        standing = Standing(self._me, self._table.view, self._pruned)
        plan = takeover.plan(missing, self._records.known, standing, self.waited_out)
        if plan.unread:
            await self._read_records()
            return 0.0
        if plan.strangers:
            newer = await self._table.read()
            self._pruned.update((silo, None) for silo in plan.strangers if silo not in newer.by_id)
            return 0.0
        for start in range(0, len(plan.takes), _BATCH):
            await self._take(plan.takes[start : start + _BATCH])
        for silo, partitions in plan.asks.items():
            self._ask(silo, partitions)
        # After a take, see whether all have succeeded.
        return 0.0 if plan.takes else self._next_step_in_s()

    def _next_step_in_s(self) -> float | None:
        waits = [self._holdings.next_ready_in_s()]
        if self._unwanted_since < math.inf:
            due = self._unwanted_since + self._config.probing.poll_s
            waits.append(max(due - self._clock.boottime(), _RETRY_S))
        return min((wait for wait in waits if wait is not None), default=None)

    async def _take(self, takes: Sequence[tuple[Owner, float]]) -> None:
        token, me = self._ports.entropy.token, self._me
        wishes = [
            Take(partition=record.partition, seen=record.token, token=token(), silo=me)
            for record, _ in takes
        ]
        # Until there is an answer; the outcome may stay unknown.
        self._records.doubt(wish.partition for wish in wishes)
        self._taking = frozenset(wish.partition for wish in wishes)
        try:
            records = await answered(
                self._ports.store.take(self._ports.mark, wishes),
                self._config.lease.store_timeout_s,
                "take partitions",
            )
        finally:
            self._taking = frozenset()
        taken = 0
        for wish, record, (before, since) in zip(wishes, records, takes, strict=True):
            self._records.learn(record)
            if record.token == wish.token:
                taken += 1
                if before.silo is not None:
                    # Meanwhile stopwatches may have been started over, as in `recheck`.
                    since = max(since, self.waited_out(before.silo))  # noqa: PLW2901
                self._holdings.put(Holding.of(record, since))
                self._drainer.taken(record.partition, record.token, wish.seen)
        _log.info("partitions taken", silo=self._me, count=taken, of=len(wishes))

    def waited_out(self, owner: SiloId) -> float:
        """From when others may serve what a dead silo has served."""
        now = self._clock.boottime()
        return takeover.waited_out(
            self._table.view,
            owner,
            lambda silo: self._table.sightings.fenced_at(silo, now),
            fast_failover=self._config.lease.fast_failover,
        )

    def _ask(self, silo: SiloId, partitions: Sequence[int]) -> None:
        fresh = tuple(p for p in partitions if self._asked.get(p) != silo)
        if fresh and self._tasks is not None:
            self._asked.update((partition, silo) for partition in fresh)
            self._tasks.create_task(self._hand_over(silo, fresh), name=f"ask {silo}")

    async def _hand_over(self, silo: SiloId, partitions: tuple[int, ...]) -> None:
        within_s = self._config.limits.drain_timeout_s + self._config.lease.lease_s
        try:
            await self._peers.hand_over(silo, self._table.view.version, partitions, within_s)
            # What it was not ready to give, it will be asked for again, but not a thousand times a second.
            if any(self._asked.get(partition) == silo for partition in partitions):
                await self._clock.sleep(_RETRY_S)
        finally:
            for partition in partitions:
                if self._asked.get(partition) == silo:
                    del self._asked[partition]
            # Whoever they name may not hold them any more.
            self._records.doubt(partitions, holder=silo)
            self._soon.set()

    def _let_go(self) -> None:
        """Start to release what should not be ours: at once when leaving, else after the one who should
        own it has had the time to ask, since until then nobody serves it better.
        """
        unwanted = [
            holding.partition
            for holding in self._holdings.all()
            if not holding.draining and self._wanted[holding.partition] != self._me
        ]
        if not unwanted:
            self._unwanted_since = math.inf
            return
        now = self._clock.boottime()
        self._unwanted_since = min(self._unwanted_since, now)
        leaving = self._table.view.status_of(self._me) is Status.LEAVING
        if leaving or now - self._unwanted_since >= self._config.probing.poll_s:
            self._releases.begin(unwanted)

    def _on_hand_over(self, connection: Connection, request: HandOver) -> None:
        if self._tasks is not None:
            self._tasks.create_task(self._oblige(connection, request), name="hand over")

    async def _oblige(self, connection: Connection, request: HandOver) -> None:
        asked = [p for p in request.partitions if 0 <= p < self._ports.partitions]
        try:
            if await self._view_of(request.version):
                unwanted = [p for p in asked if self._wanted[p] != self._me]
                self._releases.begin(unwanted)
                await self._disown(unwanted)
        except errors.StoreUnavailable as exc:
            _log.debug("hand-over not complete", silo=self._me, error=str(exc))
        self._releases.answer(connection, request.id, asked)

    async def _disown(self, partitions: Sequence[int]) -> None:
        """Release what the store says is ours and we know nothing of: a take that landed after it was
        given up. Nobody else would ever take it, since we live.
        """
        strays = [
            p
            for p in partitions
            if not (self._holdings.get(p) or self._releases.going(p) or p in self._taking)
        ]
        if not strays:
            return
        if self._clock.boottime() < self.waited_out(self._me):
            # Who takes it from nobody serves at once, and a dead silo's lease may still run. Whoever wants
            # it asks again.
            return
        await self._read_records()
        for partition in strays:
            record = self._records.known[partition]
            # Once more, after the wait: one that is being taken will be held when the answer comes.
            if (
                record is not None
                and record.silo == self._me
                and self._holdings.get(partition) is None
                and partition not in self._taking
            ):
                self._releases.disown(record)

    async def _view_of(self, version: int) -> bool:
        """Whether the newest view is at least that one, after a look at the table where it is not."""
        if self._table.view.version < version:
            await self._table.read()
        return self._table.view.version >= version

    def _on_release(self, record: Owner) -> None:
        self._records.learn(record)
        if not self._holdings.count and not self._releases.busy:
            self._empty.set()
        self._soon.set()

    def _tell_of_free(self, free: Mapping[int, Token]) -> None:
        """Tell those who should own partitions that these are free; who hears nothing will ask."""
        owners: dict[SiloId, list[tuple[int, bytes]]] = {}
        for partition, token in free.items():
            owner = self._wanted[partition]
            if owner is not None and owner != self._me:
                owners.setdefault(owner, []).append((partition, token))
        for owner, partitions in owners.items():
            self._peers.release(owner, tuple(partitions))

    def _on_released(self, partitions: Sequence[tuple[int, bytes]]) -> None:
        """Others say that these are free. A take finds out whether it is true."""
        for partition, token in partitions:
            if 0 <= partition < self._ports.partitions and not self._holdings.get(partition):
                self._records.heard(partition, Token(token))
                self._asked.pop(partition, None)
        self._soon.set()

    def _on_view(self, view: View) -> None:
        self._wanted = self._place(view)
        self._holdings.wake_all()
        self._soon.set()

    async def _read_records(self) -> None:
        for holding in await self._records.read():
            self.superseded(holding.partition)

    def __repr__(self) -> str:
        return f"<Ownership {self._me} {self._holdings!r} {self._releases!r}>"
