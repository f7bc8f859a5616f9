"""The messages of all partitions that a silo holds. Owns which of them have a desk; deliveries are theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from durum.ids import GrainId, Token
from durum.silo.desk import Desk, Slots
from durum.silo.effects import Staged
from durum.silo.holdings import Holding
from durum.silo.outbox import Room
from durum.silo.services import Services
from durum.silo.statistics import PostStatistics
from durum.store.effects import Posted

_ROOM_BYTES: Final = 64 * 1024 * 1024
_IN_FLIGHT: Final = 1024


class PostOffice:
    """One silo's. A Tenant of its partitions, and an Office for what their grains commit.

    Args:
        services: the silo's.
        lost: called with a partition where the store has another token for it than ours.
    """

    def __init__(self, services: Services, lost: Callable[[int], None]) -> None:
        self._services = services
        self._lost = lost
        self._held: dict[int, Holding] = {}
        self._desks: dict[int, Desk] = {}
        self._slots = Slots(_IN_FLIGHT)
        self._room = Room(_ROOM_BYTES)

    # Partitions come and go -----------------------------------------------------------------------------

    def held(self, holding: Holding) -> None:
        """A partition is served from now on. Where there is something to deliver, that begins."""
        self._held[holding.partition] = holding
        if holding.posted:
            self._desk(holding, pending=True).pump()

    def left(self, partition: int) -> None:
        """A partition is not served any more. Its next owner delivers the rest."""
        self._held.pop(partition, None)
        desk = self._desks.pop(partition, None)
        if desk is not None:
            desk.stop()

    def close(self) -> None:
        """Deliver nothing more."""
        for partition in list(self._desks):
            self.left(partition)
        self._held.clear()

    def _desk(self, holding: Holding, *, pending: bool = False) -> Desk:
        desk = self._desks.get(holding.partition)
        if desk is None:
            desk = self._desks[holding.partition] = Desk(
                partition=holding.partition,
                epoch=holding.epoch,
                token=holding.token,
                services=self._services,
                slots=self._slots,
                room=self._room,
                pending=pending,
                lost=self._lost,
            )
        return desk

    # News -----------------------------------------------------------------------------------------------

    def landed(
        self,
        partition: int,
        token: Token,
        grain: GrainId,  # noqa: ARG002 - an Office's
        staged: Staged,
        first: int,
    ) -> None:
        """Messages were committed: deliver them."""
        holding = self._held.get(partition)
        if holding is None or not staged.send:
            return  # whoever holds it next reads them
        desk = self._desk(holding)
        if holding.token == token:
            desk.outbox.post(
                [
                    Posted(
                        number=number,
                        epoch=holding.epoch,
                        lineage=bytes(holding.token),
                        receiver=receiver,
                        row=row,
                    )
                    for number, (receiver, row) in enumerate(staged.send, first)
                ]
            )
        else:
            desk.outbox.doubt()
        desk.pump()

    def doubted(
        self,
        partition: int,
        token: Token,  # noqa: ARG002 - an Office's
        grain: GrainId,  # noqa: ARG002
        staged: Staged,
    ) -> None:
        """Messages may have been committed, or may be later."""
        holding = self._held.get(partition)
        if holding is not None and staged.send:
            self._desk(holding).doubt()

    def look(self, partition: int, *, doubtful: bool = False) -> None:
        """Somebody else may have committed messages to a partition's outbox.

        Args:
            partition: which.
            doubtful: nobody knows whether, and they may land later.
        """
        holding = self._held.get(partition)
        if holding is None:
            return
        desk = self._desk(holding)
        if doubtful:
            desk.doubt()
        else:
            desk.outbox.doubt()
            desk.pump()

    def look_everywhere(self) -> None:
        """Somebody else may have committed messages to any outbox."""
        for partition in list(self._held):
            self.look(partition)

    def hurry(self) -> None:
        """The cluster has changed: who could not be reached may be reached now."""
        now = self._services.clock.boottime()
        for desk in list(self._desks.values()):
            desk.outbox.hurry(now)
            desk.pump()

    # For people -----------------------------------------------------------------------------------------

    def desks(self) -> Iterator[Desk]:
        """All that there are, by partition."""
        return (self._desks[partition] for partition in sorted(self._desks))

    def statistics(self) -> PostStatistics:
        """The counters as they are now."""
        lines = [line for desk in self._desks.values() for line in desk.outbox.lines()]
        return PostStatistics(
            waiting=sum(len(desk.outbox) for desk in self._desks.values()),
            receivers=len(lines),
            failing=sum(bool(line.failures) for line in lines),
            in_flight=_IN_FLIGHT - self._slots.left,
            told=self._services.load.told,
            parked=self._services.load.parked,
        )

    def __repr__(self) -> str:
        return f"<PostOffice held={len(self._held)} desks={len(self._desks)}>"
