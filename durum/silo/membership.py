"""This silo as a member: it joins, renews its lease, follows the table and leaves. Owns its own row and its
lease; knows no partitions and no grains, and leaves watching the others to Watch.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from durum import errors
from durum.silo.lease import Lease
from durum.silo.patience import answered, cause, pause
from durum.silo.peers import Peers
from durum.silo.ports import Ports
from durum.silo.table import Change, Table
from durum.silo.watch import Watch
from durum.telemetry import Log
from durum.views import SiloRow, Status, View

_RETRY_FRACTION: Final = 0.1
_POLL_GAP_FRACTION: Final = 0.05
_log = Log("durum.membership")


class Membership:
    """One silo's membership, from joining to dead.

    Args:
        ports: see Ports.
        table: this silo's copy of the membership table.
        peers: the other silos.
        lease: renewed here, read by turns.
        recheck: called while the silo is paused since another process answers as the store; raises
            DataLoss where what this silo holds is not there any more.
        load: how much it has to do; the others are told with each renewal.
    """

    def __init__(
        self,
        ports: Ports,
        table: Table,
        peers: Peers,
        lease: Lease,
        recheck: Callable[[], Awaitable[None]],
        load: Callable[[], int] = int,
    ) -> None:
        self._me: Final = table.me
        self._mark = ports.mark
        self._store = ports.store
        self._clock = ports.clock
        self._config = ports.config
        self._table = table
        self._peers = peers
        self._lease = lease
        self._recheck = recheck
        self._load = load
        self._watch = Watch(ports, table, peers)
        self._identity = ""
        self._heartbeat = 0
        self._in_doubt = False
        self.trouble = ""
        """Why the last renewal failed, or "" where it did not."""
        self._doubted = asyncio.Event()
        self._beat_soon = asyncio.Event()
        self._poll_soon = asyncio.Event()
        self._left = asyncio.Event()
        self._leaving = False  # our own row is about to be dead, by our own will
        peers.on_version = self.hint
        table.listen(peers.on_view)

    async def run(self) -> None:
        """Take part until the silo has left. Joining comes first.

        Raises:
            DeclaredDead: the others have declared this silo dead.
            DataLoss: the store lacks what it had confirmed.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                loops = [
                    tasks.create_task(coro, name=f"{self._me}: {name}")
                    for name, coro in (
                        ("renew", self._renew_loop()),
                        ("poll", self._poll_loop()),
                        ("hints", self._hint_loop()),
                        ("recheck", self._recheck_loop()),
                        ("watch", self._watch_others()),
                    )
                ]
                await self._left.wait()
                for loop in loops:
                    loop.cancel()
        except BaseExceptionGroup as group:
            raise cause(group) from group
        finally:
            self._lease.end()

    def hint(self, version: int) -> None:
        """Somebody has a view of this version."""
        if version > self._table.view.version:
            self._poll_soon.set()

    async def renew(self) -> bool:
        """Renew the lease once.

        Returns:
            Whether it was renewed.

        Raises:
            DeclaredDead: this silo's row is dead.
            DataLoss: the row or the genesis is missing, or a renewal was forgotten.
        """
        sent_at, generation = self._clock.boottime(), self._lease.generation
        try:
            beat = await answered(
                self._store.beat(self._mark, self._me, self._load()),
                self._config.lease.store_timeout_s,
                "renew the lease",
            )
        except errors.StoreUnavailable as exc:
            self.trouble = str(exc)
            _log.warning("lease not renewed", silo=self._me, error=str(exc))
            return False
        except errors.DataLoss:
            self._lease.end()
            await self._explain_loss()
            raise
        self._table.hear_time(beat.time, sent_at, self._clock.boottime())
        if beat.status is Status.DEAD:
            self._lease.end()
            if self._leaving:
                return False
            await self._learn_why()
            raise self._declared_dead()
        if beat.heartbeat <= self._heartbeat:
            self._lease.end()
            raise errors.DataLoss(
                f"the store has forgotten renewals of {self._me}: its heartbeat is {beat.heartbeat}, "
                f"{self._heartbeat} was confirmed. Nothing was built upon it. Restore the store, or "
                "accept the loss and start all silos again."
            )
        self._heartbeat = beat.heartbeat
        if not self._trusts(beat.identity):
            self.trouble = "another process answers as the store; what it holds is being checked"
            return False
        self.trouble = ""
        self._lease.renewed(sent_at, self._clock.boottime(), generation)
        self.hint(beat.version)
        return True

    async def change(self, decide: Change) -> bool:
        """Write a row of the table and tell the others. See Table.change."""
        written = await self._table.change(decide)
        if written:
            self._peers.gossip(self._table.view.version)
        return written

    async def move(self, status: Status, reason: str = "") -> None:
        """Move this silo's own row down the list of Status.

        Dead means left, and that no turn runs any more: the lease ends here, and so does `run`.

        Raises:
            DeclaredDead: the row is dead already.
            StoreUnavailable: the store does not answer; the row may or may not have moved.
        """
        leaves = status is Status.DEAD
        if leaves:
            self._leaving = True
            self._lease.end()

        def decide(view: View) -> tuple[SiloRow, SiloRow] | None:
            row = view.by_id.get(self._me)
            if row is not None and row.status is status:
                return None
            if row is None or row.status is Status.DEAD:
                raise self._declared_dead()
            since = self._table.store_time()
            moved = msgspec.structs.replace(
                row, status=status, since=since, reason=reason, gone=leaves
            )
            return moved, row

        try:
            await self.change(decide)
        finally:
            if leaves:
                self._left.set()

    async def _renew_loop(self) -> None:
        while True:
            began = self._clock.boottime()
            renewed = await self.renew()
            wait_s = self._config.lease.renew_s * (1 if renewed else _RETRY_FRACTION)
            await pause(self._beat_soon, began + wait_s - self._clock.boottime())

    async def _poll_loop(self) -> None:
        poll_s = self._config.probing.poll_s
        while True:
            try:
                await self._follow()
            except errors.StoreUnavailable as exc:
                _log.warning("table not followed", silo=self._me, error=str(exc))
            # Hints may come by the thousand; each reading serves all that came before it.
            await self._clock.sleep(poll_s * _POLL_GAP_FRACTION)
            await pause(self._poll_soon, poll_s * (1 - _POLL_GAP_FRACTION))

    async def _follow(self) -> None:
        self._poll_soon.clear()
        view = await self._table.read()
        if view.status_of(self._me) is Status.DEAD:
            if self._leaving:
                return  # `move` has not heard yet that it is done
            raise self._declared_dead()
        if self._trusts(self._table.identity):
            await self._watch.after_reading()
        listed = [row.silo for row in view.rows]
        self._table.sightings.forget(listed, self._clock.boottime())

    async def _hint_loop(self) -> None:
        while True:
            try:
                async for _ in self._store.hints():
                    self._poll_soon.set()
            except errors.StoreUnavailable as exc:
                _log.debug("no hints", silo=self._me, error=str(exc))
            await self._clock.sleep(self._config.probing.poll_s)

    async def _watch_others(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            await self._watch.run(tasks)

    async def _recheck_loop(self) -> None:
        while True:
            await self._doubted.wait()
            self._doubted.clear()
            # Renewals that the store before had confirmed may be unknown to this one.
            self._table.sightings.restart(self._clock.boottime())
            try:
                await self._table.read()
                identity = self._table.identity
                await self._recheck()
            except errors.StoreUnavailable as exc:
                _log.warning("cannot check the store yet", silo=self._me, error=str(exc))
                await self._clock.sleep(self._config.lease.renew_s * _RETRY_FRACTION)
                self._doubted.set()
                continue
            _log.warning("another process answers as the store", silo=self._me, was=self._identity)
            self._identity = identity
            self._in_doubt = False
            self._beat_soon.set()

    def _trusts(self, identity: str) -> bool:
        """Whether it is the same store as ever. If not, serving pauses until all was read anew."""
        if not self._identity:
            self._identity = identity
        if identity != self._identity and not self._in_doubt:
            self._in_doubt = True
            self._doubted.set()
        if self._in_doubt:
            self._lease.end()
        return not self._in_doubt

    async def _learn_why(self) -> None:
        """Read who declared us dead and why, for people; without an answer we are as dead."""
        with contextlib.suppress(errors.StoreError):
            await self._table.read()

    async def _explain_loss(self) -> None:
        """Our row may be missing since we are long dead and it was pruned; that is no loss of data."""
        before = self._table.view.version
        await self._table.read()
        if self._table.view.version > before + 1 and self._me not in self._table.view.by_id:
            raise self._declared_dead()

    def _declared_dead(self) -> errors.DeclaredDead:
        self._lease.end()
        row = self._table.view.by_id.get(self._me)
        why = f" ({row.reason})" if row is not None and row.reason else ""
        return errors.DeclaredDead(
            f"{self._me} was declared dead by the other silos{why}. It serves nothing any more; start it "
            "again, and it joins under a new identity."
        )

    def __repr__(self) -> str:
        doubt = " in doubt" if self._in_doubt else ""
        return f"<Membership {self._me} view={self._table.view.version}{doubt}>"
