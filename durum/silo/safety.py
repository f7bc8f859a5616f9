"""Whether a silo may run on a store, by what its settings can lose. Decides on values; asks no store."""

from __future__ import annotations

from durum import errors
from durum.store.protocol import Durability, Level


def level_of(asked: Level | str | None) -> Level | None:
    """Read a level that somebody demands.

    Raises:
        ConfigError: there is none of that name.
    """
    if asked is None or isinstance(asked, Level):
        return asked
    try:
        return Level[asked.upper()]
    except KeyError:
        raise errors.ConfigError(
            f"{asked!r} is no durability level. Write D0, D1, D2 or D3."
        ) from None


def replicas_for(required: Level | None) -> int:
    """How many replicas must have a write before it counts, where the store's URL does not say."""
    return 1 if required is Level.D3 else 0


def refuse_unsafe(found: Durability, *, accept_volatile: bool, required: Level | None) -> None:
    """Refuse a store that can lose more than its owner has agreed to.

    Args:
        found: what it can lose.
        accept_volatile: whether everything may go when it stops.
        required: the least level, or None.

    Raises:
        ConfigError: naming each setting to change.
    """
    if found.level is Level.D0 and not accept_volatile:
        raise errors.ConfigError(
            f"the store keeps nothing when it stops ({found.summary}) Make it durable, or say"
            " --accept-volatile-store (accept_volatile_store=True)."
        )
    if found.unsafe:
        raise errors.ConfigError("the store is not safe to run on: " + "; ".join(found.unsafe))
    if required is not None and found.level < required:
        more = f" {' '.join(found.warnings)}" if found.warnings else ""
        raise errors.ConfigError(
            f"the store's durability is {found.level.name}, {required.name} is required:"
            f" {found.summary}{more} Change its settings, or require less (--require-durability)."
        )
