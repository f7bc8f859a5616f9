"""Keys of a map as bytes that sort as the keys do. Owns which types can be keys; does no I/O.

The form is that of FoundationDB's tuple layer: a type code, then text or bytes up to a zero byte, in
which a zero is written 00 FF, or an integer big-endian under a code that tells its sign and length. A tuple's
elements follow each other, so that whatever begins with the same elements begins with the same bytes.

Source: apple/foundationdb, design/tuple.md (codes 01, 02, 05, 0B to 1D).
"""

from __future__ import annotations

import types
import typing
from typing import Any, Final, NewType, Union

from durum.wire.shapes import Misfit, Unsupported

LIMIT_BYTES: Final = 1024
"""The longest key, encoded."""

_BYTES: Final = 0x01
_TEXT: Final = 0x02
_TUPLE: Final = 0x05
_LEAST: Final = 0x0B  # a negative integer of more than eight bytes
_ZERO: Final = 0x14
_MOST: Final = 0x1D
_CODED: Final = 8  # bytes of an integer whose length is in its code
_INT_BYTES: Final = 255
_SCALARS: Final = (str, bytes, int)


class KeyCodec:
    """The way of one declared type's keys.

    Args:
        annotation: str, int, bytes, a tuple or union of those, or a NewType of one.

    Raises:
        Unsupported: keys of the type would have no order that bytes could keep.
    """

    __slots__ = ("annotation", "is_tuple")

    def __init__(self, annotation: Any) -> None:
        _survey(annotation)
        self.annotation: Final = annotation
        self.is_tuple: Final = typing.get_origin(_plain(annotation)) is tuple

    def encode(self, key: object) -> bytes:
        """Write a key.

        Raises:
            Misfit: it is not of the declared type, or too long.
        """
        if not _fits(key, self.annotation):
            raise Misfit(f"expected {_name(self.annotation)}, got {key!r:.100}")
        data = _pack(key)
        if len(data) > LIMIT_BYTES:
            raise Misfit(f"it takes {len(data)} bytes, the limit is {LIMIT_BYTES}")
        return data

    def prefix(self, start: object) -> bytes:
        """What keys begin with that begin with some text, bytes, or elements of a tuple.

        Raises:
            Misfit: there is no such thing for keys of this type.
        """
        if self.is_tuple and isinstance(start, tuple):
            return b"".join(_element(each) for each in start)
        if not self.is_tuple and isinstance(start, str | bytes):
            return _element(start)[:-1]
        what = "a tuple of the first elements" if self.is_tuple else "text or bytes"
        raise Misfit(f"expected {what}, got {start!r:.100}")

    def decode(self, data: bytes) -> Any:
        """Read a key.

        Raises:
            Misfit: the bytes are no key of the declared type.
        """
        try:
            elements, end = _elements(data, 0, len(data))
        except (IndexError, ValueError) as exc:
            raise Misfit(f"the bytes {data[:50].hex()} are no key") from exc
        whole = end == len(data) and (self.is_tuple or len(elements) == 1)
        key = None if not whole else elements if self.is_tuple else elements[0]
        if not _fits(key, self.annotation):
            raise Misfit(f"a stored key is {key!r:.100}, not {_name(self.annotation)}")
        return key

    def __repr__(self) -> str:
        return f"<KeyCodec {_name(self.annotation)}>"


def _pack(key: object) -> bytes:
    return b"".join(map(_element, key)) if isinstance(key, tuple) else _element(key)


def _element(value: object) -> bytes:
    match value:
        case str():
            return bytes([_TEXT]) + _escaped(_utf8(value))
        case bytes():
            return bytes([_BYTES]) + _escaped(value)
        case int():
            return _integer(value)
        case tuple():
            return bytes([_TUPLE]) + b"".join(map(_element, value)) + b"\0"
        case _:
            raise Misfit(f"{value!r:.100} cannot be in a key")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise Misfit("text with a lone surrogate, which UTF-8 has no form for") from exc


def _escaped(data: bytes) -> bytes:
    return data.replace(b"\0", b"\0\xff") + b"\0"


def _integer(value: int) -> bytes:
    size = (abs(value).bit_length() + 7) // 8
    if size > _INT_BYTES:
        raise Misfit("an integer of more than 255 bytes")
    # Negative ones are written as what is missing to the largest of their length.
    offset = value if value >= 0 else (1 << 8 * size) - 1 + value
    digits = offset.to_bytes(size, "big")
    if size <= _CODED:
        return bytes([_ZERO + (size if value >= 0 else -size)]) + digits
    return bytes([_MOST, size] if value >= 0 else [_LEAST, size ^ 0xFF]) + digits


def _elements(data: bytes, at: int, end: int) -> tuple[tuple[Any, ...], int]:
    """Read elements up to the end of the bytes, or of the tuple that they are in."""
    found: list[Any] = []
    while at < end and data[at]:
        code, at = data[at], at + 1
        if code in (_TEXT, _BYTES):
            raw, at = _unescaped(data, at)
            found.append(raw.decode() if code == _TEXT else raw)
        elif code == _TUPLE:
            inner, at = _elements(data, at, end)
            if data[at]:
                raise ValueError("a tuple does not end")
            found.append(inner)
            at += 1
        elif _LEAST <= code <= _MOST:
            number, at = _read_integer(data, code, at)
            found.append(number)
        else:
            raise ValueError(f"unknown code {code}")
    return tuple(found), at


def _unescaped(data: bytes, at: int) -> tuple[bytes, int]:
    stop = data.index(b"\0", at)
    while data[stop + 1 : stop + 2] == b"\xff":
        stop = data.index(b"\0", stop + 2)
    return data[at:stop].replace(b"\0\xff", b"\0"), stop + 1


def _read_integer(data: bytes, code: int, at: int) -> tuple[int, int]:
    negative, size = code < _ZERO, abs(code - _ZERO)
    if size > _CODED:
        size, at = data[at] ^ (0xFF if negative else 0), at + 1
    if at + size > len(data):
        raise ValueError("an integer does not end")
    offset = int.from_bytes(data[at : at + size], "big")
    return offset - (1 << 8 * size) + 1 if negative else offset, at + size


def _plain(annotation: Any) -> Any:
    while isinstance(annotation, NewType):
        annotation = annotation.__supertype__
    return annotation


def _survey(annotation: Any) -> None:
    plain = _plain(annotation)
    origin, args = typing.get_origin(plain), typing.get_args(plain)
    if plain in _SCALARS:
        return
    if origin in (Union, types.UnionType) and not any(
        typing.get_origin(_plain(each)) is tuple for each in args
    ):
        for each in args:
            _survey(each)
    elif origin is tuple and args:
        for each in args:
            if each is not Ellipsis:
                _survey(each)
    else:
        raise Unsupported(
            f"{_name(annotation)} cannot be the type of keys; those are str, int, bytes, and tuples of "
            "them, tuple[str, int] or tuple[str, ...]"
        )


def _fits(value: object, annotation: Any) -> bool:
    plain = _plain(annotation)
    origin, args = typing.get_origin(plain), typing.get_args(plain)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(args) == 2 and args[1] is Ellipsis:
            return all(_fits(each, args[0]) for each in value)
        return len(value) == len(args) and all(map(_fits, value, args))
    if origin is not None:
        return any(_fits(value, each) for each in args)
    return isinstance(value, plain) and not isinstance(value, bool)


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type | NewType) else str(annotation)
