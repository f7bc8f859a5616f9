"""What a grain's code may ask of its silo (grains.context.Host). Runs no turn itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from durum import errors
from durum.client.delivery import NO_TURN, Origin
from durum.errors import DidRun
from durum.grains.carried import CARRIED, trace_of
from durum.grains.context import TurnContext
from durum.grains.entries import EntryStore
from durum.grains.filters import FilteredCaller
from durum.grains.kind import Method
from durum.grains.messages import Message, check_sendable
from durum.grains.reference import CallOptions, Target
from durum.grains.reminders import Reminders
from durum.grains.schedules import Plan, Standing
from durum.grains.streams import Source
from durum.grains.timers import Timer, TimerSpec
from durum.ids import GrainId
from durum.silo.effects import Staged
from durum.silo.inbox import Taking
from durum.silo.performer import Performer
from durum.silo.reminders import Book
from durum.silo.services import Services
from durum.silo.staging import staging
from durum.silo.telling import stage_message
from durum.silo.turn import CURRENT, HOOK, HOOK_TURN, Turn
from durum.wire import post as post_wire
from durum.wire.administration import WATCH
from durum.wire.messages import Hop


class Alive(Protocol):
    """The activation."""

    @property
    def book(self) -> Book:
        """Its reminders."""
        ...

    def retire(self) -> None:
        """It asks to be deactivated."""
        ...

    def set_timer(self, spec: TimerSpec) -> Timer:
        """Begin a timer."""
        ...


class ActivationHost:
    """One activation's face towards its instance.

    Args:
        grain: which.
        services: the silo's.
        performer: runs its turns.
        alive: the activation.
    """

    __slots__ = ("_alive", "_grain", "_performer", "_services")

    def __init__(
        self,
        grain: GrainId,
        services: Services,
        performer: Performer,
        alive: Alive,
    ) -> None:
        self._grain = grain
        self._services = services
        self._performer = performer
        self._alive = alive

    @property
    def context(self) -> TurnContext:
        """The call that the running turn serves."""
        turn = CURRENT.get()
        if turn is None:
            return TurnContext(reminders=Reminders(self))
        carried = turn.call.carried
        return TurnContext(
            method=turn.method.name,
            request=turn.call.request or _request_of(turn),
            caller=turn.chain[-1].grain if turn.chain else None,
            key=turn.key,
            baggage={} if carried is None else carried.baggage,
            trace=trace_of(carried),
            reminders=Reminders(self),
            message=turn.sink.message if isinstance(turn.sink, Taking) else "",
        )

    @property
    def entries(self) -> EntryStore:
        """Where the entries of the instance's collections are."""
        return self._performer.entries()

    async def call(
        self, target: Target, method: Method, args: bytes, options: CallOptions
    ) -> bytes:
        """Call another grain as part of the running turn's chain, within its deadline."""
        outgoing = self._services.filters.outgoing
        if outgoing:
            return await FilteredCaller(_Unfiltered(self), outgoing).call(
                target, method, args, options
            )
        return await self.carry(target, method, args, options)

    async def carry(
        self, target: Target, method: Method, args: bytes, options: CallOptions
    ) -> bytes:
        """As call, within all filters."""
        router = self._services.router
        turn = CURRENT.get()
        if turn is None or turn.over:
            # A call that a hook makes must not come back: nothing runs here before the hook's end.
            origin = Origin((Hop(self._grain, HOOK_TURN),)) if _in_hook() else None
            # Nobody cancels it at a turn's deadline, so it needs a timer of its own.
            return await router.deliver(target, method, args, options, origin=origin)
        call = turn.call
        if not call.request:
            call.request = _request_of(turn)
        origin = Origin(turn.hops(), call.request, turn.deadline)
        if self._services.clock.boottime() >= turn.deadline:
            # It runs on until it is cancelled; whoever it calls must not begin to.
            return await router.deliver(target, method, args, options, origin=origin)
        return await router.call(target, method, args, options, origin=origin)

    def stream(self, target: Target, method: Method, args: bytes, options: CallOptions) -> Source:
        """The results of another grain's streaming method, as part of the running turn's chain."""
        outgoing = self._services.filters.outgoing
        if outgoing:
            return FilteredCaller(_Unfiltered(self), outgoing).stream(target, method, args, options)
        return self.carry_stream(target, method, args, options)

    def carry_stream(
        self, target: Target, method: Method, args: bytes, options: CallOptions
    ) -> Source:
        """As stream, within all filters."""
        turn = CURRENT.get()
        origin: Origin | None = None
        if method.name == WATCH:
            # It runs no code at the other grain, and may outlast the turn.
            origin = Origin((Hop(self._grain, NO_TURN),))
        elif turn is not None and not turn.over:
            turn.call.request = turn.call.request or _request_of(turn)
            origin = Origin(turn.hops(), turn.call.request, turn.deadline)
        elif _in_hook():
            origin = Origin((Hop(self._grain, HOOK_TURN),))
        return self._services.router.stream(target, method, args, options, origin=origin)

    def set_timer(self, spec: TimerSpec) -> Timer:
        """Begin a timer."""
        return self._alive.set_timer(spec)

    def remind(self, name: str, plan: Plan) -> None:
        """Set a reminder with the running turn's commit."""
        self._refuse_stateless("remind()")
        self._alive.book.remind(name, plan)

    def cancel_reminder(self, name: str) -> None:
        """Take a reminder away with the running turn's commit."""
        self._refuse_stateless("reminders.cancel()")
        self._alive.book.cancel(name)

    async def reminders(self) -> Mapping[str, Standing]:
        """All reminders, as the running turn has them."""
        return await self._alive.book.standing()

    def tell(self, message: Message) -> None:
        """Send a message with the running turn's commit."""
        check_sendable(message)
        if message.caller is not None and not isinstance(message.caller, ActivationHost):
            raise errors.ArgumentError(
                f"tell(): {message.target!r} is not of this actor's cluster; nothing was sent. Take the"
                " reference by self.actor(Kind, key)."
            )
        staged = self._stage("tell()")
        services, turn = self._services, CURRENT.get()
        now_s = services.store_time()
        row = post_wire.Row(
            message.method.name,
            message.args,
            self._grain,
            "" if turn is None else turn.call.request or _request_of(turn),
            CARRIED.get(),
            trusted=True,
            sent_ms=int(now_s * 1000),
        )
        stage_message(staged, services, message.target.grain, row, message.due_ms(now_s))

    def _stage(self, what: str) -> Staged:
        """The effects that the running turn's commit will have.

        Raises:
            AttributeError: a @read_only turn, which never commits.
            CommitFailed: no turn runs, or the actor has nothing to commit to; nothing was done.
        """
        self._refuse_stateless(what)
        return staging(self._grain, what)

    def _refuse_stateless(self, what: str) -> None:
        if self._performer.stateless:
            raise errors.CommitFailed(
                f"{self._grain}: {what} in a stateless worker, which has nothing durable that it could go"
                " along with; nothing was done. Let an ordinary actor do it.",
                DidRun.ROLLED_BACK,
            )

    async def save(self) -> None:
        """Commit what the running turn has so far.

        Raises:
            CommitFailed: the store did not take it; fields are back at their committed values. Or no
                turn runs whose work it would be; nothing was done.
        """
        turn = CURRENT.get()
        left_s = self._services.config.limits.call_timeout_s
        if turn is not None and turn.over:
            turn = None
        if turn is None:
            if not (_in_hook() or self._performer.reentrant):
                raise errors.CommitFailed(
                    f"{self._grain}: save() outside of a turn: it would commit half of another turn's"
                    " work. Save in a method, before it ends.",
                    DidRun.ROLLED_BACK,
                )
        elif turn.read_only:
            raise errors.CommitFailed(
                f"{self._grain}: save() in a @read_only method; such a method may not change anything.",
                DidRun.ROLLED_BACK,
            )
        else:
            left_s = min(left_s, turn.deadline - self._services.clock.boottime())
        await self._performer.commit_now(left_s, turn, HOOK.get() if turn is None else None)

    def publish(self, event: object) -> None:
        """Tell watchers, once the running turn has committed; outside of turns at once.

        Raises:
            TypeError: the kind does not publish such a thing.
            ValueError: it is too large.
        """
        events = self._performer.events
        if events is None:
            raise errors.DurumBug(f"{self._grain} publishes, and its kind does not")
        written = events.encode(event)
        turn = CURRENT.get()
        if turn is None or turn.over:
            self._services.observers.publish(self._grain, (written,))
        elif turn.published is None:
            turn.published = [written]
        else:
            turn.published.append(written)

    def deactivate(self) -> None:
        """Go as soon as the present turn has ended."""
        self._alive.retire()


class _Unfiltered:
    """The way of calls within all filters."""

    def __init__(self, host: ActivationHost) -> None:
        self.call = host.carry
        self.stream = host.carry_stream


def _in_hook() -> bool:
    hook = HOOK.get()
    return hook is not None and not hook.over


def _request_of(turn: Turn) -> str:
    return f"{turn.call.grain}#{turn.number}"
