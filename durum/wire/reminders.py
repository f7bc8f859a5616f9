"""What is asked about wake-ups and reminders. Owns the names of the requests and the form of their answers.

They travel as those of administration do. WAKE and REMIND are turns of their grain, in its mailbox, at the
silo that hosts it. The others read, at the grain's owner or at any silo.
"""

from __future__ import annotations

from typing import Final

import msgspec

from durum.ids import GrainId

WAKE: Final = "durum.wake"
REMIND: Final = "durum.remind"
REMINDERS: Final = "durum.reminders"
WAKE_UPS: Final = "durum.wake_ups"
TRUST_CLOCK: Final = "durum.trust_clock"


class Wake(msgspec.Struct, array_like=True, frozen=True):
    """Please look what is due. Answered by when to look again, in the store's milliseconds, or nil.

    Args:
        name: the wake-up's; its first byte tells what it is for.
    """

    name: bytes


class Remind(msgspec.Struct, array_like=True, frozen=True):
    """Please set or cancel a reminder. Answered by the reminder as it stands, or by whether there was one.

    Args:
        name: the reminder's.
        plan: see grains.schedules.Plan, encoded; None cancels.
    """

    name: str
    plan: bytes | None


class WakeUps(msgspec.Struct, array_like=True, frozen=True):
    """Wake-ups of grains whose id begins so. A page costs as much as it looks at, found or not.

    Args:
        prefix: kind, slash, and what the key begins with.
        names: what the wake-ups' names begin with.
        partition: where to go on.
        after: the last wake-up looked at there, or None.
        limit: at most so many.
    """

    prefix: str
    names: bytes
    partition: int = 0
    after: tuple[int, GrainId, bytes] | None = None
    limit: int = 100


class WakeUpPage(msgspec.Struct, array_like=True, frozen=True):
    """The answer to WakeUps.

    Args:
        found: due time in the store's milliseconds, grain and name; by partitions, and within one by time.
        partition: where to go on; -1 where nothing is left.
        after: likewise.
    """

    found: tuple[tuple[int, GrainId, bytes], ...]
    partition: int
    after: tuple[int, GrainId, bytes] | None


encode: Final = msgspec.msgpack.Encoder().encode
