"""What two hooks of a class say of the value that moves with its actors. Pure; calls no author's code."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from durum import errors
from durum.wire import opaque, values
from durum.wire.shapes import Unsupported

LEAVE: Final = "on_dehydrate"
ARRIVE: Final = "on_rehydrate"
Hints = Callable[[str], tuple[list[str], dict[str, Any]]]
"""From a hook's name to the names of its parameters and its resolved annotations."""


def codec_of(
    title: str, hooks: Collection[str], hints: Hints, *, handed_over: bool, pickled: bool
) -> values.Codec[Any] | None:
    """The codec of what the one returns and the other takes, or None where a class has neither.

    Args:
        title: the class, for messages.
        hooks: which it defines.
        hints: see Hints.
        handed_over: whether its actors go from silo to silo with their partition.
        pickled: see KindOptions.

    Raises:
        ConfigError: one is missing, or they do not agree on a type that can travel.
    """
    missing = {LEAVE, ARRIVE}.difference(hooks)
    if len(missing) == 2:
        return None
    if missing:
        raise errors.ConfigError(
            f"{title} has one of {LEAVE} and {ARRIVE} only: what the one returns the other takes. Write"
            f" {missing.pop()} too."
        )
    if not handed_over:
        raise errors.ConfigError(
            f"{title}.{LEAVE}: only actors that are placed by the hash of their key are handed over from"
            " silo to silo. Leave the hook out, or the placement."
        )
    given = _annotation(title, hints, LEAVE, 1)
    taken = _annotation(title, hints, ARRIVE, 2)
    if given != taken:
        raise errors.ConfigError(
            f"{title}.{LEAVE} returns {given!r} and {ARRIVE} takes {taken!r}; write one type."
        )
    try:
        return opaque.codec(given, pickled=pickled)
    except Unsupported as exc:
        raise errors.ConfigError(f"{title}.{LEAVE}: {exc}.") from exc


def _annotation(title: str, hints: Hints, hook: str, parameters: int) -> Any:
    names, found = hints(hook)
    name = "return" if hook == LEAVE else names[-1]
    if len(names) != parameters or found.get(name, type(None)) is type(None):
        raise errors.ConfigError(
            f"{title}.{hook}: annotate what travels: this hook must be `async def {LEAVE}(self) -> T` or"
            f" `async def {ARRIVE}(self, value: T) -> None`, of any type that a field may have."
        )
    return found[name]
