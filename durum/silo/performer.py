"""Runs the turns of one activation, each from its start to its answer. Knows no queue but the mailbox.

A turn is a transaction: its method runs, its changes are committed in one step, and only then is it
answered. A method whose code holds no await runs by hand, without a task; most do.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol

from durum import errors
from durum.errors import DidRun
from durum.grains import failure
from durum.grains.kind import GrainKind
from durum.ids import GrainId
from durum.silo import refusals, replies
from durum.silo.durable import Durable, Unstorable
from durum.silo.mailbox import Mailbox
from durum.silo.services import Services
from durum.silo.turn import CURRENT, Turn
from durum.wire.messages import Failure, Reply

_FRAME_ROOM: Final = 1024  # what a frame needs besides a result


_KEPT: Final = {
    DidRun.ROLLED_BACK: "nothing was kept",
    DidRun.MAYBE: "what it saved may be kept",
    DidRun.YES: "what it saved is kept",
}


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
        "_deferred",
        "_durable",
        "_grain",
        "_keys",
        "_kind",
        "_lost",
        "_mailbox",
        "_pumping",
        "_result_limit",
        "_services",
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
        self._deferred: dict[int, Callable[[], None]] = {}  # ended, but calls inside them go on
        self._keys: dict[str, tuple[Turn, asyncio.Event]] = {}  # that run, of a reentrant kind
        self._pumping = False
        self._strict = kind.options.strict_reads
        self._result_limit = services.config.limits.frame_bytes - _FRAME_ROOM
        self.quiet: asyncio.Event | None = None
        """Set when nothing runs any more, for whoever put it here."""

    @property
    def reentrant(self) -> bool:
        """Whether turns interleave freely."""
        return self._kind.options.reentrant

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
        if self._mailbox.withdraw(turn):
            self.forget(turn)
            self._pump()
        elif turn.task is not None:
            turn.task.cancel()
            if not turn.begun and self._mailbox.runs(turn):
                # A task that is cancelled before its first step never enters its coroutine, so nobody
                # in there can end the turn.
                what = f"{self._grain}: the call was cancelled before it began; it did not run."
                self._refuse(turn, errors.CallTimeout(what, DidRun.NO))

    def cancel_all(self) -> None:
        """Cancel the code of all turns that run."""
        for turn in self._mailbox.running:
            self.cancel(turn)

    def forget(self, turn: Turn) -> None:
        """A turn is over, or goes elsewhere: it no longer counts here."""
        turn.ended = True
        self._services.load.calls -= 1
        self._services.load.bytes -= len(turn.call.args)
        if turn.tracked:
            self._tracking.untrack(turn)

    async def commit_now(self, within_s: float, turn: Turn | None = None) -> None:
        """Commit what there is so far, and wait for it.

        Args:
            within_s: how long an attempt without a clear answer is repeated.
            turn: the turn that asked, or None for a hook.

        Raises:
            CommitFailed: the store did not take it; fields are back at their committed values.
            TypeError: a field holds what cannot be stored; fields are back likewise.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        change = self._change(turn, None) if turn is not None and turn.key else None
        if turn is not None:
            turn.saving += 1
        try:
            self._durable.commit(
                change=change,
                with_state=True,
                deadline=self._services.clock.boottime() + within_s,
                then=partial(self._saved, turn, done),
            )
        except Unstorable as exc:
            if turn is not None:
                turn.saving -= 1
            self._durable.roll_back()
            raise exc.reason from None
        await asyncio.shield(done)  # once sent, a commit's fate is the store's

    def _saved(
        self, turn: Turn | None, done: asyncio.Future[None], error: errors.CallError | None
    ) -> None:
        if turn is not None:
            turn.saving -= 1
        if error is None:
            if turn is not None and turn.kept is DidRun.ROLLED_BACK:
                turn.kept = DidRun.YES
            done.set_result(None)
            return
        if turn is not None and error.did_run is DidRun.MAYBE:
            turn.kept = DidRun.MAYBE
        done.set_exception(error)
        done.exception()  # marked as seen: who waited may have been cancelled
        if self._durable.lost:
            self._lost()

    def _perform(self, turn: Turn, now: float) -> None:
        """Run a turn that cannot wait, where nothing else runs: from start to end in one go.

        No other code can come between, so neither mailbox nor load need to know of it, unless it has
        something to commit.
        """
        if not self._services.lease.held(now):
            return turn.fail(refusals.lapsed(self._grain))
        method = turn.method
        try:
            coro = method.invoke(self._durable.instance, turn.call.args)
        except errors.ArgumentError as exc:
            return turn.fail(exc)
        try:
            self._services.base.copy().run(_step, turn, coro)
        except StopIteration as stop:
            value = stop.value
        except (Exception, asyncio.CancelledError) as exc:
            return self._undo(turn, exc)
        else:
            raise errors.DurumBug(f"{turn!r} waits, and its code holds no await")
        try:
            result = self._encoded(turn, value)
        except Exception as exc:
            return self._undo(turn, exc)
        if turn.read_only or not self._kind.durable:
            turn.over = turn.ended = True
            return turn.reply(result)
        turn.over = True
        self.count(turn)
        self._mailbox.admit(turn)
        return self._settle(turn, Reply(turn.call.id, result), with_state=True)

    def _undo(self, turn: Turn, exc: BaseException) -> None:
        """A turn of `_perform` failed: take back what it changed, and answer."""
        if not turn.read_only:
            self._durable.roll_back()
        self._services.load.rolled_back += 1
        turn.over = turn.ended = True
        if isinstance(exc, asyncio.CancelledError):
            turn.fail(self._cancelled(turn))
        else:
            turn.answer(failure.encode(exc, turn.call.id, DidRun.ROLLED_BACK))

    def _begin(self, turn: Turn, now: float) -> None:
        if not self._services.lease.held(now):
            return self._refuse(turn, refusals.lapsed(self._grain))
        if now >= turn.deadline:
            return self._refuse(turn, self._late(turn))
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
            return self._refuse(turn, exc)
        try:
            self._services.base.copy().run(_step, turn, coro)
        except StopIteration as stop:
            value = stop.value
        except (Exception, asyncio.CancelledError) as exc:
            return self._raised(turn, exc)
        else:
            raise errors.DurumBug(f"{turn!r} waits, and its code holds no await")
        return self._returned(turn, value)

    def _start_task(self, turn: Turn, coro: Coroutine[Any, Any, None]) -> None:
        turn.begun = False
        turn.task = self._services.tasks.start(
            coro, f"turn {turn.number}", self._services.base.copy()
        )
        self._tracking.track(turn)

    async def _drive(self, turn: Turn) -> None:
        """Run a method that may wait."""
        turn.begun = True
        try:
            coro = turn.method.invoke(self._durable.instance, turn.call.args)
        except errors.ArgumentError as exc:
            return self._refuse(turn, exc)
        CURRENT.set(turn)
        try:
            value = await coro
        except (Exception, asyncio.CancelledError) as exc:
            self._raised(turn, exc)
        else:
            self._returned(turn, value)
        return None

    async def _prepare(self, turn: Turn) -> None:
        """What some calls need before their code runs: an earlier answer, or the store's word."""
        turn.begun = True
        try:
            if turn.key:
                await self._know_replies(turn)
                remembered = self._recall(turn)
                if remembered is not None:
                    turn.answer(remembered)
                    return self._end(turn)
            else:
                await self._durable.verify()
        except errors.CallError as exc:
            return self._refuse(turn, exc)
        except (errors.StoreError, errors.Superseded) as exc:
            if not isinstance(exc, errors.StoreUnavailable):
                self._durable.lost = True
                self._lost()  # first, so that what waits here runs elsewhere
            if isinstance(exc, errors.DataLoss):
                self._services.halt(exc)
            return self._refuse(turn, refusals.not_serving(self._grain, exc))
        except asyncio.CancelledError:
            return self._refuse(turn, refusals.not_serving(self._grain, "the call was cancelled"))
        turn.task = None
        return self._begin_prepared(turn)

    def _begin_prepared(self, turn: Turn) -> None:
        """Look again at what may have changed while a call was being prepared."""
        now = self._services.clock.boottime()
        if self._durable.lost or not self._services.lease.held(now):
            return self._refuse(turn, refusals.lapsed(self._grain))
        if now >= turn.deadline:
            return self._refuse(turn, self._late(turn))
        return self._run(turn)

    async def _know_replies(self, turn: Turn) -> None:
        """Have the remembered replies at hand, and no other run of this key under way."""
        while (running := self._keys.get(turn.key)) is not None:
            await running[1].wait()
        if self._kind.options.reentrant:
            self._keys[turn.key] = (turn, asyncio.Event())
        if self._durable.replies is None:
            await self._durable.load_replies()

    def _recall(self, turn: Turn) -> Reply | Failure | None:
        known = self._durable.replies
        if turn.read_only:
            raise errors.ArgumentError(
                f"idempotency_key: {self._kind.name}.{turn.method.name} is @read_only and records"
                " nothing; the call did not run. Call it without a key."
            )
        if known is None:
            raise errors.DurumBug(f"{turn!r}: replies were not loaded")
        call = replies.digest_call(turn.method.name, turn.call.args)
        return known.recall(replies.digest_key(turn.key), call, self._services.store_time())

    def _returned(self, turn: Turn, value: object) -> None:
        """The method came to its end: commit what it changed, then answer."""
        turn.over = True
        if self._mailbox.has_inside(turn):
            # Calls inside this turn commit first; it goes on when the last of them has ended.
            self._deferred[turn.number] = partial(self._returned, turn, value)
            return
        try:
            result = self._encoded(turn, value)
        except Exception as exc:
            self._raised(turn, exc)
            return
        if turn.read_only or not (self._kind.durable or turn.key):
            if turn.task is not None and not self._may_answer():
                self._refuse(turn, refusals.lapsed_meanwhile(self._grain))
                return
            turn.reply(result)
            self._end(turn)
            return
        self._settle(turn, Reply(turn.call.id, result), with_state=True)

    def _may_answer(self) -> bool:
        """Whether what a turn has read is still the newest: time has passed since it began."""
        services = self._services
        return services.lease.held(services.clock.boottime()) and not self._durable.lost

    def _raised(self, turn: Turn, exc: BaseException) -> None:
        """The method failed, or was cancelled: take back what it changed, then answer."""
        turn.over = True
        if self._mailbox.has_inside(turn):
            # Taking back now would take theirs back too.
            self._deferred[turn.number] = partial(self._raised, turn, exc)
            return
        if not turn.read_only:
            self._durable.roll_back()
        self._services.load.rolled_back += 1
        if turn.saving:  # whether anything was kept is known once the store has answered
            self._durable.commit(
                change=None,
                with_state=False,
                deadline=turn.deadline,
                then=lambda _: self._failed(turn, exc),
            )
        else:
            self._failed(turn, exc)

    def _failed(self, turn: Turn, exc: BaseException) -> None:
        """What a method changed has been taken back: say how it ended."""
        if isinstance(exc, asyncio.CancelledError):
            return self._refuse(turn, self._cancelled(turn))
        outcome = failure.encode(exc, turn.call.id, turn.kept)
        if turn.key:
            return self._settle(turn, outcome, with_state=False)
        turn.answer(outcome)
        return self._end(turn)

    def _settle(self, turn: Turn, outcome: Reply | Failure, *, with_state: bool) -> None:
        """Commit a turn's effects, then answer and end it."""
        if self._kind.options.reentrant and not turn.key:
            with_state = False  # such kinds commit by save() only
        try:
            self._durable.commit(
                change=self._change(turn, outcome) if turn.key else None,
                with_state=with_state,
                deadline=turn.deadline,
                then=partial(self._settled, turn, outcome),
            )
        except Unstorable as exc:
            self._raised(turn, exc.reason)

    def _settled(
        self, turn: Turn, outcome: Reply | Failure, error: errors.CallError | None
    ) -> None:
        if error is None:
            turn.answer(outcome)
        else:
            if error.did_run is DidRun.ROLLED_BACK and turn.kept is not DidRun.ROLLED_BACK:
                text = f"{error} Of what it saved before: {_KEPT[turn.kept]}."
                error = errors.CommitFailed(text, turn.kept)
            turn.fail(error)
        if self._durable.lost:
            self._lost()  # first, so that what waits here runs elsewhere and not on this state
        self._end(turn)

    def _change(self, turn: Turn, outcome: Reply | Failure | None) -> replies.Change:
        known = self._durable.replies
        if known is None:
            raise errors.DurumBug(f"{turn!r}: replies were not loaded")
        call = replies.digest_call(turn.method.name, turn.call.args)
        key = replies.digest_key(turn.key)
        return known.remember(key, call, outcome, self._services.store_time())

    def _encoded(self, turn: Turn, value: object) -> bytes:
        """What the method returned, as bytes; raises where it may not be answered."""
        if turn.read_only and self._services.config.check_read_only:
            self._check_unchanged(turn)
        result = turn.method.encode_result(value)
        if len(result) > self._result_limit:
            raise errors.CommitFailed(
                f"{self._grain}.{turn.method.name}: its result has {len(result)} bytes (limit"
                f" {self._result_limit}); nothing was kept. Return less, or raise frame_bytes.",
                DidRun.ROLLED_BACK,
            )
        return result

    def _check_unchanged(self, turn: Turn) -> None:
        """Find what a read_only method did to the inside of a field."""
        if self._kind.options.reentrant or not self._durable.changed():
            return
        self._durable.roll_back()
        raise TypeError(
            f"{self._kind.name}.{turn.method.name} is @read_only and has changed the inside of a"
            " durable field; the change was taken back. Remove @read_only, or change a copy."
        )

    def _cancelled(self, turn: Turn) -> errors.CommitFailed:
        return errors.CommitFailed(
            f"{self._grain}: the method was cancelled before its end; {_KEPT[turn.kept]}.",
            turn.kept,
        )

    def _late(self, turn: Turn) -> errors.CallTimeout:
        return errors.CallTimeout(
            f"{turn.call.grain}: its deadline passed while it waited; the call did not run.",
            DidRun.NO,
        )

    def _refuse(self, turn: Turn, error: errors.CallError) -> None:
        turn.fail(error)
        self._end(turn)

    def _end(self, turn: Turn) -> None:
        """A turn that ran, or was about to, is over: the next ones may begin."""
        self.forget(turn)
        if turn.key and (running := self._keys.get(turn.key)) is not None and running[0] is turn:
            del self._keys[turn.key]
            running[1].set()
        self._mailbox.done(turn)
        outer = turn.outer
        if outer is not None and not self._mailbox.has_inside(outer):
            go_on = self._deferred.pop(outer.number, None)
            if go_on is not None:
                go_on()
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
                    self._refuse(turn, refusal)
                else:
                    self._begin(turn, self._services.clock.boottime())
        finally:
            self._pumping = False


def _step(turn: Turn, coro: Coroutine[Any, Any, object]) -> object:
    CURRENT.set(turn)
    return coro.send(None)
