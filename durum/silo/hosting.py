"""Brings calls to grains that are placed one by one: to their activation here, or to the silo that hosts
them. Owns no record and chooses no silo: the directory does.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from durum.ids import GrainId, SiloId, address_of, split_grain_id
from durum.silo.catalog import Catalog
from durum.silo.directory import Directory
from durum.silo.holdings import Holding, Lodging, Tenure
from durum.silo.turn import Sink
from durum.silo.waiting import Waiting
from durum.store.host_table import Host
from durum.wire.administration import PREFIX, TURNS, WATCH
from durum.wire.messages import Call, Moved
from durum.wire.post import POST

_LATE: Final = "no silo was found for it in time"


class Way(Protocol):
    """The dispatcher."""

    def call(self, sink: Sink, call: Call) -> None:
        """Take in a call anew."""
        ...

    def serve(self, sink: Sink, call: Call, place: Tenure) -> None:
        """Bring a call to its grain, which is this silo's."""
        ...

    def send_on(self, sink: Sink, call: Call, partition: int) -> None:
        """A partition is not held here: let the call wait for it, or say who should have it."""
        ...


class Hosting:
    """One silo's.

    Args:
        silo: this silo.
        directory: knows who hosts what.
        catalog: its activations.
        waiting: where calls wait.
        way: see Way.
        holding: of a partition, where this silo serves it now.
        version: the newest view's number.
    """

    def __init__(
        self,
        *,
        silo: SiloId,
        directory: Directory,
        catalog: Catalog,
        waiting: Waiting,
        way: Way,
        holding: Callable[[int], Holding | None],
        version: Callable[[], int],
    ) -> None:
        self._silo: Final = silo
        self._directory = directory
        self._catalog = catalog
        self._waiting = waiting
        self._way = way
        self._holding = holding
        self._version = version

    def leads(self, grain: GrainId) -> bool:
        """Whether the grain may be elsewhere although this silo owns its partition."""
        return self._directory.leads(grain)

    def take(self, sink: Sink, call: Call, holding: Holding) -> bool:
        """Take in a call as the owner of its grain's partition.

        Returns:
            False where the owner is to serve it, as it does all others.
        """
        directory, grain = self._directory, call.grain
        if is_asked_of_owner(call):
            self._hold(sink, call, holding, lambda: directory.current(grain, holding))
            return True
        if not directory.leads(grain):
            return False
        # Who was sent on may come back from a silo that does not host it any more.
        host = directory.known(grain, holding) if call.hops == 0 else None
        if host is not None:
            self._lead(sink, call, holding.partition, host)
        else:
            caller = sink.silo
            self._hold(sink, call, holding, lambda: directory.find(grain, holding, caller))
        return True

    def visit(self, sink: Sink, call: Call, partition: int, *, wanted: bool) -> bool:
        """Take in a call whose grain's partition is not held here: the grain may be here all the same.

        Args:
            sink: where its answer goes.
            call: which.
            partition: its grain's.
            wanted: this silo waits for the partition.

        Returns:
            False where that is not worth a look.
        """
        sent_here = call.hops > 0 and not wanted
        directory, grain = self._directory, call.grain
        if not (sent_here or directory.places(split_grain_id(grain)[0])):
            return False
        self._waiting.hold(
            sink,
            call,
            until=lambda: directory.look(grain, partition),
            then=lambda sink, call, host: self._visited(sink, call, partition, host),
            late=_LATE,
        )
        return True

    def _hold(
        self,
        sink: Sink,
        call: Call,
        holding: Holding,
        find: Callable[[], Coroutine[Any, Any, Host | None]],
    ) -> None:
        self._waiting.hold(
            sink,
            call,
            until=find,
            then=lambda sink, call, host: self._found(sink, call, holding, host),
            late=_LATE,
        )

    def _found(self, sink: Sink, call: Call, holding: Holding, host: Host | None) -> None:
        if host is not None:
            self._lead(sink, call, holding.partition, host)
        elif self._holding(holding.partition) is holding:
            self._way.serve(sink, call, holding)
        else:
            self._way.call(sink, call)

    def _visited(self, sink: Sink, call: Call, partition: int, host: Host | None) -> None:
        if host is not None:
            self._lead(sink, call, partition, host)
        elif self._holding(partition) is not None:
            self._way.call(sink, call)  # it has arrived meanwhile
        else:
            self._way.send_on(sink, call, partition)

    def _lead(self, sink: Sink, call: Call, partition: int, host: Host) -> None:
        if host.silo != self._silo:
            moved = Moved(call.id, address_of(host.silo), self._version(), hosted=True)
            sink.send(moved)
        elif is_asked_of_owner(call):
            self._way.serve(sink, call, Lodging(partition, host.token))
        elif self._catalog.guests.leaving:
            self._waiting.hold(
                sink,
                call,
                until=lambda: self._directory.let_go(call.grain, partition, host.token),
                then=self._send_away,
                late=_LATE,
            )
        elif call.grain in self._catalog.activations and call.method != WATCH:
            self._way.call(sink, call)  # another call was faster
        else:
            self._way.serve(sink, call, Lodging(partition, host.token))

    def _send_away(self, sink: Sink, call: Call, _: None) -> None:
        """This silo leaves, and does not begin to host anything."""
        call.hops += 1
        self._way.call(sink, call)


def is_asked_of_owner(call: Call) -> bool:
    """Whether whoever serves the grain answers, and not the grain; such requests give it no place."""
    method = call.method
    return method.startswith(PREFIX) and not (method in TURNS or method in POST or method == WATCH)
