"""Where the silos of a TestCluster live: in real time, or on virtual time. Owns how they start and how they
end; what a test wants of them, the cluster knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol, cast

from durum.clock import Clock, SystemClock
from durum.config import Lease, Limits, Probing, SiloConfig
from durum.grains.actor import Actor
from durum.ids import Entropy, SeededEntropy, SystemEntropy
from durum.silo.processes import Processes
from durum.silo.silo import Silo
from durum.store.protocol import Store
from durum.store.urls import open_store
from durum.tasks import TaskOwner
from durum.testing import hosts
from durum.testing.clock import SimClock
from durum.testing.crashes import CrashingStore
from durum.testing.loop import SimLoop
from durum.testing.network import SimNetwork
from durum.testing.processes import ProcessTable
from durum.testing.store import FaultyStore
from durum.testing.switchboard import Switchboard
from durum.wire.network import Network

CLUSTER: Final = "test"
PORT: Final = 7600
SECRET: Final = "known to every test"  # noqa: S105
"""Nothing is secret here, but links between machines have to be sealed, as in production."""

USUAL: Final = SiloConfig(partitions=64, check_read_only=True)
"""What silos are like unless a test says otherwise: as in production, but for these two."""
CALM: Final = SiloConfig(
    partitions=16,
    check_read_only=True,
    lease=Lease(lease_s=600.0, renew_s=200.0),
    probing=Probing(poll_s=100.0, probe_s=100.0, vote_life_s=6000.0),
    limits=Limits(call_timeout_s=600.0),
)
"""For tests that skip days: silos that look at each other only now and then. A kill is noticed at once even
so; a cut takes ten minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What a process on some machine stands on."""

    network: Network
    clock: Clock
    entropy: Entropy


class Node(Protocol):
    """One life of a silo."""

    silo: Silo
    store: CrashingStore
    alive: bool

    async def start(self) -> None:
        """Return once it serves."""
        ...

    async def kill(self) -> None:
        """End it as SIGKILL does."""
        ...

    async def stop(self) -> None:
        """End it as SIGTERM does, and return when it has left."""
        ...


class World(Protocol):
    """Everything outside the silos."""

    def ports(self, machine: str) -> Ports:
        """For a client on some machine."""
        ...

    def node(self, machine: str, life: int) -> Node:
        """A silo that has not started."""
        ...

    def cut(self, a: str, b: str) -> None:
        """Cut the link between two machines."""
        ...

    def heal_all(self) -> None:
        """Make all links whole."""
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What all silos have in common."""

    kinds: tuple[type[Actor], ...]
    config: SiloConfig

    def silo(self, machine: str, store: CrashingStore, ports: Ports, processes: Processes) -> Silo:
        """A silo on a machine."""
        return Silo(
            self.kinds,
            cast("Store", store),  # it has all its methods, by delegation
            listen=f"{machine}:{PORT}",
            cluster=CLUSTER,
            secret=SECRET,
            accept_volatile_store=True,
            create=True,
            config=self.config,
            network=ports.network,
            clock=ports.clock,
            entropy=ports.entropy,
            processes=processes,
        )


def plan(kinds: Iterable[type[Actor]], config: SiloConfig) -> Plan:
    """What all silos of a cluster have in common."""
    return Plan(tuple(kinds), config)


# --- real time ------------------------------------------------------------------------------------------


class RealWorld:
    """Silos on the running loop, in real time.

    Args:
        common: see Plan.
        store: what they share.
    """

    def __init__(self, common: Plan, store: Store) -> None:
        self.plan: Final = common
        self.store: Final = store
        self.board: Final = Switchboard()
        self.processes: Final = ProcessTable()
        self.tasks: Final = TaskOwner("test cluster")
        self._clock: Final = SystemClock()
        self._entropy: Final = SystemEntropy()

    @classmethod
    async def open(cls, common: Plan) -> RealWorld:
        """A world with an empty store."""
        store = await open_store(
            "memory:", cluster=CLUSTER, clock=SystemClock(), entropy=SystemEntropy(), threads=False
        )
        world = cls(common, store)
        await world.tasks.open()
        return world

    def ports(self, machine: str) -> Ports:
        return Ports(network=self.board.at(machine), clock=self._clock, entropy=self._entropy)

    def node(self, machine: str, life: int) -> Node:  # noqa: ARG002 - each has its own identity anyway
        return _RealNode(self, machine)

    def cut(self, a: str, b: str) -> None:
        self.board.cut(a, b)

    def heal_all(self) -> None:
        self.board.heal_all()

    async def close(self) -> None:
        await self.tasks.close()
        await self.store.close()

    def __repr__(self) -> str:
        return f"<RealWorld {self.board!r}>"


