"""Stateless workers: on every silo, several at once for one key, and nobody looks up where they are."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from durum import errors
from durum.grains.actor import Actor, one_way
from durum.grains.placement import StatelessWorker
from durum.grains.reference import options
from durum.testing.hosts import current
from tests.support.turns import House, outcome, settled, simulated

hosts: list[str] = []
ends: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    hosts.clear()
    ends.clear()


class Resize(Actor, placement=StatelessWorker(max_local=3), idle_after=timedelta(seconds=20)):
    _made: int = 0

    async def on_activate(self) -> None:
        self._made = 1

    async def on_deactivate(self, reason: str) -> None:
        ends.append(reason)

    async def work(self, seconds: float = 0.0) -> int:
        hosts.append(current())
        await asyncio.sleep(seconds)
        self._made += 1
        return self._made

    async def whoami(self) -> str:
        return self.key

    @one_way
    async def note(self) -> None:
        hosts.append(current())


class Plain(Actor, placement=StatelessWorker(max_local=1)):
    async def again(self, depth: int) -> int:
        return depth if depth == 0 else await self.actor(Plain, self.key).again(depth - 1)


class Boss(Actor):
    async def delegate(self, times: int) -> None:
        for _ in range(times):
            await self.actor(Resize, "r").work()


class Other(Actor):
    async def nothing(self) -> None: ...


@simulated
async def test_calls_of_one_key_run_side_by_side_up_to_the_limit(house: House) -> None:
    """More than that wait, as calls of other actors do."""
    cluster = await house.open([Resize])
    worker = cluster.actor(Resize, "r")
    began = house.loop.time()
    results = await asyncio.gather(*(worker.work(1.0) for _ in range(6)))
    assert sorted(results) == [2, 2, 2, 3, 3, 3]
    assert 1.9 < house.loop.time() - began < 2.5
    assert len(house.silo().life.catalog.workers.activations) == 3
    assert await worker.whoami() == "r"
    assert house.busy() == 0


@simulated
async def test_an_actor_calls_the_workers_of_its_own_silo(house: House) -> None:
    """What needs no state need not cross the network."""
    await house.start("a", [Resize, Boss])
    await house.start("b", [Resize, Boss])
    cluster = await house.connect("a")
    await asyncio.sleep(5)
    for n in range(8):
        hosts.clear()
        boss = cluster.actor(Boss, f"boss{n}")
        await boss.delegate(3)
        (owner,) = [
            h for h, s in house.silos.items() if f"Boss/boss{n}" in s.life.catalog.activations
        ]
        assert hosts == [owner] * 3


@simulated
async def test_a_silo_that_does_not_host_them_calls_another(house: House) -> None:
    """Workers may have machines of their own."""
    await house.start("a", [Boss])
    await house.start("b", [Resize])
    cluster = await house.connect("a")
    await asyncio.sleep(5)
    await cluster.actor(Boss, "x").delegate(2)
    assert hosts == ["b", "b"]
    hosts.clear()
    await cluster.actor(Resize, "r").work()
    assert hosts == ["b"]


@simulated
async def test_a_client_spreads_calls_over_the_silos_it_is_connected_to(house: House) -> None:
    """Else one silo would do all the work of a client."""
    await house.start("a", [Resize])
    await house.start("b", [Resize])
    cluster = await house.connect("a", "b")
    await asyncio.sleep(5)
    await asyncio.gather(*(cluster.actor(Resize, "r").work(0.1) for _ in range(20)))
    assert set(hosts) == {"a", "b"}


@simulated
async def test_they_are_served_where_a_gateway_is_reached(house: House) -> None:
    """The silo behind the load balancer is as good as any."""
    await house.start("a", [Resize])
    await house.start("b", [Resize])
    await asyncio.sleep(5)
    cluster = await house.connect("a", routing="gateway")
    for n in range(8):
        await cluster.actor(Resize, f"r{n}").work()
    (link,) = cluster._links.alive
    assert set(hosts) == {str(link.peer.silo).partition(":")[0]}


@simulated
async def test_one_way_calls_go_to_the_nearest_too(house: House) -> None:
    """Both marks together mean what each means."""
    cluster = await house.open([Resize])
    await cluster.actor(Resize, "r").note()
    await cluster.actor(Resize, "r").work()
    assert hosts == ["a", "a"]


@simulated
async def test_a_worker_that_calls_its_own_key_does_not_wait_for_itself(house: House) -> None:
    """With one activation the chain enters it, as with any actor."""
    cluster = await house.open([Plain])
    assert await cluster.actor(Plain, "p").again(3) == 0


@simulated
async def test_a_cancelled_call_is_dropped_wherever_it_stands(house: House) -> None:
    """Several activations share one key, and a cancellation has to find the right one."""
    cluster = await house.open([Resize])
    worker = cluster.actor(Resize, "r")
    calls = [asyncio.ensure_future(worker.work(10.0)) for _ in range(5)]
    await asyncio.sleep(0.5)
    for call in calls:
        call.cancel()
    await settled(*calls)
    await asyncio.sleep(0.5)
    assert house.busy() == 0
    assert len(hosts) == 3


@simulated
async def test_idle_workers_are_collected(house: House) -> None:
    """A burst must not leave its workers behind for ever."""
    cluster = await house.open([Resize])
    await asyncio.gather(*(cluster.actor(Resize, "r").work(1.0) for _ in range(3)))
    await asyncio.sleep(60)
    assert len(house.silo().life.catalog.workers.activations) == 0
    assert ends == ["idle"] * 3


@simulated
async def test_a_silo_that_leaves_finishes_its_work(house: House) -> None:
    """A rolling restart fails no call, these included."""
    await house.start("a", [Resize])
    await house.start("b", [Resize])
    cluster = await house.connect("a", "b")
    await asyncio.sleep(5)
    calls = [asyncio.ensure_future(cluster.actor(Resize, "r").work(2.0)) for _ in range(6)]
    await asyncio.sleep(0.1)
    closing = asyncio.ensure_future(house.silo("a").close())
    for _ in range(20):
        await asyncio.sleep(0.2)
        calls.append(asyncio.ensure_future(cluster.actor(Resize, "r").work(0.1)))
    assert all(isinstance(each, int) for each in await settled(*calls))
    await closing
    del house.silos["a"]


@simulated
async def test_no_silo_that_hosts_them_is_said_at_once(house: House) -> None:
    """Waiting for a deadline would hide a missing deployment."""
    cluster = await house.open([Other])
    end = await outcome(cluster.actor(Resize, "r").work())
    assert isinstance(end, errors.NoSuchKind)


@simulated
async def test_a_key_is_refused(house: House) -> None:
    """There is no record that could remember it."""
    cluster = await house.open([Resize])
    end = await outcome(options(cluster.actor(Resize, "r"), idempotency_key="k").work())
    assert isinstance(end, errors.ArgumentError)
    assert "stateless worker" in str(end)


def test_durable_fields_and_odd_placements_are_refused() -> None:
    """Each silo would have its own state, which is nobody's intention."""
    with pytest.raises(
        errors.ConfigError, match=r"Bad is a StatelessWorker and has durable fields"
    ):

        class Bad(Actor, placement=StatelessWorker()):
            count: int = 0

    with pytest.raises(errors.ConfigError, match="whole number"):
        StatelessWorker(max_local=0)
    with pytest.raises(errors.ConfigError, match="placement=3"):

        class Odd(Actor, placement=3):  # type: ignore[arg-type]
            pass
