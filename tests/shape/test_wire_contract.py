"""What travels on the wire changes only on purpose: two releases must understand each other."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType

import msgspec

from durum.wire import administration, messages
from tests.support import accepted


def _structs(module: ModuleType) -> Iterator[type[msgspec.Struct]]:
    for value in vars(module).values():
        if (
            inspect.isclass(value)
            and issubclass(value, msgspec.Struct)
            and value.__module__ == module.__name__
            and value is not messages.Message
        ):
            yield value


def _described(module: ModuleType) -> Iterator[str]:
    yield f"version {messages.WIRE_VERSION}"
    structs = sorted(_structs(module), key=lambda s: (s.__struct_config__.tag or 0, s.__name__))
    for struct in structs:
        tag = struct.__struct_config__.tag
        yield f"{tag if tag is not None else '-'} {struct.__name__}"
        for place, field in enumerate(msgspec.structs.fields(struct), 1 if tag is not None else 0):
            default = "" if field.required else f" = {field.default!r}"
            yield f"  [{place}] {field.name}: {_type_name(field.type)}{default}"


def _type_name(annotation: object) -> str:
    if inspect.isclass(annotation):
        return str(annotation) if hasattr(annotation, "__args__") else annotation.__name__
    return (
        str(getattr(annotation, "__name__", annotation))
        if not hasattr(annotation, "__args__")
        else str(annotation)
    )


def test_wire_contract_is_what_was_decided() -> None:
    """A moved or removed field garbles every call between an old silo and a new one."""
    accepted.check("wire_contract.txt", list(_described(messages)))


def test_contract_of_administration_is_what_was_decided() -> None:
    """An operator's shell may be of another release than the silos that it asks."""
    names = [
        f"{name} = {value}"
        for name, value in sorted(vars(administration).items())
        if name.isupper() and isinstance(value, str)
    ]
    accepted.check("administration_contract.txt", [*names, *_described(administration)])


def test_every_message_has_its_own_number() -> None:
    """Two messages under one number cannot be told apart."""
    tags = [
        s.__struct_config__.tag for s in _structs(messages) if s.__struct_config__.tag is not None
    ]
    assert sorted(set(tags)) == sorted(tags)
