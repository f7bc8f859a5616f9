"""Durable messages as callers write them: whom, which method, when. Pure: checks, and sends nothing."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from durum import errors
from durum.grains.kind import kind_of
from durum.grains.method import Method
from durum.grains.reference import Caller, CallOptions, Reference, Target, caller_of, options_of

PAST_S: Final = 5.0
"""So far in the past `at` may lie: clocks differ."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """What is to be sent.

    Args:
        target: the receiver.
        method: which of its methods is to run.
        args: for it, encoded.
        options: when, and for clients under which key.
        caller: whose reference it was made with; None for an actor's message to itself.
    """

    target: Target
    method: Method
    args: bytes
    options: CallOptions
    caller: Caller | None

    def due_ms(self, now_s: float) -> int | None:
        """When it is due, in milliseconds of store time; None: at once.

        Args:
            now_s: store time, seconds.

        Raises:
            ArgumentError: it lies in the past.
        """
        options = self.options
        if options.delay_s is not None:
            return math.ceil((now_s + options.delay_s) * 1000) if options.delay_s else None
        if options.at_s is None:
            return None
        if options.at_s < now_s - PAST_S:
            raise errors.ArgumentError(
                f"{self.target.grain}: at lies {now_s - options.at_s:.0f} s in the past; nothing was"
                " sent. Leave it out to send at once."
            )
        return math.ceil(options.at_s * 1000) if options.at_s > now_s else None


def message(
    method: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    itself: object = None,
) -> Message:
    """Check what is to be sent.

    Args:
        method: of a reference, or of the sending actor itself.
        args, kwargs: the method's.
        itself: the sending actor, where there is one.

    Raises:
        TypeError: the arguments do not fit the method's parameters.
        ArgumentError: it is no method that a message can run, or an argument cannot travel.
    """
    given: object = method
    if inspect.iscoroutine(given):
        given.close()
        raise errors.ArgumentError(
            "tell(): the method was called already; nothing was sent. Give the method and its arguments"
            " apart: self.tell(ref.deposit, Decimal(10))."
        )
    owner = getattr(method, "__self__", None)
    name = getattr(method, "__name__", "")
    caller: Caller | None = None
    options = CallOptions()
    if isinstance(owner, Reference):
        target, options, caller = owner._durum_target, options_of(owner), caller_of(owner)  # noqa: SLF001
    elif owner is not None and itself is not None and vars(owner) is vars(itself):
        target = Target(kind_of(type(owner)), owner.key)
    else:
        raise _no_method(method)
    found = target.kind.methods.get(name)
    if found is None:
        raise _no_method(method)
    _check(target, found)
    written = found.bind(args, kwargs)
    if not found.opaque:
        found.unpack(written)  # what does not fit would only show when nobody waits any more
    return Message(target, found, written, options, caller)


def _no_method(method: object) -> errors.ArgumentError:
    return errors.ArgumentError(
        f"tell(): expected a public method of a reference, such as ref.deposit, got {method!r:.200}; nothing"
        " was sent."
    )


def _check(target: Target, method: Method) -> None:
    what = f"{method.owner}.{method.name}"
    if target.kind.stateless:
        raise errors.ArgumentError(
            f"{target.grain} is a stateless worker, which keeps nothing, and so not which messages it has"
            " had; nothing was sent. Call it, or tell an ordinary actor."
        )
    if method.streams:
        raise errors.ArgumentError(
            f"{what} gives a stream of results, which nobody would read; nothing was sent. Iterate over it."
        )
    if method.read_only:
        raise errors.ArgumentError(
            f"{what} is @read_only: it changes nothing, and nobody would see its result; nothing was sent."
            " Call it."
        )


def check_sendable(sent: Message) -> None:
    """Refuse options that mean nothing for what a turn sends.

    Raises:
        ArgumentError: a time limit, or an idempotency key.
    """
    if sent.options.idempotency_key:
        raise errors.ArgumentError(
            f"{sent.target.grain}: a turn's messages go out exactly once by themselves, so they take no"
            " idempotency_key; nothing was sent. Leave it out."
        )
    if sent.options.timeout_s is not None:
        raise errors.ArgumentError(
            f"{sent.target.grain}: a message waits as long as it has to, so it takes no timeout; nothing was"
            " sent. Leave it out."
        )
