"""Clients that reach only some silos: their calls go through one that they do reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

import durum
from durum import Actor, errors, read_only
from durum.client.client import Cluster
from durum.config import Limits, SiloConfig
from durum.errors import DidRun
from durum.testing import TestCluster, simulate

KEYS = tuple(f"k{n}" for n in range(20))
CONFIG = SiloConfig(partitions=32, limits=Limits(silo_calls=40))


class Broke(Exception):
    """An exception of a user's."""


class Counter(Actor):
    value: int = 0

    async def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    async def add_slowly(self, amount: int, seconds: float) -> int:
        self.value += amount
        await asyncio.sleep(seconds)
        return self.value

    async def fail(self) -> None:
        raise Broke(f"{self.key} is broke")

    @read_only
    async def get(self) -> int:
        return self.value

    async def caller(self) -> str:
        return f"{self.context.caller}"


@asynccontextmanager
async def edge(
    reach: tuple[int, ...] = (0,), via: tuple[int, ...] = (0,)
) -> AsyncIterator[tuple[TestCluster, Cluster]]:
    """A cluster of three, and a client that reaches some of it only."""
    async with TestCluster([Counter], config=CONFIG) as cluster:
        cluster.partition(["edge"], [n for n in (0, 1, 2) if n not in reach])
        async with cluster.connect("edge", via=via, routing="gateway") as client:
            yield cluster, client


def on(cluster: TestCluster, silo: int, n: int = 0) -> str:
    """A key whose actor lives on a silo."""
    return [k for k in KEYS if cluster.owner(cluster.actor(Counter, k)) == silo][n]


async def all_actors_are_reached_through_one_silo() -> None:
    async with edge() as (cluster, client):
        for key in KEYS:
            assert await client.actor(Counter, key).add(1) == 1
        assert {cluster.owner(client.actor(Counter, key)) for key in KEYS} == {0, 1, 2}
        assert (
            await asyncio.gather(*(client.actor(Counter, key).add(1) for key in KEYS)) == [2] * 20
        )
        assert await client.actor(Counter, KEYS[0]).caller() == "None"


async def errors_come_through_unchanged() -> None:
    async with edge() as (cluster, client):
        far = client.actor(Counter, on(cluster, 2))
        with pytest.raises(Broke, match="is broke") as caught:
            await far.fail()
        assert any("in fail" in note for note in caught.value.__notes__)
        with pytest.raises(errors.ArgumentError, match="amount"):
            await far.add("one")  # type: ignore[arg-type]


async def deadlines_go_on_with_the_call() -> None:
    async with edge() as (cluster, client):
        key = on(cluster, 1)
        slow = durum.options(client.actor(Counter, key), timeout=0.2)
        with pytest.raises(errors.CallTimeout):
            await slow.add_slowly(1, 60)
        near = durum.options(cluster.actor(Counter, key), timeout=5)
        assert await near.add(1) == 1, "the turn was cancelled and rolled back at its silo"


async def cancellation_goes_on_with_the_call() -> None:
    async with edge() as (cluster, client):
        key = on(cluster, 1)
        call = asyncio.get_running_loop().create_task(client.actor(Counter, key).add_slowly(1, 60))
        while not cluster.silo(1).life.services.load.calls:
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        near = durum.options(cluster.actor(Counter, key), timeout=5)
        assert await near.add(1) == 1


async def keys_go_on_with_the_call() -> None:
    async with edge() as (cluster, client):
        key = on(cluster, 2)
        once = durum.options(client.actor(Counter, key), idempotency_key="once")
        assert [await once.add(1), await once.add(1)] == [1, 1]
        near = durum.options(cluster.actor(Counter, key), idempotency_key="once")
        assert await near.add(1) == 1, "whatever way it takes"


async def a_killed_owner_is_replaced_behind_the_gateway() -> None:
    async with edge() as (cluster, client):
        key = on(cluster, 2)
        assert await client.actor(Counter, key).add(1) == 1
        await cluster.kill(2)
        assert await client.actor(Counter, key).add(1) == 2


async def a_killed_gateway_is_replaced() -> None:
    async with edge(reach=(0, 1), via=(0, 1)) as (cluster, client):
        key = on(cluster, 2)
        far = client.actor(Counter, key)
        loop = asyncio.get_running_loop()
        plain = loop.create_task(far.add_slowly(1, 0.2))
        keyed = [
            loop.create_task(durum.options(far, idempotency_key=f"key {n}").add_slowly(1, 0.01))
            for n in range(5)
        ]
        while cluster.silo(2).life.services.load.calls < 6:
            await asyncio.sleep(0.001)
        await cluster.kill(0)
        await cluster.kill(1)
        with pytest.raises(errors.SiloLost) as caught:
            await plain
        assert caught.value.did_run is DidRun.MAYBE
        await cluster.restart(0)
        # Whose caller is gone is cancelled and rolled back; those with a key come again.
        assert sorted(await asyncio.gather(*keyed)) == [1, 2, 3, 4, 5], "each took effect once"
        assert await far.get() == 5


