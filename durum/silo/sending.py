"""One commit of a grain on its way, or in line for it. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from durum import errors
from durum.silo.replies import Change
from durum.store.protocol import Commit

Then = Callable[[errors.CallError | None], None]
"""Called once with how a commit ended: None, or the error for whoever waits."""


class Sending:
    """What a commit shall make true, and how far it is.

    Args:
        state: the new state, or None to leave it.
        change: the remembered reply, or None.
        deadline: boottime until which an attempt without a clear answer is repeated.
        then: see Then.

    Attributes:
        parts: entries of collections to set or drop.
        purge: ranges of entries to purge; see store.parts.
        unknown: an attempt's answer was lost: it may have been applied.
    """

    __slots__ = (
        *("attempts", "change", "commit", "deadline", "parts", "purge"),
        *("sent_at", "state", "then", "unknown"),
    )

    def __init__(
        self, state: bytes | None, change: Change | None, deadline: float, then: Then
    ) -> None:
        self.state = state
        self.change = change
        self.deadline = deadline
        self.then = then
        self.parts: Mapping[bytes, bytes | None] | None = None
        self.purge: Sequence[tuple[bytes, bytes]] = ()
        self.commit: Commit
        self.attempts = 0
        self.sent_at = 0.0
        self.unknown = False
