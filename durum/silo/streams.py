"""Streams of results that leave this silo. Owns each one's steps, credit and end; the turns are the
activation's.

A stream holds no turn at a `yield`. Each step to the next one is a read-only turn of its own, so the lease is
looked at before it, and other turns may change the state between two items.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol, cast

from durum import errors
from durum.errors import DidRun
from durum.grains.kind import Method
from durum.silo.meters import Meter
from durum.silo.observers import WINDOW_LIMIT, Watcher
from durum.silo.services import Services
from durum.silo.turn import Grain, Sink, Turn, failed
from durum.telemetry import Log
from durum.wire.administration import WATCH
from durum.wire.messages import AnyMessage, Call, Credit, Failure, Item, Moved, Open, Reply

_log: Final = Log("durum.streams")
_END: Final = object()


class Lane(Protocol):
    """The activation, as a stream sees it."""

    def enter(self, turn: Turn, now: float) -> None:
        """Let a turn begin or wait."""
        ...

    def withdraw(self, turn: Turn) -> bool:
        """Drop one that waits. False where it does not."""
        ...

    def cancel(self, turn: Turn) -> None:
        """Drop it, or cancel its code."""
        ...

    def leave(self, stream: Outgoing) -> None:
        """A stream is over."""
        ...


class _Step:
    """What a turn of a stream runs, in the place of a public method."""

    opaque: Final = False

    def __init__(self, method: Method, run: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self.name = method.name
        self.waits = method.waits
        self._method = method
        self._run = run

    def invoke(self, _instance: object, _args: bytes, /) -> Coroutine[Any, Any, object]:
        """Begin it."""
        return self._run()

    def encode_result(self, value: object, /) -> bytes:
        """Write the item; nothing at all stands for the end."""
        return b"" if value is _END else self._method.encode_result(value)


class Outgoing:
    """One stream; the sink of its turns' answers.

    Args:
        message: what asks for it.
        sink: where its items go.
        services: the silo's.
        ended: called once it is over.

    Attributes:
        call: the same as a call, to be placed as all calls are.
    """

    def __init__(
        self, message: Open, sink: Sink, services: Services, ended: Callable[[Outgoing], None]
    ) -> None:
        self.sink: Final = sink
        self.trusted = sink.trusted
        self.silo = sink.silo
        self._services = services
        self._ended = ended
        self._credit = max(1, min(message.window, WINDOW_LIMIT))
        self.call: Final = Call(
            message.id,
            message.grain,
            message.method,
            message.args,
            message.timeout_ms,
            "",
            message.chain,
            message.hops,
            message.request,
            message.carried,
        )
        self._lane: Lane | None = None
        self._durable: Grain
        self._meter: Meter
        self._step: _Step
        self._close: _Step
        self._generator: AsyncGenerator[object, None]
        self._turn: Turn | None = None  # the step that waits or runs
        self._sent = False
        self._moving = False
        self._closing = False
        self.over = False

    # What the activation does ---------------------------------------------------------------------------

    def attach(
        self, lane: Lane, method: Method, meter: Meter, durable: Grain, instance: Any
    ) -> None:
        """Begin, in an activation.

        Raises:
            ArgumentError: the arguments do not fit.
        """
        generator: object = method.invoke(instance, self.call.args)
        self._generator = cast("AsyncGenerator[object, None]", generator)
        self._lane, self._meter, self._durable = lane, meter, durable
        self._step = _Step(method, self._advance)
        self._close = _Step(method, self._finish)
        self._pump()

    def move(self) -> None:
        """The activation ends. A step that runs goes on to its end, and its item is sent."""
        self._moving = True
        turn = self._turn
        if turn is None or (self._lane is not None and self._lane.withdraw(turn)):
            self._turn = None
            self._end(self._moved())

    def close_soon(self) -> None:
        """End the author's code where it stands, without a turn."""
        services = self._services
        services.tasks.start(self.closed(), f"close {self!r}", services.base.copy())

    async def closed(self) -> None:
        """End the author's code where it stands; no turn runs it."""
        if self._closing or self._turn is not None:
            return
        self._closing = True
        try:
            await self._generator.aclose()
        except Exception as exc:  # noqa: BLE001 - the author's code must not keep a grain from going
            _log.error("a stream could not be closed", exc, grain=self.call.grain)

    # What the caller does -------------------------------------------------------------------------------

    def grant(self, items: int) -> None:
        """The caller has room for more."""
        self._credit = min(self._credit + max(0, items), WINDOW_LIMIT)
        self._pump()

    def cancel(self) -> None:
        """The caller wants no more, or is gone."""
        lane, turn = self._lane, self._turn
        if self.over:
            return
        self._over()
        if lane is None:
            return
        if turn is None or lane.withdraw(turn):
            self._turn = None
            self._let_finish(lane)
        else:
            lane.cancel(turn)  # its end goes on from there

    # Its steps ------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        lane = self._lane
        if lane is None or self.over or self._turn is not None or self._credit < 1:
            return
        self._turn = turn = self._new_turn(self._step, self)
        lane.enter(turn, turn.since)

    def _new_turn(self, step: _Step, sink: Sink) -> Turn:
        services, call = self._services, self.call
        now = services.clock.boottime()
        return Turn(
            next(services.turns),
            Call(call.id, call.grain, call.method, b"", call.timeout_ms, carried=call.carried),
            step,
            sink,
            self._durable,
            now + call.timeout_ms / 1000,
            True,
            call.chain,
            "",
            self._meter,
            now,
        )

    async def _advance(self) -> object:
        try:
            return await anext(self._generator)
        except StopAsyncIteration:
            return _END

    async def _finish(self) -> object:
        await self._generator.aclose()
        return _END

    def send(self, message: AnyMessage) -> None:
        """A step has ended, or it could not be placed."""
        self._turn = None
        if self.over:
            self._finish_later()
        elif isinstance(message, Reply) and message.result:
            self._send_item(message.result)
        elif isinstance(message, Reply | Failure | Moved):
            self._end(self._judged(message))

    def _send_item(self, item: bytes) -> None:
        self._credit -= 1
        self._sent = True
        self.sink.send(Item(self.call.id, item))
        if self._lane is None:
            self._end(Reply(self.call.id, b""))  # of a method that is no stream: there is only one
        elif self._moving:
            self._end(self._moved())
        else:
            # Not from here: other turns come first, and a long stream must not grow the stack.
            loop = asyncio.get_running_loop()
            loop.call_soon(self._pump, context=self._services.base)

    def _judged(self, message: Reply | Failure | Moved) -> Reply | Failure | Moved:
        if isinstance(message, Reply):
            return message
        if isinstance(message, Failure) and not self._lost(message):
            if self._sent and message.did_run is DidRun.NO:
                message.did_run = DidRun.ROLLED_BACK
            return message
        return self._moved() if self._sent else message

    def _lost(self, message: Failure) -> bool:
        """Whether it failed because this silo does not serve the grain any more."""
        return self._moving or message.error in {"NotServing", "ShuttingDown"}

    def _moved(self) -> Failure:
        grain = self.call.grain
        if not self._sent:
            return failed(
                self.call.id, errors.NotServing(f"{grain} moves; the stream did not begin.")
            )
        text = (
            f"{grain} has moved to another silo or was put away in the middle of a stream. What came before"
            " is right; call the method again for the rest."
        )
        return failed(self.call.id, errors.StreamMoved(text))

    def _end(self, outcome: Reply | Failure | Moved) -> None:
        if self.over:
            return
        outcome.id = self.call.id
        self.sink.send(outcome)
        self._over()
        self._finish_later()

    def _over(self) -> None:
        self.over = True
        self._ended(self)

    def _finish_later(self) -> None:
        if self._lane is not None:
            self._let_finish(self._lane)

    def _let_finish(self, lane: Lane) -> None:
        """Have the author's code end at its `yield`, in a turn of its own while there are any."""
        lane.leave(self)
        if self._moving:
            self.close_soon()
        elif getattr(self._generator, "ag_frame", None) is not None:
            turn = self._new_turn(self._close, _Nobody(self))
            lane.enter(turn, turn.since)

    def __repr__(self) -> str:
        return f"<Outgoing {self.call.grain}.{self.call.method} credit={self._credit} over={self.over}>"


