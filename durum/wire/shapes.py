"""Which declared types can travel, and what their values must look like. Pure; writes no bytes.

A survey walks a type once, when a class is registered. It refuses what could not come back as it
went, and prepares the checks that positions typed Any need at run time.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID  # noqa: TID251 - the type only; nothing makes one here

import msgspec
from msgspec import inspect

BYTES: Final = (bytes, bytearray)
DEPTH_LIMIT: Final = 200
"""How deep a value may nest where its type is Any."""

Check = Callable[[Any, str], None]
"""Takes a value and its path; raises Misfit."""

_PLAIN: Final = (type(None), bool, int, float, str, bytes)
_SCALARS: Final[dict[type[inspect.Type], type]] = {
    inspect.NoneType: type(None),
    inspect.BoolType: bool,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.StrType: str,
    inspect.BytesType: bytes,
    inspect.ByteArrayType: bytearray,
    inspect.DateTimeType: dt.datetime,
    inspect.DateType: dt.date,
    inspect.TimeType: dt.time,
    inspect.TimeDeltaType: dt.timedelta,
    inspect.UUIDType: UUID,
    inspect.DecimalType: Decimal,
}
_CONTAINERS: Final[dict[type[inspect.Type], type]] = {
    inspect.ListType: list,
    inspect.SetType: set,
    inspect.FrozenSetType: frozenset,
    inspect.VarTupleType: tuple,
    inspect.TupleType: tuple,
    inspect.DictType: dict,
    inspect.TypedDictType: dict,
}
_OBJECTS: Final = (
    inspect.StructType,
    inspect.DataclassType,
    inspect.NamedTupleType,
    inspect.TypedDictType,
)
_BOUNDS: Final = (
    *("gt", "ge", "lt", "le", "multiple_of"),
    *("min_length", "max_length", "pattern", "tz"),
)


class Unsupported(TypeError):
    """Values of a declared type cannot travel. The message says which part of it and why."""


class Sealed:
    """A Python object as its pickle, which nobody has opened. Inert: only opaque.py opens one.

    Args:
        data: the pickle.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __repr__(self) -> str:
        return f"<Sealed {len(self.data)} bytes>"


class Misfit(ValueError):
    """A value cannot be written, or bytes do not fit their type.

    Args:
        reason: what is wrong, as a clause.
        path: where in the value, such as `[0].name`; "" for all of it.
    """

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(f"{reason} (at {path})" if path else reason)
        self.reason = reason
        self.path = path


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of a type. See values.Codec for the meaning of each part."""

    classes: tuple[type, ...]
    exact: bool
    check: Callable[[Any], None] | None
    sealed: bool


def survey(annotation: Any) -> Survey:
    """Walk a type.

    Raises:
        Unsupported: values of it cannot travel, or msgspec cannot tell its alternatives apart.
    """
    try:
        info = inspect.type_info(annotation)
        msgspec.msgpack.Decoder(annotation)  # it refuses more than the inspection does
    except Unsupported:
        raise
    except (TypeError, ValueError) as exc:
        raise Unsupported(str(exc)) from exc
    for part in _parts(info, set()):
        reason = _objection(part)
        if reason:
            raise Unsupported(reason)
    classes, exact = _classes(info)
    check = _Checks().of(info) if _has_any(info) else None
    sealed = any(_is_sealed(part) for part in _parts(info, set()))
    return Survey(classes, exact, None if check is None else _rooted(check), sealed)


def refusal(cls: type) -> str:
    """Why values of a class never travel, in the class's own words; "" where it says nothing."""
    return str(getattr(cls, "__durum_refusal__", ""))


