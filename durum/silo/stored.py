"""What a turn reads of its grain's record. Owns patience and refusals; keeps nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from durum import errors
from durum.errors import DidRun
from durum.silo.durable import Durable
from durum.silo.sending import FIRST_PAUSE_S, LAST_PAUSE_S
from durum.silo.services import Services
from durum.silo.turn import CURRENT
from durum.store.damage import Damaged
from durum.store.parts import Part

T = TypeVar("T")


class Unread(errors.CommitFailed):
    """A turn needed something that could not be read; told as CommitFailed. No outcome to remember."""


class StoredEntries:
    """See grains.entries.EntryStore.

    Args:
        durable: the activation's durable side.
        services: the silo's.
        lost: called when another owner or version is in the store.
    """

    __slots__ = ("_durable", "_lost", "_services", "limits")

    def __init__(self, durable: Durable, services: Services, lost: Callable[[], None]) -> None:
        self._durable: Final = durable
        self._services: Final = services
        self._lost: Final = lost
        self.limits = services.config.limits

    async def load(self, names: Sequence[bytes], *, contents: bool = True) -> Mapping[bytes, bytes]:
        return await self._ask(lambda: self._durable.load_parts(names, contents=contents))

    async def scan(self, prefix: bytes, after: bytes, limit: int) -> Sequence[Part]:
        return await self._ask(lambda: self._durable.scan_parts(prefix, after, limit))

    async def know_version(self) -> None:
        """Read the grain's version, where nothing has: kinds without durable fields load nothing.

        Raises:
            Unread: as for entries.
        """
        await self._ask(lambda: self._durable.load(raise_version=False))

    async def know_replies(self) -> None:
        """Read the remembered replies, where nothing has. Raises as for entries."""
        await self._ask(self._durable.load_replies)

    async def _ask(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Read, again and again where the store does not answer, until the running turn's deadline.

        Raises:
            Unread: the store has not answered, or the grain is not this silo's any more.
        """
        clock, turn = self._services.clock, CURRENT.get()
        deadline = clock.boottime() + self._services.config.limits.call_timeout_s
        if turn is not None:
            deadline = min(deadline, turn.deadline)
        pause_s = FIRST_PAUSE_S
        while True:
            if self._durable.lost:
                raise self._failed("its silo has lost the grain")
            began = clock.boottime()
            try:
                found = await operation()
            except errors.StoreUnavailable as exc:
                if clock.boottime() + pause_s >= deadline:
                    raise self._failed(f"the store did not answer: {exc}") from exc
                await clock.sleep(pause_s)
                pause_s = min(LAST_PAUSE_S, 2 * pause_s)
            except (errors.Superseded, errors.DataLoss) as exc:
                self._durable.lost = True
                self._lost()  # first, so that what waits here runs elsewhere
                if isinstance(exc, errors.DataLoss) and not isinstance(exc, Damaged):
                    self._services.halt(exc)
                raise self._failed(f"the store refused: {exc}") from exc
            else:
                self._services.meters.reads.add(clock.boottime() - began)
                return found

    def _failed(self, why: str) -> Unread:
        return Unread(
            f"{self._durable.grain}: the method ran, and what its commit builds on could not be read ({why})",
            DidRun.ROLLED_BACK,
        )

    def __repr__(self) -> str:
        return f"<StoredEntries {self._durable.grain}>"
