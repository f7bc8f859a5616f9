"""Reads a grain's record out in pieces, and writes one in, at its owner. Knows no file and no other grain.

Reading disturbs nobody: a piece tells the record's version, and pieces of one version make one record, as it
was at one instant. A grain that changes faster than that can be held still meanwhile. Writing happens after a
grain's turns and before the next, fenced as a commit is; its state appears with the last piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from durum import errors
from durum.ids import GrainId
from durum.silo import refusals, reminders, telling
from durum.silo.catalog import Catalog
from durum.silo.effects import Staged
from durum.silo.holdings import Tenure
from durum.silo.reason import Reason
from durum.silo.services import Services
from durum.store import parts
from durum.store.parts import Part
from durum.store.protocol import Commit, Record
from durum.wire import copies as wire
from durum.wire.messages import Call

_HOLD_S: Final = 15.0
"""How long a grain is held still for its reader, at most."""
_HOLDS: Final = 32
_ATTEMPTS: Final = 5
_SLICES: Final = parts.RESERVED + b"p"
"""Parts that hold slices of a state until the last piece has come."""
_WAKES: Final = {parts.REMINDERS: reminders.wake_of, parts.DELAYED: telling.wake_of}
"""Parts that have a wake-up, by what their names begin with."""


class Copies:
    """One silo's part in export and import.

    Args:
        services: the silo's.
        catalog: its activations.
    """

    def __init__(self, services: Services, catalog: Catalog) -> None:
        self._services = services
        self._catalog = catalog
        self._held: dict[GrainId, asyncio.Event] = {}

    # Reading ------------------------------------------------------------------------------------------

    async def copy(self, call: Call, holding: Tenure) -> wire.Piece:
        """Answer COPY."""
        ask = msgspec.msgpack.decode(call.args, type=wire.Copy)
        if ask.hold and ask.place == wire.Place():
            await self._hold(call.grain, holding)
        piece = await self._consistent(call.grain, holding, ask.place)
        if piece.after is None and (held := self._held.get(call.grain)) is not None:
            held.set()
        return piece

    async def _hold(self, grain: GrainId, holding: Tenure) -> None:
        """Let no turn run until the last piece was read, or the time is up. Returns once that is so."""
        if len(self._held) >= _HOLDS or grain in self._held:
            raise refusals.not_serving(grain, "it is being read already")
        over = self._held[grain] = asyncio.Event()
        still: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def stand() -> None:
            if not still.done():
                still.set_result(None)
            with suppress(TimeoutError):
                async with asyncio.timeout(_HOLD_S):
                    await over.wait()

        async def hold() -> None:
            try:
                await self._catalog.between_turns(
                    grain, holding.partition, holding.token, stand, Reason.REQUESTED
                )
            finally:
                if self._held.get(grain) is over:
                    del self._held[grain]
                if not still.done():
                    still.set_exception(refusals.not_serving(grain, "it moves"))

        self._services.tasks.start(hold(), f"hold {grain} still", self._services.base.copy())
        await still

    async def _consistent(self, grain: GrainId, holding: Tenure, place: wire.Place) -> wire.Piece:
        store, partition, token = self._services.store, holding.partition, holding.token
        for _ in range(_ATTEMPTS):
            before = await store.load(partition, token, grain)
            piece = await self._read(grain, holding, place, before.state)
            if (await store.load(partition, token, grain)).version == before.version:
                return msgspec.structs.replace(piece, version=before.version)
        raise refusals.not_serving(grain, "it changes faster than it can be read")

    async def _read(
        self, grain: GrainId, holding: Tenure, place: wire.Place, state: bytes | None
    ) -> wire.Piece:
        store, partition, token = self._services.store, holding.partition, holding.token
        room, part_of_state = wire.SLICE_BYTES, None
        if place.replies is None and place.parts is None:
            part_of_state = None if state is None else state[place.state : place.state + room]
            end = place.state + room
            if state is not None and end < len(state):
                return wire.Piece(version=0, state=part_of_state, after=wire.Place(end))
            room -= len(part_of_state or b"")
        replies: dict[bytes, bytes] = {}
        if place.parts is None:
            stored = await store.replies(partition, token, grain)
            left = sorted((k, v) for k, v in stored.items() if k > (place.replies or b""))
            replies = _page(left, room)
            if len(replies) < len(left):
                after = wire.Place(replies=max(replies))
                return wire.Piece(version=0, state=part_of_state, replies=replies, after=after)
        stored_parts = await store.scan_parts(
            partition, token, grain, b"", place.parts or b"", wire.PIECE_PARTS
        )
        page = _page(stored_parts, room)
        full = len(page) < len(stored_parts) or not parts.is_last(stored_parts, wire.PIECE_PARTS)
        return wire.Piece(
            version=0,
            state=part_of_state,
            replies=replies,
            # Marks are of messages between grains of this service, and mean nothing in another.
            parts=tuple(each for each in page.items() if not each[0].startswith(parts.MARKS)),
            after=wire.Place(parts=max(page)) if full and page else None,
        )

    # Writing ------------------------------------------------------------------------------------------

    async def paste(self, call: Call, holding: Tenure) -> wire.Pasted:
        """Answer PASTE."""
        ask = msgspec.msgpack.decode(call.args, type=wire.Paste)
        answer = wire.Pasted(0, occupied=True)
        if ask.version is None and not ask.replace:
            version = await self._occupied(call.grain, holding)
            if version is not None:  # nobody is disturbed where nothing is to be written
                return wire.Pasted(version, occupied=True)

        async def write() -> None:
            nonlocal answer
            answer = await self._write(call.grain, holding, ask)

        await self._catalog.between_turns(
            call.grain, holding.partition, holding.token, write, Reason.REQUESTED
        )
        return answer

    async def _write(self, grain: GrainId, holding: Tenure, ask: wire.Paste) -> wire.Pasted:
        store, partition, token = self._services.store, holding.partition, holding.token
        record = await store.load(partition, token, grain)
        version: int | None = record.version
        if ask.version is None:
            version = await self._cleared(grain, holding, record, replace=ask.replace)
            if version is None:
                return wire.Pasted(record.version, occupied=True)
        if version is None or ask.version not in {None, version}:
            raise errors.Rejected(
                f"{grain}: it was changed while it was being imported (version {version}, expected"
                f" {ask.version}); this piece was not written. Import it again with the rest of the service"
                " at rest, replacing what is there."
            )
        staged, state = Staged(), ask.piece.state
        staged.parts.update(ask.piece.parts)
        if ask.last:
            state = await self._complete(grain, holding, ask.piece, staged)
        else:
            # Also where it is empty: it tells that more is to come.
            staged.set_part(_SLICES + version.to_bytes(8, "big"), state or b"")
            state = None
        where = partition, token, grain
        try:
            written = await store.commit(
                Commit(
                    partition=partition,
                    token=token,
                    grain=grain,
                    id=self._services.next_commit_id(),
                    version=version,
                    state=state,
                    replies=ask.piece.replies or None,
                    parts=staged.parts or None,
                    wake=staged.wake,
                )
            )
        except errors.StoreUnavailable as exc:
            if exc.applied is None:
                staged.doubted(self._services.offices, where)
            raise
        self._services.committed(partition, token, written.commits, False)
        staged.landed(self._services.offices, where, written.first)
        return wire.Pasted(written.version)

    async def _cleared(
        self, grain: GrainId, holding: Tenure, record: Record, *, replace: bool
    ) -> int | None:
        """The version of a grain that keeps nothing now; None where it keeps something, and shall."""
        store, partition, token = self._services.store, holding.partition, holding.token
        if record.state is None and not await self._has_parts(grain, holding):
            return record.version
        if not replace and await self._occupied(grain, holding) is not None:
            return None
        keep_s = self._services.config.limits.reply_window_s
        return (await store.erase(partition, token, grain, record.version, keep_s=keep_s)).version

    async def _occupied(self, grain: GrainId, holding: Tenure) -> int | None:
        """The version of a grain that keeps something, unless it is a copy without an end; else None."""
        store, partition, token = self._services.store, holding.partition, holding.token
        record = await store.load(partition, token, grain)
        if record.state is None and not await self._has_parts(grain, holding):
            return None
        unfinished = await store.scan_parts(partition, token, grain, _SLICES, b"", 1)
        return None if unfinished else record.version

    async def _complete(
        self, grain: GrainId, holding: Tenure, piece: wire.Piece, staged: Staged
    ) -> bytes | None:
        """The whole state, now that the last piece is there. Stages what else takes effect with it."""
        slices = await self._all(grain, holding, _SLICES)
        for name, _ in slices:
            staged.set_part(name, None)
        for prefix, wake_of in _WAKES.items():
            earlier = await self._all(grain, holding, prefix)
            for name, content in (*earlier, *piece.parts):
                if name.startswith(prefix):
                    staged.set_wake(*wake_of(name, content))
        return b"".join([*(content for _, content in slices), piece.state or b""]) or None

    async def _has_parts(self, grain: GrainId, holding: Tenure) -> bool:
        """Whether the grain has kept parts; marks do not count, which outlive it."""
        store, partition, token = self._services.store, holding.partition, holding.token
        first = await store.scan_parts(partition, token, grain, b"", b"", 1)
        if first and first[0][0].startswith(parts.MARKS):
            beyond = parts.above(parts.MARKS) or b""
            first = await store.scan_parts(partition, token, grain, b"", beyond, 1)
        return bool(first)

    async def _all(self, grain: GrainId, holding: Tenure, prefix: bytes) -> list[Part]:
        store, partition, token = self._services.store, holding.partition, holding.token
        found: list[Part] = []
        while True:
            after = found[-1][0] if found else b""
            page = await store.scan_parts(partition, token, grain, prefix, after, wire.PIECE_PARTS)
            found += page
            if parts.is_last(page, wire.PIECE_PARTS):
                return found

    def __repr__(self) -> str:
        return f"<Copies held={len(self._held)}>"


def _page(items: Sequence[tuple[bytes, bytes]], room: int) -> dict[bytes, bytes]:
    """The first of some pairs: up to the one that fills the room, and one at least."""
    taken: dict[bytes, bytes] = {}
    for name, content in items[: wire.PIECE_PARTS]:
        taken[name] = content
        room -= len(name) + len(content)
        if room <= 0:
            break
    return taken
