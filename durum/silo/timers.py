"""The volatile timers of one activation. Owns when they tick; each tick is a turn like any other's."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any, Final, Protocol

from durum import errors
from durum.grains.actor import Actor
from durum.grains.kind import READ_ONLY_MARK, GrainKind
from durum.grains.method import waits
from durum.grains.timers import Feed, Timer, TimerSpec
from durum.ids import GrainId
from durum.silo.services import Services
from durum.silo.turn import Grain, Turn
from durum.telemetry import Log
from durum.wire.messages import AnyMessage, Call, Failure

_log: Final = Log("durum.timers")


class Tick:
    """What a turn of a timer runs, in the place of a public method.

    Args:
        spec: the timer's.
        kind: the actor's.
    """

    opaque: Final = False

    def __init__(self, spec: TimerSpec, kind: GrainKind) -> None:
        self.name = spec.function.__name__
        self.waits = waits(spec.function)
        self.read_only = bool(getattr(spec.function, READ_ONLY_MARK, False))
        self.args = spec.args
        self._spec = spec
        self._kind = kind

    def invoke(self, instance: Actor, _args: bytes, /) -> Coroutine[Any, Any, object]:
        """Begin the callback."""
        seen = self._kind.view(instance) if self.read_only else instance
        return self._spec.function(seen, *self.args)

    def encode_result(self, _value: object, /) -> bytes:
        """Nobody waits for one."""
        return b""


class _Ticking:
    """One timer; the sink of its ticks' answers."""

    trusted = True
    silo = None

    def __init__(self, spec: TimerSpec, tick: Tick) -> None:
        self.spec = spec
        self.tick = tick
        self.task: asyncio.Task[object] | None = None
        self.turn: Turn | None = None
        self.over: asyncio.Event = asyncio.Event()
        self.timer: Timer

    def send(self, message: AnyMessage) -> None:
        """A tick has ended."""
        turn, self.turn = self.turn, None
        self.over.set()
        if isinstance(message, Failure) and turn is not None:
            _log.error(
                "a timer's method failed",
                grain=turn.call.grain,
                timer=self.spec.name,
                error=message.text,
                type=message.type_name or message.error,
                traceback=message.traceback,
            )


class Lane(Protocol):
    """The activation, as those see it whose turns are no calls."""

    def enter(self, turn: Turn, now: float) -> None:
        """Let a turn begin or wait."""
        ...

    def withdraw(self, turn: Turn) -> bool:
        """Drop one that waits. False where it does not."""
        ...


class Timers:
    """The timers of one activation.

    Args:
        grain: whose.
        kind: its kind.
        durable: its durable side.
        services: the silo's.
        lane: where its ticks go.
    """

    __slots__ = ("_durable", "_grain", "_kind", "_lane", "_services", "_ticking")

    def __init__(
        self, grain: GrainId, kind: GrainKind, durable: Grain, services: Services, lane: Lane
    ) -> None:
        self._grain = grain
        self._kind = kind
        self._durable = durable
        self._services = services
        self._lane = lane
        self._ticking: dict[_Ticking, None] = {}

    @property
    def active(self) -> bool:
        """Whether there are any."""
        return bool(self._ticking)

    @property
    def keep_alive(self) -> bool:
        """Whether one keeps the activation."""
        return any(one.spec.keep_alive for one in self._ticking)

    def start(self, spec: TimerSpec) -> Timer:
        """Begin a timer."""
        if spec.replaces:
            for one in [each for each in self._ticking if each.spec.name == spec.name]:
                one.timer.cancel()
        ticking = _Ticking(spec, Tick(spec, self._kind))
        ticking.timer = Timer(spec.name, lambda: self._stop(ticking))
        self._ticking[ticking] = None
        services = self._services
        ticking.task = services.tasks.start(
            self._run(ticking), f"timer {spec.name} of {self._grain}", services.base.copy()
        )
        return ticking.timer

    def stop(self) -> None:
        """End them all; a tick that runs goes on to its end."""
        for one in list(self._ticking):
            one.timer.cancel()

    def _stop(self, ticking: _Ticking) -> None:
        self._ticking.pop(ticking, None)
        turn = ticking.turn
        if turn is not None:
            self._lane.withdraw(turn)
        if ticking.task is not None:
            ticking.task.cancel()

    async def _run(self, ticking: _Ticking) -> None:
        if ticking.spec.feed is None:
            await self._run_by_time(ticking)
        else:
            await self._run_by_events(ticking, ticking.spec.feed)
        self._ticking.pop(ticking, None)
        ticking.timer.ended()

    async def _run_by_events(self, ticking: _Ticking, feed: Feed) -> None:
        try:
            async with aclosing(feed):
                async for event in feed:
                    ticking.tick.args = (event,)
                    await self._tick(ticking)
        except errors.CallError as exc:
            _log.error("cannot follow any longer", exc, grain=self._grain, timer=ticking.spec.name)

    async def _run_by_time(self, ticking: _Ticking) -> None:
        clock, every_s = self._services.clock, ticking.spec.every_s
        due = clock.boottime() + ticking.spec.due_s
        while True:
            while (left_s := due - clock.boottime()) > 0:
                await clock.sleep(left_s)
            await self._tick(ticking)
            if every_s is None:
                break
            # In step with the first one, however long a tick took; those missed are left out.
            due += every_s * max(1, math.ceil((clock.boottime() - due) / every_s))

    async def _tick(self, ticking: _Ticking) -> None:
        services, tick = self._services, ticking.tick
        now = services.clock.boottime()
        timeout_s = services.config.limits.call_timeout_s
        number = next(services.turns)
        ticking.over.clear()
        ticking.turn = turn = Turn(
            number,
            Call(number, self._grain, tick.name, b"", int(timeout_s * 1000)),
            tick,
            ticking,
            self._durable,
            now + timeout_s,
            tick.read_only,
            (),
            "",
            services.meters.timer(self._kind.name, tick.name),
            now,
        )
        self._lane.enter(turn, now)
        await ticking.over.wait()

    def __repr__(self) -> str:
        return f"<Timers {self._grain} {[one.timer for one in self._ticking]}>"
