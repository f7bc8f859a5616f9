"""Answers what operators ask about reminders. Reads the store beside the turns; changes nothing: who sets or
cancels a reminder asks its grain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from durum import errors
from durum.grains.schedules import LAST_MS, Standing
from durum.ids import GrainId, Token
from durum.silo.holdings import Tenure
from durum.silo.reminders import read
from durum.silo.services import Services
from durum.store import parts
from durum.store.effects import WakeUp
from durum.store.protocol import Store
from durum.wire import reminders as wire
from durum.wire.administration import PAGE_LIMIT
from durum.wire.messages import Call

_PAGE: Final = 256
_WIDEST: Final = 64
"""Partitions that are read together, at most."""
_MOST_ROWS: Final = 10_000
"""Wake-ups that are looked at for one answer, found or not."""


class ReminderDesk:
    """Of one silo.

    Args:
        mark: the genesis's.
        services: the silo's.
        store: what to read.
        trust_clock: see StoreClock.trust.
    """

    def __init__(
        self, mark: str, services: Services, store: Store, trust_clock: Callable[[], float]
    ) -> None:
        self._mark = mark
        self._services = services
        self._store = store
        self._trust_clock = trust_clock

    async def reminders(self, call: Call, holding: Tenure) -> dict[str, Standing]:
        """Answer REMINDERS: all of one grain, as committed."""
        found: dict[str, Standing] = {}
        after = b""
        while True:
            page = await self._store.scan_parts(
                holding.partition, holding.token, call.grain, parts.REMINDERS, after, _PAGE
            )
            found.update(read(*part) for part in page)
            if parts.is_last(page, _PAGE):
                return found
            after = page[-1][0]

    async def trust_clock(self, call: Call) -> float:
        """Answer TRUST_CLOCK: by how many seconds the clock will be followed."""
        del call
        return self._trust_clock()

    async def wake_ups(self, call: Call) -> wire.WakeUpPage:
        """Answer WAKE_UPS. Any silo can: it reads under the tokens that the store has now."""
        ask = msgspec.msgpack.decode(call.args, type=wire.WakeUps)
        limit = max(1, min(ask.limit, PAGE_LIMIT))
        tokens = [owner.token for owner in await self._store.owners(self._mark)]
        found: list[tuple[int, GrainId, bytes]] = []
        partition, after, looked, width = max(0, ask.partition), ask.after, 0, 1
        while partition < len(tokens):
            these = range(partition, min(partition + width, len(tokens)))
            pages = await asyncio.gather(
                *(
                    self._page(each, tokens[each], after if each == partition else None)
                    for each in these
                )
            )
            for each, page in zip(these, pages, strict=True):
                for row in page:
                    looked += 1
                    if row.grain.startswith(ask.prefix) and row.name.startswith(ask.names):
                        found.append((row.due_ms, row.grain, row.name))
                    if len(found) == limit or looked >= _MOST_ROWS:
                        place = (row.due_ms, row.grain, row.name)
                        return wire.WakeUpPage(tuple(found), each, place)
                if len(page) == _PAGE:
                    last = page[-1]
                    partition, after, width = each, (last.due_ms, last.grain, last.name), 1
                    break
            else:
                # Few wake-ups in many partitions: read more of them at once.
                partition, after, width = these.stop, None, min(width * 2, _WIDEST)
        return wire.WakeUpPage(tuple(found), -1, None)

    async def _page(
        self, partition: int, token: Token, after: tuple[int, GrainId, bytes] | None
    ) -> Sequence[WakeUp]:
        for _ in range(4):
            try:
                return await self._store.due(partition, token, LAST_MS, _PAGE, after)
            except errors.Superseded:  # it has changed hands meanwhile
                token = (await self._store.owners(self._mark))[partition].token
        raise errors.StoreUnavailable(
            f"partition {partition} changes hands too often to be read; ask again.", applied=False
        )

    def __repr__(self) -> str:
        return "<ReminderDesk>"
