"""Messages and reminders of grains that are hosted apart from their partitions: the partition's owner sees to
them, and has to hear of what another silo has committed there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from durum.grains.actor import Actor, read_only
from durum.grains.placement import PreferLocal
from durum.grains.reference import options
from durum.grains.reminders import Tick
from durum.ids import GrainId
from durum.placement.partitions import partition_of
from durum.silo.hints import Hints
from durum.testing.hosts import current, machine
from tests.support.turns import House, simulated


class Clerk(Actor, placement=PreferLocal()):
    """Sends, receives and is reminded, wherever it is."""

    got: list[str] = []

    async def send(self, to: str, text: str, delay: float | None = None) -> None:
        other = self.actor(Clerk, to)
        self.tell((other if delay is None else options(other, delay=delay)).take, text)

    async def take(self, text: str) -> None:
        self.got.append(text)

    async def remind_me(self, name: str, delay: float) -> str:
        self.remind(name, delay=delay)
        return machine(current())

    async def on_reminder(self, name: str, tick: Tick) -> None:
        self.got.append(f"{name} {tick.number}")

    @read_only
    async def all(self) -> list[str]:
        return self.got


class Boss(Actor):
    """Has a clerk on its own silo."""

    async def hire(self, clerk: str) -> str:
        await self.actor(Clerk, clerk).all()
        return machine(current())


def owner(house: House, grain: str) -> str:
    partition = partition_of(GrainId(grain), 8)
    (host,) = [h for h, s in house.silos.items() if s.life.ownership.holding(partition)]
    return host


@asynccontextmanager
async def apart(house: House) -> AsyncIterator[tuple[Any, str]]:
    """A client, and a clerk that silo `b` hosts and silo `a` or `c` is the owner of."""
    for host in ("a", "b", "c"):
        await house.start(host, [Clerk, Boss])
    await asyncio.sleep(5)
    cluster = await house.connect("a", "b", "c")
    clerk = next(
        name
        for name in (f"k{n}" for n in range(200))
        if owner(house, f"Boss/{name}") == "b" and owner(house, f"Clerk/{name}") == "a"
    )
    assert await cluster.actor(Boss, clerk).hire(clerk) == "b"
    assert f"Clerk/{clerk}" in house.silo("b").life.catalog.activations
    yield cluster, clerk


@simulated
async def test_messages_of_a_host_go_out_at_once(house: House) -> None:
    """Its partition's owner delivers them, and learns of them by no commit of its own."""
    async with apart(house) as (cluster, clerk):
        for n in range(10):
            await cluster.actor(Clerk, clerk).send("other", str(n))
        await asyncio.sleep(1)
        assert await cluster.actor(Clerk, "other").all() == [str(n) for n in range(10)]


@simulated
async def test_a_reminder_that_a_host_sets_comes_in_time_to_where_it_is(house: House) -> None:
    """Neither early nor a minute late: the owner wakes it."""
    async with apart(house) as (cluster, clerk):
        mine = cluster.actor(Clerk, clerk)
        assert await mine.remind_me("tea", 3.0) == "b"
        await mine.send("other", "later", 3.0)
        await asyncio.sleep(2.9)
        assert await mine.all() == []
        await asyncio.sleep(1.1)
        assert await mine.all() == ["tea 1"]
        assert await cluster.actor(Clerk, "other").all() == ["later"]


@simulated
async def test_messages_to_a_host_take_effect_once(house: House) -> None:
    """From its owner's clients, and from other actors."""
    async with apart(house) as (cluster, clerk):
        mine = cluster.actor(Clerk, clerk)
        await cluster.tell(mine.take, "from a client")
        await cluster.tell(options(mine, idempotency_key="k").take, "once")
        await cluster.tell(options(mine, idempotency_key="k").take, "once")
        await cluster.actor(Clerk, "other").send(clerk, "from another")
        await asyncio.sleep(2)
        assert sorted(await mine.all()) == ["from a client", "from another", "once"]
        assert f"Clerk/{clerk}" in house.silo("b").life.catalog.activations


@simulated
async def test_a_reminder_wakes_one_that_nobody_hosts(house: House) -> None:
    """The owner places it for that."""
    async with apart(house) as (cluster, clerk):
        await cluster.actor(Clerk, clerk).remind_me("tea", 30.0)
        await cluster.admin.deactivate(Clerk, clerk)
        await asyncio.sleep(31)
        assert await cluster.actor(Clerk, clerk).all() == ["tea 1"]


@simulated
async def test_an_owner_that_dies_leaves_a_hosts_effects_to_the_next_one(house: House) -> None:
    """They lie in the partition, and hints go to whoever holds it."""
    async with apart(house) as (cluster, clerk):
        mine = cluster.actor(Clerk, clerk)
        await mine.remind_me("tea", 20.0)
        house.kill("a")
        await asyncio.sleep(0.5)
        await mine.send("other", "x")
        await asyncio.sleep(25)
        assert await mine.all() == ["tea 1"]
        assert await cluster.actor(Clerk, "other").all() == ["x"]


@simulated
async def test_a_host_that_dies_before_it_has_told_loses_nothing(house: House) -> None:
    """Its commit is in the store; all owners look there once they see it dead."""

    async def never(self: Hints, partition: int) -> None:
        del self, partition

    async with apart(house) as (cluster, clerk):
        mine = cluster.actor(Clerk, clerk)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Hints, "_tell", never)
            await mine.send("other", "x")
            await mine.remind_me("tea", 1.0)
        await asyncio.sleep(3)
        assert await cluster.actor(Clerk, "other").all() == []
        house.kill("b")
        await asyncio.sleep(10)
        assert await cluster.actor(Clerk, "other").all() == ["x"]
        assert await mine.all() == ["tea 1"]


def test_checks_fail_where_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the tests above: without hints an owner would know nothing."""

    def mute(self: Hints, *news: object, **how: object) -> Coroutine[Any, Any, None] | None:
        del self, news, how
        return None

    monkeypatch.setattr(Hints, "_note", mute)
    for check in (
        test_messages_of_a_host_go_out_at_once,
        test_a_reminder_that_a_host_sets_comes_in_time_to_where_it_is,
    ):
        with pytest.raises(AssertionError):
            check()
