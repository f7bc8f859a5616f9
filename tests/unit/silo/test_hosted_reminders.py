"""Reminders and messages of grains that are hosted elsewhere than at their partitions' owners."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from durum.grains.actor import Actor
from durum.grains.placement import Random
from durum.grains.reminders import Tick
from durum.ids import GrainId
from durum.placement.partitions import partition_of
from durum.silo.hints import Hints
from durum.silo.wakeups import WakeUps
from durum.testing.hosts import current, machine
from tests.support.turns import SMALL, House, simulated

SECRET = "known to every silo here"
KEYS = [f"k{number}" for number in range(20)]


class Bell(Actor, placement=Random()):
    rung: list[tuple[str, int]] = []

    async def set(self, every: float) -> str:
        self.remind("x", every=every)
        return machine(current())

    async def set_later(self, due: float, every: float) -> str:
        self.set_timer(self._set, every, due=due)
        return machine(current())

    async def _set(self, every: float) -> None:
        self.remind("x", every=every)

    async def send(self, to: str) -> str:
        self.tell(self.actor(Bell, to).hear, self.key)
        return machine(current())

    async def hear(self, who: str) -> None:
        self.rung.append((who, 0))

    async def ring(self) -> list[tuple[str, int]]:
        return self.rung

    async def on_reminder(self, name: str, tick: Tick) -> None:
        self.rung.append((name, tick.number))


def owner(house: House, key: str) -> str:
    """The machine that owns the partition of a bell."""
    partition = partition_of(GrainId(f"Bell/{key}"), SMALL.partitions)
    for name, silo in house.silos.items():
        if silo.life.ownership.holding(partition) is not None:
            return name
    raise AssertionError(partition)


@simulated
async def test_reminders_of_hosted_grains_tick_at_their_time(house: House) -> None:
    """Their commits are made by a silo that does not own the partition; its owner has to hear of them."""
    for name in ("a", "b", "c"):
        await house.start(name, [Bell], secret=SECRET)
    cluster = await house.connect("a", "b", "c", secret=SECRET)
    hosts = {key: await cluster.actor(Bell, key).set(3) for key in KEYS}
    assert any(owner(house, key) != host for key, host in hosts.items())
    await asyncio.sleep(10)
    for key in KEYS:
        assert await cluster.actor(Bell, key).ring() == [("x", 1), ("x", 2), ("x", 3)]


@simulated
async def test_messages_of_hosted_grains_go_out(house: House) -> None:
    """As for reminders: the outbox is the owner's."""
    for name in ("a", "b", "c"):
        await house.start(name, [Bell], secret=SECRET)
    cluster = await house.connect("a", "b", "c", secret=SECRET)
    hosts = {key: await cluster.actor(Bell, key).send("sink") for key in KEYS}
    assert any(owner(house, key) != host for key, host in hosts.items())
    await asyncio.sleep(2)
    assert sorted(await cluster.actor(Bell, "sink").ring()) == sorted((key, 0) for key in KEYS)


@simulated
async def test_host_that_dies_before_it_could_tell_loses_nothing(house: House) -> None:
    """The commit is there, and nobody but the dead knows: owners look when a silo has died."""
    for name in ("a", "b", "c"):
        await house.start(name, [Bell], secret=SECRET)
    cluster = await house.connect("a", "b", secret=SECRET)
    hosts = {key: await cluster.actor(Bell, key).set_later(2.0, 5.0) for key in KEYS}
    there = [key for key, host in hosts.items() if host == "c" and owner(house, key) != "c"]
    assert there
    for other in ("a", "b"):
        house.network.cut("c", other)
    await asyncio.sleep(2.5)
    house.kill("c")
    await asyncio.sleep(60)
    for key in there:
        assert len(await cluster.actor(Bell, key).ring()) >= 5


@pytest.mark.parametrize(
    ("owner", "name", "check"),
    [
        (Hints, "landed", test_reminders_of_hosted_grains_tick_at_their_time),
        (Hints, "landed", test_messages_of_hosted_grains_go_out),
        (WakeUps, "look", test_host_that_dies_before_it_could_tell_loses_nothing),
    ],
)
def test_mutant_is_found(
    owner: type, name: str, check: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts that do not tell, owners that do not look: each check notices."""
    monkeypatch.setattr(owner, name, lambda *_: None)
    with pytest.raises(AssertionError):
        check()
