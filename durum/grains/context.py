"""What a silo gives each instance, and what a turn can know of its call. Owns no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from durum.grains.carried import Trace
from durum.grains.entries import EntryStore
from durum.grains.messages import Message
from durum.grains.reference import Caller
from durum.grains.reminders import NO_REMINDERS, Reminders
from durum.grains.schedules import Plan
from durum.grains.timers import Timer, TimerSpec
from durum.ids import GrainId


class TurnContext(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The call that a turn serves.

    Args:
        method: the public method's name, or "" outside of calls.
        request: an id that stays the same along a chain of calls, for logs; or "".
        caller: the grain that called, or None for a client.
        key: the call's idempotency key, or "".
        baggage: what the call brought along; durum.baggage is what onward calls take.
        trace: where in a distributed trace the call stands, if it says so.
        reminders: the actor's own: listed and cancelled; `self.remind` sets them.
        message: where a message brought the call, an id of that message which is the same at each attempt; or
            "".
    """

    method: str = ""
    request: str = ""
    caller: GrainId | None = None
    key: str = ""
    baggage: Mapping[str, str] = {}
    trace: Trace | None = None
    reminders: Reminders = NO_REMINDERS
    message: str = ""


class Host(Caller, Protocol):
    """The silo, as one instance sees it. Calls it carries are part of the running turn's chain."""

    @property
    def context(self) -> TurnContext:
        """The call that the running turn serves."""
        ...

    @property
    def entries(self) -> EntryStore:
        """Where the entries of the instance's collections are."""
        ...

    def tell(self, message: Message) -> None:
        """Send a message with the running turn's commit."""
        ...

    async def save(self) -> None:
        """Commit what the running turn has so far. Once it returns, that is durable, and a later
        exception of the turn rolls back to here only."""
        ...

    def deactivate(self) -> None:
        """End the activation once its running turns have."""
        ...

    def set_timer(self, spec: TimerSpec) -> Timer:
        """Begin a timer. Where the activation is about to end, one that is over already."""
        ...

    def publish(self, event: object) -> None:
        """Tell watchers, once the running turn has committed; outside of turns at once.

        Raises:
            TypeError: the kind does not publish such a thing.
            ValueError: it is too large.
        """
        ...

    def remind(self, name: str, plan: Plan) -> None:
        """Set a reminder with the running turn's commit.

        Raises:
            ArgumentError: it would never tick, or there are too many; nothing was set.
            AttributeError: in a @read_only turn, which never commits.
            CommitFailed: no turn runs whose commit it would be part of; nothing was set.
        """
        ...
