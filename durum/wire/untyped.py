"""Values whose type nobody declared, such as an exception's arguments. Owns their tagged form.

Plain values stand as they are; the others are extensions that say what they are, so that a Decimal
or a tuple comes back as one. Nothing here builds an object of a class named by data.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final
from uuid import UUID  # noqa: TID251 - the type only; nothing makes one here

import msgspec

from durum.wire import values
from durum.wire.shapes import Misfit

DEPTH_LIMIT: Final = 20
_FIRST: Final = 16
"""Extension types from here on: containers, then scalars, in the order of the two tables."""
_CONTAINERS: Final[tuple[type, ...]] = (tuple, set, frozenset)
_SCALARS: Final[tuple[type, ...]] = (*(Decimal, UUID, dt.datetime, dt.date, dt.time, dt.timedelta),)


def encode(value: object) -> bytes:
    """Write a value of builtin types.

    Raises:
        Misfit: some part of it is of another type, or it is nested too deeply.
    """
    return values.encode(_tagged(value, DEPTH_LIMIT))


def decode(data: bytes) -> object:
    """Read what encode() wrote; equal to it, type by type.

    Raises:
        Misfit: it is nothing that encode() writes.
    """
    try:
        return msgspec.msgpack.decode(data, ext_hook=_untag)
    except Exception as exc:
        raise values.misfit(exc) from exc


def _tagged(value: object, depth: int) -> object:
    cls = type(value)
    if value is None or cls in (bool, float, str, bytes):
        return value
    if isinstance(value, int) and cls is int:
        return value if value in values.IN_64_BITS else values.big_int(value)
    if depth == 0:
        raise Misfit(f"nested more than {DEPTH_LIMIT} deep")
    if isinstance(value, list | tuple | set | frozenset) and cls in (list, *_CONTAINERS):
        items = [_tagged(item, depth - 1) for item in value]
        return items if cls is list else _extension(_CONTAINERS.index(cls), items)
    if isinstance(value, dict) and cls is dict:
        return {_tagged_key(key): _tagged(item, depth - 1) for key, item in value.items()}
    if cls in _SCALARS:
        return _extension(len(_CONTAINERS) + _SCALARS.index(cls), _text(value))
    raise Misfit(f"a {cls.__qualname__} is no builtin value")


def _tagged_key(key: object) -> object:
    if type(key) not in (str, int, bool, float, bytes, type(None)) or (
        isinstance(key, int) and key not in values.IN_64_BITS
    ):
        raise Misfit(f"a key of type {type(key).__qualname__} is no builtin value")
    return key


def _text(value: object) -> object:
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return [value.days, value.seconds, value.microseconds]
    return str(value)


def _extension(index: int, content: object) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(_FIRST + index, values.encode(content))


def _timedelta(parts: object) -> dt.timedelta:
    days, seconds, microseconds = msgspec.convert(parts, tuple[int, int, int])
    return dt.timedelta(days, seconds, microseconds)


_MAKE: Final[Mapping[type, Callable[[Any], object]]] = {
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    Decimal: Decimal,
    UUID: UUID,
    dt.datetime: dt.datetime.fromisoformat,
    dt.date: dt.date.fromisoformat,
    dt.time: dt.time.fromisoformat,
    dt.timedelta: _timedelta,
}


def _untag(code: int, content: memoryview) -> object:
    if code == values.BIG_INT:
        return int.from_bytes(content, "big", signed=True)
    tagged = (*_CONTAINERS, *_SCALARS)
    if not 0 <= code - _FIRST < len(tagged):
        raise Misfit(f"unknown extension type {code}")
    cls = tagged[code - _FIRST]
    inner = msgspec.msgpack.decode(content, ext_hook=_untag)
    if not isinstance(inner, list if cls in (*_CONTAINERS, dt.timedelta) else str):
        raise Misfit(f"malformed {cls.__name__}")
    return _MAKE[cls](inner)
