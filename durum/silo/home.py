"""Where an activation lives, as the activation sees it. Owns no behaviour."""

from __future__ import annotations

from typing import Protocol, TypeVar

from durum.silo.performer import Tracking
from durum.silo.reason import Reason
from durum.silo.turn import Sink, Turn
from durum.wire.messages import Call

A_contra = TypeVar("A_contra", contravariant=True)


class Home(Tracking, Protocol[A_contra]):
    """Where an activation lives."""

    def elsewhere(self, turn: Turn) -> None:
        """Place a call that did not run in this activation."""
        ...

    def administer(self, sink: Sink, call: Call) -> None:
        """Take in what is no call of a method, but an operator's request."""
        ...

    def removed(self, activation: A_contra, *, doubtful: bool, lost: bool) -> None:
        """It is gone.

        Args:
            activation: which.
            doubtful: a commit of unknown outcome may still land.
            lost: the store has another owner or version.
        """
        ...

    def retire(self, activation: A_contra, reason: Reason) -> None:
        """It asks to be deactivated."""
        ...
