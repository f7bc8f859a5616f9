"""Wakes grains when something of theirs is due. Owns the way from a wake-up in the store to a call of its
grain; what is to be read and who is next, the agenda decides.

A wake-up stays in the store until a commit of its grain moves or drops it, so whatever becomes of a call, of
this silo or of the partition, somebody looks again. Whoever is called finds out for itself what is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

import msgspec

from durum import errors
from durum.client.router import Router
from durum.grains.schedules import LAST_MS
from durum.ids import GrainId, Token
from durum.silo.agenda import Agenda
from durum.silo.effects import Staged
from durum.silo.holdings import Holding
from durum.silo.patience import answered, pause
from durum.silo.services import Services
from durum.silo.statistics import WakeUpStatistics
from durum.silo.turn import Sink
from durum.silo.wakeup_rows import Page, Row
from durum.telemetry import Log
from durum.wire import reminders as wire
from durum.wire.messages import AnyMessage, Call, Failure, Moved, Reply

_AGAIN_MS: Final = 500
_LEAST_WAIT_S: Final = 0.001
_MOST_WAIT_S: Final = 5.0
"""So soon it is noticed that the store's clock is another one now."""
_STAY_MS: Final = 60_000
"""Who was activated only to be woken goes again, unless it is due again so soon: many may be woken."""
_IN_ONE_GO: Final = 8
"""Grains are woken so many at a time, and calls come between."""

_log = Log("durum.wakeups")


class Holdings(Protocol):
    """Which partitions this silo serves."""

    def holding(self, partition: int) -> Holding | None:
        """The holding, where this silo serves the partition now."""
        ...


class Alive(Protocol):
    """The grains that are in memory: the catalog."""

    @property
    def activations(self) -> Mapping[GrainId, object]:
        """By grain."""
        ...

    def rest(self, grain: GrainId) -> None:
        """A grain was only woken: let it go again, unless something keeps it."""
        ...


class Waking:
    """The sink of one call that wakes a grain."""

    trusted = True
    silo = None

    __slots__ = ("_answered", "row")

    def __init__(self, row: Row, answered: Callable[[Row, AnyMessage], None]) -> None:
        self.row: Final = row
        self._answered = answered

    def send(self, message: AnyMessage) -> None:
        """It was woken, or could not be."""
        self._answered(self.row, message)


