"""A whole cluster inside a test: silos, a store, a network and a client, in one process. Owns what a test can
do to them; where they live, worlds know.

    async with TestCluster(kinds=[Account], silos=3) as cluster:
        alice = cluster.actor(Account, "alice")
        await alice.deposit(Decimal(10))
        await cluster.kill(cluster.owner(alice))
        assert await alice.get_balance() == 10
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import combinations, product
from types import TracebackType
from typing import ClassVar, Final, Literal, Self, TypeAlias, TypeVar

from durum import errors
from durum.client.client import Cluster, Routing, connect
from durum.config import Limits, SiloConfig
from durum.grains.actor import Actor
from durum.grains.reference import Reference, target_of
from durum.ids import Address, join_address
from durum.placement.partitions import partition_of
from durum.silo.silo import Silo
from durum.testing.crashes import CrashPoint, When
from durum.testing.loop import SimLoop
from durum.testing.worlds import (
    CLUSTER,
    PORT,
    SECRET,
    USUAL,
    Node,
    Ports,
    RealWorld,
    VirtualWorld,
    World,
    plan,
)
from durum.views import Status

A = TypeVar("A", bound=Actor)

CLIENT: Final = "client"
"""The machine of `cluster.client`."""
Machine: TypeAlias = int | str  # a silo by its number, or a client by its name
_LOOK_S: Final = 0.01
_NEWS_S: Final = 0.01
"""So long the news of a death is under way, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a cluster has done so far. Counts of silos that died are in it, too.

    Args:
        silos: that live.
        activations: actors that are in memory now.
        committed: turns whose changes were kept.
        rolled_back: turns whose changes were undone.
        fenced: turns that the store refused, since their silo was not the owner any more.
        store: operations of the store, by name.
    """

    silos: int
    activations: int
    committed: int
    rolled_back: int
    fenced: int
    store: Mapping[str, int]


class TestCluster:
    """Silos 0, 1, 2 ..., and a client. Nothing of it leaves the process or outlives its `async with`.

    Args:
        kinds: actor classes, hosted by all silos.
        silos: how many.
        virtual: True: demand virtual time, for tests marked `@pytest.mark.durum(virtual=True)` or run
            by durum.testing.simulate; False: demand real time; None: take the time that the loop has.
        config: of all silos; by default as in production, with 64 partitions, and with a check that
            `@read_only` methods change nothing.
        routing: of the client; see durum.connect.

    Raises:
        ConfigError: a kind or setting is wrong, or the loop's time is not the one demanded.
    """

    __test__: ClassVar[bool] = False  # for pytest, which takes every Test* for tests

    def __init__(
        self,
        kinds: Iterable[type[Actor]],
        *,
        silos: int = 3,
        virtual: bool | None = None,
        config: SiloConfig | None = None,
        routing: Routing = "direct",
    ) -> None:
        if silos < 1:
            raise errors.ConfigError(f"silos is {silos}; it must be at least 1.")
        self._plan = plan(kinds, config or USUAL)
        self._virtual = virtual
        self._routing: Final = routing
        self._lives: Final[list[list[Node]]] = [[] for _ in range(silos)]
        self._connected: Cluster | None = None
        self._stack: Final = AsyncExitStack()
        self._open: World | None = None

    # What a test talks to -----------------------------------------------------------------------------

    @property
    def client(self) -> Cluster:
        """A client of the cluster, connected."""
        if self._connected is None:
            raise _not_open()
        return self._connected

    def actor(self, kind: type[A], key: str) -> A:
        """Refer to an actor, as `cluster.client.actor` does."""
        return self.client.actor(kind, key)

    def connect(
        self,
        name: str,
        *,
        via: Sequence[int] | None = None,
        routing: Routing = "direct",
        limits: Limits | None = None,
    ) -> Cluster:
        """One more client, on a machine of its own. Open it with `async with`.

        Args:
            name: its machine's, for `partition`.
            via: the silos whose addresses it is given; None: all.
            routing: see durum.connect.
            limits: see Limits.
        """
        ports = self._world.ports(name)
        return self._client(ports, via, routing, limits)

    def silo(self, number: int) -> Silo:
        """A silo's present or last life."""
        return self._node(number).silo

    @property
    def alive(self) -> Sequence[int]:
        """The numbers of the silos that live."""
        return [n for n, lives in enumerate(self._lives) if lives and lives[-1].alive]

    def owner(self, actor: Actor) -> int:
        """The number of the silo that an actor lives on, or would.

        Args:
            actor: a reference.

        Raises:
            ConfigError: no living silo owns it now; `await cluster.settled()` waits until one does.
        """
        ref: object = actor
        if not isinstance(ref, Reference):
            raise errors.ConfigError(f"owner(): expected a reference, got {actor!r}.")
        partition = partition_of(target_of(ref).grain, self._plan.config.partitions)
        for number in self.alive:
            if self.silo(number).life.ownership.holding(partition) is not None:
                return number
        raise errors.ConfigError(f"no living silo owns {actor!r} now; await cluster.settled().")

    def statistics(self) -> Statistics:
        """The counters as they are now."""
        store: Counter[str] = Counter()
        committed = rolled_back = fenced = activations = 0
        for node in (node for lives in self._lives for node in lives):
            store.update(node.store.counts)
            life = node.silo.life
            activations += len(life.catalog.activations) if node.alive else 0
            committed += life.services.load.committed
            rolled_back += life.services.load.rolled_back
            fenced += life.services.load.fenced
        return Statistics(
            silos=len(self.alive),
            activations=activations,
            committed=committed,
            rolled_back=rolled_back,
            fenced=fenced,
            store=dict(sorted(store.items())),
        )

    # What a test does to it ---------------------------------------------------------------------------

    async def kill(self, number: int) -> None:
        """Kill a silo, as SIGKILL does: nothing of it runs again. The others notice at once."""
        await self._node(number).kill()
        await asyncio.sleep(_NEWS_S)

    async def stop(self, number: int) -> None:
        """Stop a silo, as SIGTERM does: it finishes its turns, hands everything over and leaves."""
        await self._node(number).stop()

    async def restart(self, number: int) -> None:
        """Start a silo anew on the machine of one that was killed or stopped."""
        lives = self._lives[number]
        if lives and lives[-1].alive:
            raise errors.ConfigError(f"silo {number} lives; kill or stop it first.")
        await self._start(number)

    async def add(self) -> int:
        """Start one more silo. Returns its number."""
        self._lives.append([])
        await self._start(len(self._lives) - 1)
        return len(self._lives) - 1

    def partition(self, *sides: Iterable[Machine]) -> None:
        """Cut the network between groups of machines, until `heal`. The store is reached from all sides.

        Args:
            sides: silos by number, clients by name ("client" is `cluster.client`). Whoever is in none
                reaches all.
        """
        groups = [[_machine(each) for each in side] for side in sides]
        for one, other in combinations(groups, 2):
            for a, b in product(one, other):
                self._world.cut(a, b)

    def heal(self) -> None:
        """Make the network whole."""
        self._world.heal_all()

    def crash(
        self, number: int, when: Literal["before", "after"], operation: str, *, nth: int = 1
    ) -> CrashPoint:
        """Kill a silo at an operation of the store: the moments at which promises break, if they do.

            point = cluster.crash(0, "after", "commit")     # committed, and nobody was told
            ...
            await point.wait()

        Args:
            number: which silo; this life of it only.
            when: "before": the store never hears of the operation; "after": it was done, and the silo
                does not learn of it.
            operation: `commit`, `load`, `take`, `beat` ... (durum/store/protocol.py), or `any`.
            nth: at which of them, from now on.
        """
        point = CrashPoint(operation, When(when), nth)
        self._node(number).store.crash(point)
        return point

    async def settled(self, timeout_s: float = 60.0) -> None:
        """Return once all living silos know each other, and share all partitions among them.

        Raises:
            TimeoutError: that did not come about; in a partitioned cluster it may not.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while not self._is_settled():  # noqa: ASYNC110 - a test looks from outside
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise TimeoutError(f"{self!r} has not settled within {timeout_s:g} s") from None

    async def skip(
        self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Let virtual time pass. All that is due in it happens, one thing after another.

        Raises:
            ConfigError: the cluster lives in real time.
        """
        if not isinstance(self._world, VirtualWorld):
            raise errors.ConfigError(
                "skip() needs virtual time: mark the test @pytest.mark.durum(virtual=True)."
            )
        span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        await asyncio.sleep(span.total_seconds())

    # Its life -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        virtual = isinstance(loop, SimLoop)
        if self._virtual not in (None, virtual):
            raise errors.ConfigError(
                "the running loop's time is real. Mark the test @pytest.mark.durum(virtual=True), or run"
                " it by durum.testing.simulate."
                if self._virtual
                else "the running loop's time is virtual; virtual=False demands real time."
            )
        self._open = (
            await VirtualWorld.open(self._plan, loop)
            if isinstance(loop, SimLoop)
            else await RealWorld.open(self._plan)
        )
        async with asyncio.TaskGroup() as group:
            for number in range(len(self._lives)):
                group.create_task(self._start(number), name=f"start silo {number}")
        ports = self._world.ports(CLIENT)
        made = self._client(ports, None, self._routing, None)
        self._connected = await self._stack.enter_async_context(made)
        await self.settled()

    async def _end(self) -> None:
        self._connected = None
        await self._stack.aclose()
        world, self._open = self._open, None
        if world is None:
            return
        for node in [node for lives in self._lives for node in lives]:
            await node.kill()  # nobody will see what a hand-over would keep
        await world.close()

    async def _start(self, number: int) -> None:
        lives = self._lives[number]
        node = self._world.node(_machine(number), len(lives) + 1)
        await node.start()
        lives.append(node)

    def _client(
        self,
        ports: Ports,
        via: Sequence[int] | None,
        routing: Routing,
        limits: Limits | None,
    ) -> Cluster:
        numbers = range(len(self._lives)) if via is None else via
        return connect(
            [_address(number) for number in numbers],
            cluster=CLUSTER,
            secret=SECRET,
            routing=routing,
            limits=limits or self._plan.config.limits,
            network=ports.network,
            clock=ports.clock,
            entropy=ports.entropy,
        )

    def _node(self, number: int) -> Node:
        if self._open is None or not self._lives[number]:
            raise _not_open()
        return self._lives[number][-1]

    @property
    def _world(self) -> World:
        if self._open is None:
            raise _not_open()
        return self._open

    def _is_settled(self) -> bool:
        lives = [self.silo(number).life for number in self.alive]
        expected = {life.id for life in lives}
        served: Counter[int] = Counter()
        for life in lives:
            rows = life.view.rows
            if {row.silo for row in rows if row.status is not Status.DEAD} != expected:
                return False
            served.update(
                partition
                for partition in range(self._plan.config.partitions)
                if life.ownership.holding(partition) is not None
                and life.ownership.wanted(partition) == life.id
            )
        return len(served) == self._plan.config.partitions

    def __repr__(self) -> str:
        return f"<TestCluster alive={list(self.alive)} of {len(self._lives)} {self._open!r}>"


def _machine(machine: Machine) -> str:
    return machine if isinstance(machine, str) else f"silo-{machine}"


def _address(number: int) -> Address:
    return join_address(_machine(number), PORT)


def _not_open() -> errors.ConfigError:
    return errors.ConfigError(
        "the cluster is not open: use `async with TestCluster(...) as cluster`."
    )
