"""How a grain class becomes a kind: its keywords checked, its defaults taken out, its annotations resolved.

Owns nothing; raises ConfigError for what cannot be meant.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import timedelta
from types import FrameType
from typing import Final

import msgspec

from durum import errors
from durum.grains import rules
from durum.grains.kind import KIND_ATTRIBUTE, GrainKind, KindOptions, is_class_level
from durum.grains.placement import Placement, StatelessWorker
from durum.grains.state import factory_of

_OPTIONS_ATTRIBUTE: Final = "_durum_options"
_DEFAULTS_ATTRIBUTE: Final = "_durum_defaults"


def options(cls: type, kind: str, version: int | None, given: Mapping[str, object]) -> KindOptions:
    """The class's options: its own keywords, else what its base class has, else the defaults."""
    title = cls.__qualname__
    if given["reentrancy"] not in (None, "chain", "never"):
        raise errors.ConfigError(
            f'{title}: reentrancy={given["reentrancy"]!r}; write "chain" or "never".'
        )
    inherited: Mapping[str, object] = {}
    for base in cls.__mro__[1:]:
        before = vars(base).get(_OPTIONS_ATTRIBUTE)
        if isinstance(before, KindOptions):
            inherited = msgspec.structs.asdict(before)
            break
    merged = {**inherited, **{name: value for name, value in given.items() if value is not None}}
    found = msgspec.convert({**merged, "kind": kind, "version": version or 1}, KindOptions)
    setattr(cls, _OPTIONS_ATTRIBUTE, found)
    return found


def seconds(title: str, name: str, value: object) -> float | None:
    """A keyword that is a duration."""
    if value is None:
        return None
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise errors.ConfigError(f"{title}: {name}={value!r}; write a positive timedelta.")
    return value.total_seconds()


def count(title: str, name: str, value: object) -> int | None:
    """A keyword that is a number."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise errors.ConfigError(f"{title}: {name}={value!r}; write a whole number above 0.")
    return value


def placed(title: str, placement: object) -> dict[str, object]:
    """What a placement sets."""
    if placement is None:
        return {}
    if isinstance(placement, StatelessWorker):
        return {"workers": placement.max_local}
    if isinstance(placement, Placement):
        return {"workers": 0, "placement": placement}
    raise errors.ConfigError(
        f"{title}: placement={placement!r}; write PreferLocal(), Random(), LeastLoaded(), "
        "OnSilos(role=...) or StatelessWorker(max_local=...), or leave it out."
    )


def names(title: str, aliases: object) -> tuple[str, ...]:
    """A keyword that is several kind names."""
    if not isinstance(aliases, tuple):
        raise errors.ConfigError(f"{title}: aliases={aliases!r}; write a tuple of kind names.")
    for alias in aliases:
        rules.check_kind_name(title, alias)
    return aliases


def take_shared_defaults(cls: type) -> None:
    """Move defaults that are made anew for each instance out of the class, where all would share them."""
    taken: dict[str, object] = {}
    for name in inspect.get_annotations(cls):
        default = vars(cls).get(name)
        if factory_of(default) is not None and not is_class_level(cls, name):
            taken[name] = default
            delattr(cls, name)
    setattr(cls, _DEFAULTS_ATTRIBUTE, taken)


def build(cls: type, root: type, options: KindOptions, frame: FrameType) -> None:
    """Build the class's kind now, or leave it for later where an annotation cannot be resolved yet."""
    where: FrameType | None = frame
    while where is not None and where.f_code.co_name == "__init_subclass__":
        where = where.f_back
    is_local = where is not None and where.f_locals is not where.f_globals
    localns = where.f_locals if where is not None and is_local else None

    def later() -> GrainKind:
        return GrainKind(cls, root, options)

    try:
        kind = GrainKind(cls, root, options, localns)
    except NameError:
        setattr(cls, KIND_ATTRIBUTE, later)
    else:
        setattr(cls, KIND_ATTRIBUTE, kind)