class _Nobody:
    """Where the answer to a stream's last turn goes."""

    trusted = True
    silo = None

    def __init__(self, stream: Outgoing) -> None:
        self._stream = stream

    def send(self, message: AnyMessage) -> None:
        """The author's code has ended."""
        if isinstance(message, Failure):
            _log.debug("a stream is closed outside of a turn", error=message.text)
            self._stream.close_soon()


class Outgoings:
    """All streams of one silo.

    Args:
        services: the silo's.
        place: brings a call to its activation.
    """

    def __init__(self, services: Services, place: Callable[[Sink, Call], None]) -> None:
        self._services = services
        self._place = place
        self._open: dict[
            int, dict[int, Outgoing | Watcher]
        ] = {}  # by the sink's identity, and the id there
        self._count = 0

    def open(self, sink: Sink, message: Open) -> None:
        """Take in a request for a stream."""
        limit = self._services.config.limits.streams
        error: errors.CallError | None = None
        watches = message.method == WATCH
        if self._count >= limit and not watches:
            error = errors.Overloaded(
                f"{message.grain}: its silo has {self._count} streams open (limit {limit}); this one did not"
                " begin. Close what is not read, or raise streams."
            )
        elif message.id in self._open.get(id(sink), {}):
            error = errors.Rejected(f"{message.grain}: another stream has the id {message.id}.")
        if error is not None:
            sink.send(failed(message.id, error))
            return
        stream: Outgoing | Watcher
        if watches:  # bounded where they are, as they are no streams of results
            stream = Watcher(message, sink, self._services.config.limits, self._ended)
            stream.place = partial(self._place, stream, stream.call)
        else:
            stream = Outgoing(message, sink, self._services, self._ended)
            self._count += 1
        self._open.setdefault(id(sink), {})[message.id] = stream
        self._place(stream, stream.call)

    def find(self, sink: Sink, number: int) -> Outgoing | Watcher | None:
        """A stream that is open."""
        return self._open.get(id(sink), {}).get(number)

    def credit(self, sink: Sink, message: Credit) -> None:
        """A caller has room for more."""
        stream = self.find(sink, message.id)
        if stream is not None:
            stream.grant(message.items)

    def lost(self, sink: Sink) -> list[Outgoing | Watcher]:
        """A caller is gone. Returns the streams that ended with it."""
        streams = list(self._open.get(id(sink), {}).values())
        for stream in streams:
            stream.cancel()
        return streams

    def _ended(self, stream: Outgoing | Watcher) -> None:
        streams = self._open.get(id(stream.sink), {})
        if streams.pop(stream.call.id, None) is not None and isinstance(stream, Outgoing):
            self._count -= 1
        if not streams:
            self._open.pop(id(stream.sink), None)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<Outgoings {self._count}>"
