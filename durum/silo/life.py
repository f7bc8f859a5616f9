"""One life of a silo: everything that carries one silo id, put together, from listening to gone.

An embedded silo that the others have declared dead drops its life and begins another one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextvars import copy_context
from itertools import count
from typing import Final

from durum import errors
from durum.client.links import Links
from durum.client.router import Router
from durum.client.routes import Routes
from durum.ids import Address, SiloId, Token
from durum.silo import refusals
from durum.silo.administration import Administration
from durum.silo.assigned import Assigned
from durum.silo.catalog import Catalog
from durum.silo.collector import Collector
from durum.silo.directory import Directory
from durum.silo.dispatcher import Dispatcher
from durum.silo.gateway import Gateway
from durum.silo.inward import InwardLink
from durum.silo.joining import Joining, identify
from durum.silo.lease import Lease
from durum.silo.letter_desk import LetterDesk
from durum.silo.membership import Membership
from durum.silo.meters import Meters
from durum.silo.offices import Offices
from durum.silo.ownership import Ownership
from durum.silo.peers import Peers
from durum.silo.ports import Ports
from durum.silo.relay import Relay
from durum.silo.reminder_desk import ReminderDesk
from durum.silo.services import Services
from durum.silo.settings import Platform, Settings
from durum.silo.statistics import SiloStatistics, StoreStatistics
from durum.silo.table import Table
from durum.silo.verifier import Verifier
from durum.store.protocol import Durability, Genesis, Store
from durum.tasks import TaskOwner
from durum.telemetry import Log
from durum.views import Status, View
from durum.wire import links as wire
from durum.wire.connection import Connection, Handler
from durum.wire.handshake import Introduction
from durum.wire.messages import AnyMessage, Goodbye, Item

_log = Log("durum.silo")
_GOODBYE_S: Final = 2.0


class Life:
    """A silo under one id.

    Args:
        settings: see Settings.
        platform: see Platform.
        store: the service's data, open.
        genesis: the service's.
        look: the silo's counters now; raises ConfigError before there are any.
    """

    def __init__(
        self,
        settings: Settings,
        platform: Platform,
        store: Store,
        genesis: Genesis,
        look: Callable[[], SiloStatistics],
    ) -> None:
        self._look = look
        self._settings = settings
        self._platform = platform
        self._store = store
        self._genesis = genesis
        self._tasks = TaskOwner("silo")
        self._server = wire.Server(settings.config.limits)
        self._halted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._assigned = Assigned(genesis)
        self.id: SiloId
        self.address: Address

    async def start(self) -> None:
        """Listen, join, and begin to take partitions.

        Raises:
            ConfigError: the address is taken, exposed without a secret, or another living silo's.
            StoreError: the store does not answer, or has lost data.
        """
        settings = self._settings
        await self._listen()
        try:
            self.id = await identify(self._store, self._genesis.mark, self.address, settings.config)
            await self._tasks.open()
            await self._assemble()
        except BaseException:
            await self.close()
            raise

    async def _listen(self) -> None:
        settings = self._settings
        wire.refuse_exposed(settings.listen, self._introduction(None))
        try:
            await self._server.start(self._platform.network, settings.listen)
        except OSError as exc:
            raise errors.ConfigError(
                f"cannot listen on {settings.listen}: {exc.strerror or exc}. Stop what has the address,"
                " or choose another one; port 0 takes a free one."
            ) from exc
        self.address = settings.advertise or self._server.address

    def _introduction(self, silo: SiloId | None) -> Introduction:
        settings = self._settings
        return Introduction(
            role="silo",
            cluster=settings.cluster,
            mark=self._genesis.mark,
            silo=silo,
            secrets=settings.secrets,
            tls=settings.tls,
            insecure=settings.insecure,
            entropy=self._platform.entropy,
        )

    async def _assemble(self) -> None:
        settings, platform, mark = self._settings, self._platform, self._genesis.mark
        config, clock, entropy = settings.config, platform.clock, platform.entropy
        introduction = self._introduction(self.id)
        ports = Ports(
            mark=mark,
            partitions=self._genesis.partitions,
            store=self._store,
            clock=clock,
            entropy=entropy,
            config=config,
            processes=platform.processes,
        )
        self._lease = Lease(config.lease.lease_s)
        self._table = Table(self.id, ports, self._lease)

        async def dial(address: Address, handler: Handler) -> Connection:
            return await wire.dial(platform.network, address, introduction, handler, config.limits)

        self._peers = Peers(me=self.id, dial=dial, clock=clock, version=self._version)
        inward = InwardLink(self.id)
        self._links = Links(
            network=platform.network,
            introduction=introduction,
            limits=config.limits,
            tasks=self._tasks,
            on_message=self._on_link_message,
            on_close=self._on_link_closed,
        )
        self._router = Router(
            links=self._links,
            routes=Routes(own=(self.address, inward)),
            clock=clock,
            entropy=entropy,
            limits=config.limits,
        )
        self.services = Services(
            config=config,
            clock=clock,
            life=entropy.token()[:8],
            # The chain of a call names turns of other silos and of earlier lives: no two are alike.
            turns=count(1 + int.from_bytes(entropy.token()[:5], "big")),
            store=self._store,
            lease=self._lease,
            router=self._router,
            tasks=self._tasks,
            store_time=self._table.store_time,
            reckoned=self._table.reckoned,
            committed=self._on_committed,
            halt=self._halt,
            fraction=entropy.fraction,
            base=copy_context(),
            meters=Meters(clock.boottime),
            filters=settings.filters,
        )
        self._dispatcher = Dispatcher(
            silo=self.id, partitions=ports.partitions, services=self.services, version=self._version
        )
        inward.lead_to(self._dispatcher, self._router)
        verifier = Verifier(self._store, self._tasks, self._halt)
        self.catalog = Catalog(settings.kinds, self.services, self._dispatcher, verifier.suspect)
        owners = self._assigned.owners
        self.ownership = Ownership(ports, self._table, self._peers, owners, self.catalog)
        verifier.serve(self.ownership)
        self.catalog.luggage.serve(self.id, self._peers, self.ownership.wanted, ports.partitions)
        directory = Directory(
            me=self.id,
            kinds=settings.versions(),
            services=self.services,
            table=self._table,
            entropy=entropy,
            owned=self.ownership,
            alive=self.catalog,
        )
        self.catalog.guests.records = directory
        reach = self._router, self._dispatcher.call
        self.offices = Offices(
            self.services, *reach, self.ownership, self.catalog, verifier.suspect
        )
        administration = Administration(
            silo=self.id,
            partitions=self._genesis.partitions,
            services=self.services,
            store=self._store,
            catalog=self.catalog,
            members=lambda: (self.view, self._assigned.shares(self.view)),
            look=self._look,
            desk=ReminderDesk(mark, self.services, self._store, self._table.time.trust),
            hint=self.offices.hints.hint,
            letters=LetterDesk(self._store, ports, self.services, self.catalog, self.offices.post),
        )
        relay = Relay(self.id, self._router, self._tasks, config.limits)
        self._dispatcher.open(
            catalog=self.catalog,
            holdings=self.ownership,
            directory=directory,
            administration=administration,
            relay=relay,
        )
        self._gateway = Gateway(
            dispatcher=self._dispatcher,
            peers=self._peers,
            router=self._router,
            relay=relay,
            relay_s=config.limits.drain_timeout_s,
        )
        recheck, load = self.ownership.recheck, self.catalog.__len__
        self.membership = Membership(
            ports, self._table, self._peers, self._lease, recheck=recheck, load=load
        )
        self._table.listen(self._on_view)
        self._server.open(introduction, self._gateway)
        await self._join(ports)

    async def _join(self, ports: Ports) -> None:
        bound = self._server.address == self.address
        row = self._settings.row(self.id, self._platform.processes, bound=bound)
        joining = Joining(ports, row, self._table, self.membership, self._peers)
        await joining.join()
        collector = Collector(self.catalog, self.services)
        for name, coro in (
            ("peers", self._peers.run()),
            ("membership", self.membership.run()),
            ("ownership", self.ownership.run()),
            ("deadlines", self._dispatcher.sweep()),
            ("calls", self._router.deadlines.sweep()),
            ("collector", collector.run()),
            ("shedding", collector.shed()),
            ("wake-ups", self.offices.wake_ups.run()),
        ):
            self._tasks.start(coro, name)
        await self.membership.move(Status.ACTIVE)

    @property
    def view(self) -> View:
        """The newest view it has seen."""
        return self._table.view

    def _version(self) -> int:
        return self._table.view.version

    def statistics(self, durability: Durability, loop_blocked: int) -> SiloStatistics:
        """This life's counters as they are now.

        Args:
            durability: the store's, as found last.
            loop_blocked: how often this process's loop was held.
        """
        services, view = self.services, self._table.view
        load, meters, batches = services.load, services.meters, self._store.batches()
        return SiloStatistics(
            silo=self.id,
            cluster=self._settings.cluster,
            status=view.status_of(self.id),
            lease_left_s=self._lease.until - services.clock.boottime(),
            view=view.version,
            silos=Counter(row.status for row in view.rows),
            suspected={row.silo: len(row.suspicions) for row in view.live if row.suspicions},
            partitions=self._genesis.partitions,
            ownership=self.ownership.statistics(),
            clients=self._gateway.clients,
            peers=self._gateway.silos,
            server=self._server.statistics(),
            calls=load.calls,
            bytes=load.bytes,
            waiting=self._dispatcher.waiting(),
            held_up=self._dispatcher.held_up(),
            committed=load.committed,
            rolled_back=load.rolled_back,
            fenced=load.fenced,
            dropped=load.dropped,
            luggage=self.catalog.luggage.statistics(),
            loop_blocked=loop_blocked,
            methods=meters.methods(),
            kinds=meters.kinds(),
            wake_ups=self.offices.wake_ups.statistics(),
            post=self.offices.post.statistics(),
            observers=services.observers.statistics(),
            store=StoreStatistics(
                url=self._store.url,
                durability=durability,
                trouble=self.membership.trouble,
                loads=meters.loads.statistics(),
                commits=meters.commits.statistics(),
                batches=tuple(batches.sizes),
                operations=batches.operations,
                clock_ahead_s=self._table.time.ahead_s,
            ),
        )

    async def failed(self) -> None:
        """Wait for what this life cannot go on after, and raise it.

        Raises:
            DeclaredDead: the others have declared it dead.
            DataLoss: the store lacks what it had confirmed.
            Exception: our own mistake.
        """
        waiting = asyncio.get_running_loop().create_task(self._tasks.wait(), name="silo: wait")
        try:
            await asyncio.wait([self._halted, waiting], return_when=asyncio.FIRST_COMPLETED)
            if self._halted.done():
                self._halted.result()
            await waiting
        finally:
            waiting.cancel()

    async def leave(self) -> None:
        """Hand everything over, say goodbye, and leave the table. Calls under way are finished.

        Raises:
            StoreError: the store does not answer; the others will notice without it.
        """
        drain_s = self._settings.config.limits.drain_timeout_s
        self.catalog.stopping()
        await self.membership.move(Status.LEAVING, "asked to stop")
        vacated = self._tasks.start(self.catalog.vacate(drain_s), "vacate")
        if not await self.ownership.emptied(drain_s + self._settings.config.lease.lease_s):
            _log.warning("left with partitions that were not handed over", silo=self.id)
        await asyncio.wait([vacated], timeout=drain_s)
        await self.catalog.workers.drain(drain_s)
        await self._server.close()
        await self._gateway.leave("the silo leaves", _GOODBYE_S)
        self._dispatcher.close()
        await self.membership.move(Status.DEAD, "left")

    async def close(self) -> None:
        """End at once: nothing of this life runs after it."""
        await self._server.close()
        if hasattr(self, "_gateway"):
            self._lease.end()
            self._dispatcher.close()
            self._router.close()
            self._gateway.abort()
            self.offices.post.close()
            self.catalog.drop_all()
            await self._links.close(0.0)
        for connection in self._server.connections:
            connection.abort()
        await self._tasks.close()
        if not self._halted.done():
            self._halted.cancel()

    def _on_view(self, view: View) -> None:
        table = self._assigned.table(view)
        self._router.learn(table)
        self._gateway.push(table)
        self.offices.on_view(view)

    def _on_committed(self, partition: int, token: Token, commits: int, repeated: bool) -> None:  # noqa: FBT001 - for every commit
        if not self.ownership.committed(partition, token, commits, repeated=repeated):
            self._halt(refusals.counted_twice(partition, commits))

    def _halt(self, error: BaseException) -> None:
        if not self._halted.done():
            self._lease.end()
            self._halted.set_exception(error)

    def _on_link_message(self, connection: Connection, message: AnyMessage) -> None:
        if isinstance(message, Goodbye | Item):
            self._router.received(connection, message)
        else:
            self._gateway.received(connection, message)

    def _on_link_closed(self, connection: Connection) -> None:
        self._router.lost(connection)

    def __repr__(self) -> str:
        return f"<Life {getattr(self, 'id', '(starting)')}>"
