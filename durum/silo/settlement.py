"""How the turns of one activation end: committed or taken back, and answered. Runs no code of the author's.

Nothing is answered before it is durable, and nothing of a failed turn is left in the fields. A turn inside
which others still run waits for them: taking it back now would take theirs back too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from durum import errors
from durum.errors import DidRun
from durum.grains import failure
from durum.grains.kind import GrainKind
from durum.ids import GrainId
from durum.silo import refusals, replies
from durum.silo.durable import Durable
from durum.silo.effects import Staged
from durum.silo.mailbox import Mailbox
from durum.silo.sending import Unstorable
from durum.silo.services import Services
from durum.silo.stored import StoredEntries, Unread
from durum.silo.turn import CURRENT, Hook, Turn
from durum.wire.messages import Failure, Reply

_FRAME_ROOM: Final = 1024  # what a frame needs besides a result
_KEPT: Final = {
    DidRun.ROLLED_BACK: "nothing was kept",
    DidRun.MAYBE: "what it saved may be kept",
    DidRun.YES: "what it saved is kept",
}


class Settlement:
    """The ends of one activation's turns.

    Args:
        grain: which.
        kind: its kind.
        mailbox: who runs inside whom.
        durable: its durable side.
        services: the silo's.
        lost: called when another owner or version is in the store.
        end: called with each turn that has been answered.
    """

    __slots__ = (
        "_check_read_only",
        "_committing",
        "_deferred",
        "_durable",
        "_end",
        "_grain",
        "_kind",
        "_lost",
        "_mailbox",
        "_result_limit",
        "_services",
    )

    def __init__(
        self,
        *,
        grain: GrainId,
        kind: GrainKind,
        mailbox: Mailbox[Turn],
        durable: Durable,
        services: Services,
        lost: Callable[[], None],
        end: Callable[[Turn], None],
    ) -> None:
        self._grain = grain
        self._kind = kind
        self._mailbox = mailbox
        self._durable = durable
        self._services = services
        self._lost = lost
        self._end = end
        self._deferred: dict[int, Callable[[], None]] = {}  # ended, but calls inside them go on
        self._committing = kind.durable or kind.events is not None
        self._check_read_only = services.config.check_read_only
        self._result_limit = services.config.limits.frame_bytes - _FRAME_ROOM

    def returned(self, turn: Turn, value: object) -> None:
        """The method came to its end: commit what it changed, then answer."""
        turn.over = True
        if self._mailbox.has_inside(turn):
            # Calls inside this turn commit first; it goes on when the last of them has ended.
            self._deferred[turn.number] = partial(self.returned, turn, value)
            return
        try:
            result = self.encoded(turn, value)
        except Exception as exc:  # noqa: BLE001 - the author's value
            self.raised(turn, exc)
            return
        if turn.read_only or not (self._committing or turn.key or turn.staged):
            if turn.task is not None and not self._may_answer():
                self.refuse(turn, refusals.lapsed_meanwhile(self._grain))
                return
            turn.reply(result)
            self._end(turn)
            return
        self.settle(turn, Reply(turn.call.id, result), with_state=True)

    def _may_answer(self) -> bool:
        """Whether what a turn has read is still the newest: time has passed since it began."""
        services = self._services
        return services.lease.held(services.clock.boottime()) and not self._durable.lost

    def raised(self, turn: Turn, exc: BaseException) -> None:
        """The method failed, or was cancelled: take back what it changed, then answer."""
        turn.over = True
        if self._mailbox.has_inside(turn):
            # Taking back now would take theirs back too.
            self._deferred[turn.number] = partial(self.raised, turn, exc)
            return
        turn.staged = None
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
            return self.refuse(turn, self._cancelled(turn))
        if isinstance(exc, Unread):
            text = f"{exc}; {_KEPT[turn.kept]}. It can be repeated if what it did may be."
            return self.refuse(turn, errors.CommitFailed(text, turn.kept))
        outcome = failure.encode(exc, turn.call.id, turn.kept)
        if turn.key and not (turn.kept is DidRun.ROLLED_BACK and replies.passes(exc)):
            return self.settle(turn, outcome, with_state=False)
        turn.answer(outcome)
        return self._end(turn)

    def settle(self, turn: Turn, outcome: Reply | Failure, *, with_state: bool) -> None:
        """Commit a turn's effects, then answer and end it."""
        if self._kind.options.reentrant and not turn.key:
            with_state = False  # such kinds commit by save() only
        if self._looks_first(turn.staged, with_state=with_state):
            return self._resolve(turn, outcome, with_state=with_state)
        if turn.staged is not None:
            turn.staged.close()
        try:
            self._durable.commit(
                change=self._change(turn, outcome) if turn.key else None,
                with_state=with_state,
                deadline=turn.deadline,
                then=partial(self._settled, turn, outcome),
                staged=turn.staged,
            )
        except Unstorable as exc:
            self.raised(turn, exc.reason)

    def _looks_first(self, staged: Staged | None, *, with_state: bool) -> bool:
        """Whether the store has to be asked before a commit: for entries, or for a version never loaded."""
        if with_state and self._durable.unresolved:
            return True
        if not staged:
            return False
        return self._durable.version is None or staged.unresolved

    def _resolve(self, turn: Turn, outcome: Reply | Failure, *, with_state: bool) -> None:
        """Look up what the turn has changed without a look at it, then commit."""
        context = self._services.base.copy()
        context.run(CURRENT.set, turn)  # its deadline holds
        self._services.tasks.start(
            self._settle_resolved(turn, outcome, with_state=with_state),
            f"look before the commit of {self._grain}",
            context,
        )

    async def _settle_resolved(
        self, turn: Turn, outcome: Reply | Failure, *, with_state: bool
    ) -> None:
        try:
            await self._look(turn.staged, with_state=with_state)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - the turn fails by it
            self.raised(turn, exc)
        else:
            self.settle(turn, outcome, with_state=with_state)

    async def _look(self, staged: Staged | None, *, with_state: bool = True) -> None:
        if with_state:
            await self._durable.resolve()
        if self._durable.version is None:
            await StoredEntries(self._durable, self._services, self._lost).know_version()
        if staged is not None:
            await staged.resolve()

    def _settled(
        self, turn: Turn, outcome: Reply | Failure, error: errors.CallError | None
    ) -> None:
        if error is None:
            turn.answer(outcome)
            if turn.published is not None and type(outcome) is Reply:
                self._services.observers.publish(self._grain, turn.published)
        else:
            if turn.published is not None and error.did_run is DidRun.MAYBE:
                self._services.observers.doubt(self._grain)
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
        key = replies.digest_key(turn.key)
        return known.remember(key, turn.digest(), outcome, self._services.store_time())

    def encoded(self, turn: Turn, value: object) -> bytes:
        """What the method returned, as bytes; raises where it may not be answered."""
        if turn.read_only and self._check_read_only:
            self._check_unchanged(turn)
        encode = turn.method.encode_result  # see Performer._perform
        result = encode(value)
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

    def _cancelled(self, turn: Turn) -> errors.CallError:
        what = f"{self._grain}: the method was cancelled before its end"
        if self._services.clock.boottime() >= turn.deadline:
            # The caller's own timer may be later than ours, and then this is what it hears of it.
            return errors.CallTimeout(
                f"{what}, since its deadline passed; {_KEPT[turn.kept]}. Raise"
                " durum.options(ref, timeout=...) if the method needs longer.",
                turn.kept,
            )
        return errors.CommitFailed(f"{what}; {_KEPT[turn.kept]}.", turn.kept)

    def undo(self, turn: Turn, exc: BaseException) -> None:
        """A turn that nothing knows of yet failed: take back what it changed, and answer."""
        if not turn.read_only:
            self._durable.roll_back()
        self._services.load.rolled_back += 1
        turn.over = turn.ended = True
        if isinstance(exc, asyncio.CancelledError):
            turn.fail(self._cancelled(turn))
        else:
            turn.answer(failure.encode(exc, turn.call.id, DidRun.ROLLED_BACK))

    def go_on(self, outer: Turn) -> None:
        """The last call inside a turn has ended: if the turn waited for that, end it now."""
        waiting = self._deferred.pop(outer.number, None)
        if waiting is not None:
            waiting()

    def refuse(self, turn: Turn, error: errors.CallError) -> None:
        """Answer with one of Durum's own errors, and end the turn."""
        turn.fail(error)
        self._end(turn)

    async def commit_now(
        self, within_s: float, turn: Turn | None = None, hook: Hook | None = None
    ) -> None:
        """Commit what there is so far, and wait for it.

        Args:
            within_s: how long an attempt without a clear answer is repeated.
            turn: the turn that asked, if one did.
            hook: the hook that did, if one did. What either has staged goes along.

        Raises:
            CommitFailed: the store did not take it; fields are back at their committed values. Or a
                call runs inside the turn, whose changes are not the turn's to commit.
            TypeError: a field holds what cannot be stored; fields are back likewise.
        """
        if turn is not None and self._mailbox.has_inside(turn) and self._durable.changed():
            raise errors.CommitFailed(
                f"{self._grain}: save() while a call runs inside this turn: it would commit half of that"
                " one's work. Await the call that leads there before you save.",
                turn.kept,
            )
        holder = turn or hook
        if self._looks_first(None if holder is None else holder.staged, with_state=True):
            await self._look(None if holder is None else holder.staged)
        staged = None
        if holder is not None and holder.staged is not None:
            staged, holder.staged = holder.staged.part(self._durable.changed)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        change = self._change(turn, None) if turn is not None and turn.key else None
        published: list[bytes] | None = None
        if turn is not None:
            turn.saving += 1
            published, turn.published = turn.published, None
        try:
            self._durable.commit(
                change=change,
                with_state=True,
                deadline=self._services.clock.boottime() + within_s,
                staged=staged,
                then=partial(self._saved, turn, published, done),
            )
        except Unstorable as exc:
            if turn is not None:
                turn.saving -= 1
            self._durable.roll_back()
            raise exc.reason from None
        await asyncio.shield(done)  # once sent, a commit's fate is the store's

    def _saved(
        self,
        turn: Turn | None,
        published: list[bytes] | None,
        done: asyncio.Future[None],
        error: errors.CallError | None,
    ) -> None:
        if turn is not None:
            turn.saving -= 1
        if error is None:
            if published is not None:
                self._services.observers.publish(self._grain, published)
            if turn is not None and turn.kept is DidRun.ROLLED_BACK:
                turn.kept = DidRun.YES
            done.set_result(None)
            return
        if turn is not None and error.did_run is DidRun.MAYBE:
            turn.kept = DidRun.MAYBE
            if published is not None:
                self._services.observers.doubt(self._grain)
        done.set_exception(error)
        done.exception()  # marked as seen: who waited may have been cancelled
        if self._durable.lost:
            self._lost()
