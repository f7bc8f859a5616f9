"""One commit of a grain on its way, or in line for it. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from durum import errors
from durum.silo.effects import Staged
from durum.silo.replies import Change
from durum.store.effects import Outgoing
from durum.store.protocol import Commit

FIRST_PAUSE_S: Final = 0.02
LAST_PAUSE_S: Final = 0.5
REFUSALS_S: Final = 3.0
"""How long a store may refuse a commit before its turn is rolled back."""

Then = Callable[[errors.CallError | None], None]
"""Called once with how a commit ended: None, or the error for whoever waits."""


class Sending:
    """What a commit shall make true, and how far it is.

    Args:
        state: the new state, or None to leave it.
        change: the remembered reply, or None.
        deadline: boottime until which an attempt without a clear answer is repeated.
        then: see Then.
        alone: the fields have no part in it: if it fails, neither they nor later commits fail with it.

    Attributes:
        parts: entries of collections to set or drop.
        purge: ranges of entries to purge; see store.parts.
        staged: effects, where there are any.
        unknown: an attempt's answer was lost: it may have been applied.
    """

    __slots__ = (
        *("alone", "attempts", "change", "commit", "deadline", "parts", "purge"),
        *("sent_at", "staged", "state", "then", "unknown"),
    )

    def __init__(
        self,
        state: bytes | None,
        change: Change | None,
        deadline: float,
        then: Then,
        *,
        alone: bool = False,
    ) -> None:
        self.alone = alone
        self.state = state
        self.change = change
        self.deadline = deadline
        self.then = then
        self.parts: Mapping[bytes, bytes | None] | None = None
        self.purge: Sequence[tuple[bytes, bytes]] = ()
        self.staged: Staged | None = None
        self.commit: Commit
        self.attempts = 0
        self.sent_at = 0.0
        self.unknown = False

    @property
    def idle(self) -> bool:
        """Whether neither entries nor effects go along."""
        return self.parts is None and self.staged is None

    def build_on(self, version: int) -> None:
        """Send the commit for another version; surely it was not applied."""
        self.commit = msgspec.structs.replace(self.commit, version=version)

    def take_effects(self, outbox_rows: int) -> None:
        """Put what was staged into the commit, which is refused where the outbox would hold more rows."""
        staged = self.staged
        if staged is None:
            return
        parts = self.commit.parts
        if staged.parts:
            parts = {**(parts or {}), **staged.parts}
        self.commit = msgspec.structs.replace(
            self.commit,
            parts=parts,
            send=[Outgoing(receiver, row) for receiver, row in staged.send],
            send_limit=outbox_rows if staged.limited else 0,
            wake=staged.wake,
            park=staged.park,
        )


class Unstorable(Exception):
    """The fields cannot be committed as they are.

    Args:
        reason: why.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason
