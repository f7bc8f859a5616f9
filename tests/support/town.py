"""Whole silos with actors, and clients that call them, on virtual time. Owns how they live, what clients do,
and what must be true in the end; which faults fall, the nemesis decides.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

import durum
from durum import Actor, errors, read_only
from durum.client.client import Cluster, connect
from durum.config import SiloConfig
from durum.errors import DidRun
from durum.grains.placement import LeastLoaded, PreferLocal
from durum.ids import SeededEntropy
from durum.placement.ring import RING_VERSION
from durum.silo.silo import Silo
from durum.store.protocol import Genesis, Store
from durum.store.urls import open_store
from durum.testing import hosts, ledgers, loop, spans
from durum.testing.clock import SimClock
from durum.testing.history import History
from durum.testing.loop import SimLoop
from durum.testing.network import SimNetwork
from durum.testing.store import FaultyStore
from tests.support import pantry
from tests.support.pantry import Pantry
from tests.support.silos import SimProcesses

PORT: Final = 7600
RESTART_S: Final = 1.0
MARK: Final = "70" * 16


class Tally(Actor):
    """A counter that answers with its value."""

    value: int = 0

    async def add(self) -> int:
        self.value += 1
        return self.value

    @read_only
    async def read(self) -> int:
        return self.value


class Till(Actor):
    """An account that keeps its bookings, so that a doubled one shows."""

    balance: int = 100
    entries: list[tuple[str, int]] = []

    async def pay(self, to: str, amount: int, transfer: str) -> bool:
        """Give money to another till. May be repeated until it is answered.

        A call is no part of the caller's turn, so our half is saved before the other half is asked for.
        """
        if not any(name == transfer for name, _ in self.entries):
            if self.balance < amount:
                return False
            self.balance -= amount
            self.entries.append((transfer, -amount))
            await self.save()
        other = durum.options(self.actor(type(self), to), idempotency_key=transfer)
        await other.receive(amount, transfer)
        return True

    async def receive(self, amount: int, transfer: str) -> None:
        self.balance += amount
        self.entries.append((transfer, amount))

    @read_only
    async def close(self) -> tuple[int, list[tuple[str, int]]]:
        return self.balance, self.entries


class Wanderer(Tally, placement=LeastLoaded()):
    """A counter that is placed by itself, and goes away now and then."""

    async def add(self) -> int:
        value = await super().add()
        if value % 5 == 0:
            self.deactivate()
        return value


class Booth(Till, placement=PreferLocal()):
    """An account on the silo of whoever pays into it first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What the town's silos host.

    Args:
        tally, till: the kinds that clients call.
        idle: machines whose silos host neither.
        others: kinds that all of them host.
    """

    tally: type[Tally] = Tally
    till: type[Till] = Till
    idle: tuple[str, ...] = ()
    others: tuple[type[Actor], ...] = ()

    def kinds(self, machine: str) -> list[type[Actor]]:
        """What a silo there hosts."""
        own = [] if machine in self.idle else [self.tally, self.till]
        return [*own, Pantry, *self.others]


class Town:
    """The world of one run: see durum.testing.nemesis.World.

    Args:
        machines: where silos run.
        store: what they share.
        config: of all silos.
        market: see Market.
    """

    def __init__(
        self, machines: Sequence[str], store: FaultyStore, config: SiloConfig, market: Market
    ) -> None:
        self.loop: SimLoop = loop.current()
        self.network = SimNetwork(self.loop)
        self.store = store
        self.store_clock: SimClock
        self.config: Final = config
        self.market: Final = market
        self.machines: Final = tuple(machines)
        self.history: Final = History()
        self.transfers: Final[dict[str, ledgers.Transfer]] = {}
        self.jars: Final[list[pantry.Known]] = []
        self.unexpected: Final[list[BaseException]] = []
        self._clocks: Final[dict[str, SimClock]] = {}
        self._lives: Final[dict[str, int]] = {}
        self._living: Final[dict[str, str]] = {}
        self._restarts = True

    @classmethod
    async def open(
        cls,
        machines: Sequence[str] = ("a", "b", "c"),
        config: SiloConfig | None = None,
        market: Market = Market(),
    ) -> Town:
        """A town whose silos have started."""
        world = loop.current()
        clock = SimClock(world)

        async def make() -> Store:
            return await open_store(
                "memory:",
                cluster="town",
                clock=clock,
                entropy=SeededEntropy(world.seed),
                threads=False,
            )

        config = config or SiloConfig(partitions=16)
        town = cls(machines, await FaultyStore.open(world, make), config, market)
        town.store_clock = clock
        await town.store.host("init").create(
            Genesis(mark=MARK, cluster="town", partitions=config.partitions, ring=RING_VERSION)
        )
        for machine in machines:
            town.restart(machine)
        return town

    def silos(self) -> Sequence[str]:
        """Processes that live, stopped ones too."""
        return [host for host in self._living.values() if not self.loop.is_dead(host)]

    def clock(self, host: str) -> SimClock:
        """The clock of a host's machine."""
        machine = hosts.machine(host)
        if machine not in self._clocks:
            self._clocks[machine] = SimClock.seeded(self.loop, machine)
        return self._clocks[machine]

    def restart(self, machine: str) -> None:
        """Start a silo on a machine, unless one lives there."""
        if machine not in self.machines or not self._restarts:
            return
        before = self._living.get(machine)
        if before is not None and not self.loop.is_dead(before):
            return
        life = self._lives[machine] = self._lives.get(machine, 0) + 1
        host = self._living[machine] = f"{machine}#{life}"
        self.loop.start(host, self._live(host, machine), name=f"silo {host}")

    def entropy(self, host: str) -> SeededEntropy:
        """Randomness of a host's own."""
        return SeededEntropy(self.loop.randomness(f"entropy of {host}").getrandbits(64))

    async def _live(self, host: str, machine: str) -> None:
        try:
            async with Silo(
                self.market.kinds(machine),
                self.store.host(host),
                listen=f"{machine}:{PORT}",
                cluster="town",
                insecure=True,
                accept_volatile_store=True,
                rejoin=False,
                config=self.config,
                network=self.network.host(host),
                clock=self.clock(host),
                entropy=self.entropy(host),
                processes=SimProcesses(self.loop, host),
            ) as silo:
                await silo.run()
        except (errors.ClusterError, errors.StoreError, errors.ConfigError):
            pass  # as the command line does: the process ends, and its keeper starts another
        except Exception as exc:
            self.unexpected.append(exc)
        self.loop.call_in_world(0.0, self.loop.kill, host)
        self.loop.call_in_world(RESTART_S, self.restart, machine)

    # Clients ------------------------------------------------------------------------------------------

    def client(self, name: str) -> Cluster:
        """A client on a machine of its own; to be used by code that runs there."""
        return connect(
            [f"{machine}:{PORT}" for machine in self.machines],
            cluster="town",
            connect_timeout_s=60.0,
            network=self.network.host(name),
            clock=self.clock(name),
            entropy=self.entropy(name),
        )

    async def count(self, name: str, keys: Sequence[str], until_s: float) -> None:
        """Add and read at random, and write down every answer."""
        chance = self.loop.randomness(name)
        async with self.client(name) as cluster:
            while self.loop.time() < until_s:
                await asyncio.sleep(chance.expovariate(6))
                key = chance.choice(keys)
                tally = durum.options(
                    cluster.actor(self.market.tally, key), timeout=chance.choice([1, 5, 20])
                )
                if chance.random() < 0.6:
                    call = self.history.call(key, "add", None, tally.add(), client=name)
                else:
                    call = self.history.call(key, "read", None, tally.read(), client=name)
                with contextlib.suppress(errors.CallError):
                    await call

    async def trade(self, name: str, tills: Sequence[str], until_s: float) -> None:
        """Move money at random, each transfer repeated under its key until its fate is known."""
        chance = self.loop.randomness(name)
        number = 0
        async with self.client(name) as cluster:
            while self.loop.time() < until_s:
                await asyncio.sleep(chance.expovariate(3))
                source, target = chance.sample(tills, 2)
                number += 1
                await self._transfer(cluster, f"{name}-{number}", source, target, chance)

    async def _transfer(
        self, cluster: Cluster, transfer: str, source: str, target: str, chance: Random
    ) -> None:
        amount = chance.randint(1, 40)
        till = durum.options(
            cluster.actor(self.market.till, source), timeout=chance.choice([2, 10])
        )
        for _ in range(200):
            try:
                done = await till.pay(target, amount, transfer)
            except errors.CallError as exc:
                if exc.did_run is DidRun.NO and isinstance(exc, errors.Deadlock):
                    raise
                await asyncio.sleep(chance.uniform(0.1, 1.0))
            else:
                outcome = ledgers.Outcome.DONE if done else ledgers.Outcome.REFUSED
                self.transfers[transfer] = ledgers.Transfer(source, target, amount, outcome)
                return
        self.transfers[transfer] = ledgers.Transfer(source, target, amount, ledgers.Outcome.UNKNOWN)

    async def stock(self, name: str, pantries: Sequence[str], until_s: float) -> None:
        """Put and take jars at random, each of a name of its own, and write down what became of it."""
        chance = self.loop.randomness(name)
        number, mine = 0, [""]
        async with self.client(name) as cluster:
            while self.loop.time() < until_s:
                await asyncio.sleep(chance.expovariate(5))
                number += 1
                key, jar = chance.choice(pantries), f"{name}-{number}"
                ref = durum.options(cluster.actor(Pantry, key), timeout=chance.choice([1, 5, 20]))
                line, at, ran = f"+{jar}", None, DidRun.YES
                try:
                    match chance.choice(["put", "put", "take", "swap", "empty"]):
                        case "put":
                            at = await ref.put(jar)
                        case "swap":
                            at = await ref.swap(chance.choice(mine), jar)
                        case "take":
                            await ref.take(chance.choice(mine))
                            continue
                        case _:
                            if chance.random() < 0.3:
                                await ref.empty()
                            continue
                except errors.CallError as exc:
                    ran = exc.did_run
                    if ran is DidRun.YES:
                        ran = DidRun.MAYBE  # what a swap saved is its first half
                mine.append(jar)
                self.jars.append(pantry.Known(key, line, ran, at))

    # The end ------------------------------------------------------------------------------------------

    async def judge(
        self, keys: Sequence[str], tills: Sequence[str], pantries: Sequence[str] = ()
    ) -> list[str]:
        """What is wrong after all faults have ended; nothing where all adds up."""
        wrong = [f"unexpected: {exc!r}" for exc in self.unexpected]
        async with self.client("judge") as cluster:
            by_key = self.history.by_key()
            for key in keys:
                final = await durum.options(
                    cluster.actor(self.market.tally, key), timeout=60
                ).read()
                wrong += [f"{key}: {w}" for w in ledgers.check_counter(by_key.get(key, []), final)]
            closing = {}
            for till in tills:
                balance, entries = await durum.options(
                    cluster.actor(self.market.till, till), timeout=60
                ).close()
                closing[till] = ledgers.Account(balance, entries)
            wrong += ledgers.check_bank(dict.fromkeys(tills, 100), closing, self.transfers)
            for key in pantries:
                left = await durum.options(cluster.actor(Pantry, key), timeout=60).close()
                wrong += pantry.check(key, left, [one for one in self.jars if one.pantry == key])
        wrong += spans.check_log(self.store.log)
        return wrong

    async def close(self) -> None:
        """End everything."""
        self._restarts = False
        for host in self.silos():
            self.loop.kill(host)
        await self.store.close()
