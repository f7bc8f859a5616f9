"""Takes a service out into a file, and into a cluster from one. Owns the order of the questions; silos answer
them, and archive.py has the file.

Each grain is copied as it was at one instant, while the service runs; different grains at different ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar, get_args

import msgspec

from durum import errors
from durum.client import archive
from durum.clock import Clock
from durum.errors import DidRun
from durum.ids import GrainId
from durum.wire import administration
from durum.wire import copies as wire

T = TypeVar("T")
_AT_ONCE: Final = 32
_READS: Final = 4
"""How often a grain is read before it is held still for it."""
_WRITES: Final = 5
_PAUSE_S: Final = 0.1
OnExisting = Literal["error", "skip", "replace"]


class Asker(Protocol):
    """How a grain's owner is asked something."""

    def __call__(
        self, grain: GrainId, request: str, asked: msgspec.Struct, /
    ) -> Awaitable[bytes]: ...


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far an export or import has come.

    Args:
        total: grains in all, as far as that is known.
        grains: those that are done.
        same: of those, how many the service had already, equal to the last byte.
        skipped: those that were left as they are in the service.
    """

    total: int = 0
    grains: int = 0
    same: int = 0
    skipped: list[GrainId] = field(default_factory=list)


Told = Callable[[Progress], None]
_ANYWHERE: Final = GrainId("Durum/anywhere")


async def export_to(
    path: Path, ask: Asker, clock: Clock, *, cluster: str, prefix: str, told: Told | None
) -> Progress:
    """See Admin.export_to."""
    opening = archive.Opening(archive.FORMAT, cluster, clock.wall(), prefix)
    with archive.Writer(path, opening) as writer:
        answer = await ask(_ANYWHERE, administration.COUNT, administration.Count(prefix))
        total = msgspec.msgpack.decode(answer, type=int)
        work = Export(ask, writer, clock, told or _untold)
        return await _alone(work.run(_scan(ask, prefix), total))


async def import_from(
    path: Path, ask: Asker, clock: Clock, *, on_existing: OnExisting, told: Told | None
) -> Progress:
    """See Admin.import_from."""
    if on_existing not in get_args(OnExisting):
        known = ", ".join(get_args(OnExisting))
        raise errors.ArgumentError(f"on_existing={on_existing!r}; write one of {known}.")
    contents = await asyncio.to_thread(archive.survey, path)
    work = Import(ask, contents, clock, on_existing, told or _untold)
    return await _alone(work.run(path))


async def _scan(ask: Asker, prefix: str) -> AsyncIterator[GrainId]:
    partition, partitions, after = 0, 1, ""
    while partition < partitions:
        asked = administration.Scan(prefix, partition, after, administration.PAGE_LIMIT)
        answer = await ask(_ANYWHERE, administration.SCAN, asked)
        page = msgspec.msgpack.decode(answer, type=administration.Page)
        for grain in page.grains:
            yield grain
        partition, partitions = page.partition, page.partitions
        after = page.grains[-1] if page.grains else ""


def _untold(progress: Progress) -> None:
    del progress


async def _alone(work: Coroutine[Any, Any, T]) -> T:
    """Of several failures of what is done side by side, raise the first as it is."""
    try:
        return await work
    except ExceptionGroup as exc:
        first: BaseException = exc
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


class Export:
    """One export.

    Args:
        ask: asks silos.
        writer: the file.
        clock: for pauses.
        told: called after each grain.
    """

    def __init__(self, ask: Asker, writer: archive.Writer, clock: Clock, told: Told) -> None:
        self._ask = ask
        self._clock = clock
        self._writer = writer
        self._told = told
        self.progress = Progress()

    async def run(self, grains: AsyncIterator[GrainId], total: int) -> Progress:
        """Copy grains, several at a time."""
        self.progress.total = total
        room = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            async for grain in grains:
                await room.acquire()
                task = group.create_task(self._copy(grain), name=f"export {grain}")
                task.add_done_callback(lambda _: room.release())
        self._writer.finish(self.progress.grains)
        return self.progress

    async def _copy(self, grain: GrainId) -> None:
        attempt = 0
        while not await self._attempt(grain, attempt):
            self._writer.add(archive.Withdrawn(grain, attempt))
            attempt += 1
            await self._clock.sleep(_PAUSE_S)
        self.progress.grains += 1
        self._told(self.progress)

    async def _attempt(self, grain: GrainId, attempt: int) -> bool:
        """Whether all pieces were of one version."""
        place: wire.Place | None = wire.Place()
        version: int | None = None
        while place is not None:
            asked = wire.Copy(place, hold=attempt >= _READS)
            try:
                answer = await self._ask(grain, wire.COPY, asked)
            except (errors.NotServing, errors.CallTimeout):
                if attempt >= _READS + _WRITES:
                    raise
                return False
            piece = msgspec.msgpack.decode(answer, type=wire.Piece)
            if version is not None and piece.version != version:
                return False
            version = piece.version
            self._writer.add(archive.Portion(grain, piece, attempt))
            place = piece.after
        return True


class Import:
    """One import.

    Args:
        ask: asks silos.
        contents: the file's.
        clock: for pauses.
        on_existing: what becomes of grains that the service has, with other content.
        told: called after each grain.
    """

    def __init__(
        self,
        ask: Asker,
        contents: archive.Contents,
        clock: Clock,
        on_existing: OnExisting,
        told: Told,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._contents = contents
        self._on_existing = on_existing
        self._told = told
        self.progress = Progress(total=contents.grains)

    async def run(self, path: Path) -> Progress:
        """Write all grains of the file, several at a time."""
        room = asyncio.Semaphore(_AT_ONCE)
        pieces: dict[GrainId, asyncio.Queue[wire.Piece]] = {}
        async with asyncio.TaskGroup() as group:
            for entry in archive.entries(path):
                if not isinstance(entry, archive.Portion):
                    continue
                if (entry.grain, entry.attempt) in self._contents.withdrawn:
                    continue
                queue = pieces.get(entry.grain)
                if queue is None:
                    await room.acquire()
                    queue = pieces[entry.grain] = asyncio.Queue(maxsize=2)
                    task = group.create_task(
                        self._paste(entry.grain, queue), name=f"import {entry.grain}"
                    )
                    task.add_done_callback(lambda _: room.release())
                await queue.put(entry.piece)
                if entry.piece.after is None:
                    del pieces[entry.grain]
        return self.progress

    async def _paste(self, grain: GrainId, pieces: asyncio.Queue[wire.Piece]) -> None:
        """Write a grain's pieces as they come; all are taken from the queue, whatever becomes of them."""
        version: int | None = None
        compared: _Comparison | None = None
        while True:
            piece = await pieces.get()
            last = piece.after is None
            if compared is None:
                pasted = await self._write(grain, piece, version, last=last)
                if pasted.occupied:
                    compared = _Comparison(self._ask, grain)
                version = pasted.version
            if compared is not None:
                await compared.compare(piece)
            if last:
                break
        if compared is not None:
            self._left(grain, same=compared.same)
        self.progress.grains += 1
        self._told(self.progress)

    def _left(self, grain: GrainId, *, same: bool) -> None:
        if same:
            self.progress.same += 1
        elif self._on_existing == "skip":
            self.progress.skipped.append(grain)
        else:
            raise errors.Rejected(
                f"{grain} is in the service already, with other content; it was left as it is, and the"
                f" import ended after {self.progress.grains} grains. Import again with on_existing"
                ' "skip" or "replace"; grains that are there already, equal to the last byte, are'
                " passed over."
            )

    async def _write(
        self, grain: GrainId, piece: wire.Piece, version: int | None, *, last: bool
    ) -> wire.Pasted:
        replace = version is None and self._on_existing == "replace"
        asked = wire.Paste(version=version, piece=piece, last=last, replace=replace)
        for attempt in range(_WRITES):
            try:
                answer = await self._ask(grain, wire.PASTE, asked)
            except errors.CallError as exc:
                # The first piece may be sent again in any case: what it has written is compared then.
                # One behind it may not have been written, or it may: its version tells.
                if exc.did_run is DidRun.YES or attempt == _WRITES - 1 or version is not None:
                    raise
                await self._clock.sleep(_PAUSE_S * 2**attempt)
            else:
                return msgspec.msgpack.decode(answer, type=wire.Pasted)
        raise errors.DurumBug(f"{grain}: an import without an end")


class _Comparison:
    """Whether a grain of the service is what the file has, piece by piece.

    Args:
        ask: asks silos.
        grain: which.
    """

    def __init__(self, ask: Asker, grain: GrainId) -> None:
        self._ask = ask
        self._grain = grain
        self._place: wire.Place | None = wire.Place()
        self.same = True

    async def compare(self, piece: wire.Piece) -> None:
        """Compare the next piece."""
        if not self.same or self._place is None:
            self.same = False
            return
        answer = await self._ask(self._grain, wire.COPY, wire.Copy(self._place))
        theirs = msgspec.msgpack.decode(answer, type=wire.Piece)
        self.same = msgspec.structs.replace(theirs, version=0) == msgspec.structs.replace(
            piece, version=0
        )
        self._place = theirs.after
