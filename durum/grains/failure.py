"""Exceptions on their way to a caller. Owns what of them travels; knows no connection and no turn.

At the silo an exception becomes a Failure. At the caller it becomes an exception again, in its own
type where that is a builtin or stands in a module of the kind that was called; otherwise it is a
RemoteError. Nothing is imported because data names it, and nothing is unpickled.
"""

from __future__ import annotations

import builtins
import linecache
import sys
import traceback
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import FunctionType, MappingProxyType, ModuleType, TracebackType
from typing import Any, Final

import msgspec

from durum import errors
from durum.errors import DidRun
from durum.grains.kind import GrainKind
from durum.ids import GrainId
from durum.wire import untyped
from durum.wire.messages import Failure
from durum.wire.shapes import Misfit

TEXT_LIMIT: Final = 16_384
"""Characters of a message or traceback that travel; the rest is cut off."""
_PAYLOAD_LIMIT: Final = 65_536
_FRAMES: Final = 30
_GROUP_LIMIT: Final = 32
_GROUP_DEPTH: Final = 4
_HERE: Final = str(Path(__file__).resolve().parent.parent)
_STOPS: Final = (StopIteration, StopAsyncIteration)
"""A coroutine that raises one of these has its caller see a RuntimeError instead."""

_MAIN: Final = "__main__"

KnownTypes = Mapping[str, type[Exception]]


class _Member(msgspec.Struct, array_like=True):
    """One exception of a group."""

    type_name: str
    text: str
    payload: bytes


class _Payload(msgspec.Struct, array_like=True):
    """What stands in Failure.args, by untyped.encode()."""

    args: list[Any]
    attributes: dict[str, Any]
    members: list[_Member]


def encode(exc: BaseException, call_id: int, did_run: DidRun) -> Failure:
    """Write an exception that a method raised.

    Args:
        exc: what it raised.
        call_id: the call's.
        did_run: what is true of this call, whatever the exception says of another one.
    """
    return Failure(
        id=call_id,
        error="",
        did_run=did_run,
        text=_text(exc),
        type_name=_type_name(type(exc)),
        args=_payload(exc),
        traceback=_traceback(exc),
    )


def refused_activation(exc: Exception, grain: GrainId) -> errors.CallError:
    """What callers are told when a grain could not be activated.

    A state that cannot be read: nothing ran. An `on_activate` that failed may have called others,
    so sending the call again is not surely safe.

    Args:
        exc: what reading the state or `on_activate` raised.
        grain: which.
    """
    if isinstance(exc, errors.NotServing):
        return exc
    if isinstance(exc, errors.CallError):
        exc.did_run = DidRun.ROLLED_BACK
        return exc
    if isinstance(exc, errors.DurumError):
        return errors.Rejected(f"{grain} cannot be activated: {exc} The call did not run.")
    error = errors.RemoteError(
        f"{_text(exc)} ({grain} could not be activated, so the method did not run; correct its "
        "on_activate, or its migrate_state)",
        type(exc).__qualname__,
        _traceback(exc),
    )
    error.__cause__ = exc
    return error


def rebuild(failure: Failure, kind: GrainKind) -> Exception:
    """Make the exception for the caller of a kind.

    Args:
        failure: as it came.
        kind: the kind that was called; see known_types.
    """
    if failure.error:
        return _own(failure)
    exc = _rebuilt(failure.type_name, failure.args, known_types(kind), _GROUP_DEPTH)
    if exc is None:
        return errors.RemoteError(
            failure.text,
            failure.type_name.rpartition(":")[2] or "Exception",
            failure.traceback,
            failure.did_run,
        )
    if isinstance(exc, errors.CallError):
        # What a call further on did is its caller's business; ours is whether this one ran.
        exc.did_run = failure.did_run
    if failure.traceback:
        exc.add_note(f"On the silo:\n{failure.traceback.rstrip()}")
    return exc


def known_types(kind: GrainKind) -> KnownTypes:
    """The exception types that a failure of a kind may name: builtins, Durum's own, and what the
    modules of its class and base classes define or import by name. All are loaded already.
    """
    return _known_types(kind)


def _own(failure: Failure) -> Exception:
    cls = getattr(errors, failure.error, None)
    if not (isinstance(cls, type) and issubclass(cls, errors.DurumError)):
        return errors.CallError(f"{failure.error}: {failure.text}", failure.did_run)
    if issubclass(cls, errors.RemoteError):
        error = cls("", failure.type_name, failure.traceback, failure.did_run)
        error.args = (failure.text,)
        return error
    if issubclass(cls, errors.CallError):
        return cls(failure.text, failure.did_run)
    return cls(failure.text)


