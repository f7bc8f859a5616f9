"""How values become bytes and back, by their declared types. Owns what can travel; knows no grain.

msgspec does the work. Around it stands what it leaves open: integers beyond 64 bits (an extension
type), pydantic models (carried as maps), positions typed Any (only values that come back equal may
stand there), and refusals that say which part of a value is wrong.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from durum.wire.shapes import BYTES, Misfit, Sealed, refusal, survey

T = TypeVar("T")

BIG_INT: Final = 1
"""Extension type of an integer beyond 64 bits: two's complement, big-endian."""
JSON: Final = 2
"""Extension type that wraps a whole JSON document, where whoever wrote it has no types at hand."""
PICKLED: Final = 3
"""Extension type of a pickle. It is opened by opaque.py only, never by a decoder."""

_PATH: Final = re.compile(r" - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`$")
IN_64_BITS: Final = range(-(2**63), 2**64)


def misfit(error: Exception) -> Misfit:
    """Take reason and path out of msgspec's message."""
    if isinstance(error, Misfit):
        return error
    if isinstance(error, RecursionError):
        return Misfit("nested too deeply")
    if isinstance(error, UnicodeEncodeError):
        return Misfit("text with a lone surrogate, which UTF-8 has no form for")
    text = str(error) or type(error).__name__
    found = _PATH.search(text)
    if found is None:
        return Misfit(_clause(text))
    inside = "a key in " if found["key"] else ""
    return Misfit(_clause(text[: found.start()]), inside + found["path"])


def _clause(text: str) -> str:
    return text[:1].lower() + text[1:].removesuffix(".")


def _outward(value: object) -> object:
    """Turn what msgspec does not know into what it does. Called only for such values."""
    if isinstance(value, Sealed):
        return msgspec.msgpack.Ext(PICKLED, value.data)
    reason = refusal(type(value))
    if reason:
        raise Misfit(reason)
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None:
        if isinstance(value, pydantic.BaseModel):
            # round_trip leaves out computed fields, which validation would refuse as unknown.
            return value.model_dump(round_trip=True, by_alias=True)
        if isinstance(value, PurePath) or type(value).__module__.startswith("pydantic.networks"):
            return str(value)
    raise Misfit(f"{type(value).__qualname__} is no value that can travel")


def _inward(cls: type[Any], value: object) -> object:
    """Build what _outward took apart. msgspec adds the path to a ValueError raised here."""
    if cls is Sealed:
        if isinstance(value, Sealed):
            return value
        raise ValueError("Expected a pickled value, which only another Python process can send")
    return cls.model_validate(value)


def _extension(code: int, content: memoryview) -> int:
    if code != BIG_INT:
        raise msgspec.ValidationError(f"Unknown extension type {code}")
    return int.from_bytes(content, "big", signed=True)


def _extension_or_pickle(code: int, content: memoryview) -> int | Sealed:
    return Sealed(bytes(content)) if code == PICKLED else _extension(code, content)


def _extension_shown(code: int, content: memoryview) -> int | str:
    return f"<pickled, {len(content)} bytes>" if code == PICKLED else _extension(code, content)


encode_fast: Final[Callable[[object], bytes]] = msgspec.msgpack.Encoder(enc_hook=_outward).encode
"""The one encoder, for hot paths: raises anything, and knows no integers beyond 64 bits."""

encode_sorted: Final[Callable[[object], bytes]] = msgspec.msgpack.Encoder(
    enc_hook=_outward, order="deterministic"
).encode
"""As encode_fast; sets and dicts that are equal are written alike."""

_decode_any = msgspec.msgpack.Decoder(ext_hook=_extension).decode
_decode_shown = msgspec.msgpack.Decoder(ext_hook=_extension_shown).decode


def encode(value: object) -> bytes:
    """Write a value.

    Raises:
        Misfit: some part of it cannot travel.
    """
    try:
        return encode_fast(value)
    except OverflowError:
        pass
    except Exception as exc:
        raise misfit(exc) from exc
    try:
        plain = msgspec.to_builtins(value, builtin_types=BYTES, enc_hook=_outward)
        return _pack(plain)
    except Exception as exc:
        raise misfit(exc) from exc


