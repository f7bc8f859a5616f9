"""Typed references to grains. Owns their form; sends nothing itself and knows no network.

A reference is an instance of a class that is written once for each kind. It has the kind's public
methods and nothing else: each is a coroutine function with the method's own parameters, which
encodes them, has its Caller carry them, and decodes the answer.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn, Protocol, TypeVar, cast

import msgspec

from durum import errors, ids
from durum.grains import option_values
from durum.grains.kind import GrainKind, kind_of
from durum.grains.method import Method
from durum.grains.source import compile_function
from durum.grains.streams import Results, Source
from durum.ids import GrainId

T = TypeVar("T")

_KNOWN_LIMIT: Final = 16_384


class CallOptions(msgspec.Struct, frozen=True, gc=False):
    """How a call is made.

    Args:
        timeout_s: how long the caller waits; None: the default of whoever carries the call.
        idempotency_key: calls with one key take effect once; "" for none.
        delay_s: a message is delivered so long after it was sent; None: at once.
        at_s: a message is delivered at that time, in seconds since 1970; None: at once.
    """

    timeout_s: float | None = None
    idempotency_key: str = ""
    delay_s: float | None = None
    at_s: float | None = None

    def within(self, timeout_s: float) -> CallOptions:
        """The same options with another time limit, in seconds."""
        return CallOptions(timeout_s, self.idempotency_key, self.delay_s, self.at_s)


class Target:
    """The grain that a reference stands for.

    Args:
        kind: its kind.
        key: its key.

    Attributes:
        grain: the two in one.
        hash: crc32 of the grain id; modulo P it is the partition.

    Raises:
        ArgumentError: the key is no text of 1 to 1024 bytes.
    """

    __slots__ = ("grain", "hash", "key", "kind")

    def __init__(self, kind: GrainKind, key: str) -> None:
        self.kind: Final = kind
        self.key: Final = key
        self.grain: Final[GrainId] = ids.grain_id(kind.name, key)
        self.hash: Final = zlib.crc32(self.grain.encode())

    def __repr__(self) -> str:
        return f"<Target {self.grain}>"


class Caller(Protocol):
    """Whoever carries a call to a grain and its answer back."""

    def call(
        self, target: Target, method: Method, args: bytes, options: CallOptions, /
    ) -> Awaitable[bytes]:
        """The encoded result, by the deadline.

        Raises:
            CallError: there is none; did_run says what is known.
            Exception: the method's own, in its own type where the caller knows it.
        """
        ...

    def stream(
        self, target: Target, method: Method, args: bytes, options: CallOptions, /
    ) -> Source:
        """The results of a streaming method. Nothing is sent before the first is asked for."""
        ...


class Reference:
    """The base of the classes that are written for each kind."""

    __slots__ = ("_durum_caller", "_durum_options", "_durum_target", "_durum_way")

    __durum_refusal__ = (
        "a reference to a grain cannot travel; pass the grain's key, and let the other side call "
        "self.actor(Kind, key)"
    )

    def __init__(self, caller: Caller, target: Target, options: CallOptions) -> None:
        set_slot = object.__setattr__
        set_slot(self, "_durum_caller", caller)
        set_slot(self, "_durum_target", target)
        set_slot(self, "_durum_options", options)
        # What each call needs, in one: where there is a __getattr__, a look-up takes a tenth of a
        # microsecond, also of what is there.
        set_slot(self, "_durum_way", (caller.call, target, options))

    def __getattr__(self, name: str) -> NoReturn:
        kind = self._durum_target.kind
        title = kind.cls.__qualname__
        if name in kind.fields.names:
            why = (
                f"{title}.{name} is a field, and fields are seen by their grain only. Write a "
                f"getter: @read_only async def get_{name}(self), and await it."
            )
        elif name.startswith("_") or hasattr(kind.cls, name):
            why = f"{title}.{name} is not a public method; only those can be called from outside."
        else:
            why = f"{title} has no public method {name!r}. It has: {', '.join(kind.methods)}."
        raise AttributeError(why, name=name, obj=self)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"{self!r} is a reference: {name} cannot be assigned from outside. Write a method "
            "that does it.",
            name=name,
            obj=self,
        )

    def __repr__(self) -> str:
        target = self._durum_target
        return f"<reference to {target.kind.name} {target.key!r}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reference):
            return NotImplemented
        return self._durum_target.grain == other._durum_target.grain

    def __hash__(self) -> int:
        return hash(self._durum_target.grain)

    def __copy__(self) -> Reference:
        return self

    def __deepcopy__(self, memo: object) -> Reference:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        target = self._durum_target
        return (_unbound, (target.kind.cls, target.key))

    _durum_caller: Caller
    _durum_target: Target
    _durum_options: CallOptions


class _Refusing:
    """A caller that carries no call."""

    def call(
        self,
        target: Target,
        method: Method,
        args: bytes,  # noqa: ARG002 - the Caller's signature
        options: CallOptions,  # noqa: ARG002
    ) -> Awaitable[bytes]:
        raise self._error(target, method)

    def stream(
        self,
        target: Target,
        method: Method,
        args: bytes,  # noqa: ARG002
        options: CallOptions,  # noqa: ARG002
    ) -> Source:
        raise self._error(target, method)

    def _error(self, target: Target, method: Method) -> errors.ArgumentError:
        raise NotImplementedError


class _Nobody(_Refusing):
    """The caller of a reference that was unpickled: which cluster it belongs to did not travel."""

    def _error(self, target: Target, method: Method) -> errors.ArgumentError:
        return errors.ArgumentError(
            f"{target.grain}: this reference was unpickled and belongs to no cluster; "
            f"{method.name} did not run. Take a new one: cluster.actor("
            f"{target.kind.cls.__qualname__}, {target.key!r})."
        )


class _Later(_Refusing):
    """The caller of a reference with a delay: only messages can have one, so it carries no call.

    Args:
        inside: the reference's own caller.
    """

    def __init__(self, inside: Caller) -> None:
        self.inside = inside

    def _error(self, target: Target, method: Method) -> errors.ArgumentError:
        return errors.ArgumentError(
            f"{target.grain}: delay and at are for messages, and {method.name} was called; it did not run."
            f" Tell it: self.tell(ref.{method.name}, ...) in an actor, cluster.tell(...) elsewhere."
        )


_NOBODY: Final = _Nobody()
_PLAIN: Final = CallOptions()
_PROXY_ATTRIBUTE: Final = "_durum_proxy"


def reference(caller: Caller, cls: type[T], key: str) -> T:
    """A typed reference to a grain. Does no I/O; the grain need not have been called before.

    Args:
        caller: who will carry the calls.
        cls: the grain's class.
        key: which one.

    Raises:
        ArgumentError: the key is no text of 1 to 1024 bytes.
        ConfigError: cls is no grain class.
    """
    proxy = cls.__dict__.get(_PROXY_ATTRIBUTE) or _proxy_class(cls)
    made = proxy(caller, Target(kind_of(cls), key), _PLAIN)
    return cast("T", made)  # it answers to exactly the methods that T declares


def caller_of(ref: Reference) -> Caller:
    """Who carries the calls of a reference."""
    caller = ref._durum_caller  # noqa: SLF001 - ours
    return caller.inside if isinstance(caller, _Later) else caller


def options_of(ref: Reference) -> CallOptions:
    """The options of a reference."""
    return ref._durum_options  # noqa: SLF001 - ours


class References:
    """References of one caller, made once and kept for a while: callers name the same grains again.

    They are immutable, so that all may share them. Where there are too many, all are forgotten; the
    next ones are made anew.

    Args:
        caller: who will carry the calls.
    """

    __slots__ = ("_caller", "_known")

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._known: dict[tuple[type, str], Any] = {}

    def get(self, cls: type[T], key: str) -> T:
        """As `reference` of the caller. Raises what it raises."""
        try:
            # Put there under this very class. A cast would be one more call, for each that is made.
            known: T = self._known[cls, key]
        except (KeyError, TypeError):
            made = reference(self._caller, cls, key)
        else:
            return known
        if len(self._known) >= _KNOWN_LIMIT:
            self._known.clear()
        self._known[cls, key] = made
        return made


def target_of(ref: Reference) -> Target:
    """The grain that a reference stands for."""
    return ref._durum_target  # noqa: SLF001 - ours


def options(
    ref: T,
    *,
    timeout: float | timedelta | None = None,
    idempotency_key: str | None = None,
    delay: float | timedelta | None = None,
    at: datetime | None = None,
) -> T:
    """The same reference with options for the calls and messages made through it.

    Args:
        ref: a reference; it is not changed.
        timeout: how long a call may take, in seconds; None leaves it as it is.
        idempotency_key: 1 to 256 characters. All calls of one method with the same arguments and
            key take effect once, and repeats get the first one's reply; None leaves it as it is.
        delay: for messages (`tell`) only: deliver them so long after they were sent; seconds or a
            timedelta.
        at: for messages only: deliver them at that time, which has a time zone, or soon after it.

    Raises:
        ArgumentError: ref is no reference, or an option is out of its range.
    """
    if not isinstance(ref, Reference):
        raise errors.ArgumentError(
            f"options(): expected a reference such as cluster.actor(Kind, key), got {ref!r}; "
            "nothing was sent."
        )
    before, caller = options_of(ref), ref._durum_caller  # noqa: SLF001 - ours
    after = CallOptions(
        before.timeout_s if timeout is None else option_values.time_limit(timeout),
        before.idempotency_key if idempotency_key is None else option_values.key(idempotency_key),
        before.delay_s,
        before.at_s,
    )
    if delay is not None or at is not None:
        delay_s, at_s = option_values.due(delay, at)
        after = CallOptions(after.timeout_s, after.idempotency_key, delay_s, at_s)
        caller = _Later(caller_of(ref))
    made = type(ref)(caller, ref._durum_target, after)  # noqa: SLF001
    return cast("T", made)  # the same class as ref


def _unbound(cls: type[T], key: str) -> T:
    return reference(_NOBODY, cls, key)


def _proxy_class(cls: type[T]) -> type[Reference]:
    kind = kind_of(cls)
    body: dict[str, object] = {
        "__slots__": (),
        "__module__": cls.__module__,
        "__doc__": cls.__doc__,
    }
    body |= {name: _proxy_method(method) for name, method in kind.methods.items()}
    proxy = type(f"{cls.__name__}Reference", (Reference,), body)
    setattr(cls, _PROXY_ATTRIBUTE, proxy)
    return proxy


def _proxy_method(method: Method) -> object:
    everything = "".join(f"{each.name}, " for each in method.parameters)
    written = "".join(f"{each.written}, " for each in method.parameters)
    check = f"        _durum_check(({everything}))\n" if method.names["_durum_check"] else ""
    carry = (
        "    return _durum_results(_durum_self._durum_caller.stream(\n"
        if method.streams
        else "    return _durum_decode(await _durum_call(\n"
    )
    text = (
        f"{'' if method.streams else 'async '}def {method.name}(_durum_self, {method.signature}):\n"
        f"    try:\n{check}"
        f"        _durum_args = _durum_write(({written}))\n"
        "        if _durum_len(_durum_args) > _durum_method.limit_bytes:\n"
        "            _durum_method.sized(_durum_args)\n"
        "    except Exception:\n"
        f"        _durum_args = _durum_method.pack_slowly(({everything}))\n"
        "    _durum_call, _durum_target, _durum_options = _durum_self._durum_way\n"
        f"{carry}"
        "        _durum_target, _durum_method, _durum_args, _durum_options)"
        f"{', _durum_decode' if method.streams else ''})\n"
    )
    names = {
        **method.names,
        "_durum_decode": method.decode_result,
        "_durum_results": Results,
    }
    function = compile_function(method.name, text, names, f"{method.owner} reference")
    function.__qualname__ = f"{method.owner}.{method.name}"
    function.__doc__ = method.function.__doc__
    function.__module__ = method.function.__module__
    return function
