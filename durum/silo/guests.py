"""Activations that are hosted here by themselves, and not with their partitions. Owns under which tokens they
live, and letting go of their records after the last turn; starts none of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

from durum.ids import GrainId, Token
from durum.silo.activation import Activation
from durum.silo.services import Services
from durum.silo.workers import NOWHERE
from durum.store.host_table import Host

Work = Callable[[], Awaitable[None]]
_SIDE_BY_SIDE: Final = 256


class Records(Protocol):
    """Host records, as those see them whose activations they are of: the directory."""

    async def let_go(self, grain: GrainId, partition: int, token: Token) -> None:
        """A grain is not hosted here any more. Never fails."""
        ...

    def forget(self, grain: GrainId) -> None:
        """A grain's record is not what it was."""
        ...

    def hosted(self, grain: GrainId, partition: int, host: Host) -> None:
        """A grain of a partition that is held here has this record."""
        ...

    def stray(self, grain: GrainId) -> None:
        """A newer class than this silo's has written the grain's state."""
        ...


class Guests:
    """One silo's.

    Args:
        services: the silo's.

    Attributes:
        records: set before any call comes.
        leaving: the silo stops, and keeps no record.
    """

    records: Records

    def __init__(self, services: Services) -> None:
        self._observers = services.observers
        self._here: dict[GrainId, tuple[Activation, Token]] = {}
        self.leaving = False

    def put(self, activation: Activation, token: Token) -> None:
        """One lives under a hosted token."""
        self._here[activation.grain] = (activation, token)

    def token(self, activation: Activation) -> Token | None:
        """The token that one lives under; None where it is none of these."""
        there, token = self._here.get(activation.grain, (None, None))
        return token if there is activation else None

    def removed(self, activation: Activation, *, lost: bool) -> bool:
        """An activation is gone. False where it is none of these."""
        if self.token(activation) is None:
            return False
        grain = activation.grain
        del self._here[grain]
        if lost:
            self.records.forget(grain)
            self._observers.end_grain(grain)
        return True

    def last(self, activation: Activation, work: Work | None = None) -> Work | None:
        """What to do after an activation's last turn: what is given, then let go of its record."""
        token = self.token(activation)
        if token is None:
            return work

        async def last() -> None:
            if work is not None:
                await work()
            # Who watches it is to find its next activation here.
            if self.leaving or not self._observers.watched(activation.grain):
                await self.records.let_go(activation.grain, activation.partition, token)

        return last

    async def vacate(self, retire: Callable[[Activation], Coroutine[Any, Any, None]]) -> None:
        """Have all of them go, a few at a time.

        Args:
            retire: deactivates one, or waits until that can be done.
        """
        while here := [activation for activation, _ in self._here.values()][:_SIDE_BY_SIDE]:
            async with asyncio.TaskGroup() as group:
                for activation in here:
                    group.create_task(retire(activation), name=f"vacate {activation.grain}")
        self._observers.end(NOWHERE)

    def __repr__(self) -> str:
        return f"<Guests {len(self._here)}{' leaving' if self.leaving else ''}>"
