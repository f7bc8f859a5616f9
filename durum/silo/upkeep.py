"""What a process that hosts silos is watched for: a loop that is held, a store whose settings change under
it. Owns both watches; decides nothing.
"""

from __future__ import annotations

from typing import Final

from durum import errors
from durum.clock import Clock
from durum.silo.watchdog import Watchdog
from durum.store.protocol import Durability, Level, Store
from durum.tasks import TaskOwner
from durum.telemetry import Log

_log = Log("durum.silo")
_LOOK_AGAIN_S: Final = 60.0


class Upkeep:
    """Watches, from opening to closing.

    Args:
        store: the silo's.
        durability: what its settings could lose at the start.
        clock: the host's.
        loop_blocked_s: how long code may hold the loop.
        required: the least level that was asked for, or None.
    """

    def __init__(
        self,
        store: Store,
        durability: Durability,
        clock: Clock,
        loop_blocked_s: float,
        required: Level | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._watchdog = Watchdog(clock, loop_blocked_s)
        self._required = required
        self._tasks = TaskOwner("upkeep")
        self.durability = durability
        """As found last."""

    @property
    def loop_blocked(self) -> int:
        """How often the loop was held for too long."""
        return self._watchdog.reports

    async def open(self) -> None:
        """Begin to watch."""
        await self._tasks.open()
        self._tasks.start(self._watchdog.run(), "watchdog")
        self._tasks.start(self._look_again(), "durability")

    async def close(self) -> None:
        """Watch no more."""
        await self._tasks.close()

    async def _look_again(self) -> None:
        while True:
            await self._clock.sleep(_LOOK_AGAIN_S)
            await self.look()

    async def look(self) -> None:
        """Read the store's settings, and say so where they can lose something else than before."""
        try:
            found = await self._store.durability()
        except errors.StoreError as exc:
            _log.debug("cannot look at the store's settings", error=str(exc))
            return
        if _promises(found) != _promises(self.durability):
            # It goes on: to stop all silos since a replica is away for a while would be worse than that.
            below = self._required is not None and found.level < self._required
            (_log.error if below else _log.warning)(
                "the store's settings have changed",
                level=found.level.name,
                was=self.durability.level.name,
                required="" if self._required is None else self._required.name,
                summary=found.summary,
                unsafe=found.unsafe,
            )
        self.durability = found

    def __repr__(self) -> str:
        return f"<Upkeep {self.durability.level.name} loop_blocked={self.loop_blocked}>"


def _promises(found: Durability) -> tuple[Level, str, tuple[str, ...]]:
    """What of it is a promise; figures such as the memory in use change all the time."""
    return found.level, found.summary, found.unsafe
