"""Answers what operators ask about messages, and sees to dead letters. Delivers nothing itself.

A dead letter lies with its receiver's partition. Sending it again is one commit there: the letter goes, and
its message enters the outbox with a new number, behind all that wait.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from durum import errors
from durum.ids import GrainId
from durum.silo.catalog import Catalog
from durum.silo.effects import Staged
from durum.silo.holdings import Tenure
from durum.silo.ports import Ports
from durum.silo.post import PostOffice
from durum.silo.reason import Reason
from durum.silo.services import Services
from durum.store.effects import Outgoing
from durum.store.parts import is_last
from durum.store.protocol import Commit, Store
from durum.wire import letters as wire
from durum.wire import post
from durum.wire.administration import PAGE_LIMIT
from durum.wire.messages import Call

_NAME_BYTES: Final = 16
_PAGE: Final = 100
_PAGE_BYTES: Final = 1024 * 1024
_WIDEST: Final = 64
"""Partitions that are read together, at most."""
_MOST_LOOKED_AT: Final = 10_000
_MOST_LINES: Final = 1000


class LetterDesk:
    """Of one silo.

    Args:
        store: what to read.
        ports: for P.
        services: the silo's.
        catalog: the silo's activations.
        office: the silo's post office.
    """

    def __init__(
        self,
        store: Store,
        ports: Ports,
        services: Services,
        catalog: Catalog,
        office: PostOffice,
    ) -> None:
        self._partitions = ports.partitions
        self._services = services
        self._store = store
        self._catalog = catalog
        self._office = office

    async def letters(self, call: Call) -> wire.LetterPage:
        """Answer LETTERS."""
        ask = msgspec.msgpack.decode(call.args, type=wire.Letters)
        limit = max(1, min(ask.limit, PAGE_LIMIT))
        found: list[tuple[int, bytes, bytes]] = []
        partition, after, width = max(0, ask.partition), ask.after, 1
        size = looked = 0
        while partition < self._partitions:
            these = range(partition, min(partition + width, self._partitions))
            pages = await asyncio.gather(
                *(
                    self._store.letters(each, after if each == partition else b"", _PAGE)
                    for each in these
                )
            )
            for each, page in zip(these, pages, strict=True):
                for name, content in page:
                    looked += 1
                    if post.decode_letter(content).receiver.startswith(ask.prefix):
                        found.append((each, name, content))
                        size += len(content)
                    if len(found) == limit or size >= _PAGE_BYTES or looked >= _MOST_LOOKED_AT:
                        return wire.LetterPage(tuple(found), each, name, self._partitions)
                if not is_last(page, _PAGE):
                    partition, after, width = each, page[-1][0], 1
                    break
            else:
                # Few letters in many partitions: read more of them at once.
                partition, after, width = these.stop, b"", min(width * 2, _WIDEST)
        return wire.LetterPage(tuple(found), self._partitions, b"", self._partitions)

    async def waiting(self, call: Call) -> wire.Waiting:
        """Answer WAITING."""
        del call
        lines = [
            wire.Waits(
                desk.partition,
                line.receiver,
                len(line.waiting),
                line.failures,
                line.counted,
                line.why,
            )
            for desk in self._office.desks()
            for line in desk.outbox.lines()
        ]
        lines.sort(key=lambda line: (-bool(line.failures), -line.messages, line.receiver))
        total = sum(line.messages for line in lines)
        return wire.Waiting(total, len(lines), tuple(lines[:_MOST_LINES]))

    async def letter(self, call: Call, holding: Tenure) -> bytes | None:
        """Answer LETTER."""
        ask = msgspec.msgpack.decode(call.args, type=wire.See)
        if ask.act not in {"show", "drop", "retry"} or len(ask.name) != _NAME_BYTES:
            raise errors.ArgumentError(
                f"{call.grain}: {ask.act!r} of the dead letter {ask.name.hex()!r} makes no sense; nothing was"
                " done."
            )
        content = await self._read(call.grain, holding, ask.name)
        if content is None or ask.act == "show":
            return content

        async def act() -> None:
            nonlocal content
            content = await self._see_to(call.grain, holding, ask)

        await self._catalog.between_turns(
            call.grain, holding.partition, holding.token, act, Reason.REQUESTED
        )
        return content

    async def _read(self, grain: GrainId, holding: Tenure, name: bytes) -> bytes | None:
        before = (int.from_bytes(name, "big") - 1).to_bytes(_NAME_BYTES, "big")
        page = await self._store.letters(holding.partition, before, 1)
        if not page or page[0][0] != name or post.decode_letter(page[0][1]).receiver != grain:
            return None
        return page[0][1]

    async def _see_to(self, grain: GrainId, holding: Tenure, ask: wire.See) -> bytes | None:
        services, partition, token = self._services, holding.partition, holding.token
        record = await services.store.load(partition, token, grain)
        # Read once more: another operator may have been faster. From here on the version tells.
        content = await self._read(grain, holding, ask.name)
        if content is None:
            return None
        staged = Staged()
        staged.set_letter(ask.name, None)
        if ask.act == "retry":
            staged.send.append((grain, post.decode_letter(content).row))
        where = partition, token, grain
        try:
            committed = await services.store.commit(
                Commit(
                    partition=partition,
                    token=token,
                    grain=grain,
                    id=services.next_commit_id(),
                    version=record.version,
                    park=staged.park,
                    send=tuple(Outgoing(receiver, row) for receiver, row in staged.send),
                )
            )
        except errors.StoreUnavailable as exc:
            if exc.applied is None:
                staged.doubted(services.offices, where)
            raise
        services.committed(partition, token, committed.commits, False)
        staged.landed(services.offices, where, committed.first)
        return content

    def __repr__(self) -> str:
        return f"<LetterDesk {self._office!r}>"
