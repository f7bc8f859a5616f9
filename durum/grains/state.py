"""An actor's durable fields and their way to bytes. Owns defaults, layout and carry-over; does no I/O.

A state is a msgpack map: "" holds the version of the class that wrote it, every other name a field.
Fields that the class does not have are kept beside the instance and written again verbatim, so that
an older silo of a rolling upgrade loses nothing of a newer one's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar, cast, overload

import msgspec

from durum import errors
from durum.grains.collection import Header, Spec
from durum.grains.entries import Entries
from durum.grains.source import compile_function
from durum.wire import opaque, values
from durum.wire.opaque import OpaqueCodec
from durum.wire.shapes import Misfit
from durum.wire.values import Codec

T = TypeVar("T")

VERSION: Final = ""
"""The map's key under which the class version stands; no field has an empty name."""

_EMPTY: Final = (list, dict, set)


class Stateful(Protocol):
    """What a grain's instance has besides its fields."""

    _durum_key: str
    _durum_extra: dict[str, bytes] | None
    _durum_entries: Entries | None


Migrate = Callable[[Stateful, dict[str, object], int], object]


class FieldSpec:
    """A default that is made anew for each instance; see field()."""

    __slots__ = ("default_factory",)

    def __init__(self, default_factory: Callable[[], object]) -> None:
        self.default_factory = default_factory


@overload
def field(*, default_factory: Callable[[], T]) -> T: ...
@overload
def field(*, default: T) -> T: ...
def field(*, default: object = FieldSpec, default_factory: object = None) -> object:
    """Declare a durable field whose default is made anew for each grain.

    Args:
        default_factory: called without arguments whenever a grain starts without stored state.
        default: an immutable value; the same as writing it without field().

    Raises:
        ConfigError: neither or both are given, or the factory is not callable.
    """
    if (default is FieldSpec) == (default_factory is None):
        raise errors.ConfigError("field() takes exactly one of default and default_factory.")
    if default_factory is None:
        return default
    if not callable(default_factory):
        raise errors.ConfigError(
            f"field(default_factory={default_factory!r}): it must be callable without arguments."
        )
    return FieldSpec(default_factory)


class Field:
    """One durable field.

    Args:
        owner: the class's name, for messages.
        name: its name there and in the stored map.
        codec: its type's codec.
        default: what the class body assigns to it.
        spec: of a collection, of which the state holds only counts; or None.

    Raises:
        ConfigError: the default may be shared between grains, or does not fit the type.
    """

    __slots__ = ("codec", "factory", "name", "spec", "value")

    def __init__(
        self,
        owner: str,
        name: str,
        codec: Codec[object],
        default: object,
        spec: Spec | None = None,
    ) -> None:
        self.name = name
        self.spec = spec
        self.codec = codec
        self.value: object = None
        self.factory = factory_of(default)
        if self.factory is None:
            self.value = self._immutable(owner, default)
        else:
            self._fitting(owner, self.factory())

    def default(self) -> object:
        """The value a grain without stored state begins with."""
        return self.value if self.factory is None else self.factory()

    def _immutable(self, owner: str, default: object) -> object:
        try:
            hash(default)
        except TypeError:
            raise errors.ConfigError(
                f"{owner}.{self.name}: all grains would share the default {default!r}. "
                f"Write {self.name}: ... = durum.field(default_factory=lambda: ...)."
            ) from None
        return self._fitting(owner, default)

    def _fitting(self, owner: str, default: object) -> object:
        """The default as it would come back from the store, so that the two never differ."""
        try:
            return self.codec.decode(self.codec.encode(default))
        except Misfit as exc:
            raise errors.ConfigError(
                f"{owner}.{self.name}: its default {default!r} does not fit its type: {exc}. "
                "Change the default or the annotation, for instance to `... | None`."
            ) from exc


def _written(field: Field, value: object) -> bytes:
    return (
        field.codec.encode(value) if isinstance(field.codec, OpaqueCodec) else values.encode(value)
    )


def _placed(field: Field, index: int, value: str) -> str:
    """The expression for what stands in the field once a value was read."""
    return value if field.spec is None else f"_shelve{index}(_i._durum_entries, {value})"


def _entries(instance: Stateful) -> Entries:
    return cast("Entries", instance._durum_entries)  # noqa: SLF001 - there where a field has a spec


def factory_of(default: object) -> Callable[[], object] | None:
    """How a default is made anew for each instance, or None where one value serves all."""
    if isinstance(default, FieldSpec):
        return default.default_factory
    if type(default) in _EMPTY and not default:
        return cast("Callable[[], object]", type(default))  # list, dict or set
    return None