async def a_stopped_gateway_fails_no_call() -> None:
    async with edge(reach=(0, 1), via=(0, 1)) as (cluster, client):
        key = on(cluster, 2)
        loop = asyncio.get_running_loop()
        slow = [loop.create_task(client.actor(Counter, k).add_slowly(1, 0.5)) for k in KEYS]
        while sum(cluster.silo(n).life.services.load.calls for n in (0, 1, 2)) < len(KEYS):
            await asyncio.sleep(0.001)
        stopping = loop.create_task(cluster.stop(0))
        while not stopping.done():
            await client.actor(Counter, f"{key} meanwhile").add(1)
            await asyncio.sleep(0.001)
        await stopping
        assert await asyncio.gather(*slow) == [1] * len(KEYS)


async def too_much_is_refused_at_the_gateway() -> None:
    async with edge() as (cluster, client):
        keys = [f"many {n}" for n in range(400)]
        far = [k for k in keys if cluster.owner(cluster.actor(Counter, k)) != 0][:60]
        calls = [client.actor(Counter, key).add_slowly(1, 0.1) for key in far]
        found = await asyncio.gather(*calls, return_exceptions=True)
        refused = [each for each in found if isinstance(each, errors.Overloaded)]
        assert len(refused) == 20
        assert all("passes on 40 calls" in str(each) for each in refused)
        assert await client.actor(Counter, far[0]).add(1) == 2, "room again"


async def nobody_in_reach_ends_in_a_timeout_that_says_so() -> None:
    async with edge() as (cluster, client):
        await cluster.kill(0)
        far = durum.options(client.actor(Counter, "k"), timeout=0.5)
        with pytest.raises(errors.CallTimeout, match=r"no silo can be reached.*did not run"):
            await far.add(1)


Scenario = Callable[[], Awaitable[None]]
SCENARIOS: tuple[Scenario, ...] = (
    all_actors_are_reached_through_one_silo,
    errors_come_through_unchanged,
    deadlines_go_on_with_the_call,
    cancellation_goes_on_with_the_call,
    keys_go_on_with_the_call,
    a_killed_owner_is_replaced_behind_the_gateway,
    a_killed_gateway_is_replaced,
    a_stopped_gateway_fails_no_call,
    too_much_is_refused_at_the_gateway,
    nobody_in_reach_ends_in_a_timeout_that_says_so,
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
async def test_gateway_in_real_time(scenario: Scenario) -> None:
    """A client behind a load balancer, or outside of the silos' network, has the same promises."""
    await scenario()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_gateway_on_virtual_time(scenario: Scenario, seed: int) -> None:
    """The same, with messages that take their time and come in other orders."""
    simulate(scenario(), seed)  # type: ignore[arg-type]


async def test_without_a_gateway_the_others_stay_out_of_reach() -> None:
    """What this is for: straight routing cannot work here, and its error has to say why."""
    async with TestCluster([Counter], config=CONFIG) as cluster:
        cluster.partition(["edge"], [1, 2])
        async with cluster.connect("edge", via=[0]) as client:
            far = durum.options(client.actor(Counter, on(cluster, 1)), timeout=0.3)
            with pytest.raises(errors.CallTimeout):
                await far.add(1)


def test_a_silo_passes_on_for_clients_only() -> None:
    """What silos send each other is answered, never passed on, so that no call can go in circles."""

    async def main() -> None:
        async with TestCluster([Counter], config=CONFIG, routing="gateway") as cluster:
            # The owner is cut off from silo 0, which keeps trying; nobody else takes its part.
            key = on(cluster, 1)
            cluster.partition([0], [1])
            async with cluster.connect("edge", via=[0], routing="gateway") as client:
                cluster.partition(["edge"], [1, 2])
                far = durum.options(client.actor(Counter, key), timeout=2)
                with pytest.raises(errors.CallTimeout):
                    await far.add(1)
            relayed = [cluster.silo(n).life.services.load.calls for n in (0, 2)]
            assert relayed == [0, 0]

    simulate(main(), 1)


def test_routing_is_one_of_two() -> None:
    """A misspelt routing must not quietly mean the other one."""
    with pytest.raises(errors.ConfigError, match='neither "direct" nor "gateway"'):
        durum.connect("127.0.0.1:1", routing="gatewya")  # type: ignore[arg-type]
