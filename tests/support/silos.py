"""Silos without grains on virtual time: membership and ownership as they are, with a counter in each
partition for load.

It owns how such silos live and die, and what must be true of them at every instant; which faults fall, tests
decide.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from functools import partial
from typing import Final

from durum import errors
from durum.config import SiloConfig
from durum.ids import Address, GrainId, SeededEntropy, SiloId, Token, join_address
from durum.placement.partitions import assignment
from durum.placement.ring import RING_VERSION
from durum.silo.holdings import Holding
from durum.silo.joining import Joining, identify
from durum.silo.lease import Lease
from durum.silo.membership import Membership
from durum.silo.ownership import Ownership
from durum.silo.patience import cause
from durum.silo.peers import Peers
from durum.silo.ports import Ports
from durum.silo.table import Table
from durum.store.protocol import Commit, Genesis, Store
from durum.store.urls import open_store
from durum.testing import hosts, loop
from durum.testing.clock import SimClock
from durum.testing.loop import SimLoop
from durum.testing.network import SimNetwork
from durum.testing.store import FaultyStore
from durum.views import SiloRow, Status, View
from durum.wire import links
from durum.wire.connection import Connection, Handler
from durum.wire.handshake import Introduction

PARTITIONS: Final = 16
MARK: Final = "c0ffee" * 5 + "00"
PORT: Final = 7600
USUAL: Final = SiloConfig()


class Violation(AssertionError):
    """Something that must never be was."""


class World:
    """Everything outside the silos: network, store, and the checks.

    Args:
        config: of all silos.
        load: whether silos read and write counters.
    """

    def __init__(
        self, store: FaultyStore, config: SiloConfig = USUAL, *, load: bool = True
    ) -> None:
        self.loop: Final[SimLoop] = loop.current()
        self.config: Final = config
        self.load: Final = load
        self.store: Final = store
        self.network: Final = SimNetwork(self.loop)
        self.silos: Final[dict[str, SimSilo]] = {}
        self.acked: Final = [0] * PARTITIONS
        self.tried: Final = [0] * PARTITIONS
        self.reads = 0
        self.views: Final[dict[int, View]] = {}
        self.store_regressed = False
        self._lives: Final[dict[str, int]] = {}
        self._checks: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, config: SiloConfig = USUAL, *, load: bool = True) -> World:
        """An empty world with a service in its store."""
        world_loop = loop.current()
        clock = SimClock(world_loop)

        async def make() -> Store:
            return await open_store(
                "memory:",
                cluster="sim",
                clock=clock,
                entropy=SeededEntropy(world_loop.seed),
                threads=False,
            )

        world = cls(await FaultyStore.open(world_loop, make), config, load=load)
        await world.store.host("init").create(
            Genesis(mark=MARK, cluster="sim", partitions=PARTITIONS, ring=RING_VERSION)
        )
        world._checks = world_loop.start(hosts.WORLD, world._check_always(), name="checks")
        return world

    async def close(self) -> None:
        """End all silos, and the checks."""
        for silo in self.alive():
            self.loop.kill(silo.host)
        await self.store.close()
        if self._checks is not None:
            self._checks.cancel()
            await asyncio.wait([self._checks])
            if not self._checks.cancelled() and (error := self._checks.exception()):
                raise error

    def start(self, machine: str, port: int = PORT, *, advertise: str = "") -> SimSilo:
        """Start a silo process on a machine; the next life where there was one."""
        life = self._lives[machine] = self._lives.get(machine, 0) + 1
        host = f"{machine}#{life}"
        silo = self.silos[host] = SimSilo(self, host, join_address(machine, port), advertise)
        self.loop.start(host, silo.main(), name=f"silo {host}")
        return silo

    async def cluster(self, *machines: str) -> list[SimSilo]:
        """Start silos, and wait until they share all partitions."""
        silos = [self.start(machine) for machine in machines]
        await self.until(lambda: self.settled(len(machines)), 20.0)
        return silos

    def alive(self) -> list[SimSilo]:
        """Processes that exist, stopped ones too."""
        return [silo for silo in self.silos.values() if not self.loop.is_dead(silo.host)]

    def settled(self, silos: int) -> bool:
        """Whether so many silos are active, know it, and all partitions are served where they should be."""
        active = [silo for silo in self.alive() if silo.status is Status.ACTIVE]
        versions = {silo.table.view.version for silo in active}
        lists = {tuple(row.silo for row in silo.table.view.active) for silo in active}
        return (
            len(active) == silos
            and len(versions) == 1
            and [len(names) for names in lists] == [silos]
            and all(
                [silo.me for silo in active if silo.serves(partition)]
                == [active[0].ownership.wanted(partition)]
                for partition in range(PARTITIONS)
            )
        )

    async def until(self, true: Callable[[], bool], within_s: float) -> float:
        """Wait for something. Returns how long it took.

        Raises:
            Violation: it did not come true.
        """
        began = self.loop.time()
        while not true():
            self._raise_failure()
            if self.loop.time() - began > within_s:
                raise Violation(f"not within {within_s} s: {self!r}")
            await asyncio.sleep(0.01)
        return self.loop.time() - began

    async def run_for(self, seconds: float) -> None:
        """Let time pass, with the checks going on."""
        until = self.loop.time() + seconds
        while self.loop.time() < until:
            self._raise_failure()
            await asyncio.sleep(min(0.25, until - self.loop.time()))
        self._raise_failure()

    def saw(self, view: View) -> None:
        """A silo has this view: everybody's view of one version has to be the same."""
        known = self.views.setdefault(view.version, view)
        if known.by_id != view.by_id and not self.store_regressed:
            raise Violation(f"two views of version {view.version}: {known} and {view}")

    def evicted(self) -> list[SiloId]:
        """Silos that were declared dead without having asked for it."""
        newest = self.views[max(self.views)]
        return [
            row.silo for row in newest.rows if row.status is Status.DEAD and row.reason != "left"
        ]

    def check(self) -> None:
        """What must hold at every instant.

        A stopped process counts: it would serve if it went on now.
        """
        for partition in range(PARTITIONS):
            serving = [silo.host for silo in self.alive() if silo.serves(partition)]
            if len(serving) > 1:
                raise Violation(
                    f"{self.loop.time():.3f} s: {' and '.join(serving)} both serve {partition}"
                )

    def check_log(self) -> None:
        """What the store has applied: holdings one after another, and no count lost or doubled."""
        for partition in range(PARTITIONS):
            commits = [one for one in self.store.log.commits if one.commit.partition == partition]
            counts = [struct.unpack("<q", one.commit.state or b"")[0] for one in commits]
            if counts != list(range(1, len(counts) + 1)):
                raise Violation(f"partition {partition} counted {counts}")
            low, high = self.acked[partition], self.tried[partition]
            if not low <= len(counts) <= high:
                raise Violation(f"partition {partition}: {len(counts)} of {low} to {high}")
            holdings = list(dict.fromkeys(one.commit.token for one in commits))
            order = [holdings.index(one.commit.token) for one in commits]
            if order != sorted(order):
                raise Violation(f"partition {partition}: holdings overlap: {order}")

    async def _check_always(self) -> None:
        while True:
            self.check()
            await asyncio.sleep(0.01)

    def _raise_failure(self) -> None:
        if self._checks is not None and self._checks.done() and not self._checks.cancelled():
            self._checks.result()
        for silo in self.silos.values():
            if isinstance(silo.ended, Violation | errors.DurumBug) or (
                silo.ended is not None and not isinstance(silo.ended, errors.DurumError)
            ):
                raise silo.ended

    def __repr__(self) -> str:
        return f"<World {self.loop.time():.3f} s: {list(self.silos.values())}>"