def _type_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _text(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception as broken:  # noqa: BLE001 - the author's __str__ may do anything
        text = f"<its text cannot be made: {type(broken).__name__}>"
    # Text with a lone surrogate would make the whole answer unsendable.
    return text[:TEXT_LIMIT].encode(errors="replace").decode()


def _traceback(exc: BaseException) -> str:
    """The traceback from the author's own first frame on: what led there is Durum's."""
    tail: TracebackType | None = exc.__traceback__
    while tail is not None and tail.tb_frame.f_code.co_filename.startswith((_HERE, "<durum ")):
        tail = tail.tb_next
    try:
        chained = exc.__cause__ or (exc.__context__ and not exc.__suppress_context__)
        if chained or isinstance(exc, BaseExceptionGroup):
            shown = traceback.TracebackException(
                type(exc), exc, tail or exc.__traceback__, limit=-_FRAMES, compact=True
            )
            text = "".join(shown.format())
        else:
            text = _plain_traceback(exc, tail or exc.__traceback__)
    except Exception as broken:  # noqa: BLE001 - it calls the author's __str__ and __repr__
        text = f"<the traceback cannot be shown: {type(broken).__name__}>"
    return text[-TEXT_LIMIT:].encode(errors="replace").decode()


def _plain_traceback(exc: BaseException, tail: TracebackType | None) -> str:
    """What Python shows, without the carets: finding those takes longer than all of the call."""
    lines: deque[str] = deque(maxlen=_FRAMES)
    while tail is not None:
        code = tail.tb_frame.f_code
        line = linecache.getline(code.co_filename, tail.tb_lineno, tail.tb_frame.f_globals)
        shown = f"    {line.strip()}\n" if line else ""
        lines.append(
            f'  File "{code.co_filename}", line {tail.tb_lineno}, in {code.co_name}\n{shown}'
        )
        tail = tail.tb_next
    last = "".join(traceback.format_exception_only(exc))
    return f"Traceback (most recent call last):\n{''.join(lines)}{last}"


def _payload(exc: BaseException, depth: int = _GROUP_DEPTH) -> bytes:
    """An exception's arguments and attributes, or b"" where the arguments cannot travel."""
    inner: list[list[object]] = []
    args: tuple[object, ...] = exc.args
    if isinstance(exc, BaseExceptionGroup):
        if depth == 0 or len(exc.exceptions) > _GROUP_LIMIT:
            return b""
        args = (exc.message,)
        inner = [
            [_type_name(type(each)), _text(each), _payload(each, depth - 1)]
            for each in exc.exceptions
        ]
    try:
        data = untyped.encode([list(args), _attributes(exc), inner])
    except Misfit:
        return b""
    return data if len(data) <= _PAYLOAD_LIMIT else b""


def _attributes(exc: BaseException) -> dict[str, object]:
    """Attributes that can travel. The type matters most to an `except`, so the others stay behind."""
    found: dict[str, object] = {}
    for name, value in vars(exc).items():
        if name == "did_run" or (name.startswith("__") and name != "__notes__"):
            continue
        try:
            untyped.encode(value)
        except Misfit:
            continue
        found[name] = value
    return found


def _rebuilt(type_name: str, payload: bytes, known: KnownTypes, depth: int) -> Exception | None:
    cls = known.get(type_name)
    if cls is None or not payload or depth < 0:
        return None
    try:
        found = msgspec.convert(untyped.decode(payload), _Payload)
        args = tuple(found.args)
        if issubclass(cls, BaseExceptionGroup):
            args += ([_member(each, known, depth - 1) for each in found.members],)
        return _made(cls, args, found.attributes)
    except Exception:  # noqa: BLE001 - foreign data, and constructors of the author's
        return None


def _member(member: _Member, known: KnownTypes, depth: int) -> Exception:
    exc = _rebuilt(member.type_name, member.payload, known, depth)
    return exc or errors.RemoteError(member.text, member.type_name.rpartition(":")[2])


def _made(
    cls: type[Exception], args: tuple[object, ...], attributes: Mapping[str, object]
) -> Exception:
    """Make an exception as unpickling would, without running an `__init__` of the author's.

    Its parameters need not be the `args` that it handed to its base class.
    """
    exc = cls.__new__(cls, *args)
    init: object = cls.__init__
    if not isinstance(init, FunctionType):
        cls.__init__(exc, *args)  # a builtin one: it fills what str() shows
    if not isinstance(exc, BaseExceptionGroup):
        exc.args = args
    for name, value in attributes.items():
        if name == "__notes__" or not name.startswith("__"):
            exc.__dict__[name] = value
    if isinstance(exc, errors.CallError):
        exc.did_run = DidRun.MAYBE
    return exc


@lru_cache(maxsize=1024)
def _known_types(kind: GrainKind) -> KnownTypes:
    found = {_type_name(each): each for each in (*_exceptions(builtins), *_exceptions(errors))}
    for body in reversed(kind.cls.__mro__):
        module = sys.modules.get(body.__module__)
        if body is object or module is None:
            continue
        for each in (*_exceptions(module), *_exceptions(body)):
            found[_type_name(each)] = each
            if each.__module__ == body.__module__:
                found |= {f"{alias}:{each.__qualname__}": each for alias in _aliases(module)}
    return MappingProxyType(found)


def _exceptions(scope: ModuleType | type) -> list[type[Exception]]:
    return [
        each
        for each in vars(scope).values()
        if isinstance(each, type) and issubclass(each, Exception) and not issubclass(each, _STOPS)
    ]


def _aliases(module: ModuleType) -> list[str]:
    """A script's module is `__main__` where it runs, and has its file's name where it is imported."""
    if module.__name__ != _MAIN:
        return [_MAIN]
    spec = getattr(module, "__spec__", None)
    file = getattr(module, "__file__", None)
    return [spec.name] if spec is not None else [Path(file).stem] if file else []