class WakeUps:
    """Those of one silo. An Office and a Tenant.

    Args:
        services: the silo's.
        router: to grains that live elsewhere.
        call: brings a call to a grain that lives here.
        holdings: see Holdings.
        alive: see Alive.
        superseded: told of a partition whose store record no longer fits what we hold.
    """

    def __init__(
        self,
        *,
        services: Services,
        router: Router,
        call: Callable[[Sink, Call], None],
        holdings: Holdings,
        alive: Alive,
        superseded: Callable[[int], None],
    ) -> None:
        self._services = services
        self._router = router
        self._call = call
        self._holdings = holdings
        self._alive = alive
        self._resting: list[GrainId] = []
        self._superseded = superseded
        self._agenda = Agenda(at_once=services.config.limits.wake_ups)
        self._soon = asyncio.Event()
        self._numbers = 0
        self._told: set[str] = set()
        self._woken = 0
        self._failed = 0

    # Tenant: partitions come and go -------------------------------------------------------------------

    def held(self, holding: Holding) -> None:
        """A partition is served from now on."""
        self._agenda.hold(holding.partition, holding.earliest_due_ms)
        self._soon.set()

    def left(self, partition: int) -> None:
        """A partition is not served any more."""
        self._agenda.drop(partition)

    # Office: commits have set wake-ups ----------------------------------------------------------------

    def landed(
        self,
        partition: int,
        token: Token,  # noqa: ARG002 - the Office's signature
        grain: GrainId,
        staged: Staged,
        first: int,  # noqa: ARG002
    ) -> None:
        """A commit has set or dropped wake-ups."""
        if not staged.wake:
            return
        now_ms = self._now_ms()
        for name, due_ms in staged.wake.items():
            if due_ms is None:
                self._agenda.remove(partition, grain, name)
            else:
                self._agenda.put(partition, grain, name, due_ms, now_ms)
        self._soon.set()

    def doubted(
        self,
        partition: int,
        token: Token,  # noqa: ARG002
        grain: GrainId,
        staged: Staged,
    ) -> None:
        """A commit may have set wake-ups, or may do so later: have the grain looked at when they are due.

        Its first load after that settles whether the commit has landed.
        """
        now_ms = self._now_ms()
        for name, due_ms in staged.wake.items():
            if due_ms is not None:
                self._agenda.doubt(partition, grain, name, due_ms, now_ms)
        self._soon.set()

    def suspect(self, partition: int, due_ms: int) -> None:
        """There may be a wake-up that no commit of this silo has set."""
        self._agenda.suspect(partition, due_ms)
        self._soon.set()

    def look(self) -> None:
        """Look into all partitions: somebody may have set wake-ups, and died before it could tell."""
        self._agenda.suspect_all()
        self._soon.set()

    # Waking -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read what comes due and wake whom it concerns, until cancelled."""
        while True:
            now_ms = self._now_ms()
            while self._resting:
                self._alive.rest(self._resting.pop())
            while (page := self._agenda.read(now_ms)) is not None:
                self._start(self._read(page), f"read wake-ups of {page.partition}")
            for _ in range(_IN_ONE_GO):
                row = self._agenda.next(now_ms)
                if row is None:
                    await pause(self._soon, self._wait_s())
                    break
                self._wake(row)
            else:
                await asyncio.sleep(0)

    def _wait_s(self) -> float:
        next_ms = self._agenda.next_ms()
        if next_ms is None:
            return _MOST_WAIT_S
        left_s = next_ms / 1000 - self._services.reckoned()
        return min(max(left_s, _LEAST_WAIT_S), _MOST_WAIT_S)

    async def _read(self, page: Page) -> None:
        services, partition = self._services, page.partition
        holding = self._holdings.holding(partition)
        if holding is None:  # it is on its way out
            self._agenda.unread(page, self._now_ms() + _AGAIN_MS)
            return
        try:
            found = await answered(
                services.store.due(partition, holding.token, LAST_MS, page.limit, page.after),
                services.config.lease.store_timeout_s,
                "read wake-ups",
            )
        except errors.StoreUnavailable as exc:
            _log.warning("wake-ups not read yet", partition=partition, error=str(exc))
            self._agenda.unread(page, self._now_ms() + _AGAIN_MS)
        except errors.Superseded:
            self._agenda.unread(page, self._now_ms() + _AGAIN_MS)
            self._superseded(partition)
        except errors.DataLoss as exc:
            services.halt(exc)
        else:
            self._agenda.loaded(page, found, self._now_ms())
        self._soon.set()

    def _wake(self, row: Row) -> None:
        row.guest = row.grain not in self._alive.activations
        self._call(Waking(row, self._answered), self._request(row))

    def _request(self, row: Row) -> Call:
        self._numbers += 1
        timeout_ms = int(self._services.config.limits.call_timeout_s * 1000)
        args = wire.encode(wire.Wake(row.name))
        return Call(self._numbers, row.grain, wire.WAKE, args, timeout_ms)

    def _answered(self, row: Row, message: AnyMessage) -> None:
        if isinstance(message, Reply):
            self._woken += 1
            then_ms = msgspec.msgpack.decode(message.result, type=int | None)
            now_ms = self._now_ms()
            self._agenda.done(row, then_ms, now_ms)
            if row.guest and (then_ms is None or then_ms > now_ms + _STAY_MS):
                self._resting.append(row.grain)  # its turn has not quite ended
        elif isinstance(message, Moved):
            self._start(self._wake_elsewhere(row), f"wake {row.grain}")
        elif isinstance(message, Failure):
            self._fail(row, message)
        self._soon.set()

    async def _wake_elsewhere(self, row: Row) -> None:
        """Its host is another silo."""
        try:
            answer = await self._router.relay(self._request(row))
        except errors.CallError as exc:
            answer = Failure(0, type(exc).__name__, exc.did_run, str(exc))
        except BaseException:
            self._agenda.failed(row, self._now_ms())
            raise
        self._answered(row, answer)

    def _fail(self, row: Row, failure: Failure) -> None:
        self._failed += 1
        unhosted = failure.error == errors.NoSuchKind.__name__
        if unhosted and (kind := row.grain.partition("/")[0]) not in self._told:
            self._told.add(kind)
            _log.error("something is due for a kind that no silo hosts; it is kept", kind=kind)
        elif not unhosted:
            _log.debug("not woken", grain=row.grain, wake_up=row.name, error=failure.text)
        self._agenda.failed(row, self._now_ms(), unhosted=unhosted)

    def _now_ms(self) -> int:
        return int(self._services.reckoned() * 1000)

    def _start(self, coro: Coroutine[Any, Any, None], name: str) -> None:
        self._services.tasks.start(coro, name, self._services.base.copy())

    def statistics(self) -> WakeUpStatistics:
        """The counters as they are now."""
        return WakeUpStatistics(
            waiting=self._agenda.rows,
            under_way=self._agenda.out,
            woken=self._woken,
            failed=self._failed,
            late=self._services.meters.lateness.statistics(),
        )

    def __repr__(self) -> str:
        return f"<WakeUps {self._agenda!r}>"
