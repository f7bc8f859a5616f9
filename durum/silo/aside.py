"""What an activation has besides calls: timers, streams, reminders and messages. Owns which there are; their
turns go through the activation's mailbox like all others.

Most activations have none, so this is made when it is first needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from durum.grains.kind import GrainKind, Method
from durum.grains.timers import Timer, TimerSpec
from durum.ids import GrainId
from durum.silo.acceptance import Acceptance
from durum.silo.durable import Durable
from durum.silo.inbox import Inbox, Place
from durum.silo.meters import Meter
from durum.silo.reminders import Book
from durum.silo.reserved import Reserved, reserved
from durum.silo.services import Services
from durum.silo.stored import StoredEntries
from durum.silo.streams import Lane, Outgoing
from durum.silo.telling import Drawer
from durum.silo.timers import Timers
from durum.silo.turn import Sink
from durum.wire import post as wire
from durum.wire.messages import Call


class Beside(Lane, Place, Protocol):
    """The activation, as all of them see it."""


class Aside:
    """Of one activation.

    Args:
        grain: which.
        kind: its kind.
        durable: its durable side.
        services: the silo's.
        lane: the activation.
        entries: its record, patiently read.
    """

    __slots__ = (
        "_acceptance",
        "_durable",
        "_entries",
        "_grain",
        "_inbox",
        "_kind",
        "_lane",
        "_services",
        "_streams",
        "_timers",
        "book",
    )

    def __init__(
        self,
        grain: GrainId,
        kind: GrainKind,
        durable: Durable,
        services: Services,
        lane: Beside,
        entries: Callable[[], StoredEntries],
    ) -> None:
        self.book = Book(grain, kind, durable, services, entries)
        self._grain = grain
        self._entries = entries
        self._inbox: Inbox | None = None
        self._acceptance: Acceptance | None = None
        self._kind = kind
        self._services = services
        self._durable = durable
        self._lane = lane
        self._timers = Timers(grain, kind, durable, services, lane)
        self._streams: dict[Outgoing, None] = {}

    @property
    def busy(self) -> bool:
        """Whether the activation has to stay for one of them."""
        delivering = self._inbox is not None and self._inbox.busy
        return bool(self._streams) or self._timers.keep_alive or delivering

    @property
    def missed(self) -> bool:
        """Whether one of them would be missed if the activation went now."""
        return self.busy or self._timers.active

    def set_timer(self, spec: TimerSpec) -> Timer:
        """Begin a timer."""
        return self._timers.start(spec)

    def reserved(self, request: str) -> tuple[Reserved, Meter]:
        """What a request runs that the author did not write."""
        runs = reserved(request, self.book, self._drawer)
        return runs, self._services.meters.timer(self._kind.name, runs.name)

    def _drawer(self) -> Drawer:
        return Drawer(self._grain, self._services, self._entries())

    def take(self, call: Call, sink: Sink) -> None:
        """Take in messages that are delivered, or one of a client's."""
        parts = self._grain, self._kind, self._durable, self._services, self._lane
        if call.method == wire.DELIVER:
            if self._inbox is None:
                self._inbox = Inbox(*parts, self._entries())
            self._inbox.take(call, sink)
        else:
            if self._acceptance is None:
                self._acceptance = Acceptance(*parts, self._entries())
            self._acceptance.take(call, sink)

    def begin(self, stream: Outgoing, method: Method, meter: Meter, instance: Any) -> None:
        """Begin a stream.

        Raises:
            ArgumentError: its arguments do not fit; it did not begin.
        """
        stream.attach(self._lane, method, meter, self._durable, instance)
        if not stream.over:
            self._streams[stream] = None

    def leave(self, stream: Outgoing) -> None:
        """A stream is over."""
        self._streams.pop(stream, None)

    def stop(self) -> None:
        """End them all; what of them runs goes on to the end of its turn."""
        self._timers.stop()
        if self._inbox is not None:
            self._inbox.stop()
        for stream in tuple(self._streams):
            stream.move()

    def __repr__(self) -> str:
        return f"<Aside {self._timers!r} streams={len(self._streams)}>"