def _pack(value: object) -> bytes:
    """Write plain values with integers of any size."""
    match value:
        case dict():
            items = (item for pair in value.items() for item in pair)
            return _count(len(value), 0x80, b"\xde", b"\xdf") + b"".join(map(_pack, items))
        case list() | tuple():
            return _count(len(value), 0x90, b"\xdc", b"\xdd") + b"".join(map(_pack, value))
        case int() if value not in IN_64_BITS:
            return encode_fast(big_int(value))
        case _:
            return encode_fast(value)


def big_int(value: int) -> msgspec.msgpack.Ext:
    """The extension that stands for an integer beyond 64 bits."""
    size = value.bit_length() // 8 + 1
    return msgspec.msgpack.Ext(BIG_INT, value.to_bytes(size, "big", signed=True))


def _count(count: int, small: int, medium: bytes, large: bytes) -> bytes:
    if count < 16:
        return bytes([small | count])
    if count < 65_536:
        return medium + count.to_bytes(2, "big")
    return large + count.to_bytes(4, "big")


def encode_map(parts: Mapping[str, bytes]) -> bytes:
    """Write a map of values that are encoded already."""
    return encode_fast({name: msgspec.Raw(part) for name, part in parts.items()})


def encode_array(parts: Sequence[bytes]) -> bytes:
    """Write an array of values that are encoded already."""
    return encode_fast([msgspec.Raw(part) for part in parts])


def decode_map(data: bytes) -> dict[str, bytes]:
    """Part a map into its values, each still encoded.

    Raises:
        Misfit: it is no map with text keys.
    """
    try:
        parts = msgspec.msgpack.decode(data, type=dict[str, msgspec.Raw])
    except Exception as exc:
        raise misfit(exc) from exc
    return {name: bytes(part) for name, part in parts.items()}


def decode_array(data: bytes) -> list[bytes]:
    """Part an array into its values, each still encoded.

    Raises:
        Misfit: it is no array.
    """
    try:
        parts = msgspec.msgpack.decode(data, type=list[msgspec.Raw])
    except Exception as exc:
        raise misfit(exc) from exc
    return [bytes(part) for part in parts]


def decode_plain(data: bytes) -> Any:
    """Read a value without a type: text, numbers, bytes, lists, dicts.

    Raises:
        Misfit: it is not one well-formed value.
    """
    try:
        return _decode_any(data)
    except Exception as exc:
        raise misfit(exc) from exc


def json_arguments(texts: Sequence[str] | Mapping[str, str]) -> bytes:
    """Write a call's arguments given as JSON texts, for who has no class at hand.

    The method's own types read them: "10.10" and 10.10 are both exact for a Decimal, a datetime or
    UUID is a string, bytes are base64.

    Args:
        texts: one JSON document for each argument, in order or by name.

    Raises:
        Misfit: one is not JSON; its path is the position or name.
    """
    content: object
    if isinstance(texts, Mapping):
        content = {name: _raw_json(text, name) for name, text in texts.items()}
    else:
        content = [_raw_json(text, f"[{index}]") for index, text in enumerate(texts)]
    return encode_fast(msgspec.msgpack.Ext(JSON, msgspec.json.encode(content)))


def _raw_json(text: str, place: str) -> msgspec.Raw:
    try:
        msgspec.json.decode(text)
    except Exception as exc:
        raise Misfit(f"{text!r} is not JSON: {exc}", place) from exc
    return msgspec.Raw(text.encode())


def json_document(data: bytes) -> bytes | None:
    """The JSON that json_arguments wrapped, or None where data is something else."""
    if not data or not (data[0] in range(0xC7, 0xCA) or data[0] in range(0xD4, 0xD9)):
        return None
    try:
        content = msgspec.msgpack.decode(data)
    except msgspec.DecodeError:
        return None
    if isinstance(content, msgspec.msgpack.Ext) and content.code == JSON:
        return bytes(content.data)
    return None


def json_parts(document: bytes) -> list[bytes] | dict[str, bytes]:
    """Part a JSON array or object into its values, each still JSON.

    Raises:
        Misfit: it is neither.
    """
    try:
        parts = msgspec.json.decode(document, type=list[msgspec.Raw] | dict[str, msgspec.Raw])
    except Exception as exc:
        raise misfit(exc) from exc
    if isinstance(parts, dict):
        return {name: bytes(part) for name, part in parts.items()}
    return [bytes(part) for part in parts]


