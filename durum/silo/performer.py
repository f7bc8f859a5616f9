"""Runs the turns of one activation, each from its start to its answer. Knows no queue but the mailbox.

A turn is a transaction: its method runs, its changes are committed in one step, and only then is it
answered. A method whose code holds no await runs by hand, without a task; most do.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Protocol

from durum import errors
from durum.errors import DidRun
from durum.grains.carried import CARRIED
from durum.grains.events import Events
from durum.grains.kind import GrainKind
from durum.ids import GrainId
from durum.silo import refusals
from durum.silo.durable import Durable
from durum.silo.keyed import KeyedCalls
from durum.silo.mailbox import Mailbox
from durum.silo.services import Services
from durum.silo.settlement import Settlement
from durum.silo.stored import StoredEntries
from durum.silo.turn import CURRENT, Hook, Turn
from durum.store.damage import Damaged
from durum.wire.messages import Reply


class Tracking(Protocol):
    """Who can cancel a turn that waits or takes its time."""

    def track(self, turn: Turn) -> None:
        """Remember it."""
        ...

    def untrack(self, turn: Turn) -> None:
        """It has ended, or goes elsewhere."""
        ...


class Performer:
    """What runs in one activation.

    Args:
        grain: which.
        kind: its kind.
        mailbox: who may run next.
        durable: its durable side.
        services: the silo's.
        tracking: see Tracking.
        lost: called when another owner or version is in the store.
    """

    __slots__ = (
        "_committing",
        "_context",
        "_durable",
        "_grain",
        "_held",
        "_keyed",
        "_kind",
        "_lost",
        "_mailbox",
        "_pumping",
        "_services",
        "_settlement",
        "_steps",
        "_strict",
        "_tracking",
        "quiet",
    )

    def __init__(
        self,
        *,
        grain: GrainId,
        kind: GrainKind,
        mailbox: Mailbox[Turn],
        durable: Durable,
        services: Services,
        tracking: Tracking,
        lost: Callable[[], None],
    ) -> None:
        self._grain = grain
        self._kind = kind
        self._mailbox = mailbox
        self._durable = durable
        self._services = services
        self._tracking = tracking
        self._lost = lost
        self._keyed: KeyedCalls | None = None  # few activations ever get such a call
        self._pumping = False
        self._committing = kind.durable or kind.events is not None
        self._strict = kind.options.strict_reads
        self._steps = services.steps
        self._context = services.fork
        self._held = services.held
        self._settlement = Settlement(
            grain=grain,
            kind=kind,
            mailbox=mailbox,
            durable=durable,
            services=services,
            lost=lost,
            end=self.end,
        )
        self.quiet: asyncio.Event | None = None
        """Set when nothing runs any more, for whoever put it here."""

    @property
    def events(self) -> Events | None:
        """What the kind publishes."""
        return self._kind.events

    @property
    def reentrant(self) -> bool:
        """Whether turns interleave freely."""
        return self._kind.options.reentrant

    @property
    def stateless(self) -> bool:
        """Whether there is nothing to commit to."""
        return self._kind.stateless

    def commit_now(
        self, within_s: float, turn: Turn | None = None, hook: Hook | None = None
    ) -> Coroutine[Any, Any, None]:
        """Commit what there is so far; see Settlement."""
        return self._settlement.commit_now(within_s, turn, hook)

    def entries(self) -> StoredEntries:
        """Where the entries of the instance's collections are."""
        return StoredEntries(self._durable, self._services, self._lost)

    def admit(self, turn: Turn, now: float) -> None:
        """Take in a new turn; it is answered once in any case."""
        if turn.method.waits or turn.key or self._strict or not self._mailbox.idle:
            self.count(turn)
            self.enter(turn, now)
        else:
            self._perform(turn, now)

    def count(self, turn: Turn) -> None:
        """From here on the silo has the turn on its hands; `forget` ends that."""
        load = self._services.load
        load.calls += 1
        load.bytes += len(turn.call.args)

    def enter(self, turn: Turn, now: float) -> None:
        """Let a turn that counts begin or wait."""
        try:
            starts = self._mailbox.admit(turn)
        except errors.Rejected as exc:
            turn.fail(exc)
            self.forget(turn)
            return
        if starts:
            self._begin(turn, now)
        else:
            self._tracking.track(turn)

    def cancel(self, turn: Turn) -> None:
        """Drop a turn that waits, cancel the code of one that runs; a commit on its way goes on."""
        if not self.withdraw(turn) and turn.task is not None:
            turn.task.cancel()
            if not turn.begun and self._mailbox.runs(turn):
                # A task that is cancelled before its first step never enters its coroutine, so nobody
                # in there can end the turn.
                what = f"{self._grain}: the call was cancelled before it began; it did not run."
                self._settlement.refuse(turn, errors.CallTimeout(what, DidRun.NO))

    def withdraw(self, turn: Turn) -> bool:
        """Drop a turn that waits. False where it does not."""
        if not self._mailbox.withdraw(turn):
            return False
        self.drop(turn)
        self._pump()
        return True

    def cancel_all(self) -> None:
        """Cancel the code of all turns that run."""
        for turn in self._mailbox.running:
            self.cancel(turn)

    def drop(self, turn: Turn) -> None:
        """A turn that waited does not wait any more."""
        if self._services.clock.boottime() >= turn.deadline:
            turn.fail(self._late(turn))  # nobody has cancelled it, so somebody may still wait
        self.forget(turn)

    def forget(self, turn: Turn) -> None:
        """A turn is over, or goes elsewhere: it no longer counts here."""
        turn.ended = True
        self._services.load.calls -= 1
        self._services.load.bytes -= len(turn.call.args)
        if turn.tracked:
            self._tracking.untrack(turn)

    def _perform(self, turn: Turn, now: float) -> None:
        """Run a turn that cannot wait, where nothing else runs: from start to end in one go.

        No other code can come between, so neither mailbox nor load need to know of it, unless it has
        something to commit.
        """
        # Functions in attributes are taken out before they are called: the interpreter knows short ways to
        # attributes and to methods, but none for a call of what is in an attribute. It takes 20 ns each.
        held, fork, steps = self._held, self._context, self._steps
        call, invoke = turn.call, turn.method.invoke
        if not held(now):
            return turn.fail(refusals.lapsed(self._grain))
        try:
            coro = invoke(self._durable.instance, call.args)
        except errors.ArgumentError as exc:
            return turn.fail(exc)
        try:
            context = fork()
            if call.carried is not None:
                context.run(CARRIED.set, call.carried)
            value = context.run(steps.send, (turn, coro))
        except (Exception, asyncio.CancelledError) as exc:
            steps.renew()
            return self._settlement.undo(turn, exc)
        if not turn.over:
            steps.renew()
            raise errors.DurumBug(f"{turn!r} waits, and its code holds no await")
        try:
            result = self._settlement.encoded(turn, value)
        except Exception as exc:
            return self._settlement.undo(turn, exc)
        if (turn.read_only or not self._committing) and turn.staged is None:
            turn.ended = True
            turn.sink.send(Reply(call.id, result))
            return turn.meter.at_once(now)
        self.count(turn)
        self._mailbox.admit(turn)
        return self._settlement.settle(turn, Reply(call.id, result), with_state=True)

    def _begin(self, turn: Turn, now: float) -> None:
        if not self._services.lease.held(now):
            return self._settlement.refuse(turn, refusals.lapsed(self._grain))
        if now >= turn.deadline:
            return self._settlement.refuse(turn, self._late(turn))
        if turn.key or (turn.read_only and self._strict):
            self._start_task(turn, self._prepare(turn))
            return None
        return self._run(turn)

    def _run(self, turn: Turn) -> None:
        method = turn.method
        if method.waits:
            return self._start_task(turn, self._drive(turn))
        try:
            coro = method.invoke(self._durable.instance, turn.call.args)
        except errors.ArgumentError as exc:
            return self._settlement.refuse(turn, exc)
        try:
            value = self._context_of(turn).run(self._steps.send, (turn, coro))
        except (Exception, asyncio.CancelledError) as exc:
            self._steps.renew()
            return self._settlement.raised(turn, exc)
        if not turn.over:
            self._steps.renew()
            raise errors.DurumBug(f"{turn!r} waits, and its code holds no await")
        return self._settlement.returned(turn, value)

    def _start_task(self, turn: Turn, coro: Coroutine[Any, Any, None]) -> None:
        turn.begun = False
        turn.task = self._services.tasks.start(coro, f"turn {turn.number}", self._context_of(turn))
        self._tracking.track(turn)

    def _context_of(self, turn: Turn) -> Context:
        """What a turn's code begins with."""
        context = self._context()
        if turn.call.carried is not None:
            context.run(CARRIED.set, turn.call.carried)
        return context

    async def _drive(self, turn: Turn) -> None:
        """Run a method that may wait."""
        turn.begun = True
        try:
            coro = turn.method.invoke(self._durable.instance, turn.call.args)
        except errors.ArgumentError as exc:
            return self._settlement.refuse(turn, exc)
        CURRENT.set(turn)
        try:
            value = await coro
        except (Exception, asyncio.CancelledError) as exc:
            self._settlement.raised(turn, exc)
        else:
            self._settlement.returned(turn, value)
        return None

    async def _prepare(self, turn: Turn) -> None:
        """What some calls need before their code runs: an earlier answer, or the store's word."""
        turn.begun = True
        try:
            if turn.key:
                if self._keyed is None:
                    store_time = self._services.store_time
                    self._keyed = KeyedCalls(self._grain, self._kind, self._durable, store_time)
                remembered = await self._keyed.answer(turn)
                if remembered is not None:
                    turn.answer(remembered)
                    return self.end(turn)
            else:
                await self._durable.verify()
        except errors.CallError as exc:
            return self._settlement.refuse(turn, exc)
        except (errors.StoreError, errors.Superseded) as exc:
            if turn.key and isinstance(exc, Damaged):  # calls without a key need no replies
                return self._settlement.refuse(turn, refusals.replies_damaged(self._grain, exc))
            if not isinstance(exc, errors.StoreUnavailable):
                self._durable.lost = True
                self._lost()  # first, so that what waits here runs elsewhere
            if isinstance(exc, errors.DataLoss):
                self._services.halt(exc)
            return self._settlement.refuse(turn, refusals.not_serving(self._grain, exc))
        except asyncio.CancelledError:
            return self._settlement.refuse(
                turn, refusals.not_serving(self._grain, "the call was cancelled")
            )
        turn.task = None
        return self._begin_prepared(turn)

    def _begin_prepared(self, turn: Turn) -> None:
        """Look again at what may have changed while a call was being prepared."""
        now = self._services.clock.boottime()
        if self._durable.lost or not self._services.lease.held(now):
            return self._settlement.refuse(turn, refusals.lapsed(self._grain))
        if now >= turn.deadline:
            return self._settlement.refuse(turn, self._late(turn))
        return self._run(turn)

    def _late(self, turn: Turn) -> errors.CallTimeout:
        return errors.CallTimeout(
            f"{turn.call.grain}: its deadline passed while it waited; the call did not run.",
            DidRun.NO,
        )

    def end(self, turn: Turn) -> None:
        """A turn that ran, or was about to, is over: the next ones may begin."""
        self.forget(turn)
        if turn.key and self._keyed is not None:
            self._keyed.ended(turn)
        self._mailbox.done(turn)
        outer = turn.outer
        if outer is not None and not self._mailbox.has_inside(outer):
            self._settlement.go_on(outer)
        self._pump()
        if self.quiet is not None and not self._mailbox.running:
            self.quiet.set()

    def _pump(self) -> None:
        """Begin whatever may begin. A loop, not a chain of calls: a long queue must not grow the stack."""
        if self._pumping or not self._mailbox.waiting:
            return
        if sys.exc_info()[0] is not None:
            # What begins while an exception is being handled would show it to its own caller, as the
            # context of another one.
            asyncio.get_running_loop().call_soon(self._pump)
            return
        self._pumping = True
        try:
            while (turn := self._mailbox.next()) is not None:
                if turn.outer is not None and (refusal := self._mailbox.refusal(turn)) is not None:
                    self._settlement.refuse(turn, refusal)
                else:
                    self._begin(turn, self._services.clock.boottime())
        finally:
            self._pumping = False
