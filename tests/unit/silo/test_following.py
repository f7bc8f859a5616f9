"""Actors that follow others: each event is a turn while the activation lives. Whole silos, virtual time."""

from __future__ import annotations

import asyncio

import pytest

import durum
from durum.grains.actor import Actor, read_only
from durum.grains.events import Gap
from durum.grains.filters import Invocation, Proceed
from durum.grains.following import follow
from durum.grains.reference import options
from durum.grains.watching import watch
from tests.support.boards import Board, Move, Reset, take, watchers
from tests.support.turns import House, simulated


class Follower(Actor):
    seen: list[int] = []
    gaps: list[str] = []

    async def follow(self, board: str) -> None:
        self._following = follow(self.actor(Board, board), self._on_event, keep_alive=True)

    async def unfollow(self) -> bool:
        self._following.cancel()
        return self._following.active

    async def _on_event(self, event: Move | Reset | int | Gap) -> None:
        if isinstance(event, Gap):
            self.gaps.append(event.reason)
        elif isinstance(event, Move):
            self.seen.append(event.x)
            await asyncio.sleep(0.01)
            if event.x < 0:
                raise ValueError("below")

    @read_only
    async def get(self) -> tuple[list[int], list[str]]:
        return self.seen, self.gaps

    async def leave(self) -> None:
        self.deactivate()

    async def first(self, board: str) -> int:
        async with watch(self.actor(Board, board)) as following:
            await self.actor(Board, board).move(42)
            async for event in following:
                if isinstance(event, Move):
                    return event.x
        return 0


@simulated
async def test_actor_follows_another_by_turns_of_its_own(house: House) -> None:
    """On its own silo and on others: what it does about an event is committed, or taken back and logged."""
    await house.start("a", [Board, Follower])
    await house.start("b", [Board, Follower])
    await asyncio.sleep(5)
    cluster = await house.connect("a", "b")
    for n in range(8):
        await cluster.actor(Follower, f"f{n}").follow(f"b{n}")
    await asyncio.sleep(1)
    for n in range(8):
        for x in range(3):
            await cluster.actor(Board, f"b{n}").move(x)
    await asyncio.sleep(60)  # longer than any turn
    for n in range(8):
        await cluster.actor(Board, f"b{n}").move(3)
    await asyncio.sleep(1)
    for n in range(8):
        assert await cluster.actor(Follower, f"f{n}").get() == ([0, 1, 2, 3], ["begun"])
    follower = cluster.actor(Follower, "f0")
    await cluster.actor(Board, "b0").move(-1)
    await cluster.actor(Board, "b0").move(4)
    await asyncio.sleep(1)
    assert await follower.get() == ([0, 1, 2, 3, 4], ["begun"])
    assert not await follower.unfollow()
    await cluster.actor(Board, "b0").move(5)
    await asyncio.sleep(1)
    assert await follower.get() == ([0, 1, 2, 3, 4], ["begun"])


@simulated
async def test_filters_see_watches_and_may_refuse_them(house: House) -> None:
    """What decides who may call decides who may watch: on the silo by who asks, at the client before that."""
    seen: list[tuple[object, ...]] = []

    async def incoming(call: Invocation, proceed: Proceed) -> object:
        if call.streams:
            tenant = call.context.baggage.get("tenant")
            seen.append((call.kind, call.key, call.method, call.context.caller, tenant))
            assert call.arguments == {}
            await asyncio.sleep(0.1)
            if tenant == "evil":
                raise PermissionError("not you")
        return await proceed()

    async def at_client(call: Invocation, proceed: Proceed) -> object:
        seen.append(("client", call.method))
        return await proceed()

    await house.start("a", [Board, Follower], filters=[incoming])
    cluster = await house.connect("a", filters=[at_client])
    board = cluster.actor(Board, "a")
    durum.baggage["tenant"] = "good"
    async with cluster.watch(board) as following:
        await board.move(1)
        assert await take(following, 1) == [Move(1)]
    durum.baggage["tenant"] = "evil"
    with pytest.raises(PermissionError):
        await cluster.watch(board).__aenter__()
    durum.baggage.clear()
    await cluster.actor(Follower, "f").first("a")
    assert [each for each in seen if each[-1] != "move"] == [
        ("client", "durum.watch"),
        ("Board", "a", "durum.watch", None, "good"),
        ("client", "durum.watch"),
        ("Board", "a", "durum.watch", None, "evil"),
        ("client", "first"),
        ("Board", "a", "durum.watch", "Follower/f", None),
    ]
    await asyncio.sleep(1)
    assert watchers(house) == 0


@simulated
async def test_following_ends_with_its_activation(house: House) -> None:
    """As timers do; what follows for ever begins in on_activate."""
    cluster = await house.open([Board, Follower])
    follower = cluster.actor(Follower, "f")
    await follower.follow("b")
    await asyncio.sleep(1)
    assert watchers(house) == 1
    await follower.leave()
    await asyncio.sleep(1)
    assert watchers(house) == 0


@simulated
async def test_following_goes_on_over_failovers_of_the_followed(house: House) -> None:
    """And waits for it, however long that takes; each new beginning is a gap."""
    for host in ("a", "b", "c"):
        await house.start(host, [Board, Follower])
    cluster = await house.connect("b", "c")
    await asyncio.sleep(5)
    board = cluster.actor(Board, "b0")
    await board.move(0)
    (owner,) = [host for host in "abc" if len(house.silo(host).life.catalog)]
    keys = [f"f{n}" for n in range(12)]
    for key in keys:
        await cluster.actor(Follower, key).follow("b0")
    stays = [h for h in "abc" if h != owner]
    away = {grain for host in stays for grain in house.silo(host).life.catalog.activations}
    await asyncio.sleep(1)
    house.kill(owner)
    await asyncio.sleep(30)
    await options(board, timeout=60).move(1)
    await asyncio.sleep(1)
    assert away
    for key in keys:
        if f"Follower/{key}" in away:
            assert await cluster.actor(Follower, key).get() == ([1], ["begun", "moved"])


@simulated
async def test_turn_may_watch_what_it_calls(house: House) -> None:
    """Its deadline ends it with all that it waits for."""
    cluster = await house.open([Board, Follower])
    assert await cluster.actor(Follower, "x").first("b0") == 42
