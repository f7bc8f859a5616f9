"""Looks whether a partition is still ours, where the store has refused something. Keeps nothing."""

from __future__ import annotations

from collections.abc import Callable

from durum import errors
from durum.ids import Token
from durum.silo.ownership import Ownership
from durum.store.protocol import TurnStore
from durum.tasks import TaskOwner
from durum.telemetry import Log

_log = Log("durum.silo")


class Verifier:
    """One silo's.

    Args:
        store: what to ask.
        tasks: where a look goes on.
        halt: told of what no silo may go on after.
    """

    def __init__(
        self, store: TurnStore, tasks: TaskOwner, halt: Callable[[BaseException], None]
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._halt = halt
        self._ownership: Ownership | None = None

    def serve(self, ownership: Ownership) -> None:
        """Whose partitions to look at."""
        self._ownership = ownership

    def suspect(self, partition: int) -> None:
        """A commit or load was refused. Where the token is still ours, only that grain was behind."""
        holding = None if self._ownership is None else self._ownership.holding(partition)
        if holding is not None:
            self._tasks.start(self._verify(partition, holding.token), f"verify {partition}")

    async def _verify(self, partition: int, token: Token) -> None:
        ownership = self._ownership
        try:
            await self._store.verify(partition, token)
        except errors.Superseded:
            holding = None if ownership is None else ownership.holding(partition)
            if ownership is not None and holding is not None and holding.token == token:
                ownership.superseded(partition)
        except errors.DataLoss as exc:
            self._halt(exc)
        except errors.StoreUnavailable as exc:
            _log.debug("cannot verify a partition", partition=partition, error=str(exc))