class _RealNode:
    def __init__(self, world: RealWorld, machine: str) -> None:
        self._world: Final = world
        self._process: Final = world.processes.start()
        self.store = CrashingStore(world.store, self._struck)
        self.silo = world.plan.silo(machine, self.store, world.ports(machine), self._process)
        self.alive = False

    async def start(self) -> None:
        await self.silo.start()
        self.alive = True

    async def kill(self) -> None:
        if self.alive:
            self.alive = False
            self.store.die()
            await self.silo.kill()
            self._world.processes.end(self._process.pid)

    async def stop(self) -> None:
        if self.alive:
            self.alive = False
            await self.silo.close()
            self._world.processes.end(self._process.pid)

    def _struck(self) -> None:
        self._world.tasks.start(self.kill(), "crash point")


# --- virtual time ---------------------------------------------------------------------------------------


class VirtualWorld:
    """Silos in the simulator.

    Args:
        common: see Plan.
        loop: the simulator's.
        store: what they share.
    """

    def __init__(self, common: Plan, loop: SimLoop, store: FaultyStore) -> None:
        self.plan: Final = common
        self.loop: Final = loop
        self.store: Final = store
        self.network: Final = SimNetwork(loop)
        self.processes: Final = ProcessTable()
        self._clock: Final = SimClock(loop)

    @classmethod
    async def open(cls, common: Plan, loop: SimLoop) -> VirtualWorld:
        """A world with an empty store."""

        async def make() -> Store:
            return await open_store(
                "memory:",
                cluster=CLUSTER,
                clock=SimClock(loop),
                entropy=SeededEntropy(loop.seed),
                threads=False,
            )

        return cls(common, loop, await FaultyStore.open(loop, make))

    def ports(self, machine: str) -> Ports:
        return self._ports(machine)

    def node(self, machine: str, life: int) -> Node:
        return _VirtualNode(self, machine, f"{machine}#{life}")

    def cut(self, a: str, b: str) -> None:
        self.network.cut(a, b)

    def heal_all(self) -> None:
        self.network.heal_all()

    async def close(self) -> None:
        await self.store.close()

    def _ports(self, host: str) -> Ports:
        seed = self.loop.randomness(f"entropy of {host}").getrandbits(64)
        return Ports(
            network=self.network.host(host), clock=self._clock, entropy=SeededEntropy(seed)
        )

    def __repr__(self) -> str:
        return f"<VirtualWorld {self.loop.time():.3f} s {self.network!r}>"


class _VirtualNode:
    def __init__(self, world: VirtualWorld, machine: str, host: str) -> None:
        self._world: Final = world
        self._host: Final = host
        self._process: Final = world.processes.start()
        self.store = CrashingStore(world.store.host(host), self._die)
        self.silo = world.plan.silo(machine, self.store, world._ports(host), self._process)  # noqa: SLF001
        self.alive = False
        self._ready: asyncio.Future[None] = world.loop.create_future()
        self._main: asyncio.Task[None]

    async def start(self) -> None:
        self._main = self._world.loop.start(self._host, self._live(), name=f"silo {self._host}")
        await self._ready
        self.alive = True

    async def kill(self) -> None:
        if self.alive:
            self._die()

    async def stop(self) -> None:
        if self.alive:
            self.alive = False
            self._world.loop.call_soon(self.silo.stop, context=hosts.context(self._host))
            await self._main
            self._world.processes.end(self._process.pid)

    async def _live(self) -> None:
        try:
            async with self.silo:
                self._ready.set_result(None)
                await self.silo.run()
        except Exception as exc:
            if self._ready.done():
                raise
            self._ready.set_exception(exc)

    def _die(self) -> None:
        self.alive = False
        self._world.loop.kill(self._host)
        self.store.die()
        self._world.loop.call_in_world(0.0, self._world.processes.end, self._process.pid)
