"""Filters stand around calls, at the silo and at the caller: they see, refuse, change and measure them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from durum import errors
from durum.grains.actor import Actor, one_way, read_only
from durum.grains.carried import baggage
from durum.grains.filters import Invocation, Proceed
from tests.support.turns import House, outcome, simulated

log: list[object] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    log.clear()


class Vault(Actor):
    gold: int = 0

    async def add(self, gold: int, *, note: str = "") -> int:
        self.gold += gold
        return self.gold

    @read_only
    async def get(self) -> int:
        return self.gold

    async def rob(self, other: str) -> int:
        return await self.actor(Vault, other).get()

    async def coins(self, count: int) -> AsyncIterator[int]:
        for n in range(count):
            yield n

    async def watch(self, other: str) -> list[int]:
        return [n async for n in self.actor(Vault, other).coins(2)]

    @one_way
    async def drop(self, gold: int) -> None:
        self.gold += gold


async def audit(call: Invocation, proceed: Proceed) -> object:
    log.append((call.kind, call.key, call.method, dict(call.arguments), call.context.caller))
    result = await proceed()
    log.append(result)
    return result


async def guard(call: Invocation, proceed: Proceed) -> object:
    if call.context.baggage.get("role") != "owner" and not call.read_only:
        raise errors.NotAuthorized(f"{call.key}: owners only; the call did not run.")
    if call.streams and "role" not in call.context.baggage:
        raise errors.NotAuthorized("no streams for strangers")
    return await proceed()


async def double(call: Invocation, proceed: Proceed) -> object:
    result = await proceed()
    return result * 2 if isinstance(result, int) else result


@simulated
async def test_an_incoming_filter_sees_the_call_and_its_result(house: House) -> None:
    """One function logs all kinds, instead of a line in every method."""
    await house.start("a", [Vault], filters=[audit])
    cluster = await house.connect("a")
    vault = cluster.actor(Vault, "v")
    assert await vault.add(3, note="x") == 3
    assert log == [("Vault", "v", "add", {"gold": 3, "note": "x"}, None), 3]
    log.clear()
    await vault.rob("w")
    assert ("Vault", "w", "get", {}, "Vault/v") in log
    assert await vault.get() == 3


@simulated
async def test_an_incoming_filter_refuses(house: House) -> None:
    """Authorization has to hold for every method, streams and one-way calls included."""
    await house.start("a", [Vault], filters=[guard])
    cluster = await house.connect("a")
    vault = cluster.actor(Vault, "v")
    assert isinstance(await outcome(vault.add(3)), errors.NotAuthorized)
    assert isinstance(await outcome(anext(vault.coins(2))), errors.NotAuthorized)
    await vault.drop(5)
    assert await vault.get() == 0
    with baggage.scope(role="owner"):
        assert await vault.add(3) == 3
        assert [n async for n in vault.coins(3)] == [0, 1, 2]
        assert [n async for n in vault.coins(0)] == []
    assert house.busy() == 0


@simulated
async def test_what_a_filter_raises_takes_the_turn_back(house: House) -> None:
    """A filter after the method is part of the turn."""

    async def late(call: Invocation, proceed: Proceed) -> object:
        await proceed()
        raise ValueError("too late")

    await house.start("a", [Vault], filters=[late])
    cluster = await house.connect("a")
    assert isinstance(await outcome(cluster.actor(Vault, "v").add(3)), ValueError)
    silo = house.silo()
    assert silo.life.services.load.committed == 0


@simulated
async def test_outgoing_filters_stand_at_the_client(house: House) -> None:
    """They see what goes out and what comes back, the first one outermost."""
    await house.start("a", [Vault])
    cluster = await house.connect("a", filters=[audit, double])
    vault = cluster.actor(Vault, "v")
    assert await vault.add(3) == 6
    assert log == [("Vault", "v", "add", {"gold": 3, "note": ""}, None), 6]
    assert [n async for n in vault.coins(3)] == [0, 1, 2]
    assert [n async for n in vault.coins(0)] == []
    await vault.drop(1)
    assert await vault.get() == 8

    async def closed(call: Invocation, proceed: Proceed) -> object:
        raise PermissionError("not from here")

    shut = await house.connect("a", host="other", filters=[closed])
    assert isinstance(await outcome(shut.actor(Vault, "v").add(3)), PermissionError)
    assert isinstance(await outcome(anext(shut.actor(Vault, "v").coins(3))), PermissionError)
    assert await vault.get() == 8


@simulated
async def test_outgoing_filters_stand_at_a_silos_actors(house: House) -> None:
    """Calls between actors go out, too."""
    await house.start("a", [Vault], outgoing=[double])
    cluster = await house.connect("a")
    await cluster.actor(Vault, "w").add(4)
    assert await cluster.actor(Vault, "v").rob("w") == 8
    assert await cluster.actor(Vault, "v").watch("w") == [0, 1]


@simulated
async def test_arguments_that_do_not_fit_never_reach_a_filter(house: House) -> None:
    """A filter may trust the types that the method declares."""
    await house.start("a", [Vault], filters=[audit])
    cluster = await house.connect("a")
    end = await outcome(cluster.actor(Vault, "v").add("x"))  # type: ignore[arg-type]
    assert isinstance(end, errors.ArgumentError)
    assert log == []
