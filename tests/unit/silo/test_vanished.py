"""Clients that vanish: nobody waits for their calls any more, so these end, and keep nothing."""

from __future__ import annotations

import asyncio

from durum.client.client import Cluster
from durum.grains.actor import Actor, one_way
from durum.grains.reference import options
from durum.ids import SiloId, grain_id
from durum.placement.partitions import partition_of
from tests.support.turns import House, settled, simulated

ran: list[str] = []
"""What began and what was cancelled; each test clears it."""


class Worker(Actor):
    """Says what it does, and takes its time."""

    done: int = 0

    async def work(self, name: str, seconds: float = 0.0) -> int:
        ran.append(name)
        self.done += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            ran.append(f"{name} cancelled")
            raise
        return self.done

    async def ask(self, other: str, seconds: float) -> int:
        return await self.actor(Worker, other).work(other, seconds)

    @one_way
    async def work_alone(self, name: str, seconds: float) -> None:
        await self.work(name, seconds)


def vanish(cluster: Cluster) -> None:
    """As if the client's process had been killed."""
    for link in cluster._links.alive:
        link.abort()


@simulated
async def test_running_call_of_a_client_that_vanished_is_cancelled_and_rolled_back(
    house: House,
) -> None:
    """It would keep its actor from others for up to its deadline, for nobody."""
    ran.clear()
    cluster = await house.open([Worker])
    other = await house.connect("a", host="other")
    first = asyncio.ensure_future(options(cluster.actor(Worker, "w"), timeout=60.0).work("a", 50.0))
    await asyncio.sleep(0.2)
    vanish(cluster)
    began = house.loop.time()
    assert await other.actor(Worker, "w").work("b") == 1
    assert house.loop.time() - began < 0.5
    assert ran == ["a", "a cancelled", "b"]
    await settled(first)


@simulated
async def test_waiting_calls_of_a_client_that_vanished_never_begin(house: House) -> None:
    """A client that was killed over its backlog must not leave the backlog behind."""
    ran.clear()
    cluster = await house.open([Worker])
    other = await house.connect("a", host="other")
    mine = asyncio.ensure_future(other.actor(Worker, "w").work("mine", 2.0))
    await asyncio.sleep(0.1)
    gone = [
        asyncio.ensure_future(cluster.actor(Worker, "w").work(f"gone {n}", 1.0)) for n in range(20)
    ]
    await asyncio.sleep(0.1)
    last = asyncio.ensure_future(other.actor(Worker, "w").work("last"))
    await asyncio.sleep(0.1)
    assert house.busy() == 22
    vanish(cluster)
    await asyncio.sleep(0.1)
    assert house.busy() == 2
    assert await mine == 1
    assert await last == 2
    assert ran == ["mine", "last"]
    await settled(*gone)


@simulated
async def test_calls_down_the_chain_of_a_client_that_vanished_end_too(house: House) -> None:
    """Work for nobody must end everywhere, not only at the first actor."""
    ran.clear()
    cluster = await house.open([Worker])
    call = asyncio.ensure_future(cluster.actor(Worker, "a").ask("b", 20.0))
    await asyncio.sleep(0.5)
    vanish(cluster)
    await asyncio.sleep(0.2)
    assert ran == ["b", "b cancelled"]
    assert house.busy() == 0
    await settled(call)


@simulated
async def test_one_way_calls_outlive_the_connection_they_came_by(house: House) -> None:
    """Their sender has never waited for them; scripts send one and end."""
    ran.clear()
    cluster = await house.open([Worker])
    await cluster.actor(Worker, "w").work_alone("alone", 1.0)
    await asyncio.sleep(0.1)
    vanish(cluster)
    await asyncio.sleep(2)
    assert ran == ["alone"]
    assert await cluster.actor(Worker, "w").work("after") == 2


@simulated
async def test_calls_that_were_passed_on_end_with_their_client(house: House) -> None:
    """A gateway is where the client is known; the silo behind it is not told by any broken connection."""
    ran.clear()
    await house.start("a", [Worker])
    behind = await house.start("b", [Worker])
    await asyncio.sleep(5)
    cluster = await house.connect("a", routing="gateway")
    key = key_of(behind.id, house)
    call = asyncio.ensure_future(options(cluster.actor(Worker, key), timeout=60.0).work("x", 50.0))
    await asyncio.sleep(0.5)
    assert ran == ["x"]
    vanish(cluster)
    await asyncio.sleep(0.5)
    assert ran == ["x", "x cancelled"]
    assert house.busy("b") == 0
    await settled(call)


@simulated
async def test_calls_that_wait_for_their_partition_are_dropped_with_their_client(
    house: House,
) -> None:
    """They would be turns for nobody as soon as it arrives."""
    ran.clear()
    cluster = await house.open([Worker])
    life = house.silo().life
    holding = life.ownership.holding(partition_of(grain_id("Worker", "w"), 8))
    assert holding is not None
    holding.draining = True
    call = asyncio.ensure_future(cluster.actor(Worker, "w").work("late"))
    await asyncio.sleep(0.05)
    assert life._dispatcher.held_up() == 1
    vanish(cluster)
    await asyncio.sleep(0.05)
    assert life._dispatcher.held_up() == 0
    await asyncio.sleep(5)
    assert ran == []
    await settled(call)


def key_of(silo: SiloId, house: House) -> str:
    """A key whose actor lives on that silo."""
    wanted = house.silo().life.ownership.wanted
    keys = (f"w{n}" for n in range(99))
    return next(key for key in keys if wanted(partition_of(grain_id("Worker", key), 8)) == silo)
