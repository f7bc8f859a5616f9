"""TestCluster as users' tests meet it: in real time and on virtual time, with all that can be done to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest

import durum
from durum import Actor, errors, read_only
from durum.errors import DidRun
from durum.testing import CALM, TestCluster, simulate

KEYS = tuple(f"k{n}" for n in range(12))


class Account(Actor):
    balance: Decimal = Decimal(0)

    async def deposit(self, amount: Decimal) -> Decimal:
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.balance += amount
        return self.balance

    @read_only
    async def get(self) -> Decimal:
        return self.balance


@asynccontextmanager
async def stocked(silos: int = 3) -> AsyncIterator[TestCluster]:
    """A cluster in which every key has one."""
    async with TestCluster([Account], silos=silos) as cluster:
        for key in KEYS:
            await cluster.actor(Account, key).deposit(Decimal(1))
        yield cluster


async def balances(cluster: TestCluster) -> list[Decimal]:
    return [await cluster.actor(Account, key).get() for key in KEYS]


async def kills_and_restarts() -> None:
    async with stocked() as cluster:
        victim = cluster.owner(cluster.actor(Account, KEYS[0]))
        await cluster.kill(victim)
        assert victim not in cluster.alive
        assert await balances(cluster) == [1] * len(KEYS)
        await cluster.restart(victim)
        await cluster.settled()
        assert list(cluster.alive) == [0, 1, 2]
        assert await balances(cluster) == [1] * len(KEYS)
        assert cluster.statistics().silos == 3
        assert cluster.statistics().activations >= len(KEYS)


async def stops_without_failing_a_call() -> None:
    async with stocked() as cluster:
        stopping = asyncio.get_running_loop().create_task(cluster.stop(1))
        while not stopping.done():
            await cluster.actor(Account, KEYS[0]).deposit(Decimal(1))
            await asyncio.sleep(0.001)
        await stopping
        number = await cluster.add()
        assert number == 3
        await cluster.settled()
        assert await cluster.actor(Account, KEYS[1]).get() == 1


async def partitions() -> None:
    config = durum.SiloConfig(
        partitions=16,
        lease=durum.Lease(lease_s=1.5, renew_s=0.3, store_timeout_s=0.5),
        probing=durum.Probing(poll_s=0.1, probe_s=0.2, vote_life_s=10),
    )
    async with TestCluster([Account], config=config) as cluster:
        alice = cluster.actor(Account, "alice")
        await alice.deposit(Decimal(1))
        owner = cluster.owner(alice)
        cluster.partition([owner], [n for n in cluster.alive if n != owner] + ["client"])
        # The others declare it dead, wait out its lease and take over; its own grains go with it.
        assert (
            await durum.options(alice, timeout=20, idempotency_key="two").deposit(Decimal(1)) == 2
        )
        assert cluster.owner(alice) != owner
        cluster.heal()
        await cluster.settled()
        assert await alice.get() == 2


async def crashes_after_a_commit() -> None:
    async with stocked() as cluster:
        alice = cluster.actor(Account, KEYS[0])
        point = cluster.crash(cluster.owner(alice), "after", "commit", nth=2)
        assert await alice.deposit(Decimal(1)) == 2
        with pytest.raises(errors.SiloLost) as caught:
            await alice.deposit(Decimal(1))
        assert caught.value.did_run is DidRun.MAYBE
        await point.wait()
        assert point.reached
        assert await alice.get() == 3, "it was committed, though nobody was told"


async def crashes_before_a_commit() -> None:
    async with stocked() as cluster:
        alice = cluster.actor(Account, KEYS[0])
        point = cluster.crash(cluster.owner(alice), "before", "commit")
        with pytest.raises(errors.SiloLost):
            await alice.deposit(Decimal(1))
        await point.wait()
        assert await alice.get() == 1, "the store never heard of it"
        keyed = durum.options(alice, idempotency_key="pay")
        cluster.crash(cluster.owner(alice), "before", "commit")
        assert await keyed.deposit(Decimal(1)) == 2, "with a key, it is sent again by itself"


SCENARIOS = (
    kills_and_restarts,
    stops_without_failing_a_call,
    partitions,
    crashes_after_a_commit,
    crashes_before_a_commit,
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
async def test_cluster_in_real_time(scenario: object) -> None:
    """Users' tests with real clocks and their own asyncio loop see what they see in production."""
    await scenario()  # type: ignore[operator]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_cluster_on_virtual_time(scenario: object, seed: int) -> None:
    """The same without waiting, and the same each time."""
    simulate(scenario(), seed)  # type: ignore[operator]


