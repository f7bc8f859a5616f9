"""Python objects that travel and are stored as pickles. Owns how they are made and opened; knows no link.

Opening a pickle runs whatever its maker wished. So a decoder only ever makes a Sealed of it, which is inert;
it is opened here, for a grain's own stored fields, or for a call over a link that is trusted.
"""

from __future__ import annotations

import contextlib
import pickle
import types
import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, Union

import msgspec

from durum.wire import values
from durum.wire.shapes import Misfit, Sealed, Unsupported, refusal

T = TypeVar("T")


class _Mark:
    """Stands in an annotation's metadata."""

    def __repr__(self) -> str:
        return "opaque"


_MARK: Final = _Mark()

Opaque: TypeAlias = Annotated[T, _MARK]
"""A field, parameter or result that is pickled: `matrix: Opaque[np.ndarray]`.

Type checkers see the type itself. It travels between Python processes that trust each other only: both have
the cluster secret or mutual TLS, and beyond one host the link is TLS.
"""


def seal(value: object) -> Sealed:
    """Pickle a value, closures and classes of scripts included.

    Raises:
        Misfit: it cannot be pickled.
    """
    try:
        return Sealed(_pickler()(value))
    except Exception as exc:
        raise Misfit(f"cannot be pickled: {type(exc).__name__}: {exc}") from exc


def unseal(sealed: Sealed, expected: Any = Any) -> Any:
    """Unpickle a value. Runs its maker's code: only for what comes from a trusted link or the store.

    Args:
        sealed: the pickle.
        expected: the declared type; only its outermost class is compared.

    Raises:
        Misfit: it cannot be unpickled here, or is of another class.
    """
    try:
        value = pickle.loads(sealed.data)  # noqa: S301 - what this file is for
    except Exception as exc:
        raise Misfit(
            f"cannot be unpickled here: {type(exc).__name__}: {exc}. Both sides need the same Python "
            "and the same modules"
        ) from exc
    _refuse_other(value, expected)
    return value


def is_sealed(data: bytes) -> bool:
    """Whether encoded bytes are one pickle."""
    try:
        found = msgspec.msgpack.decode(data)
    except msgspec.DecodeError:
        return False
    return isinstance(found, msgspec.msgpack.Ext) and found.code == values.PICKLED


def decode_stored(data: bytes) -> Any:
    """Read a stored value without its type; a pickle is opened.

    Raises:
        Misfit: it is not one well-formed value.
    """
    if is_sealed(data):
        return unseal(values.codec(Sealed).decode(data))
    return values.decode_plain(data)


class OpaqueCodec(values.Codec[Any]):
    """The codec of a type whose values are pickled. Its `read` gives a Sealed; `convert` opens it.

    Args:
        expected: the declared type.
    """

    __slots__ = ("expected",)

    def __init__(self, expected: Any) -> None:
        super().__init__(Sealed)
        self.expected: Final = expected

    def __repr__(self) -> str:
        return f"<OpaqueCodec {self.expected!r}>"

    def encode(self, value: Any) -> bytes:
        return values.encode_fast(seal(value))

    def seal(self, value: Any) -> Sealed:
        """Pickle a value that surely can be read again as the declared type.

        Raises:
            Misfit: it cannot.
        """
        _refuse_other(value, self.expected)
        return seal(value)

    def verify(self, value: Any) -> bytes:
        return values.encode_fast(self.seal(value))

    def decode(self, data: bytes) -> Any:
        return self.convert(super().decode(data))

    def decode_json(self, document: bytes) -> Any:  # noqa: ARG002 - nothing in it could fit
        raise Misfit("a pickled value has no JSON form")

    def convert(self, plain: object) -> Any:
        if not isinstance(plain, Sealed):
            raise Misfit("expected a pickled value, which only another Python process can send")
        return unseal(plain, self.expected)


def codec(annotation: Any, *, pickled: bool = False) -> values.Codec[Any]:
    """The codec of a type, of which Opaque may stand around the whole.

    Args:
        annotation: the type, resolved.
        pickled: take a pickle also where values could otherwise not travel, or stand where the type
            says Any.

    Raises:
        Unsupported: values of the type cannot travel.
    """
    if _is_marked(annotation):
        return OpaqueCodec(annotation.__origin__)
    if _holds_mark(annotation, set()):
        raise Unsupported(
            "durum.Opaque stands inside of a type; put it around the whole: Opaque[list[X]], not "
            "list[Opaque[X]], and Opaque[X | None]"
        )
    if not pickled:
        return values.codec(annotation)
    try:
        found = values.codec(annotation)
    except Unsupported:
        if isinstance(annotation, type) and refusal(annotation):
            raise
        return OpaqueCodec(annotation)
    return found if found.check is None else OpaqueCodec(annotation)


def _is_marked(annotation: Any) -> bool:
    return any(isinstance(each, _Mark) for each in getattr(annotation, "__metadata__", ()))


def _holds_mark(annotation: Any, seen: set[int]) -> bool:
    if _is_marked(annotation):
        return True
    if id(annotation) in seen:
        return False
    seen.add(id(annotation))
    parts: tuple[Any, ...] = typing.get_args(annotation)
    if isinstance(annotation, type) and not refusal(annotation):
        # What cannot be resolved msgspec finds next, and says what is wrong with it.
        with contextlib.suppress(NameError, TypeError, AttributeError):
            parts = (*parts, *typing.get_type_hints(annotation, include_extras=True).values())
    return any(_holds_mark(part, seen) for part in parts if not isinstance(part, str))


def _refuse_other(value: object, expected: Any) -> None:
    if not _fits(value, expected):
        wanted = getattr(expected, "__qualname__", str(expected))
        raise Misfit(f"expected {wanted}, got {type(value).__qualname__}")


def _fits(value: object, expected: Any) -> bool:
    """Whether a value is of the declared type, as far as its outermost class shows."""
    origin = typing.get_origin(expected)
    if origin is Annotated:
        return _fits(value, expected.__origin__)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(expected))
    if origin is Literal:
        return value in typing.get_args(expected)
    cls = type(None) if expected is None else origin or expected
    if not isinstance(cls, type) or cls is Any:
        return True
    with contextlib.suppress(TypeError):  # a Protocol that cannot be asked
        return isinstance(value, cls) or _is_script_twin(type(value), cls)
    return True


def _is_script_twin(found: type, expected: type) -> bool:
    """Whether a class of somebody's script is, by its name, the one that this side has as a module's."""
    return any(
        base.__qualname__ == expected.__qualname__
        and "__main__" in (base.__module__, expected.__module__)
        for base in found.__mro__
    )


@lru_cache(maxsize=1)
def _pickler() -> Callable[[object], bytes]:
    """Pickles by value what others cannot import. Loaded when first needed: it takes its time."""
    import io  # noqa: PLC0415

    import cloudpickle  # noqa: PLC0415

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
        def reducer_override(self, obj: object) -> object:
            if not isinstance(obj, type) or _CACHE not in vars(obj):
                return super().reducer_override(obj)
            # msgspec keeps what it knows of a class in the class, and that cannot be pickled; it
            # makes it anew where it is missing.
            kept = vars(obj)[_CACHE]
            delattr(obj, _CACHE)
            try:
                return super().reducer_override(obj)
            finally:
                setattr(obj, _CACHE, kept)

    def dumps(value: object) -> bytes:
        with io.BytesIO() as file:
            Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
            return file.getvalue()

    return dumps


_CACHE: Final = "__msgspec_cache__"
