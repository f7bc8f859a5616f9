"""A silo, as its user sees it: a host of grains in this process. Owns its settings, store and lives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import Final, Self

from durum import errors
from durum.client import client
from durum.clock import Clock, SystemClock
from durum.config import SiloConfig, Tls, secrets_of, tls_of
from durum.grains.actor import Actor
from durum.grains.filters import Filter, Filters
from durum.grains.kind import GrainKind
from durum.grains.registry import register
from durum.ids import Address, Entropy, SiloId, SystemEntropy, split_address
from durum.placement.ring import RING_VERSION, RINGS
from durum.silo.life import Life
from durum.silo.processes import Processes, SystemProcesses
from durum.silo.safety import level_of, refuse_unsafe, replicas_for
from durum.silo.settings import Platform, Settings
from durum.silo.statistics import SiloStatistics
from durum.silo.upkeep import Upkeep
from durum.store.protocol import Durability, Genesis, Level, Store
from durum.store.urls import open_store
from durum.telemetry import Log
from durum.wire.network import Network, TcpNetwork

_log = Log("durum.silo")
_REJOIN_S: Final = 0.5


class Silo:
    """A host of grains.

        async with durum.Silo(kinds=[Account], store="sqlite:///shop.db") as silo:
            async with silo.connect() as cluster:
                await cluster.actor(Account, "alice").deposit(Decimal(10))

    Args:
        kinds: actor classes.
        store: a URL (see durum.store.urls), or an open store, which is then the caller's to close.
        listen: where to accept connections; port 0 takes a free one.
        advertise: where others reach it, if that is not where it listens.
        cluster: the service's name.
        secret: the cluster secret, or two during a rotation; None takes DURUM_SECRET, if set.
        tls: certificates, for TLS with silos and clients; see Tls. None takes DURUM_TLS_CERT and the like,
            if set.
        insecure: serve beyond loopback without a secret or mutual TLS.
        accept_volatile_store: serve on a store that forgets everything when it stops.
        require_durability: refuse a store below this level, such as "D2". D3 also makes each write wait
            for a replica, where the store's URL does not say for how many.
        create: create the service's data where the store has none. None: only in an embedded store;
            in one that others share, missing data must be an alarm. `durum init` creates it.
        rejoin: begin anew under another id when the others have declared this silo dead.
        config: see SiloConfig.
        filters, outgoing: functions around its actors' methods, and around the calls that they make.
        network, clock, entropy, processes: ports, for tests.

    Raises:
        ConfigError: a kind or setting is wrong.
    """

    def __init__(
        self,
        kinds: Iterable[type[Actor]],
        store: str | Store = "memory:",
        *,
        listen: str = "127.0.0.1:0",
        advertise: str | None = None,
        cluster: str = "default",
        secret: str | bytes | Sequence[str | bytes] | None = None,
        tls: Tls | None = None,
        insecure: bool = False,
        accept_volatile_store: bool | None = None,
        require_durability: Level | str | None = None,
        create: bool | None = None,
        rejoin: bool = True,
        config: SiloConfig | None = None,
        filters: Sequence[Filter] = (),
        outgoing: Sequence[Filter] = (),
        network: Network | None = None,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        processes: Processes | None = None,
    ) -> None:
        self._kinds = register(kinds)
        self._target = store
        self._create = create
        self._rejoin = rejoin
        if accept_volatile_store is None:
            # What is volatile by its very name needs no second word.
            accept_volatile_store = isinstance(store, str) and store.startswith("memory:")
        self._accept_volatile = accept_volatile_store
        self._required = level_of(require_durability)
        self._settings = Settings(
            listen=Address(listen),
            advertise=None if advertise is None else Address(advertise),
            cluster=cluster,
            secrets=secrets_of(secret),
            tls=tls_of(tls),
            insecure=insecure,
            kinds=self._kinds,
            config=config or SiloConfig(),
            filters=Filters(tuple(filters), tuple(outgoing)),
        )
        split_address(self._settings.listen)
        if self._settings.advertise is not None:
            split_address(self._settings.advertise)
        self._platform = Platform(
            network=network or TcpNetwork(),
            clock=clock or SystemClock(),
            entropy=entropy or SystemEntropy(),
            processes=processes or SystemProcesses(),
        )
        self._store: Store | None = None
        self._genesis: Genesis
        self._durability: Durability
        self._life: Life | None = None
        self._main: asyncio.Task[None] | None = None
        self._upkeep: Upkeep | None = None
        self._asked = asyncio.Event()
        self.web = ""
        """Where its pages are; goes into its row of the membership table when it joins."""

    # What it is ---------------------------------------------------------------------------------------

    @property
    def id(self) -> SiloId:
        """This life's id."""
        return self._living().id

    @property
    def address(self) -> Address:
        """Where others reach it."""
        return self._living().address

    @property
    def cluster(self) -> str:
        """The service's name."""
        return self._settings.cluster

    @property
    def kinds(self) -> Mapping[str, GrainKind]:
        """What it hosts."""
        return MappingProxyType(self._kinds)

    @property
    def store_url(self) -> str:
        """Where its data lies, without secrets."""
        return "" if self._store is None else self._store.url

    @property
    def durability(self) -> Durability:
        """What the store's settings can lose, as found last."""
        return self._durability if self._upkeep is None else self._upkeep.durability

    def statistics(self) -> SiloStatistics:
        """Its counters as they are now.

        Raises:
            ConfigError: it was not started.
        """
        blocked = 0 if self._upkeep is None else self._upkeep.loop_blocked
        return self._living().statistics(self.durability, blocked)

    @property
    def life(self) -> Life:
        """Its present life; for tests and tools."""
        return self._living()

    def connect(self) -> client.Cluster:
        """A client of this silo's cluster."""
        settings = self._settings
        return client.connect(
            self.address,
            cluster=settings.cluster,
            secret=settings.secrets or "",
            tls=settings.tls,
            limits=settings.config.limits,
            network=self._platform.network,
            clock=self._platform.clock,
            entropy=self._platform.entropy,
        )

    # Its life -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store, listen, join the cluster, and begin to serve. `async with` does it too.

        Raises:
            ConfigError: a setting is wrong or unsafe, or the service does not exist in the store.
            StoreError: the store does not answer, or has lost data.
        """
        await self._open_store()
        try:
            life = self._new_life()
            await life.start()
        except BaseException:
            await self._close_store()
            raise
        self._life = life
        clock = self._platform.clock
        if isinstance(clock, SystemClock):  # a virtual one cannot be watched from outside
            blocked_s = self._settings.config.loop_blocked_s
            self._upkeep = Upkeep(
                self._opened(), self._durability, clock, blocked_s, self._required
            )
            await self._upkeep.open()
        self._main = asyncio.get_running_loop().create_task(self._live(life), name="silo: main")
        _log.info("silo started", silo=life.id, store=self.store_url)

    async def run(self) -> None:
        """Serve until `stop`, then drain, hand over and leave.

        Raises:
            DeclaredDead: the others declared it dead, and it may not rejoin.
            DataLoss: the store lacks what it had confirmed.
        """
        if self._main is None:
            raise errors.ConfigError(
                "the silo was not started: use `async with Silo(...) as silo`."
            )
        await asyncio.shield(self._main)

    def stop(self) -> None:
        """Ask it to drain, hand over and leave. `run` returns when that is done."""
        self._asked.set()

    async def close(self) -> None:
        """Leave in good order if it still lives, and let go of everything."""
        self.stop()
        main, self._main = self._main, None
        try:
            if main is not None:
                await main
        finally:
            await self._end_upkeep()
            await self._close_store()

    async def kill(self) -> None:
        """End at once without leaving, as a crash would; for tests."""
        main, self._main = self._main, None
        if main is not None:
            main.cancel()
            await asyncio.wait([main])
        await self._end_upkeep()
        await self._close_store()

    async def _end_upkeep(self) -> None:
        if self._upkeep is not None:
            await self._upkeep.close()

    async def _live(self, life: Life) -> None:
        while True:
            try:
                await self._serve(life)
            except errors.DeclaredDead as exc:
                await life.close()
                if not self._rejoin:
                    raise
                _log.warning("declared dead, joining anew", silo=life.id, error=str(exc))
            except BaseException:
                await life.close()
                raise
            else:
                return
            anew = await self._begin_anew()
            if anew is None:
                return
            life = anew

    def _new_life(self) -> Life:
        settings = replace(self._settings, web=self.web)
        return Life(settings, self._platform, self._opened(), self._genesis, self.statistics)

    async def _begin_anew(self) -> Life | None:
        """Join again, however long that takes. None where it is asked to stop meanwhile."""
        while not self._asked.is_set():
            life = self._new_life()
            try:
                await life.start()
            except (errors.StoreUnavailable, errors.ConfigError, errors.NoSilo) as exc:
                _log.warning("cannot join yet", error=str(exc))
                await self._platform.clock.sleep(_REJOIN_S)
            else:
                self._life = life
                return life
        return None

    async def _serve(self, life: Life) -> None:
        """Serve until asked to stop, then leave."""
        loop = asyncio.get_running_loop()
        failed = loop.create_task(life.failed(), name="silo: failed")
        asked = loop.create_task(self._asked.wait(), name="silo: asked")
        leaving: asyncio.Task[None] | None = None
        try:
            await asyncio.wait([failed, asked], return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                await failed
            leaving = loop.create_task(life.leave(), name="silo: leaving")
            await asyncio.wait([failed, leaving], return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                await self._left(leaving)
            else:
                await failed
            await life.close()
        finally:
            for task in (failed, asked, leaving):
                if task is not None:
                    task.cancel()

    async def _left(self, leaving: asyncio.Task[None]) -> None:
        try:
            await leaving
        except errors.StoreUnavailable as exc:
            _log.warning("left without telling the store", error=str(exc))

    # Its store ----------------------------------------------------------------------------------------

    async def _open_store(self) -> None:
        if isinstance(self._target, str):
            self._store = await open_store(
                self._target,
                cluster=self._settings.cluster,
                clock=self._platform.clock,
                entropy=self._platform.entropy,
                store_timeout_s=self._settings.config.lease.store_timeout_s,
                replicas=replicas_for(self._required),
            )
        else:
            self._store = self._target
        try:
            await self._check_store(self._store)
        except BaseException:
            await self._close_store()
            raise

    async def _check_store(self, store: Store) -> None:
        self._durability = await store.durability()
        refuse_unsafe(
            self._durability, accept_volatile=self._accept_volatile, required=self._required
        )
        genesis = await store.genesis()
        embedded = not store.url.startswith(("redis", "unix", "valkey"))
        if genesis is None:
            if not (embedded if self._create is None else self._create):
                raise errors.ConfigError(
                    f"{store.url} has no service {self._settings.cluster!r}. If it is new, create it"
                    " with `durum init`; if it was there before, its data is missing: do not create it,"
                    " restore it."
                )
            genesis = Genesis(
                mark=self._platform.entropy.token().hex(),
                cluster=self._settings.cluster,
                partitions=self._settings.config.partitions,
                ring=RING_VERSION,
            )
            genesis = await store.create(genesis)
        if genesis.ring not in RINGS:
            raise errors.ConfigError(
                f"the service places partitions by ring version {genesis.ring}, this release by"
                f" {RING_VERSION} or older. Run the release that the other silos run."
            )
        self._genesis = genesis

    async def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None and isinstance(self._target, str):
            await store.close()

    def _opened(self) -> Store:
        if self._store is None:
            raise errors.DurumBug("a silo without a store")
        return self._store

    def _living(self) -> Life:
        if self._life is None:
            raise errors.ConfigError(
                "the silo was not started: use `async with Silo(...) as silo`."
            )
        return self._life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Silo {'(new)' if self._life is None else self._life.id} {self.store_url}>"
