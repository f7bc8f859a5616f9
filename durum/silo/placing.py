"""Who places calls, as those see it whose activations come and go: the dispatcher."""

from __future__ import annotations

from typing import Protocol

from durum.silo.turn import Sink, Turn
from durum.wire.messages import Call


class Placing(Protocol):
    """Who places calls: the dispatcher."""

    def elsewhere(self, turn: Turn) -> None:
        """Place a call anew; it did not run."""
        ...

    def administer(self, sink: Sink, call: Call) -> None:
        """Take in an operator's request."""
        ...

    def track(self, turn: Turn) -> None:
        """Remember a turn that waits or takes its time, so that it can be cancelled."""
        ...

    def untrack(self, turn: Turn) -> None:
        """A tracked turn has ended."""
        ...
