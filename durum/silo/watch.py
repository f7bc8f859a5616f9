"""How a silo watches the others. Owns its probes and its votes; knows no lease and no partitions. Whom to
suspect is for Detector, Sightings and votes to decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from durum import errors
from durum.ids import SiloId
from durum.silo import votes
from durum.silo.detector import Detector, Judgement, Outcome, Round
from durum.silo.patience import pause
from durum.silo.peers import Peers
from durum.silo.ports import Ports
from durum.silo.table import Table
from durum.telemetry import Log
from durum.views import SiloRow, Status, Suspicion, View

_LOOK_GAP_FRACTION: Final = 0.1
_log = Log("durum.watch")


class Watch:
    """One silo's eye on the others.

    Args:
        ports: see Ports.
        table: rows are read and votes written there.
        peers: whom to probe.
    """

    def __init__(self, ports: Ports, table: Table, peers: Peers) -> None:
        self._me: Final = table.me
        self._ports = ports
        self._config = ports.config
        self._clock = ports.clock
        self._table = table
        self._peers = peers
        self._detector = Detector(table.me, ports.config.probing)
        self._overslept_s = 0.0
        self._looking: dict[SiloId, bool] = {}
        self._watched: dict[SiloId, Callable[[], None]] = {}
        self._never = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        peers.on_broken = self.look_at
        table.listen(self._on_view)

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Probe round after round until cancelled.

        Args:
            tasks: where looks outside the rounds go on.
        """
        self._tasks = tasks
        try:
            self._on_view(self._table.view)
            while True:
                await self._round()
        finally:
            self._tasks = None
            for stop in self._watched.values():
                stop()
            self._watched.clear()

    def look_at(self, silo: SiloId) -> None:
        """There is a reason to doubt a silo: probe it at once, beside the rounds."""
        if silo in self._looking:
            self._looking[silo] = True
        elif self._tasks is not None and self._is_listed_alive(silo):
            self._looking[silo] = False
            self._tasks.create_task(self._look(silo), name=f"{self._me}: look at {silo}")

    async def after_reading(self) -> None:
        """Act on what a reading of the table shows by itself: heartbeats that stand still, old rows.

        Raises:
            StoreUnavailable: something could not be written; it will be tried again.
        """
        others = [row.silo for row in self._table.view.live if row.silo != self._me]
        for silo in self._table.sightings.stalled(others):
            await self._condemn(silo, "its heartbeat stood still", gone=False)
        await self._prune()

    async def _round(self) -> None:
        began = self._clock.boottime()
        patience_s = self._detector.patience_s
        outcomes = await self._probe_all(patience_s)
        took_s = self._clock.boottime() - began
        late_s = max(took_s - patience_s, 0.0) + self._overslept_s
        silences = {silo: self._peers.silence_s(silo) for silo in outcomes}
        judgement = self._detector.judge(Round(outcomes, silences, late_s))
        try:
            await self._act_on(judgement)
        except errors.StoreUnavailable as exc:
            _log.warning("vote not written", silo=self._me, error=str(exc))
        until = max(began + patience_s, self._clock.boottime())
        await pause(self._never, until - self._clock.boottime())
        self._overslept_s = max(self._clock.boottime() - until, 0.0)

    async def _probe_all(self, wait_s: float) -> dict[SiloId, Outcome]:
        async with asyncio.TaskGroup() as probes:
            tasks = {
                silo: probes.create_task(self._probe(silo, wait_s), name=f"probe {silo}")
                for silo in self._detector.targets(self._table.view)
            }
        return {silo: task.result() for silo, task in tasks.items()}

    async def _probe(self, silo: SiloId, wait_s: float) -> Outcome:
        if not self._detector.needs_help(silo):
            return self._weighed(silo, await self._peers.probe(silo, wait_s))
        async with asyncio.TaskGroup() as probes:
            direct = probes.create_task(self._peers.probe(silo, wait_s))
            through = [
                probes.create_task(self._peers.probe_through(helper, silo, wait_s))
                for helper in self._detector.helpers(self._table.view, silo)
            ]
        outcome = self._weighed(silo, direct.result())
        if outcome is Outcome.SILENT and any(task.result() for task in through):
            return Outcome.INDIRECT
        return outcome

    def _weighed(self, silo: SiloId, outcome: Outcome) -> Outcome:
        """A refusal proves something only where a living silo would not refuse: at the very address it
        listens on, and before it stops listening since it leaves.
        """
        row = self._table.view.by_id.get(silo)
        if row is None or not row.bound or row.status is Status.LEAVING:
            proves = False
        else:
            proves = self._config.lease.fast_failover
        return Outcome.SILENT if outcome is Outcome.REFUSED and not proves else outcome

    async def _act_on(self, judgement: Judgement) -> None:
        for silo in judgement.cut_off:
            _log.warning("silo reached only through others", silo=silo, by=self._me)
        for silo in judgement.refused:
            await self._vote(silo, refused=True)
        for silo in judgement.silent:
            await self._vote(silo, refused=False)
        for silo in judgement.answering:
            await self._withdraw(silo)

    async def _look(self, silo: SiloId) -> None:
        again = True
        try:
            while again and self._is_listed_alive(silo):
                self._looking[silo] = False
                outcome = await self._peers.probe(silo, self._detector.patience_s)
                if self._weighed(silo, outcome) is Outcome.REFUSED:
                    await self._vote(silo, refused=True)
                # A link that breaks whenever it opens must not be opened a thousand times a second.
                await self._clock.sleep(self._config.probing.probe_s * _LOOK_GAP_FRACTION)
                again = self._looking[silo]
        except errors.StoreUnavailable as exc:
            _log.warning("vote not written", silo=self._me, error=str(exc))
        finally:
            del self._looking[silo]

    async def _vote(self, silo: SiloId, *, refused: bool) -> None:
        def decide(view: View) -> tuple[SiloRow, SiloRow] | None:
            vote = Suspicion(by=self._me, at=self._table.store_time(), refused=refused)
            return votes.voted(view, silo, vote, self._config.probing)

        if await self._change(decide):
            status = self._table.view.status_of(silo)
            _log.warning("silo suspected", silo=silo, by=self._me, refused=refused, status=status)

    async def _withdraw(self, silo: SiloId) -> None:
        if await self._change(lambda view: votes.withdrawn(view, silo, self._me)):
            _log.info("suspicion withdrawn", silo=silo, by=self._me)

    async def _condemn(self, silo: SiloId, reason: str, *, gone: bool) -> None:
        """Declare a silo dead by this one vote."""

        def decide(view: View) -> tuple[SiloRow, SiloRow] | None:
            row = view.by_id.get(silo)
            dead = view.status_of(self._me) is Status.DEAD  # the dead do not vote
            if row is None or row.status is Status.DEAD or dead:
                return None
            return votes.condemned(row, self._table.store_time(), reason, gone=gone), row

        if await self._change(decide):
            _log.warning("silo declared dead", silo=silo, by=self._me, reason=reason, gone=gone)

    async def _prune(self) -> None:
        view = self._table.view
        if not view.active or view.active[0].silo != self._me:
            return  # one sweeper is enough
        old = self._table.store_time() - self._config.probing.prune_s
        for row in view.rows:
            if row.status is Status.DEAD and row.since < old:
                await self._change(_removal(row))

    async def _change(self, decide: Callable[[View], tuple[SiloRow, SiloRow] | None]) -> bool:
        if not await self._table.change(decide):
            return False
        self._peers.gossip(self._table.view.version)
        return True

    def _on_view(self, view: View) -> None:
        self._detector.forget(view)
        if self._tasks is None:
            return
        for row in view.live:
            if row.silo != self._me:
                self._watch_process(row)
                if row.suspicions and self._me not in [vote.by for vote in row.suspicions]:
                    self.look_at(row.silo)
        for silo in list(self._watched):
            if view.status_of(silo) is Status.DEAD:
                self._watched.pop(silo)()

    def _is_listed_alive(self, silo: SiloId) -> bool:
        row = self._table.view.by_id.get(silo)
        return row is not None and row.status is not Status.DEAD

    def _watch_process(self, row: SiloRow) -> None:
        processes = self._ports.processes
        if row.silo not in self._watched and row.host and row.host == processes.host:
            self._watched[row.silo] = processes.watch(
                row.pid, row.pid_started, lambda: self._on_end(row.silo)
            )

    def _on_end(self, silo: SiloId) -> None:
        if self._tasks is not None:
            self._tasks.create_task(self._bury(silo), name=f"{self._me}: bury {silo}")

    async def _bury(self, silo: SiloId) -> None:
        while True:
            try:
                await self._condemn(silo, "its process has ended", gone=True)
            except errors.StoreUnavailable as exc:
                _log.warning("end of a process not written", silo=silo, error=str(exc))
                await self._clock.sleep(self._config.probing.poll_s)
            else:
                return

    def __repr__(self) -> str:
        return f"<Watch by {self._me} {self._detector!r}>"


def _removal(row: SiloRow) -> Callable[[View], tuple[SiloRow, SiloRow] | None]:
    return lambda view: (row, row) if view.by_id.get(row.silo) == row else None
