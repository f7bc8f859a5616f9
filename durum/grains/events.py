"""What the actors of one kind publish: its types, and events as bytes. Knows nobody who publishes or watches.

An event travels with the name of its type, so that it is read as what it was published as. In its place
can stand a mark: a sign of life, or that events are missing.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, Final, Literal, Union

import msgspec

from durum import config, errors
from durum.grains.publishing import Publishes
from durum.wire import values
from durum.wire.shapes import Misfit, Unsupported
from durum.wire.values import Codec

LIMIT_BYTES: Final = config.Limits().frame_bytes - 4096
_ALIVE: Final = 0
_MISSED: Final = 1
_read: Final = msgspec.msgpack.Decoder(tuple[str | int, msgspec.Raw]).decode
_write: Final = msgspec.msgpack.Encoder().encode
ALIVE: Final = _write((_ALIVE, None))
"""Stands for no event: the subscription holds."""
NO_EVENT: Final = object()
"""What ALIVE is read as."""
NOTHING: Final = object()
"""What a class publishes that does not derive from Publishes."""


def missed(count: int) -> bytes:
    """Stands for so many events that are missing."""
    return _write((_MISSED, count))


class Gap(msgspec.Struct, frozen=True):
    """Stands among the events of a watch where some may be missing. Look at the actor's state, then go on.

    Args:
        missed: how many are; None: nobody can tell, perhaps none.
        reason: "begun": an actor begins to follow another; "slow": they came faster than they were read;
            "moved": the actor's silo was lost or handed it over, and the watch has begun anew;
            "uncertain": the store did not say what became of the turn that published them; "unknown": this
            side's class does not have their type.
    """

    missed: int | None
    reason: Literal["begun", "slow", "moved", "uncertain", "unknown"]


class Events:
    """The events of one kind.

    Args:
        title: the class's name, for messages.
        annotation: what it publishes, resolved; a union's members are told apart by their names.

    Raises:
        ConfigError: a type cannot travel, or two have one name.
    """

    def __init__(self, title: str, annotation: Any) -> None:
        self._title = title
        members = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
        self._members: dict[str, tuple[bytes, Codec[Any]]] = {}
        self._by_class: dict[type, tuple[bytes, Codec[Any]]] = {}
        for member in members:
            name = _name(member)
            if name in self._members:
                raise errors.ConfigError(
                    f"{title} publishes two types of the name {name}; give one another name."
                )
            try:
                made = (b"\x92" + _write(name), values.codec(member))
            except Unsupported as exc:
                raise errors.ConfigError(f"{title} publishes {name}: {exc}.") from exc
            self._members[name] = made
            if isinstance(member, type):
                self._by_class[member] = made

    def encode(self, event: object) -> bytes:
        """Write an event.

        Raises:
            TypeError: it is of none of the types.
            ValueError: it is too large.
        """
        found = self._by_class.get(type(event))
        reason = "it is of none of these types"
        for head, codec in (found,) if found is not None else self._members.values():
            try:
                data = head + codec.verify(event)
            except Misfit as exc:
                reason = f"{f'at {exc.path}: ' if exc.path else ''}{exc.reason}"
                continue
            if len(data) > LIMIT_BYTES:
                raise ValueError(
                    f"{self._title} published an event of {len(data)} bytes, the limit is {LIMIT_BYTES}."
                    " Publish less, and let watchers ask for the rest."
                )
            return data
        raise TypeError(
            f"{self._title} publishes {' | '.join(self._members)}; {event!r:.200} was not published:"
            f" {reason}."
        )

    def decode(self, data: bytes) -> object:
        """Read an event, a Gap where some are missing, or NO_EVENT."""
        name, content = _read(data)
        if name == _ALIVE:
            return NO_EVENT
        if isinstance(name, int):
            count = msgspec.msgpack.decode(content, type=int)
            return Gap(count, "slow") if name == _MISSED and count else Gap(None, "uncertain")
        known = self._members.get(name)
        if known is None:
            return Gap(1, "unknown")
        try:
            return known[1].decode(bytes(content))
        except Misfit:
            return Gap(1, "unknown")

    def __repr__(self) -> str:
        return f"<Events of {self._title}: {' | '.join(self._members)}>"


def published_by(cls: type[Any], localns: Mapping[str, Any] | None) -> Any:
    """What a class says that it publishes, resolved; NOTHING where it does not derive from Publishes.

    Raises:
        NameError: it names what is not defined yet.
    """
    for each in cls.__mro__:
        for base in vars(each).get("__orig_bases__", ()):
            if typing.get_origin(base) is Publishes:
                alone = type(
                    "published", (), {"__annotations__": {"event": typing.get_args(base)[0]}}
                )
                alone.__module__ = each.__module__
                hints = typing.get_type_hints(alone, localns=localns, include_extras=True)
                return hints["event"]
    return Any if issubclass(cls, Publishes) else NOTHING


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)


def _name(member: Any) -> str:
    return member.__name__ if isinstance(member, type) else str(member).replace("typing.", "")
