"""Where the grains are that are placed one by one. Owns what this silo knows of host records, and the way to
new ones; serves no call.

The law: only the owner of a grain's partition gives it a host, by a compare-and-set under its own token, and
in the place of a dead one only once that one's lease has surely ended. A host lets go by itself, after its
last turn. Whatever is remembered here is a hint: who serves has read the record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol, TypeVar

from durum import errors
from durum.grains.placement import OnSilos
from durum.ids import Entropy, GrainId, SiloId, Token, hosted_token, split_grain_id
from durum.placement import strategies
from durum.placement.strategies import Asked, Loads, Offer
from durum.silo import refusals
from durum.silo.holdings import Holding
from durum.silo.patience import answered
from durum.silo.services import Services
from durum.silo.table import Table
from durum.store.host_table import Host, Hosted
from durum.store.protocol import TableRead
from durum.telemetry import Log
from durum.views import Status, View

_log: Final = Log("durum.directory")
_LIMIT: Final = 32_768
"""Of host records and strays that are remembered."""
_FRESH_S: Final = 0.05
"""So old may the view be by which a call is told that nobody hosts its kind."""
T = TypeVar("T")


class Owned(Protocol):
    """Partitions, as the directory sees them: the ownership."""

    def holding(self, partition: int) -> Holding | None:
        """The holding of a partition, where this silo serves it now."""
        ...

    def waited_out(self, owner: SiloId) -> float:
        """From when what a dead silo has served may be served by another, by boottime."""
        ...


class Alive(Protocol):
    """Activations, as the directory sees them: the catalog."""

    def doubtful(self, grain: GrainId) -> bool:
        """Whether a commit under the owner's token may still land."""
        ...

    def superseded(self, partition: int) -> None:
        """The store has another token for a partition than what we hold."""
        ...


