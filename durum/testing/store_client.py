"""One process's end of a simulated store. Owns its operations until they are answered or too late; knows
nothing of faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Protocol

from durum import errors
from durum.ids import GrainId, SiloId, Token
from durum.store.batches import Batches
from durum.store.effects import Posted, WakeUp
from durum.store.host_table import Host
from durum.store.parts import Part
from durum.store.protocol import (
    Beat,
    Commit,
    Committed,
    Durability,
    Genesis,
    Owner,
    Record,
    Store,
    TableRead,
    Take,
)
from durum.testing import hosts
from durum.testing.loop import SimLoop
from durum.views import SiloRow


class Server(Protocol):
    """What operations are sent to."""

    inside: Store

    def send(self, operation: Operation) -> None:
        """Take it; it is settled some time, or never."""
        ...

    def forget(self, operation: Operation) -> None:
        """Nobody waits for it any more; it may still happen."""
        ...


class Operation:
    """One operation on its way.

    Args:
        host: who asked.
        name: the store's method.
        args: its arguments.
        options: its named arguments.
        sent_at: virtual time at which it was asked for.
        future: the caller's.
    """

    __slots__ = (
        "args",
        "error",
        "future",
        "host",
        "name",
        "options",
        "refused",
        "replies",
        "result",
        "sent_at",
    )

    def __init__(
        self,
        host: str,
        name: str,
        args: Sequence[Any],
        options: Mapping[str, Any],
        *,
        sent_at: float,
        future: asyncio.Future[Any],
    ) -> None:
        self.host = host
        self.name = name
        self.args = args
        self.options = options
        self.sent_at = sent_at
        self.future = future
        self.replies = True
        self.refused = ""
        self.result: Any = None
        self.error: Exception | None = None

    def __repr__(self) -> str:
        return f"<Operation {self.host}: {self.name} sent at {self.sent_at:.6f}>"

    @property
    def done(self) -> bool:
        """Whether its caller has an answer, or waits no more."""
        return self.future.done()

    def settle(self) -> None:
        """Give the caller its answer, if it still waits."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class HostStore:
    """The Store of one process. Made by FaultyStore.host.

    Args:
        server: what it talks to.
        loop: whose time it follows.
        host: whose it is.
        timeout_s: how long an operation may take.
    """

    def __init__(self, server: Server, loop: SimLoop, host: str, timeout_s: float) -> None:
        self.host: Final = host
        self.url = server.inside.url
        self.shared = True
        self._server: Final = server
        self._loop: Final = loop
        self._timeout_s: Final = timeout_s
        self._closed = False
        self._open: Final[dict[Operation, None]] = {}
        self._hinted: Final[list[asyncio.Event]] = []

    def __repr__(self) -> str:
        return f"<HostStore {self.host} open={len(self._open)} closed={self._closed}>"

    def hint(self) -> None:
        """Wake whoever waits for hints. Called by the server."""
        for event in self._hinted:
            event.set()

    # --- Service

    async def create(self, genesis: Genesis) -> Genesis:
        found: Genesis = await self._ask("create", genesis)
        return found

    async def genesis(self) -> Genesis | None:
        found: Genesis | None = await self._ask("genesis")
        return found

    def batches(self) -> Batches:
        return self._server.inside.batches()

    async def durability(self) -> Durability:
        found: Durability = await self._ask("durability")
        return found

    async def close(self) -> None:
        self._closed = True
        self.hint()
        for operation in list(self._open):
            operation.error = errors.StoreUnavailable("the store was closed meanwhile")
            operation.settle()

    # --- MembershipTable

    async def read_table(self, mark: str) -> TableRead:
        found: TableRead = await self._ask("read_table", mark)
        return found

    async def write_row(
        self, mark: str, row: SiloRow, *, seen: SiloRow | None, version: int
    ) -> int | None:
        found: int | None = await self._ask("write_row", mark, row, seen=seen, version=version)
        return found

    async def beat(self, mark: str, silo: SiloId, load: int = 0) -> Beat:
        found: Beat = await self._ask("beat", mark, silo, load)
        return found

    async def hints(self) -> AsyncIterator[None]:
        event = asyncio.Event()
        self._hinted.append(event)
        try:
            while True:
                await event.wait()
                event.clear()
                if self._closed:
                    return
                yield
        finally:
            self._hinted.remove(event)

    # --- PartitionTable

    async def owners(self, mark: str) -> Sequence[Owner]:
        found: Sequence[Owner] = await self._ask("owners", mark)
        return found

    async def take(self, mark: str, takes: Sequence[Take]) -> Sequence[Owner]:
        found: Sequence[Owner] = await self._ask("take", mark, tuple(takes))
        return found

    # --- TurnStore

    def load(
        self, partition: int, token: Token, grain: GrainId, *, raise_version: bool = False
    ) -> asyncio.Future[Record]:
        return self._ask("load", partition, token, grain, raise_version=raise_version)

    def replies(
        self, partition: int, token: Token, grain: GrainId
    ) -> asyncio.Future[dict[bytes, bytes]]:
        return self._ask("replies", partition, token, grain)

    def commit(self, commit: Commit) -> asyncio.Future[Committed]:
        return self._ask("commit", commit)

    def verify(self, partition: int, token: Token) -> asyncio.Future[None]:
        return self._ask("verify", partition, token)

    def erase(
        self, partition: int, token: Token, grain: GrainId, version: int, *, keep_s: float
    ) -> asyncio.Future[Committed]:
        return self._ask("erase", partition, token, grain, version, keep_s=keep_s)

    # --- HostTable

    def find_host(self, partition: int, grain: GrainId) -> asyncio.Future[Host | None]:
        return self._ask("find_host", partition, grain)

    def place(
        self,
        partition: int,
        token: Token,
        grain: GrainId,
        *,
        seen: Token | None,
        host: Host | None,
    ) -> asyncio.Future[Host | None]:
        return self._ask("place", partition, token, grain, seen=seen, host=host)

    # --- PartStore

    def load_parts(
        self,
        partition: int,
        token: Token,
        grain: GrainId,
        names: Sequence[bytes],
        *,
        contents: bool = True,
    ) -> asyncio.Future[Mapping[bytes, bytes]]:
        return self._ask("load_parts", partition, token, grain, names, contents=contents)

    def scan_parts(
        self, partition: int, token: Token, grain: GrainId, prefix: bytes, after: bytes, limit: int
    ) -> asyncio.Future[Sequence[Part]]:
        return self._ask("scan_parts", partition, token, grain, prefix, after, limit)

    # --- EffectStore

    def posted(
        self, partition: int, token: Token, after: int, limit: int
    ) -> asyncio.Future[Sequence[Posted]]:
        return self._ask("posted", partition, token, after, limit)

    def acknowledge(
        self, partition: int, token: Token, numbers: Sequence[int]
    ) -> asyncio.Future[None]:
        return self._ask("acknowledge", partition, token, tuple(numbers))

    def due(
        self,
        partition: int,
        token: Token,
        until_ms: int,
        limit: int,
        after: tuple[int, GrainId, bytes] | None = None,
    ) -> asyncio.Future[Sequence[WakeUp]]:
        return self._ask("due", partition, token, until_ms, limit, after)

    def letters(self, partition: int, after: bytes, limit: int) -> asyncio.Future[Sequence[Part]]:
        return self._ask("letters", partition, after, limit)

    def count_letters(self, partition: int) -> asyncio.Future[int]:
        return self._ask("count_letters", partition)

    # --- Queries

    def scan(
        self, partition: int, prefix: str, after: str, limit: int
    ) -> asyncio.Future[Sequence[GrainId]]:
        return self._ask("scan", partition, prefix, after, limit)

    def count(self, partition: int, prefix: str) -> asyncio.Future[int]:
        return self._ask("count", partition, prefix)

    # --- the way out

    def _ask(self, name: str, *args: Any, **options: Any) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        if self._loop.is_dead(self.host):
            return future
        if self._closed:
            text = "the store was closed; nothing was done"
            future.set_exception(errors.StoreUnavailable(text, applied=False))
            return future
        operation = Operation(
            self.host, name, args, options, sent_at=self._loop.time(), future=future
        )
        self._open[operation] = None
        # In the host's context: a stopped process finds out that it was too late only once it runs.
        context = hosts.adopt(self.host)
        timer = self._loop.call_later(self._timeout_s, self._late, operation, context=context)
        future.add_done_callback(lambda _: self._close(operation, timer), context=context)
        self._server.send(operation)
        return future

    def _late(self, operation: Operation) -> None:
        if not operation.done:
            operation.future.set_exception(
                errors.StoreUnavailable(
                    f"{operation.name}: no answer within {self._timeout_s:g} s; it may have happened"
                )
            )

    def _close(self, operation: Operation, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._open.pop(operation, None)
        self._server.forget(operation)