@pytest.mark.parametrize("seed", range(8))
def test_a_silo_that_is_cut_off_stays_away_until_it_is_reached(seed: int) -> None:
    """It still reaches the store, where it could join anew, be given partitions, and be evicted again with
    them, over and over: its actors would be served nowhere for minutes."""

    async def main() -> None:
        async with TestCluster([Account]) as cluster:
            alice = cluster.actor(Account, "alice")
            await alice.deposit(Decimal(1))
            owner = cluster.owner(alice)
            cluster.partition([owner], [n for n in cluster.alive if n != owner] + ["client"])
            patient = durum.options(alice, timeout=20, idempotency_key="two")
            assert await patient.deposit(Decimal(1)) == 2
            await cluster.skip(seconds=40)
            lives = cluster.silo(cluster.owner(alice)).life.view.rows
            assert len(lives) == 3, "it has not joined under another id"
            cluster.heal()
            await cluster.settled()
            assert await alice.get() == 2

    simulate(main(), seed)


def test_a_silo_that_cannot_join_again_can_be_stopped() -> None:
    """SIGTERM has to end a silo whatever it is busy with; one that tries to join may try for ever."""

    async def main() -> None:
        async with TestCluster([Account]) as cluster:
            cluster.partition([0], [1, 2])
            await cluster.skip(seconds=30)
            assert {row.address for row in cluster.silo(1).life.view.active} == {
                "silo-1:7600",
                "silo-2:7600",
            }
            async with asyncio.timeout(10):
                await cluster.stop(0)

    simulate(main(), 1)


def test_virtual_time_passes_without_waiting() -> None:
    """Nobody tests what happens after three days by waiting for three days."""

    async def main() -> None:
        async with TestCluster([Account], config=CALM) as cluster:
            alice = cluster.actor(Account, "alice")
            await alice.deposit(Decimal(1))
            before = asyncio.get_running_loop().time()
            await cluster.skip(days=1, hours=2)
            assert asyncio.get_running_loop().time() - before == 26 * 3600
            assert cluster.statistics().activations == 0, "the idle are put away meanwhile"
            assert await alice.get() == 1
            await cluster.kill(cluster.owner(alice))
            assert await alice.get() == 1

    began = time.perf_counter()
    simulate(main(), 1)
    assert time.perf_counter() - began < 15


async def test_skipping_time_needs_virtual_time() -> None:
    """A test that skips would otherwise stand still for three days."""
    async with TestCluster([Account], silos=1) as cluster:
        with pytest.raises(errors.ConfigError, match="needs virtual time"):
            await cluster.skip(days=3)


async def test_a_demand_for_virtual_time_is_kept_or_refused() -> None:
    """A test meant for virtual time must not quietly wait in real time, nor the other way round."""
    with pytest.raises(errors.ConfigError, match="time is real"):
        async with TestCluster([Account], virtual=True):
            pass


async def test_mistakes_are_explained() -> None:
    """What a test asks for too early, or of a silo in the wrong state."""
    cluster = TestCluster([Account], silos=1)
    with pytest.raises(errors.ConfigError, match="async with"):
        cluster.actor(Account, "alice")
    with pytest.raises(errors.ConfigError, match="async with"):
        await cluster.kill(0)
    with pytest.raises(errors.ConfigError, match="at least 1"):
        TestCluster([Account], silos=0)
    async with cluster:
        with pytest.raises(errors.ConfigError, match="silo 0 lives"):
            await cluster.restart(0)
        with pytest.raises(errors.ConfigError, match="no operation of a store"):
            cluster.crash(0, "after", "comit")
        with pytest.raises(errors.ConfigError, match="expected a reference"):
            cluster.owner("alice")  # type: ignore[arg-type]


def test_a_run_repeats_from_its_seed() -> None:
    """The seed that a failure prints has to bring the failure back."""

    async def main() -> list[object]:
        async with stocked() as cluster:
            await cluster.kill(1)
            found = await balances(cluster)
            loop = asyncio.get_running_loop()
            return [*found, loop.time(), loop.digest, cluster.statistics()]  # type: ignore[attr-defined]

    assert simulate(main(), 7) == simulate(main(), 7)


class Bell(Actor, durum.Publishes[int]):
    rings: int = 0

    async def ring(self) -> None:
        self.rings += 1
        self.publish(self.rings)


async def watches() -> None:
    async with TestCluster([Bell], silos=2) as cluster:
        bell = cluster.actor(Bell, "a")
        async with durum.watch(bell) as events:
            await bell.ring()
            assert await anext(events) == 1
            hearing = asyncio.ensure_future(anext(events))
            await cluster.kill(cluster.owner(bell))
            assert await hearing == durum.Gap(None, "moved")
            await bell.ring()
            assert await anext(events) == 2


def test_watches_go_on_in_a_test_that_kills() -> None:
    """What a user's code does about a Gap is tried by a kill, on virtual time."""
    simulate(watches(), 1)