class Fields:
    """All durable fields of one class.

    Args:
        owner: the class's name, for messages.
        version: the class's version, written into every state.
        fields: in the order of their declaration.
        migrate: turns the plain values of an older version into those of this one, or None.

    Attributes:
        encode: writes an instance's fields. Raises TypeError, naming the field, where a value
            could not be read back: a turn that fails here has changed nothing.
    """

    def __init__(
        self,
        owner: str,
        version: int,
        fields: Sequence[Field],
        migrate: Migrate | None = None,
    ) -> None:
        self.owner = owner
        self.version = version
        self._fields: Final = {each.name: each for each in fields}
        self._migrate = migrate
        self._layout: Final = msgspec.defstruct(
            "State",
            [(each.name, each.codec.annotation) for each in fields],
            tag_field=VERSION,
            tag=version,
            forbid_unknown_fields=True,
            gc=False,
        )
        self._decode: Final = Codec[object](self._layout).read
        names = self._names()
        where = f"{owner} state"
        self.encode = cast(
            "Callable[[Stateful], bytes]",
            compile_function("encode", self._encode_text(), names, where),
        )
        self._read: Final = compile_function("read", self._read_text(), names, where)
        self._reset: Final = compile_function("reset", self._reset_text(), names, where)

    def __repr__(self) -> str:
        return f"<Fields {self.owner} version={self.version} {list(self._fields)}>"

    def __len__(self) -> int:
        return len(self._fields)

    @property
    def names(self) -> tuple[str, ...]:
        """The fields' names, in the order of their declaration."""
        return tuple(self._fields)

    def restore(self, instance: Stateful, blob: bytes | None) -> None:
        """Give an instance its stored fields, all or none of them; other attributes stay.

        Args:
            instance: made by this class, at any point of its life.
            blob: what encode() once returned, or None for the defaults.

        Raises:
            NotServing: a newer version of the class wrote it.
            StoreError: it cannot be read.
        """
        if blob is None:
            self._reset(instance)
            return
        try:
            self._read(instance, blob)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, the slow way says it better
            self._read_slowly(instance, blob)

    def _names(self) -> dict[str, object]:
        names: dict[str, object] = {
            "_write": values.encode_fast,
            "_slowly": self._encode_slowly,
            "_layout": self._layout,
            "_decode": self._decode,
        }
        for index, each in enumerate(self._fields.values()):
            names[f"_default{index}"], names[f"_make{index}"] = each.value, each.factory
            names[f"_check{index}"] = each.codec.check
            if isinstance(each.codec, OpaqueCodec):
                names[f"_open{index}"], names[f"_seal{index}"] = each.codec.convert, each.codec.seal
            if each.spec is not None:
                names[f"_header{index}"] = each.spec.header
                names[f"_shelve{index}"] = each.spec.restore
            for which, cls in enumerate(each.codec.classes):
                names[f"_class{index}_{which}"] = cls
        return names

    def _encode_text(self) -> str:
        """Exact classes make the written state readable; where there are others, read it back."""
        loads, checks, fits, exact = "", "", ["_i._durum_extra is None"], True
        for index, (name, each) in enumerate(self._fields.items()):
            loads += f"        _f{index} = _i.{name}\n"
            if each.spec is not None:
                loads += f"        _f{index} = _header{index}(_i._durum_entries, _f{index})\n"
                continue
            if isinstance(each.codec, OpaqueCodec):
                checks += f"            _f{index} = _seal{index}(_f{index})\n"
                continue
            if each.codec.check is not None:
                checks += f"            _check{index}(_f{index})\n"
            if not each.codec.exact:
                exact = False
                continue
            alternatives = range(len(each.codec.classes))
            tests = [f"_f{index}.__class__ is _class{index}_{which}" for which in alternatives]
            fits.append(f"({' or '.join(tests)})")
        written = ", ".join(f"_f{index}" for index in range(len(self._fields)))
        return (
            f"def encode(_i):\n    try:\n{loads}        if {' and '.join(fits)}:\n{checks}"
            f"            _data = _write(_layout({written}))\n"
            + ("" if exact else "            _decode(_data)\n")
            + "            return _data\n    except Exception:\n        pass\n"
            "    return _slowly(_i)\n"
        )

    def _read_text(self) -> str:
        # All are opened before the first is assigned: a restore gives all fields or none.
        moves = "".join(
            f"    _f{index} = _open{index}(_s.{name})\n"
            for index, (name, each) in enumerate(self._fields.items())
            if isinstance(each.codec, OpaqueCodec)
        )
        for index, (name, each) in enumerate(self._fields.items()):
            found = f"_f{index}" if isinstance(each.codec, OpaqueCodec) else f"_s.{name}"
            moves += f"    _i.{name} = {_placed(each, index, found)}\n"
        return f"def read(_i, _blob):\n    _s = _decode(_blob)\n{moves}    _i._durum_extra = None\n"

    def _reset_text(self) -> str:
        moves = "".join(
            f"    _i.{name} = "
            + _placed(each, index, f"_make{index}()" if each.factory else f"_default{index}")
            + "\n"
            for index, (name, each) in enumerate(self._fields.items())
        )
        return f"def reset(_i):\n{moves}    _i._durum_extra = None\n"

    def _encode_slowly(self, instance: Stateful) -> bytes:
        parts = {VERSION: values.encode(self.version)}
        for name, each in self._fields.items():
            try:
                value = getattr(instance, name)
                if each.spec is not None:
                    value = each.spec.header(_entries(instance), value)
                parts[name] = each.codec.verify(value)
            except AttributeError as exc:
                raise TypeError(
                    f"{self.owner}.{name} was deleted; assign a value instead."
                ) from exc
            except Misfit as exc:
                raise TypeError(
                    f"{self.owner}.{name}{exc.path}: {exc.reason}; the field cannot be stored. "
                    "Assign a value of its declared type, or change the annotation."
                ) from exc
        # A class that grew the field since has it in its own hands.
        carried = instance._durum_extra or {}  # noqa: SLF001 - ours, see Stateful
        return values.encode_map({**carried, **parts})

    def _read_slowly(self, instance: Stateful, blob: bytes) -> None:
        """Read a state of another version, or one whose fields are not just the class's."""
        try:
            parts = values.decode_map(blob)
            version = values.codec(int).decode(parts.pop(VERSION, b""))
        except Misfit as exc:
            raise self._unreadable(instance, exc) from exc
        if version > self.version:
            raise errors.NotServing(
                f"{self.owner}/{instance._durum_key}: its state was written by version {version} "  # noqa: SLF001
                f"of the class, this silo has version {self.version}; the call did not run. "
                "Upgrade this silo, or let it leave."
            )
        if version < self.version and self._migrate is not None:
            found, extra = self._migrated(instance, parts, version, self._migrate)
        else:
            found, extra = self._found(instance, parts)
        missing = [each for name, each in self._fields.items() if name not in found]
        found.update({each.name: each.default() for each in missing})
        for name, each in self._fields.items():
            value = found[name]
            if each.spec is not None:
                value = each.spec.restore(_entries(instance), cast("Header", value))
            setattr(instance, name, value)
        instance._durum_extra = extra or None  # noqa: SLF001

    def _found(
        self, instance: Stateful, parts: dict[str, bytes]
    ) -> tuple[dict[str, object], dict[str, bytes]]:
        found: dict[str, object] = {}
        for name, each in self._fields.items():
            if name in parts:
                try:
                    found[name] = each.codec.decode(parts.pop(name))
                except Misfit as exc:
                    raise self._unreadable(instance, exc, name) from exc
        return found, parts

    def _migrated(
        self, instance: Stateful, parts: dict[str, bytes], version: int, migrate: Migrate
    ) -> tuple[dict[str, object], dict[str, bytes]]:
        # What a collection's counts say only it may change.
        counts = {n: parts.pop(n) for n, each in self._fields.items() if each.spec and n in parts}
        old = {name: opaque.decode_stored(part) for name, part in parts.items()}
        new = migrate(instance, old, version)
        if not isinstance(new, dict):
            raise errors.StoreError(
                f"{self.owner}.migrate_state returned {new!r} from version {version}; return a "
                "dict of the fields. The stored state is untouched."
            )
        found, _ = self._found(instance, counts)
        for name, each in self._fields.items():
            if name in new:
                try:
                    found[name] = each.codec.decode(_written(each, new.pop(name)))
                except Misfit as exc:
                    raise self._unreadable(instance, exc, name) from exc
        carried = {
            name: parts[name]
            if name in parts and opaque.is_sealed(parts[name])
            else values.encode(part)
            for name, part in new.items()
        }
        return found, carried

    def _unreadable(self, instance: Stateful, exc: Misfit, name: str = "") -> errors.StoreError:
        where = f" field {name}{exc.path}:" if name else ""
        return errors.StoreError(
            f"{self.owner}/{instance._durum_key}: its stored state cannot be read:{where} "  # noqa: SLF001
            f"{exc.reason}. The stored bytes are untouched; add migrate_state() and raise version= "
            "if the field's type has changed."
        )
