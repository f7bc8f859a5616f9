"""Records that hold what Durum never wrote there. Owns how that is told from a loss; knows no store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from durum import errors

_UNTOUCHED: Final = (
    "The stored bytes are untouched. Look for who else writes to this store, or restore the record."
)


class Damaged(errors.DataLoss):
    """One record holds what Durum never wrote there. Others may be sound."""


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Take what was read apart in the block.

    Args:
        what: it is, for a person.

    Raises:
        Damaged: a number is none, something is missing, or a text is no text.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError) as exc:
        raise Damaged(f"{what} is damaged ({exc!r:.80}). {_UNTOUCHED}") from exc


def version_of(version: object, state: object) -> int:
    """A grain's version as it was read, checked together with the state.

    Args:
        version: a number, or its digits; None where there is none.
        state: bytes; None where there is none.

    Raises:
        Damaged: no commit has left these.
    """
    number = _number(version)
    if number is None or number < 0:
        what = f"{repr(version)[:40]} is no version"
    elif state is not None and type(state) is not bytes:
        what = f"its state is {type(state).__name__} and not bytes"
    elif number == 0 and state is not None:
        what = "it has a state and no version"
    else:
        return number
    raise Damaged(f"its record is damaged: {what}. {_UNTOUCHED}")


def _number(version: object) -> int | None:
    if version is None:
        return 0
    if isinstance(version, bytes) and version.isdigit() and len(version) < 20:
        return int(version)
    return version if type(version) is int else None