def as_json(data: bytes) -> bytes:
    """Show an encoded value as JSON, for people; what JSON has no form for is shown as text.

    Raises:
        Misfit: it is not one well-formed value.
    """
    try:
        value = _decode_shown(data)
    except Exception as exc:
        raise misfit(exc) from exc
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):
        return msgspec.json.encode(repr(value))


class Codec(Generic[T]):
    """One declared type's way to bytes and back.

    Args:
        annotation: the type, resolved; a string is none.

    Attributes:
        read: the bare decoder, for hot paths: raises anything, knows no integers beyond 64 bits.
        classes: a value of one of these very classes fits, at its top level at least.
        exact: such a value fits all the way down, so that there is nothing left to verify.
        check: refuses values that would not come back equal from a position typed Any, or None
            where the type has no such position.

    Raises:
        Unsupported: values of the type cannot travel; the message says why.
    """

    __slots__ = ("_extension", "_json", "annotation", "check", "classes", "exact", "read")

    def __init__(self, annotation: Any) -> None:
        found = survey(annotation)
        self.annotation = annotation
        self.classes: Final = found.classes
        self.exact: Final = found.exact
        self.check: Final = found.check
        self._extension = _extension_or_pickle if found.sealed else _extension
        self.read: Final[Callable[[bytes], T]] = msgspec.msgpack.Decoder(
            annotation, dec_hook=_inward, ext_hook=self._extension
        ).decode
        self._json: msgspec.json.Decoder[T] | None = None

    def __repr__(self) -> str:
        return f"<Codec {self.annotation!r}>"

    def encode(self, value: T) -> bytes:
        """Write a value. Its inner types are not compared with the declared ones; see verify().

        Raises:
            Misfit: some part of it cannot travel.
        """
        if self.check is not None:
            self.check(value)
        return encode(value)

    def verify(self, value: T) -> bytes:
        """Write a value that surely can be read again as the declared type.

        Raises:
            Misfit: it cannot.
        """
        data = self.encode(value)
        if not (self.exact and value.__class__ in self.classes):
            self.decode(data)
        return data

    def decode(self, data: bytes) -> T:
        """Read and check a value.

        Raises:
            Misfit: the bytes do not fit the type; it says where.
        """
        try:
            return self.read(data)
        except msgspec.ValidationError as exc:
            return self._decode_wide(data, exc)
        except Exception as exc:
            raise misfit(exc) from exc

    def decode_json(self, document: bytes) -> T:
        """Read and check a value given as JSON.

        Raises:
            Misfit: it does not fit the type; it says where.
        """
        if self._json is None:
            self._json = msgspec.json.Decoder(self.annotation, dec_hook=_inward)
        try:
            return self._json.decode(document)
        except Exception as exc:
            raise misfit(exc) from exc

    def convert(self, plain: object) -> T:
        """Read and check a value given as plain text, numbers, lists and dicts.

        Raises:
            Misfit: it does not fit the type; it says where.
        """
        try:
            converted = msgspec.convert(
                plain, self.annotation, builtin_types=BYTES, dec_hook=_inward
            )
            return cast("T", converted)  # the annotation is T; only Any says so to msgspec
        except Exception as exc:
            raise misfit(exc) from exc

    def _decode_wide(self, data: bytes, error: msgspec.ValidationError) -> T:
        """The typed decoder refuses integers beyond 64 bits; where there are any, read in two steps."""
        seen: list[int] = []

        def extension(code: int, content: memoryview) -> int | Sealed:
            seen.append(code)
            return self._extension(code, content)

        try:
            plain = msgspec.msgpack.decode(data, ext_hook=extension)
        except Exception as exc:
            raise misfit(exc) from exc
        if not seen:
            raise misfit(error) from error
        return self.convert(plain)


@lru_cache(maxsize=4096)
def _codec(annotation: Any) -> Codec[Any]:
    return Codec(annotation)


def codec(annotation: Any) -> Codec[Any]:
    """The codec of a type; built once for each.

    Raises:
        Unsupported: values of the type cannot travel.
    """
    try:
        hash(annotation)
    except TypeError:  # an Annotated with a list among its metadata
        return Codec(annotation)
    return _codec(annotation)