def is_pydantic(cls: object) -> bool:
    """Whether a class is a pydantic model. Nobody has one before pydantic is imported."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(cls, type) and issubclass(cls, pydantic.BaseModel)


def _parts(info: inspect.Type, seen: set[int]) -> Iterator[inspect.Type]:
    """A type and all the types it is made of, each once."""
    if id(info) in seen:
        return
    seen.add(id(info))
    yield info
    for part in _children(info):
        yield from _parts(part, seen)


def _children(info: inspect.Type) -> list[inspect.Type]:
    if isinstance(info, _OBJECTS):
        return [field.type for field in info.fields]
    if isinstance(info, inspect.UnionType):
        return list(info.types)
    if isinstance(info, inspect.TupleType):
        return list(info.item_types)
    found = [getattr(info, name, None) for name in ("item_type", "key_type", "value_type")]
    return [part for part in found if isinstance(part, inspect.Type)]


def _objection(info: inspect.Type) -> str:
    if isinstance(info, inspect.CustomType):
        if is_pydantic(info.cls) or _is_sealed(info):
            return ""
        name = getattr(info.cls, "__qualname__", repr(info.cls))
        return refusal(info.cls) or (
            f"{name} is no type whose values can travel; use a dataclass, Struct, NamedTuple, "
            "TypedDict, pydantic model, enum or a builtin, Any for JSON-like values, or "
            "durum.Opaque[...] to have it pickled"
        )
    if isinstance(info, inspect.RawType | inspect.ExtType | inspect.MemoryViewType):
        return f"{type(info).__name__.removesuffix('Type')} stands for bytes; declare bytes"
    if isinstance(info, inspect.DictType) and not _hashable(info.key_type):
        return "the keys of a dict must be hashable; use text, numbers or tuples of them"
    if isinstance(info, inspect.SetType | inspect.FrozenSetType) and not _hashable(info.item_type):
        return "the items of a set must be hashable; use text, numbers or tuples of them"
    return ""


def _is_sealed(info: inspect.Type) -> bool:
    return isinstance(info, inspect.CustomType) and info.cls is Sealed


def _hashable(info: inspect.Type) -> bool:
    if isinstance(info, inspect.ListType | inspect.SetType | inspect.DictType):
        return False
    if isinstance(info, inspect.TypedDictType | inspect.ByteArrayType):
        return False
    if isinstance(info, inspect.StructType | inspect.DataclassType):
        hashes: object = info.cls.__hash__
        return hashes is not None and all(_hashable(field.type) for field in info.fields)
    return all(_hashable(part) for part in _children(info))


def _has_any(info: inspect.Type) -> bool:
    return any(isinstance(part, inspect.AnyType) for part in _parts(info, set()))


def _classes(info: inspect.Type) -> tuple[tuple[type, ...], bool]:
    """The very classes a fitting value has, and whether such a value needs no closer look."""
    if isinstance(info, inspect.UnionType):
        members = [_classes(part) for part in info.types]
        if any(not classes for classes, _ in members):
            return (), False
        return (
            tuple(cls for classes, _ in members for cls in classes),
            all(exact for _, exact in members),
        )
    if type(info) in _SCALARS:
        bound = any(getattr(info, name, None) is not None for name in _BOUNDS)
        return (_SCALARS[type(info)],), not bound
    if type(info) in _CONTAINERS:
        return (_CONTAINERS[type(info)],), False
    cls = getattr(info, "cls", None)
    return (() if cls is None else (cls,)), isinstance(info, inspect.EnumType)


def _rooted(check: Check) -> Callable[[Any], None]:
    def rooted(value: Any) -> None:
        check(value, "")

    return rooted


def _plain(value: Any, path: str) -> None:
    """Let through what reads back equal without a type: a tuple would come back as a list."""
    _plain_within(value, path, DEPTH_LIMIT)


def _plain_within(value: Any, path: str, depth: int) -> None:
    cls = value.__class__
    if cls in _PLAIN:
        return
    if depth == 0:
        raise Misfit(f"nested more than {DEPTH_LIMIT} deep", path[:80])
    if cls is list:
        for index, item in enumerate(value):
            _plain_within(item, f"{path}[{index}]", depth - 1)
    elif cls is dict:
        for key, item in value.items():
            if key.__class__ not in _PLAIN:
                _not_plain(key, f"a key of {path}")
            _plain_within(item, f"{path}[{key!r}]", depth - 1)
    else:
        _not_plain(value, path)


def _not_plain(value: object, path: str) -> None:
    cls = type(value)
    raise Misfit(
        refusal(cls)
        or f"a {cls.__qualname__} would not come back as one from a place typed Any; declare its type",
        path,
    )


class _Checks:
    """Builds checks, for types that may contain themselves."""

    def __init__(self) -> None:
        self._known: dict[int, Check] = {}

    def of(self, info: inspect.Type) -> Check | None:
        """The check of a type, or None where nothing in it is typed Any."""
        if isinstance(info, inspect.AnyType):
            return _plain
        if not _has_any(info):
            return None
        known = self._known.get(id(info))
        if known is None:
            # A type that contains itself finds this while its own check is being built.
            self._known[id(info)] = lambda value, path: self._known[id(info)](value, path)  # noqa: PLW0108
            known = self._known[id(info)] = self._build(info)
        return known

    def _build(self, info: inspect.Type) -> Check:
        if isinstance(info, inspect.UnionType):
            return self._union(info)
        if isinstance(info, _OBJECTS):
            return self._fields(info)
        if isinstance(info, inspect.TupleType):
            return self._tuple(info)
        if isinstance(info, inspect.DictType):
            return self._dict(info)
        item = self.of(info.item_type) if isinstance(info, inspect.CollectionType) else None

        def check(value: Any, path: str) -> None:
            if item is not None and isinstance(value, list | tuple | set | frozenset):
                for index, part in enumerate(value):
                    item(part, f"{path}[{index}]")

        return check

    def _union(self, info: inspect.UnionType) -> Check:
        members = [
            (classes, check)
            for part in info.types
            if (check := self.of(part)) is not None
            for classes in [_classes(part)[0] or (object,)]
        ]

        def check_union(value: Any, path: str) -> None:
            for classes, check in members:
                if isinstance(value, classes):
                    check(value, path)

        return check_union

    def _fields(self, info: Any) -> Check:
        checks = [
            (field.name, check)
            for field in info.fields
            if (check := self.of(field.type)) is not None
        ]

        def check_fields(value: Any, path: str) -> None:
            parts = value if isinstance(value, dict) else None
            for name, check in checks:
                if parts is None and hasattr(value, name):
                    check(getattr(value, name), f"{path}.{name}")
                elif parts is not None and name in parts:
                    check(parts[name], f"{path}.{name}")

        return check_fields

    def _tuple(self, info: inspect.TupleType) -> Check:
        checks = [self.of(part) for part in info.item_types]

        def check_tuple(value: Any, path: str) -> None:
            if isinstance(value, list | tuple):
                for index, (check, part) in enumerate(zip(checks, value, strict=False)):
                    if check is not None:
                        check(part, f"{path}[{index}]")

        return check_tuple

    def _dict(self, info: inspect.DictType) -> Check:
        key, item = self.of(info.key_type), self.of(info.value_type)

        def check_dict(value: Any, path: str) -> None:
            if not isinstance(value, dict):
                return
            for name, part in value.items():
                if key is not None:
                    key(name, f"a key of {path}")
                if item is not None:
                    item(part, f"{path}[{name!r}]")

        return check_dict
