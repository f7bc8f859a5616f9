"""Actors on different silos that call each other: chains, turns inside turns, deadlocks, failures."""

from __future__ import annotations

import asyncio

import pytest

import durum
from durum import errors
from durum.client.client import Cluster
from tests.support.fleet import Fleet, appears, keys_at
from tests.support.grains import Broke, Counter, Node, Strict


def spread(cluster: Cluster, fleet: Fleet, kind: type[durum.Actor], prefix: str) -> list[str]:
    """A key of that kind at each silo."""
    return [next(keys_at(cluster, kind, silo, prefix)) for silo in fleet.silos]


async def test_call_passes_through_actors_on_three_silos(three: Fleet) -> None:
    """The plain case: everyone is reached from everywhere, and answers come back the same way."""
    async with three.connect() as cluster:
        a, b, c = spread(cluster, three, Node, "plain")
        assert await cluster.actor(Node, a).walk([b, c]) == [f"{a} 1", f"{b} 1", f"{c} 1"]


async def test_actor_is_reentered_through_another_silo(three: Fleet) -> None:
    """A waits for B, B calls A. The chain travels with the call, or both would wait until the deadline."""
    async with three.connect() as cluster:
        a, b, c = spread(cluster, three, Node, "again")
        trail = await cluster.actor(Node, a).walk([b, a, c, a])
        # The innermost turn ends first.
        assert trail == [f"{a} 3", f"{b} 1", f"{a} 2", f"{c} 1", f"{a} 1"]
        assert await cluster.actor(Node, a).seen() == 3


async def test_reentering_what_has_uncommitted_changes_is_a_deadlock(three: Fleet) -> None:
    """The inner turn would commit what the outer one can still take back. Told at once, with the chain."""
    async with three.connect() as cluster:
        a, b, _ = spread(cluster, three, Node, "dirty")
        with pytest.raises(errors.Deadlock, match="save") as caught:
            await durum.options(cluster.actor(Node, a), timeout=60).walk_changed([b, a])
        assert a in str(caught.value)
        assert [await cluster.actor(Node, key).seen() for key in (a, b)] == [0, 0]


async def test_reentering_a_strict_kind_is_a_deadlock(three: Fleet) -> None:
    """Its author wants no turn inside a turn, and no waiting for a deadline either."""
    async with three.connect() as cluster:
        a, b, _ = spread(cluster, three, Strict, "strict")
        assert await cluster.actor(Strict, a).walk([b]) == 2
        with pytest.raises(errors.Deadlock):
            await durum.options(cluster.actor(Strict, a), timeout=60).walk([b, a])


async def test_actors_that_call_each_other_crosswise_all_get_through(three: Fleet) -> None:
    """Many chains over the same three actors, each waiting for others: order is the mailbox's business."""
    async with three.connect() as cluster:
        keys = spread(cluster, three, Counter, "cross")
        calls = [
            cluster.actor(Counter, keys[n % 3]).pass_on(keys[(n + 1) % 3], 1, f"cross {n}")
            for n in range(3)
        ]
        # One after the other for each pair: crosswise waiting of unrelated chains ends by deadline only.
        for call in calls:
            await call
        assert [await cluster.actor(Counter, key).get() for key in keys] == [2, 2, 2]


async def test_exception_comes_back_through_all_silos_as_its_own_type(three: Fleet) -> None:
    """Each turn on its way rolls back; the last caller still sees what the first one raised."""
    async with three.connect() as cluster:
        a, b, c = spread(cluster, three, Node, "fail")
        with pytest.raises(Broke, match="lacks 7") as caught:
            await cluster.actor(Node, a).fail_at([b, c])
        assert caught.value.who == c
        assert [await cluster.actor(Node, key).seen() for key in (a, b, c)] == [0, 0, 0]


async def test_cancellation_goes_down_the_chain(three: Fleet) -> None:
    """Whoever waits on another silo for somebody who has gone must not go on working."""
    async with three.connect() as cluster:
        node = next(keys_at(cluster, Node, three.silos[0], "down"))
        counter = next(keys_at(cluster, Counter, three.silos[1], "down"))
        call = asyncio.create_task(
            cluster.actor(Node, node).linger_at(counter, str(three.home / "down"))
        )
        await appears(three.home / "down-began")
        call.cancel()
        await asyncio.wait([call])
        await appears(three.home / "down-ended")
        assert await cluster.actor(Node, node).seen() == 0
        assert await cluster.actor(Counter, counter).get() == 0


async def test_deadline_goes_down_the_chain(three: Fleet) -> None:
    """The outer call's time is all there is: the inner one ends with it, not after its own thirty seconds."""
    async with three.connect() as cluster:
        node = next(keys_at(cluster, Node, three.silos[1], "late"))
        counter = next(keys_at(cluster, Counter, three.silos[2], "late"))
        with pytest.raises(errors.CallTimeout):
            await durum.options(cluster.actor(Node, node), timeout=1.0).linger_at(
                counter, str(three.home / "late")
            )
        await appears(three.home / "late-ended")
        assert await cluster.actor(Node, node).seen() == 0


async def test_inner_silo_killed_is_a_typed_error_in_the_middle(sqlite_fleet: Fleet) -> None:
    """The actor in the middle may catch it like any caller; if it does not, the outer one sees it."""
    fleet = sqlite_fleet
    silos = await fleet.started(2)
    async with fleet.connect() as cluster:
        node = next(keys_at(cluster, Node, silos[0]))
        counter = next(keys_at(cluster, Counter, silos[1]))
        call = asyncio.create_task(
            cluster.actor(Node, node).linger_at(counter, str(fleet.home / "inner"))
        )
        await appears(fleet.home / "inner-began")
        await fleet.kill(silos[1])
        with pytest.raises(errors.SiloLost):
            await call
        assert await cluster.actor(Node, node).seen() == 0
        assert await cluster.actor(Counter, counter).add(1) == 1
