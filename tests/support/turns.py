"""One silo, or a few, with their real store and a client, on virtual time. Owns how they are put together;
what they are asked, tests decide.

    @simulated
    async def test_something(house: House) -> None:
        cluster = await house.open([Account])
        await cluster.actor(Account, "ann").deposit(3)
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from durum.client.client import Cluster, connect
from durum.config import SiloConfig
from durum.grains.actor import Actor
from durum.ids import SeededEntropy, SiloId
from durum.silo.silo import Silo
from durum.store.protocol import Store
from durum.store.urls import open_store
from durum.testing import loop, run
from durum.testing.clock import SimClock
from durum.testing.loop import SimLoop
from durum.testing.network import SimNetwork
from durum.testing.store import Fate, FaultyStore, Stage
from durum.testing.store_client import Operation
from tests.support.silos import SimProcesses

SEED: Final = 7
SMALL: Final = SiloConfig(partitions=8)
T = TypeVar("T")


class House:
    """A world with one store, and what was opened in it."""

    def __init__(self, store: FaultyStore, clock: SimClock) -> None:
        self.clock: Final = clock  # the store's
        self.loop: Final[SimLoop] = loop.current()
        self.store: Final = store
        self.network: Final = SimNetwork(self.loop)
        self.silos: Final[dict[str, Silo]] = {}
        self.clusters: Final[list[Cluster]] = []
        self.operations: Final[list[Operation]] = []
        store.watch(self._note)

    @classmethod
    async def build(cls) -> House:
        """An empty world."""
        world = loop.current()
        clock = SimClock(world)

        async def make() -> Store:
            return await open_store(
                "memory:",
                cluster="default",
                clock=clock,
                entropy=SeededEntropy(world.seed),
                threads=False,
            )

        return cls(await FaultyStore.open(world, make), clock)

    async def open(self, kinds: Sequence[type[Actor]], config: SiloConfig = SMALL) -> Cluster:
        """Start a silo on machine `a`, and a client."""
        await self.start("a", kinds, config)
        return await self.connect("a", config=config)

    async def start(
        self,
        host: str,
        kinds: Sequence[type[Actor]],
        config: SiloConfig = SMALL,
        secret: str = "",
        **given: Any,
    ) -> Silo:
        """Start a silo as a process of that name, and wait until it serves what it should."""
        machine = host.partition("#")[0]
        silo = Silo(
            kinds,
            self.store.host(host),
            listen=f"{machine}:7600",
            secret=secret,
            insecure=not secret,
            accept_volatile_store=True,
            create=True,
            config=config,
            network=self.network.host(host),
            clock=SimClock(self.loop),
            entropy=SeededEntropy(self.loop.randomness(host).getrandbits(60)),
            processes=SimProcesses(self.loop, host),
            **given,
        )
        self.silos[host] = silo
        await self.loop.start(host, silo.start())
        return silo

    async def connect(
        self, *machines: str, config: SiloConfig = SMALL, host: str = "client", **given: Any
    ) -> Cluster:
        """Open a client on a machine of its own."""
        cluster = connect(
            [f"{machine}:7600" for machine in machines],
            limits=config.limits,
            network=self.network.host(host),
            clock=SimClock(self.loop),
            entropy=SeededEntropy(11),
            **{"secret": "", **given},
        )
        self.clusters.append(cluster)
        return await cluster.open()

    def silo(self, host: str = "a") -> Silo:
        """One of the silos."""
        return self.silos[host]

    def kill(self, host: str) -> None:
        """End a silo's process as SIGKILL does."""
        self.loop.kill(host)
        del self.silos[host]

    def next_commits(self, *fates: Fate, host: str = "a") -> None:
        """Decide what becomes of the commits that a silo sends next."""
        for fate in fates:
            self.store.next(host, "commit", fate)

    def commits(self) -> list[Operation]:
        """Commits sent so far."""
        return [operation for operation in self.operations if operation.name == "commit"]

    def busy(self, host: str = "a") -> int:
        """Calls that a silo has on its hands."""
        return self.silo(host).life.services.load.calls

    def _note(self, operation: Operation, stage: Stage) -> None:
        if stage is Stage.SENT:
            self.operations.append(operation)

    async def close(self) -> None:
        """End everything in good order."""
        self.store.heal_all()
        for cluster in self.clusters:
            await cluster.close()
        for silo in self.silos.values():
            await silo.close()
        await self.store.close()


def simulated(test: Callable[[House], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test's coroutine in a house of its own, on virtual time."""

    @functools.wraps(test)
    def runs() -> None:
        async def main() -> None:
            house = await House.build()
            try:
                await test(house)
            finally:
                await house.close()

        run.run(main(), SEED)

    del runs.__wrapped__  # pytest would look for a fixture named `house`
    return runs


async def outcome(call: Awaitable[T]) -> T | Exception:
    """What a call returned or raised, as a value."""
    try:
        return await call
    except Exception as exc:
        return exc


async def settled(*tasks: asyncio.Future[Any]) -> list[Any]:
    """What each has returned or raised."""
    return list(await asyncio.gather(*tasks, return_exceptions=True))


__all__ = ["SMALL", "Fate", "House", "SiloId", "outcome", "settled", "simulated"]
