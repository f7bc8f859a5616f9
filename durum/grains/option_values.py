"""What may stand in the options of a reference. Pure: values in, checked values out."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Final

from durum import errors

KEY_LIMIT: Final = 256
"""Characters of an idempotency key."""
_LONGEST_S: Final = 100 * 366 * 86_400.0


def time_limit(timeout: float | timedelta) -> float:
    """A call's time limit in seconds.

    Raises:
        ArgumentError: it is not above 0, or no time at all.
    """
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if type(seconds) not in (int, float) or not (0 < seconds < math.inf):
        raise errors.ArgumentError(
            f"timeout: {timeout!r} is no positive number of seconds or timedelta; nothing was sent."
        )
    return float(seconds)


def key(given: str) -> str:
    """An idempotency key.

    Raises:
        ArgumentError: it is no text, empty, or too long.
    """
    if type(given) is not str or not 1 <= len(given) <= KEY_LIMIT:
        raise errors.ArgumentError(
            f"idempotency_key: expected text of 1 to {KEY_LIMIT} characters, got {given!r:.80}; "
            "nothing was sent."
        )
    return given


def due(delay: float | timedelta | None, at: datetime | None) -> tuple[float | None, float | None]:
    """When a message is due: after so many seconds, or at a time in seconds since 1970.

    Raises:
        ArgumentError: both are given, or one is out of its range.
    """
    if delay is not None and at is not None:
        raise errors.ArgumentError("delay and at: say one of the two; nothing was sent.")
    if delay is not None:
        return _delay(delay), None
    return None, None if at is None else _instant(at)


def _delay(given: float | timedelta) -> float:
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    if type(seconds) not in (int, float) or not 0 <= seconds <= _LONGEST_S:
        raise errors.ArgumentError(
            f"delay: {given!r} is no timedelta or number of seconds from 0 to 100 years; nothing was sent."
        )
    return float(seconds)


def _instant(given: object) -> float:
    if not isinstance(given, datetime) or given.utcoffset() is None:
        raise errors.ArgumentError(
            f"at: {given!r} is no datetime with a time zone; nothing was sent. Write, for example,"
            " datetime(2031, 5, 1, 9, tzinfo=ZoneInfo('Europe/Berlin'))."
        )
    return given.timestamp()
