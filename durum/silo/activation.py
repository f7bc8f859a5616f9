"""The live instance of one grain on this silo. Owns its states; its turns are the performer's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from durum import errors
from durum.grains.kind import GrainKind, Method
from durum.grains.timers import Timer, TimerSpec
from durum.ids import GrainId, Token
from durum.silo import refusals
from durum.silo.aside import Aside
from durum.silo.durable import Durable
from durum.silo.home import Home
from durum.silo.hooks import run_hook, say_goodbye
from durum.silo.host import ActivationHost
from durum.silo.mailbox import Mailbox
from durum.silo.meters import Meter
from durum.silo.performer import Performer
from durum.silo.quiet import wait_quiet
from durum.silo.reason import Reason
from durum.silo.reminders import Book
from durum.silo.reserved import Reserved
from durum.silo.services import Services
from durum.silo.stages import Stages, State
from durum.silo.streams import Outgoing
from durum.silo.turn import HOOK_TURN, Sink, Turn, refuse
from durum.wire.administration import PREFIX, TURNS
from durum.wire.messages import Call
from durum.wire.post import POST

_VALID: Final = State.VALID  # looked up for every call


class Activation(Stages):
    """One grain, alive.

    Args:
        kind, key, grain: who.
        partition: the grain's partition.
        token: the holding it lives under.
        services: the silo's.
        home: where it lives.
    """

    __slots__ = (
        *("_aside", "_durable", "_home", "_limit", "_load", "_mailbox", "_methods"),
        *("_next_turn", "_performer", "_services", "_waiting", "grain"),
        *("kind", "partition", "used"),
    )

    def __init__(
        self,
        *,
        kind: GrainKind,
        key: str,
        grain: GrainId,
        partition: int,
        token: Token,
        services: Services,
        home: Home[Activation],
    ) -> None:
        options = kind.options
        self.kind = kind
        self.grain = grain
        self.partition = partition
        self.used = services.load.tick
        self._services = services
        self._load = services.load
        self._methods = services.methods(kind)
        self._next_turn = services.next_turn
        self._home = home
        super().__init__()
        self._aside: Aside | None = None
        # Calls that came before or after it was valid. No deque: an empty one takes 700 bytes.
        self._waiting: list[Turn] = []
        self._limit = options.mailbox_calls or services.config.limits.mailbox_calls
        self._mailbox: Mailbox[Turn] = Mailbox(
            grain,
            limit=self._limit,
            reentrant=options.reentrant,
            chain_enters=options.reentrancy == "chain",
        )
        self._durable = Durable(grain, kind, partition, token, services)
        self._performer = Performer(
            grain=grain,
            kind=kind,
            mailbox=self._mailbox,
            durable=self._durable,
            services=services,
            tracking=home,
            lost=self.drop,
        )
        host = ActivationHost(grain, services, self._performer, self)
        self._durable.instance = kind.create(key, host)

    @property
    def queue(self) -> tuple[int, int]:
        """How many turns run, and how many calls wait."""
        return len(self._mailbox.running), self._mailbox.queued + len(self._waiting)

    @property
    def idle(self) -> bool:
        """Valid, with nothing running or waiting, no stream, and no timer that keeps it."""
        if self._aside is not None and self._aside.busy:
            return False
        return self._state is State.VALID and self._mailbox.idle

    @property
    def spare(self) -> bool:
        """Idle, and nothing that it has in memory is waited for."""
        return self.idle and (self._aside is None or not self._aside.missed)

    @property
    def load(self) -> int:
        """How many calls it has on its hands."""
        return len(self._waiting) + len(self._mailbox) + len(self._mailbox.running)

    def has(self, turn: Turn) -> bool:
        """Whether a turn is one of this activation."""
        return turn.grain is self._durable

    # Taking in calls -------------------------------------------------------------------------------

    def offer(self, call: Call, sink: Sink, now: float) -> None:
        """Take in a call; it is answered once, now or later.

        Args:
            call: the message.
            sink: where its answer goes.
            now: boottime.
        """
        known = self._methods.get(call.method) or self._unlisted(call, sink)
        if known is None:
            return None
        method, meter = known
        if not method.plain and self._takes_specially(call, sink, method, meter):
            return None
        next_turn = self._next_turn  # see Performer._perform
        turn = Turn(
            next_turn(),
            call,
            method,
            sink,
            self._durable,
            now + call.timeout_ms / 1000,
            method.read_only,
            call.chain,
            call.key,
            meter,
            now,
        )
        self.used = self._load.tick
        if self._state is _VALID:
            return self._performer.admit(turn, now)
        return self._take_unready(turn, now)

    def _unlisted(self, call: Call, sink: Sink) -> tuple[Reserved, Meter] | None:
        """What a call runs that is of no public method; None where it has been taken in already."""
        if call.method in TURNS:
            return self._beside().reserved(call.method)
        if call.method in POST:
            self._take_message(call, sink)
        elif call.method.startswith(PREFIX):
            self._home.administer(sink, call)
        else:
            self._refuse(sink, call, refusals.no_such_method(self.kind, call.method))
        return None

    def _take_message(self, call: Call, sink: Sink) -> None:
        self.used = self._load.tick
        if self._state in {State.ACTIVATING, State.VALID}:
            self._beside().take(call, sink)
        else:
            self._refuse(sink, call, refusals.not_serving(self.grain, "it moves"))

    def _takes_specially(
        self, call: Call, sink: Sink, method: Method | Reserved, meter: Meter
    ) -> bool:
        """Take in a call that is to be refused, or that asks for a stream. False where it is neither."""
        if method.opaque and not sink.trusted:
            self._refuse(sink, call, refusals.untrusted(self.grain, call.method))
        elif isinstance(method, Reserved) or not method.streams:
            return False
        elif not isinstance(sink, Outgoing):
            self._refuse(sink, call, refusals.no_call(self.grain, call.method))
        elif self._state not in {State.ACTIVATING, State.VALID}:
            self._refuse(sink, call, refusals.not_serving(self.grain, "it moves"))
        else:
            self.used = self._load.tick
            try:
                self._beside().begin(sink, method, meter, self._durable.instance)
            except errors.ArgumentError as exc:
                self._refuse(sink, call, exc)
        return True

    def leave(self, stream: Outgoing) -> None:
        """A stream is over."""
        self._beside().leave(stream)

    def _refuse(self, sink: Sink, call: Call, error: errors.CallError) -> None:
        """Refuse a call that is no turn yet."""
        self._services.meters.refuse(self.kind.name, error)
        refuse(sink, call.id, error)

    def _take_unready(self, turn: Turn, now: float) -> None:
        """A call while the activation comes or goes."""
        self._performer.count(turn)
        if self._state is State.GONE:
            self._home.elsewhere(turn)
        elif self._mailbox.enters(turn):
            self._performer.enter(turn, now)  # a turn that must end first waits for it
        elif any(hop.grain == self.grain and hop.turn == HOOK_TURN for hop in turn.chain):
            self._reject(turn, refusals.hook_waits(turn.chain, self.grain))
        elif len(self._waiting) >= self._limit:
            what = self._state.name.lower()
            self._reject(turn, refusals.full_line(self.grain, what, len(self._waiting)))
        else:
            self._waiting.append(turn)
            self._home.track(turn)

    def cancel(self, turn: Turn) -> None:
        """Its caller no longer waits."""
        if turn.ended:
            return
        if not self.withdraw(turn):
            self._performer.cancel(turn)

    def _reject(self, turn: Turn, error: errors.CallError) -> None:
        turn.fail(error)
        self._performer.forget(turn)

    # What are no calls: timers and streams ----------------------------------------------------------

    def set_timer(self, spec: TimerSpec) -> Timer:
        """Begin a timer."""
        if self._state in {State.DEACTIVATING, State.GONE}:
            return Timer(spec.name, None)
        return self._beside().set_timer(spec)

    @property
    def book(self) -> Book:
        """Its reminders."""
        return self._beside().book

    def _beside(self) -> Aside:
        if self._aside is None:
            entries = self._performer.entries
            self._aside = Aside(self.grain, self.kind, self._durable, self._services, self, entries)
        return self._aside

    def enter(self, turn: Turn, now: float) -> None:
        """Let in a turn that is no call."""
        self._performer.count(turn)
        if self._state is State.ACTIVATING:
            self._waiting.append(turn)
            self._home.track(turn)
        else:
            self._performer.enter(turn, now)

    def withdraw(self, turn: Turn) -> bool:
        """Drop a turn that waits. False where it does not."""
        if turn not in self._waiting:
            return self._performer.withdraw(turn)
        self._waiting.remove(turn)
        self._performer.drop(turn)
        return True

    # Coming and going ------------------------------------------------------------------------------

    def activate_at_once(self) -> bool:
        """Become valid without waiting, where the kind needs neither store nor hook."""
        if self.kind.durable or self.kind.has_on_activate:
            return False
        self._go(State.VALID)
        return True

    async def activate(
        self, *, raise_version: bool, first: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        """Load the state, run the hook, and let in the calls that came meanwhile.

        Args:
            raise_version: an earlier commit of this grain may still land; keep it from that.
            first: what to do before the hook; False where the activation is to go instead.

        Raises:
            StoreError: the state cannot be read.
            Superseded: the partition is not ours any more.
            Exception: whatever on_activate raised.
        """
        if self.kind.durable or raise_version:
            await self._durable.load(raise_version=raise_version)
        if first is not None and not await first():
            self.drop()
            return
        if self.kind.has_on_activate:
            await self.run_hook("on_activate")
        if self._is(State.GONE):
            return  # dropped meanwhile
        self._go(State.VALID)
        while self._waiting and self._is(State.VALID):
            turn = self._waiting.pop(0)
            if turn.tracked:
                self._home.untrack(turn)
            self._performer.enter(turn, self._services.clock.boottime())

    def fail(self, error: errors.CallError) -> None:
        """It cannot be activated: refuse the calls that came meanwhile, and go."""
        self._refusal = error
        while self._waiting:
            self._reject(self._waiting.pop(0), error)
        self.drop()

    async def deactivate(
        self, reason: Reason, within_s: float, last: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Finish the turns that run, run the hook, go, and send on what waits.

        Args:
            reason: why, for the hook.
            within_s: turns that take longer are cancelled and rolled back.
            last: what to do after the hook, while calls still wait, unless the activation was dropped
                meanwhile. What it raises is raised here.
        """
        if self._state is not State.VALID:
            return
        self._go(State.DEACTIVATING)
        if self._aside is not None:
            self._aside.stop()
        self._waiting.extend(self._mailbox.take_waiting())
        if self._mailbox.running:
            await wait_quiet(self._performer, self.grain, within_s)
        try:
            await self._say_goodbye(reason, within_s)
            if last is not None and self._is(State.DEACTIVATING):
                await last()
        finally:
            self.drop()

    async def _say_goodbye(self, reason: Reason, within_s: float) -> None:
        if self.kind.has_on_deactivate and self._is(State.DEACTIVATING):
            await say_goodbye(self.run_hook("on_deactivate", reason), self.grain, within_s)

    def drop(self) -> None:
        """Be gone at once: what is not committed is not kept; calls that wait are placed anew."""
        if self._state is State.GONE:
            return
        self._go(State.GONE)
        if self._aside is not None:
            self._aside.stop()
        durable = self._durable
        # A turn that is left behind must not commit any more: the next activation loads what is there now.
        lost, durable.lost = durable.lost, True
        self._home.removed(self, doubtful=durable.unsettled, lost=lost)
        waiting = [*self._waiting, *self._mailbox.take_nested(), *self._mailbox.take_waiting()]
        self._waiting.clear()
        for turn in waiting:
            self._home.elsewhere(turn)

    async def run_hook(self, name: str, *args: object) -> Any:
        """Run a hook, and commit what it has changed, as if it were a turn. Returns what it returns."""
        code = getattr(self._durable.instance, name)(*args)
        limit_s = self._services.config.limits.call_timeout_s
        return await run_hook(code, self._durable, self._performer, limit_s)

    def retire(self) -> None:
        """It asks to be deactivated."""
        self._home.retire(self, Reason.REQUESTED)

    def __repr__(self) -> str:
        return f"<Activation {self.grain} {self._state.name} {self._mailbox!r}>"
