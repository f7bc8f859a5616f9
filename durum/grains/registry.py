"""Which kinds a silo hosts. Owns collecting and naming them; there is no list behind its back."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from types import MappingProxyType, ModuleType

from durum import errors
from durum.grains.actor import Actor
from durum.grains.kind import GrainKind, kind_of


def register(classes: Iterable[type[Actor]]) -> Mapping[str, GrainKind]:
    """Name the kinds of some classes.

    Args:
        classes: Actor classes; one given twice counts once.

    Raises:
        ConfigError: one is no Actor class, two have one kind name, or an annotation cannot be used.
    """
    kinds: dict[str, GrainKind] = {}
    for cls in classes:
        given: object = cls
        if not isinstance(given, type) or not issubclass(given, Actor) or given is Actor:
            raise errors.ConfigError(
                f"kinds: {cls!r} is no Actor class. Give classes that derive from durum.Actor."
            )
        kind = kind_of(cls)
        other = kinds.setdefault(kind.name, kind)
        if other.cls is not cls:
            raise errors.ConfigError(
                f"kinds: {_place(other.cls)} and {_place(cls)} are both named {kind.name!r}, and data "
                "lies under the name. Give one of them another: class ...(Actor, kind=...)."
            )
    aliases_of(kinds)
    return MappingProxyType(kinds)


def aliases_of(kinds: Mapping[str, GrainKind]) -> Mapping[str, str]:
    """Names under which callers may know a kind, each with the kind's own.

    Raises:
        ConfigError: one is another kind's own name, or two kinds have the same.
    """
    found: dict[str, str] = {}
    for name, kind in kinds.items():
        for alias in kind.options.aliases:
            if alias in kinds or found.setdefault(alias, name) != name:
                raise errors.ConfigError(
                    f"kinds: {_place(kind.cls)} has the alias {alias!r}, which is also"
                    f" {kinds[alias].cls.__qualname__ if alias in kinds else found[alias]}'s. An alias must"
                    " be nobody else's name."
                )
    return MappingProxyType(found)


def kinds_in(module: ModuleType) -> list[type[Actor]]:
    """The Actor classes that a module defines or imports by name, in that order; abstract ones are
    only there to derive from.
    """
    found = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Actor) and each is not Actor
    ]
    return [each for each in dict.fromkeys(found) if not inspect.isabstract(each)]


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