class SimSilo:
    """One silo process.

    Args:
        world: where it lives.
        host: its process.
        listen: where it accepts.
        advertise: the address it gives others, or "" for where it listens.
    """

    def __init__(self, world: World, host: str, listen: Address, advertise: str) -> None:
        self.world: Final = world
        self.host: Final = host
        self.listen: Final = listen
        self.address: Final = Address(advertise or listen)
        self.clock: Final = SimClock.seeded(world.loop, host)
        self.ended: BaseException | None = None
        self.done = False
        self.lease = Lease(world.config.lease.lease_s)
        self.me = SiloId("")
        self._cached: dict[int, tuple[Holding, int]] = {}
        self._versions: dict[int, int] = {}
        self._busy: dict[int, asyncio.Task[None]] = {}
        self._doubtful: set[int] = set()
        self._stopping = asyncio.Event()
        self._random = world.loop.randomness(f"load of {host}")
        self._commits = 0

    @property
    def status(self) -> Status | None:
        """Its own, as it knows; None before it has joined."""
        if not self.me or self.ended is not None:
            return None
        return self.table.view.by_id[self.me].status if self.me in self.table.view.by_id else None

    def serves(self, partition: int) -> bool:
        """Whether it would answer a read now."""
        if not self.me or self.ended is not None or self.done:
            return False
        return (
            self.lease.held(self.clock.boottime()) and self.ownership.holding(partition) is not None
        )

    async def main(self) -> None:
        """Its life."""
        world = self.world
        try:
            await self._live()
        except Exception as exc:
            self.ended = cause(exc) if isinstance(exc, ExceptionGroup) else exc
        finally:
            self.done = True
            world.loop.call_in_world(0.0, world.loop.kill, self.host)

    def stop(self) -> None:
        """SIGTERM."""
        self.world.loop.call_soon(self._stopping.set, context=hosts.context(self.host))

    async def _live(self) -> None:
        world, config = self.world, self.world.config
        store, network = world.store.host(self.host), world.network.host(self.host)
        entropy = SeededEntropy(world.loop.randomness(f"tokens of {self.host}").getrandbits(64))
        processes = SimProcesses(world.loop, self.host)
        server = links.Server(config.limits)
        await server.start(network, self.listen)
        me = await identify(store, MARK, self.address, config)
        introduction = Introduction(
            role="silo", cluster="sim", mark=MARK, silo=me, insecure=True, entropy=entropy
        )

        async def dial(address: Address, handler: Handler) -> Connection:
            return await links.dial(network, address, introduction, handler, config.limits)

        ports = Ports(
            mark=MARK,
            partitions=PARTITIONS,
            store=store,
            clock=self.clock,
            entropy=entropy,
            config=config,
            processes=processes,
        )
        self.table = Table(me, ports, self.lease)
        self.peers = Peers(
            me=me, dial=dial, clock=self.clock, version=lambda: self.table.view.version
        )
        self.ownership = Ownership(
            ports,
            self.table,
            self.peers,
            lambda view: assignment(view, PARTITIONS).owners,
            self,
        )
        self.membership = Membership(
            ports, self.table, self.peers, self.lease, self.ownership.recheck
        )
        self.table.listen(world.saw)
        self.me = me
        self.store = store
        server.open(introduction, self.peers)
        row = SiloRow(
            silo=me,
            status=Status.JOINING,
            kinds={"Counter": 1},
            host=processes.host,
            pid=processes.pid,
            pid_started=processes.started,
            bound=self.address == self.listen,
        )
        await Joining(ports, row, self.table, self.membership, self.peers).join()
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(coro)
                for coro in (self.peers.run(), self.ownership.run(), self._count(tasks))
            ]
            member = tasks.create_task(self.membership.run())
            await self.membership.move(Status.ACTIVE)
            stopping = tasks.create_task(self._leave())
            await member
            stopping.cancel()
            for task in running:
                task.cancel()

    async def _leave(self) -> None:
        await self._stopping.wait()
        await self.membership.move(Status.LEAVING, "asked to stop")
        await self.ownership.emptied(26.0)
        await self.membership.move(Status.DEAD, "left")

    # --- the load: one counter a partition

    def taken(self, partition: int, token: Token, seen: Token) -> None:
        """Nothing is sent ahead (called by Ownership)."""

    async def drain(self, partition: int, within_s: float, free: Token) -> None:
        """Finish the partition's turn (called by Ownership)."""
        if task := self._busy.get(partition):
            await asyncio.wait([task], timeout=within_s)
            task.cancel()

    def drop(self, partition: int) -> None:
        """Forget what is cached (called by Ownership)."""
        self._cached.pop(partition, None)
        if task := self._busy.get(partition):
            task.cancel()

    async def _count(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self.clock.sleep(0.01 + 0.05 * self._random.random())
            if not self.world.load:
                continue
            for partition in range(PARTITIONS):
                self._read(partition)
            partition = self._random.randrange(PARTITIONS)
            holding = self._ready(partition)
            if holding is not None and partition not in self._busy:
                task = tasks.create_task(self._increment(holding), name=f"turn {partition}")
                self._busy[partition] = task
                task.add_done_callback(partial(self._over, partition))

    def _over(self, partition: int, _: object) -> None:
        self._busy.pop(partition, None)

    def _ready(self, partition: int) -> Holding | None:
        holding = self.ownership.holding(partition)
        return holding if self.lease.held(self.clock.boottime()) else None

    def _read(self, partition: int) -> None:
        holding = self._ready(partition)
        cached = self._cached.get(partition)
        if holding is None or cached is None or cached[0] is not holding:
            return
        self.world.reads += 1
        if cached[1] < self.world.acked[partition] and not self.world.store_regressed:
            raise Violation(
                f"{self.host} answers {cached[1]} for {partition}, "
                f"{self.world.acked[partition]} was acknowledged"
            )

    async def _increment(self, holding: Holding) -> None:
        partition, grain = holding.partition, GrainId(f"Counter/{holding.partition}")
        cached = self._cached.get(partition)
        try:
            if cached is None or cached[0] is not holding:
                doubtful = partition in self._doubtful
                record = await self.store.load(
                    partition, holding.token, grain, raise_version=doubtful
                )
                self._doubtful.discard(partition)
                self._versions[partition] = record.version
                count = struct.unpack("<q", record.state)[0] if record.state else 0
                self._cached[partition] = (holding, count)
                if self._ready(partition) is not holding:
                    return
            count = self._cached[partition][1] + 1
            self._commits += 1
            self.world.tried[partition] += 1
            commit = self.store.commit(
                Commit(
                    partition=partition,
                    token=holding.token,
                    grain=grain,
                    id=f"{self.host}/{self._commits}".encode().ljust(16)[:16],
                    version=self._versions[partition],
                    state=struct.pack("<q", count),
                )
            )
            # A turn that is cancelled does not wait for it.
            commit.add_done_callback(lambda sent: sent.cancelled() or sent.exception())
            done = await asyncio.shield(commit)
        except errors.Superseded:
            self._cached.pop(partition, None)
            self.ownership.superseded(partition)
        except (errors.StoreUnavailable, asyncio.CancelledError):
            self._cached.pop(partition, None)
            self._doubtful.add(partition)
        else:
            self._versions[partition] = done.version
            self._cached[partition] = (holding, count)
            if not self.ownership.committed(partition, holding.token, done.commits):
                raise errors.DataLoss(f"partition {partition}: {done.commits} was counted twice")
            self.world.acked[partition] = max(self.world.acked[partition], count)

    def __repr__(self) -> str:
        state = "dead" if self.world.loop.is_dead(self.host) else self.status
        held = [p for p in range(PARTITIONS) if self.serves(p)] if state != "dead" else ""
        version = self.table.view.version if self.me else ""
        return f"<{self.host} {state} view={version} serves={held} ended={self.ended!r}>"


class SimProcesses:
    """The Processes of a simulated machine.

    Args:
        sim: whose processes.
        host: this one.
    """

    _numbers: Final[dict[str, int]] = {}

    def __init__(self, sim: SimLoop, host: str) -> None:
        self.host: str = hosts.machine(host)
        self.pid: int = _pid(host)
        self.started: int = 1
        self._sim = sim
        self._process = host

    def ended(self, pid: int, started: int) -> bool:
        """Whether it was killed."""
        return self._name(pid) is not None and self._sim.is_dead(self._name(pid) or "")

    def watch(self, pid: int, started: int, on_end: Callable[[], None]) -> Callable[[], None]:
        """Watch for its kill."""
        context = hosts.context(self._process)
        stopped = False

        def tell(host: str) -> None:
            if _pid(host) == pid and not stopped:
                self._sim.call_soon(on_end, context=context)

        def stop() -> None:
            nonlocal stopped
            stopped = True

        self._sim.on_kill(tell)
        if self.ended(pid, started):
            self._sim.call_soon(on_end, context=context)
        return stop

    def _name(self, pid: int) -> str | None:
        return next((name for name, number in self._numbers.items() if number == pid), None)


def _pid(host: str) -> int:
    return SimProcesses._numbers.setdefault(host, len(SimProcesses._numbers) + 100)