class Directory:
    """One silo's directory.

    Args:
        me: this silo.
        kinds: the names of those that it hosts, with their class versions.
        services: the silo's.
        table: views and loads.
        entropy: for tokens and choices.
        owned: see Owned.
        alive: see Alive.
    """

    def __init__(
        self,
        *,
        me: SiloId,
        kinds: Mapping[str, int],
        services: Services,
        table: Table,
        entropy: Entropy,
        owned: Owned,
        alive: Alive,
    ) -> None:
        self._me: Final = me
        self._kinds: Final = kinds
        self._services = services
        self._store = services.store
        self._table = table
        self._entropy = entropy
        self._owned = owned
        self._alive = alive
        self._loads = Loads()
        self._offers: dict[str, Offer] = {}
        self._known: dict[GrainId, tuple[Token, Host]] = {}
        self._strays: dict[GrainId, None] = {}
        self._finding: dict[GrainId, asyncio.Future[Host | None]] = {}
        self._looking: dict[GrainId, asyncio.Future[Host | None]] = {}
        self._refreshing = asyncio.Lock()
        self._refreshed = 0.0
        table.listen(self._on_view)
        table.on_reading = self._on_reading

    # What is known now --------------------------------------------------------------------------------

    def offer(self, kind: str) -> Offer:
        """What the newest view says of a kind."""
        found = self._offers.get(kind)
        if found is None:
            found = self._offers[kind] = strategies.offer(self._table.view, kind)
        return found

    def places(self, kind: str) -> bool:
        """Whether the grains of a kind are placed one by one, by whoever owns their partitions."""
        return self.offer(kind).placement is not None

    def leads(self, grain: GrainId) -> bool:
        """Whether this silo, as the owner of a grain's partition, has to look for its host."""
        if grain in self._known or grain in self._finding:
            return True
        return not self._is_own(grain)

    def known(self, grain: GrainId, holding: Holding) -> Host | None:
        """A grain's host as remembered under a holding, unless that silo may be dead."""
        token, host = self._known.get(grain, (None, None))
        if host is None or token != holding.token:
            return None
        return host if self._table.view.status_of(host.silo) is not Status.DEAD else None

    def hosted(self, grain: GrainId, partition: int, host: Host) -> None:
        """The store does not let the owner serve a grain: it has this record."""
        holding = self._owned.holding(partition)
        if holding is not None:
            holding.share()
            self._learn(grain, holding.token, host)

    def _learn(self, grain: GrainId, token: Token, host: Host) -> None:
        self._known.pop(grain, None)
        if len(self._known) >= _LIMIT:
            del self._known[next(iter(self._known))]
        self._known[grain] = (token, host)

    def forget(self, grain: GrainId) -> None:
        """The record is not what it was."""
        self._known.pop(grain, None)

    def stray(self, grain: GrainId) -> None:
        """This silo cannot serve the grain as its owner: a newer class has written its state."""
        kind, _ = split_grain_id(grain)
        if self.offer(kind).version > self._kinds.get(kind, 0):
            if len(self._strays) >= _LIMIT:
                del self._strays[next(iter(self._strays))]
            self._strays[grain] = None

    def _on_view(self, view: View) -> None:
        del view
        self._offers.clear()
        self._strays.clear()

    def _on_reading(self, read: TableRead) -> None:
        self._loads.learn(read.loads, read.heartbeats)

    # At the owner ---------------------------------------------------------------------------------------

    async def find(self, grain: GrainId, holding: Holding, caller: SiloId | None) -> Host | None:
        """A grain's host, chosen now where it has none; None where the owner serves it as all others.

        Args:
            grain: which.
            holding: of its partition.
            caller: the silo whose actor or gateway asks, for placements that care.

        Raises:
            NotServing: there is none now, in a way that is worth another try.
            NoSuchKind: no active silo hosts the kind.
        """
        return await self._shared(
            self._finding, grain, lambda: self._settle(grain, holding, caller)
        )

    async def current(self, grain: GrainId, holding: Holding) -> Host | None:
        """A grain's living host, or None. The record of a dead one is taken away.

        Raises:
            NotServing: as in `find`.
        """
        record = await self._read(holding.partition, grain)
        while record is not None and not await self._lives(record.silo):
            await self._wait_out(record.silo)
            record = await self._place(grain, holding, record.token, None)
        return record

    async def _settle(self, grain: GrainId, holding: Holding, caller: SiloId | None) -> Host | None:
        if self.offer(split_grain_id(grain)[0]).works:
            return await self._choose(grain, caller)
        record = await self._read(holding.partition, grain)
        while record is None or not await self._lives(record.silo):
            if record is None and self._is_own(grain):
                self.forget(grain)
                return None
            host = None if self._is_own(grain) else await self._choose(grain, caller)
            if record is not None:
                await self._wait_out(record.silo)
            elif self._alive.doubtful(grain):
                record = await self._settle_doubt(grain, holding)
                if record is not None:
                    continue
            seen = None if record is None else record.token
            dead, record = record, await self._place(grain, holding, seen, host)
            if dead is not None:
                await self._wait_out(dead.silo)  # stopwatches may have been started over meanwhile
            if host is not None and record == host:
                self._loads.give(host.silo)
        holding.share()
        self._learn(grain, holding.token, record)
        return record

    def _is_own(self, grain: GrainId) -> bool:
        """Whether the owner of the grain's partition is to serve it, and this silo can."""
        kind, _ = split_grain_id(grain)
        return kind in self._kinds and not self.places(kind) and grain not in self._strays

    async def _choose(self, grain: GrainId, caller: SiloId | None) -> Host:
        kind, _ = split_grain_id(grain)
        given = self.offer(kind)
        if not given.candidates:
            await self._refresh()
            given = self.offer(kind)
        asked = Asked(caller=caller, owner=self._me)
        silo = strategies.choose(given, asked, self._loads, self._entropy.fraction)
        if silo is not None:
            return Host(silo, hosted_token(self._entropy.token(), grain))
        if isinstance(given.placement, OnSilos):
            roles = strategies.roles_of(self._table.view)
            raise refusals.no_role(grain, given.placement.role, roles)
        raise refusals.no_host(grain, self._me, returning=self._returning(kind))

    def _returning(self, kind: str) -> bool:
        """Whether a silo with the kind comes, goes, or died lately: one like it may be on its way."""
        since = self._table.store_time() - self._services.config.limits.call_timeout_s
        return any(
            kind in row.kinds and (row.status is not Status.DEAD or row.since >= since)
            for row in self._table.view.rows
        )

    async def _lives(self, silo: SiloId) -> bool:
        """Whether a silo's row is not dead. One that is not listed may have joined after our view."""
        if silo not in self._table.view.by_id:
            await self._ask(self._table.read())
        return self._table.view.status_of(silo) is not Status.DEAD

    async def _wait_out(self, silo: SiloId) -> None:
        clock = self._services.clock
        while (left_s := self._owned.waited_out(silo) - clock.boottime()) > 0:
            await clock.sleep(left_s)

    async def _settle_doubt(self, grain: GrainId, holding: Holding) -> Host | None:
        """Keep a commit that may be on its way from landing under the next host."""
        try:
            await self._ask(
                self._store.load(holding.partition, holding.token, grain, raise_version=True),
                holding.partition,
            )
        except Hosted as exc:
            return exc.host
        return None

    async def _place(
        self, grain: GrainId, holding: Holding, seen: Token | None, host: Host | None
    ) -> Host | None:
        self.forget(grain)
        return await self._ask(
            self._store.place(holding.partition, holding.token, grain, seen=seen, host=host),
            holding.partition,
        )

    # Anywhere -------------------------------------------------------------------------------------------

    async def look(self, grain: GrainId, partition: int) -> Host | None:
        """A grain's host by its record, if it lives as far as this silo knows.

        Raises:
            NotServing: the store does not answer.
        """
        return await self._shared(self._looking, grain, lambda: self._look(grain, partition))

    async def _look(self, grain: GrainId, partition: int) -> Host | None:
        record = await self._read(partition, grain)
        if record is None or self._table.view.status_of(record.silo) is Status.DEAD:
            return None
        return record

    async def let_go(self, grain: GrainId, partition: int, token: Token) -> None:
        """This silo does not host the grain any more, and nothing of it runs here. Never fails: where the
        store does not answer, the record stays, and the next call of the grain comes here again.
        """
        self.forget(grain)
        try:
            await answered(
                self._store.place(partition, token, grain, seen=token, host=None),
                self._services.config.lease.store_timeout_s,
                "let go of a grain",
            )
        except (errors.StoreError, errors.Superseded) as exc:
            _log.debug("a host record stays", grain=grain, error=str(exc))

    def _read(self, partition: int, grain: GrainId) -> Coroutine[Any, Any, Host | None]:
        return self._ask(self._store.find_host(partition, grain), partition)

    async def _ask(
        self, answer: asyncio.Future[T] | Coroutine[Any, Any, T], partition: int | None = None
    ) -> T:
        """What the store answers.

        Raises:
            NotServing: it does not, or the partition is not ours any more.
            Hosted: as it is.
        """
        try:
            return await answer
        except Hosted:
            raise
        except errors.Superseded as exc:
            if partition is not None:
                self._alive.superseded(partition)
            why: Exception = exc
        except errors.DataLoss as exc:
            self._services.halt(exc)
            why = exc
        except errors.StoreUnavailable as exc:
            why = exc
        raise refusals.not_placed(why) from why

    async def _refresh(self) -> None:
        """Look whether the view is the newest, but not for every call that asks for nonsense."""
        async with self._refreshing:
            now = self._services.clock.boottime()
            if now - self._refreshed >= _FRESH_S:
                await self._ask(self._table.read())
                self._refreshed = self._services.clock.boottime()

    async def _shared(
        self,
        under_way: dict[GrainId, asyncio.Future[T]],
        grain: GrainId,
        work: Callable[[], Coroutine[Any, Any, T]],
    ) -> T:
        """Do something once for all who ask for it at the same time."""
        future = under_way.get(grain)
        if future is None:
            future = under_way[grain] = asyncio.get_running_loop().create_future()
            services = self._services
            services.tasks.start(
                self._work(under_way, grain, work), f"place {grain}", services.base.copy()
            )
        return await asyncio.shield(future)

    async def _work(
        self,
        under_way: dict[GrainId, asyncio.Future[T]],
        grain: GrainId,
        work: Callable[[], Coroutine[Any, Any, T]],
    ) -> None:
        future = under_way[grain]
        try:
            future.set_result(await work())
        except errors.CallError as exc:
            future.set_exception(exc)
            future.exception()  # marked as seen: those who waited may all have been cancelled
        finally:
            del under_way[grain]
            future.cancel()  # where neither was: the silo ends

    def __repr__(self) -> str:
        return f"<Directory {self._me} known={len(self._known)} finding={len(self._finding)}>"
