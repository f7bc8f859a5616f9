"""What a grain class must look like. Pure; raises, and changes nothing.

All of it is checked when the class is created, so that a mistake shows on import and not in a turn.
"""

from __future__ import annotations

import dis
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from durum import errors, ids
from durum.grains.collection import Collection
from durum.grains.kind import HOOKS
from durum.grains.state import FieldSpec

RESERVED: Final = frozenset(
    {
        *("actor", "call", "context", "deactivate", "key"),
        *("remind", "save", "set_timer", "start", "tell"),
    }
)
"""Names that Durum has or will have on every actor. Frozen: whatever comes later is under `context`."""

_OURS: Final = "_durum"
_OWN: Final = frozenset({"_durum_defaults", "_durum_kind", "_durum_options", "_durum_proxy"})
_FORBIDDEN: Final = {
    "__init__": "a grain is activated, not constructed: give its fields defaults, and set "
    "underscore attributes in `async def on_activate(self)`",
    "__new__": "a grain is activated, not constructed: give its fields defaults, and set "
    "underscore attributes in `async def on_activate(self)`",
    "__slots__": "an instance keeps its fields in its __dict__; leave the slots out",
}
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_class(title: str, bodies: list[type]) -> None:
    """Refuse a class that could not work as a grain.

    Args:
        title: its name, for messages.
        bodies: it and the author's classes that it inherits from, the most general first.

    Raises:
        ConfigError: naming the class, the attribute, the reason, and what to write instead.
    """
    declared = {name for body in bodies for name in (*vars(body), *inspect.get_annotations(body))}
    for body in bodies:
        annotated = inspect.get_annotations(body)
        for name, value in {**dict.fromkeys(annotated), **vars(body)}.items():
            reason = _objection(name, value, annotated)
            if reason:
                raise errors.ConfigError(f"{title}.{name}: {reason}.")
            for assigned in _assigned(value):
                if assigned not in declared and not assigned.startswith("_"):
                    raise errors.ConfigError(
                        f"{title}.{name} assigns self.{assigned}, which the class does not declare. "
                        f"Annotate it in the class body ({assigned}: ... = ...) to make it durable, "
                        f"or call it _{assigned} if it may be lost."
                    )


def check_kind_name(title: str, kind: object) -> None:
    """Refuse a kind name that could not stand in a grain id.

    Raises:
        ConfigError: it has other characters than letters, digits, `_`, `.` and `-`.
    """
    if not isinstance(kind, str) or not ids.KIND.fullmatch(kind):
        raise errors.ConfigError(
            f"{title}: {kind!r} is no kind name. Write class {title}(Actor, kind=...) with up to 128 "
            "ASCII letters, digits, `_`, `.` or `-`, beginning with a letter or `_`."
        )


def _objection(name: str, value: object, annotated: Mapping[str, object]) -> str:
    """Why an attribute may not stand in a grain class, or ""."""
    if name in _FORBIDDEN:
        return _FORBIDDEN[name]
    if name in RESERVED:
        return "the name is reserved by Durum for every actor; choose another"
    if name in HOOKS:
        return _hook_objection(name, value)
    if name.startswith("_"):
        foreign = name.startswith(_OURS) and name not in _OWN
        return f"names that begin with {_OURS} are Durum's own" if foreign else ""
    return "" if name in annotated else _unannotated_objection(name, value)


def _unannotated_objection(name: str, value: object) -> str:
    if isinstance(value, FieldSpec | Collection | list | dict | set):
        return (
            "all grains would share it. Annotate it to make it a durable field of each, or declare "
            "it ClassVar"
        )
    called = callable(value) or hasattr(type(value), "__get__")
    return _method_objection(name, value) if called and not isinstance(value, type) else ""


def _hook_objection(name: str, value: object) -> str:
    if name == "migrate_state":
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if callable(plain) and not inspect.iscoroutinefunction(plain):
            return ""
        return (
            "this hook must be a plain `def migrate_state(self, old: dict, version: int) -> dict`"
        )
    return "" if inspect.iscoroutinefunction(value) else "this hook must be an `async def`"


def _method_objection(name: str, value: object) -> str:
    if isinstance(value, staticmethod | classmethod | property) or not callable(value):
        return (
            f"a {type(value).__name__} cannot be called from outside. Write an `async def`, or "
            f"begin its name with an underscore: _{name}"
        )
    if not inspect.iscoroutinefunction(value) and not inspect.isasyncgenfunction(value):
        return (
            "public methods are called from other processes, so they must be `async def`. Make it "
            f"one, or begin its name with an underscore: _{name}"
        )
    return _parameters_objection(value)


def _parameters_objection(function: Callable[..., object]) -> str:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].kind in (*_VARIADIC, inspect.Parameter.KEYWORD_ONLY):
        return "a method takes self as its first parameter"
    for each in parameters[1:]:
        if each.kind in _VARIADIC:
            star = "*" if each.kind is inspect.Parameter.VAR_POSITIONAL else "**"
            return (
                f"{star}{each.name} cannot be checked on arrival; name the parameters, or take "
                "a list or dict"
            )
        if each.name.startswith(_OURS):
            return f"parameter {each.name}: names that begin with {_OURS} are Durum's own"
        if each.annotation is inspect.Parameter.empty:
            return (
                f"parameter {each.name} has no annotation, and arguments are checked by their "
                f"types. Write {each.name}: str, or whatever it is; Any for JSON-like values"
            )
    return ""


def _assigned(value: object) -> Iterator[str]:
    """Names of attributes that a method assigns to its self, read from its code.

    An attribute nobody declared would be neither durable nor rolled back, without a word.
    """
    function: object = inspect.unwrap(value) if callable(value) else value
    if not isinstance(function, types.FunctionType) or not function.__code__.co_argcount:
        return
    yield from _stored(function.__code__, function.__code__.co_varnames[0])


def _stored(code: types.CodeType, owner: str) -> Iterator[str]:
    before: dis.Instruction | None = None
    for step in dis.get_instructions(code):
        if step.opname == "STORE_ATTR" and before is not None and _loads(before, owner):
            yield str(step.argval)
        before = step
    for inner in code.co_consts:
        # A function inside reaches self as a free variable of the same name.
        if isinstance(inner, types.CodeType) and owner in inner.co_freevars:
            yield from _stored(inner, owner)


def _loads(step: dis.Instruction, owner: str) -> bool:
    if not step.opname.startswith(("LOAD_FAST", "LOAD_DEREF")):
        return False
    loaded = step.argval[-1] if isinstance(step.argval, tuple) else step.argval
    return bool(loaded == owner)
