"""One run of a method, from a message up to its answer. Owns its numbers and its one answer; runs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, Final, Protocol

import msgspec

from durum import errors
from durum.errors import DidRun
from durum.grains.method import Method
from durum.ids import SiloId
from durum.silo import replies
from durum.silo.effects import Staged
from durum.silo.meters import Meter
from durum.wire.messages import AnyMessage, Call, Failure, Hop, Reply


class Sink(Protocol):
    """Where answers go: a connection, or the silo itself."""

    trusted: bool
    """Pickled values may come from there and go there."""

    @property
    def silo(self) -> SiloId | None:
        """The silo that sends, for its own grains or for clients that go through it; None for a client."""
        ...

    def send(self, message: AnyMessage) -> None:
        """Send a message; never blocks, never fails."""
        ...


class Grain(Protocol):
    """What a turn has to know of its activation."""

    def changed(self) -> bool:
        """Whether durable fields differ from what was committed last."""
        ...


class Runnable(Protocol):
    """What a turn runs: a public method, or what stands in its place, as a timer's tick does."""

    @property
    def name(self) -> str:
        """For people, and for the digests of remembered replies."""
        ...

    @property
    def waits(self) -> bool:
        """Whether it may suspend. What cannot needs no task."""
        ...

    def invoke(self, instance: Any, args: bytes, /) -> Coroutine[Any, Any, Any]:
        """Begin it. Raises ArgumentError where the arguments do not fit."""
        ...

    def encode_result(self, value: Any, /) -> bytes:
        """Write what it returned. Raises where that is not what it declares."""
        ...


class Turn(msgspec.Struct, eq=False):
    """A call at its grain. A Struct since there is one for every call: they are made fastest.

    Args:
        number: unique in the silo's life.
        call: the message.
        method: what it runs.
        sink: where its answer goes.
        grain: the activation it runs in.
        deadline: by boottime; it does not start after it.
        read_only: the method's.
        chain: the call's.
        key: the call's idempotency key, or "".
        meter: where its end is counted.
        since: boottime of the call's arrival.
        outer: the turn of the same grain inside which it runs.
        task: what runs its code, where it may wait.
        begun: its task has taken its first step.
        saving: calls of save() without an outcome yet.
        kept: what is true of it if it fails: more once it has saved.
        over: its code has ended.
        ended: it has been answered.
        tracked: it can be cancelled.
        staged: what its next commit has to have besides fields.
        published: events that watchers see once it has committed.
    """

    number: int
    call: Call
    method: Runnable
    sink: Sink
    grain: Grain
    deadline: float
    read_only: bool
    chain: tuple[Hop, ...]
    key: str
    meter: Meter
    since: float
    outer: Turn | None = None
    task: asyncio.Task[object] | None = None
    begun: bool = False
    saving: int = 0
    kept: DidRun = DidRun.ROLLED_BACK
    over: bool = False
    ended: bool = False
    tracked: bool = False
    staged: Staged | None = None
    published: list[bytes] | None = None

    def uncommitted(self) -> bool:
        """Whether it has changed durable fields since its last commit."""
        return not self.read_only and self.grain.changed()

    def digest(self) -> bytes:
        """What tells it from another call under the same idempotency key.

        Raises:
            ArgumentError: its arguments do not fit.
        """
        method, args = self.method, self.call.args
        if isinstance(method, Method):
            args = method.canonical(args)
        return replies.digest_call(method.name, args)

    def hops(self) -> tuple[Hop, ...]:
        """The chain of a call that this turn makes."""
        return (*self.chain, Hop(self.call.grain, self.number))

    def reply(self, result: bytes) -> None:
        """Answer with a value."""
        self.answer(Reply(self.call.id, result))

    def answer(self, outcome: Reply | Failure) -> None:
        """Answer with how a run has ended: this one, or an earlier one under the same key."""
        outcome.id = self.call.id
        self.sink.send(outcome)
        self.meter.ended(self.since, outcome)

    def fail(self, error: errors.CallError) -> None:
        """Answer with one of Durum's own errors."""
        self.answer(failed(self.call.id, error))

    def __repr__(self) -> str:
        return f"<Turn {self.number} {self.call.grain}.{self.method.name}>"


def failed(call_id: int, error: errors.CallError) -> Failure:
    """One of Durum's own errors, as an answer."""
    failure = Failure(call_id, type(error).__name__, DidRun(error.did_run), str(error))
    if isinstance(error, errors.RemoteError):
        failure.type_name, failure.traceback = error.type_name, error.traceback
    return failure


def refuse(sink: Sink, call_id: int, error: errors.CallError) -> None:
    """Answer a call with one of Durum's own errors."""
    sink.send(failed(call_id, error))


CURRENT: ContextVar[Turn | None] = ContextVar("durum_turn", default=None)
"""The turn whose code is running. Tasks that a turn starts inherit it; `over` tells when it has ended."""


class Hook:
    """One run of a grain's hook."""

    __slots__ = ("over", "staged")

    def __init__(self) -> None:
        self.over = False
        self.staged: Staged | None = None


HOOK: ContextVar[Hook | None] = ContextVar("durum_hook", default=None)
"""The hook whose code is running. Tasks that it starts inherit it, as they do a turn."""
HOOK_TURN: Final = 0
"""Stands for a hook in the chain of a call. Turns have other numbers."""
