"""What operators ask about messages: those that wait, and dead letters. Owns the names of the requests and
the form of their answers; they are calls with reserved names, as in administration.py.
"""

from __future__ import annotations

from typing import Final

import msgspec

from durum.ids import GrainId

LETTERS: Final = "durum.letters"
"""List dead letters; any silo answers."""
LETTER: Final = "durum.letter"
"""Show one, drop it, or send it again; its receiver's owner answers."""
WAITING: Final = "durum.waiting"
"""What waits in the outboxes of the silo that is asked."""


class Letters(msgspec.Struct, array_like=True, frozen=True):
    """Dead letters of grains whose id begins so.

    Args:
        prefix: kind, slash, and what the key begins with; "" for all.
        partition: where to go on.
        after: the last name seen there, or b"".
        limit: at most so many.
    """

    prefix: str = ""
    partition: int = 0
    after: bytes = b""
    limit: int = 100


class LetterPage(msgspec.Struct, array_like=True, frozen=True):
    """The answer to Letters.

    Args:
        letters: partition, name and content of each; see post.Letter.
        partition: where to go on; P where nothing is left.
        after: the last name seen there.
        partitions: P.
    """

    letters: tuple[tuple[int, bytes, bytes], ...]
    partition: int
    after: bytes
    partitions: int


class See(msgspec.Struct, array_like=True, frozen=True):
    """See to one dead letter of a grain. Answered by its content, or nil where there is none of that name.

    Args:
        name: which.
        act: "show"; "drop": take it away for good; "retry": take it away and send the message again, in one
            commit, behind all that wait.
    """

    name: bytes
    act: str = "show"


class Waits(msgspec.Struct, array_like=True, frozen=True):
    """What waits for one receiver in one outbox.

    Args:
        partition: whose outbox.
        receiver: whom.
        messages: how many.
        failures: in a row; 0 while they go out.
        counted: of those, attempts of the first message that failed by its own fault.
        why: what the last attempt said, or "".
    """

    partition: int
    receiver: GrainId
    messages: int
    failures: int
    counted: int
    why: str


class Waiting(msgspec.Struct, array_like=True, frozen=True):
    """The answer to WAITING.

    Args:
        messages: how many there are in all.
        receivers: for how many.
        lines: those with failures first, then the longest; not all of them, where they are many.
    """

    messages: int
    receivers: int
    lines: tuple[Waits, ...]
