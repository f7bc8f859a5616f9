"""Baggage and traces go along with calls, and with the calls that those make; never back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import durum
from durum import errors
from durum.grains.actor import Actor, one_way, read_only
from durum.grains.carried import CARRIED, Trace, baggage, tracing
from durum.wire.messages import Call, Carried
from tests.support.turns import House, outcome, settled, simulated

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CHILD = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
seen: list[dict[str, str]] = []


class Stage(Actor):
    runs: int = 0

    @read_only
    async def look(self) -> dict[str, str]:
        trace = self.context.trace
        return {**self.context.baggage, "trace": trace.traceparent if trace else ""}

    async def pass_on(self, to: str) -> dict[str, str]:
        self.runs += 1
        return await self.actor(Stage, to).look()

    async def change(self, to: str) -> list[dict[str, str]]:
        baggage["mine"] = self.key
        del baggage["tenant"]
        with tracing(CHILD):
            inner = await self.actor(Stage, to).look()
        return [inner, dict(self.context.baggage), dict(baggage)]

    @one_way
    async def note(self) -> None:
        seen.append(dict(baggage))

    async def feed(self) -> AsyncIterator[dict[str, str]]:
        yield dict(baggage)
        yield dict(self.context.baggage)

    async def tick_later(self) -> None:
        self.set_timer(self._tick, due=1)

    async def _tick(self) -> None:
        seen.append(dict(baggage))


@pytest.fixture(autouse=True)
def _fresh() -> None:
    seen.clear()


@simulated
async def test_baggage_and_trace_go_down_the_chain(house: House) -> None:
    """A tenant or a trace has to reach the last actor without being a parameter of every method."""
    cluster = await house.open([Stage])
    stage = cluster.actor(Stage, "a")
    assert await stage.look() == {"trace": ""}
    with baggage.scope(tenant="acme"), tracing(PARENT, "x=1"):
        assert await stage.look() == {"tenant": "acme", "trace": PARENT}
        assert await stage.pass_on("b") == {"tenant": "acme", "trace": PARENT}
        once = durum.options(stage, idempotency_key="k", timeout=5)
        assert await once.pass_on("b") == {"tenant": "acme", "trace": PARENT}
    assert await stage.pass_on("b") == {"trace": ""}


@simulated
async def test_what_an_actor_changes_goes_on_and_not_back(house: House) -> None:
    """A callee must not be able to change its caller's baggage."""
    cluster = await house.open([Stage])
    with baggage.scope(tenant="acme"):
        inner, came, now = await cluster.actor(Stage, "a").change("b")
        assert inner == {"mine": "a", "trace": CHILD}
        assert came == {"tenant": "acme"}
        assert now == {"mine": "a"}
        assert dict(baggage) == {"tenant": "acme"}
    assert CARRIED.get() is not None or not baggage


@simulated
async def test_turns_of_others_have_none_of_it(house: House) -> None:
    """One caller's tenant in another one's turn would be a leak."""
    cluster = await house.open([Stage])
    stage = cluster.actor(Stage, "a")

    async def as_tenant(name: str) -> dict[str, str]:
        with baggage.scope(tenant=name):
            return await stage.pass_on("b")

    found = await asyncio.gather(*(as_tenant(f"t{n}") for n in range(20)))
    assert [each["tenant"] for each in found] == [f"t{n}" for n in range(20)]
    with baggage.scope(tenant="x"):
        await stage.tick_later()
    await asyncio.sleep(2)
    assert seen == [{}]


@simulated
async def test_streams_and_one_way_calls_carry_it_too(house: House) -> None:
    """And a gateway passes it on."""
    await house.start("a", [Stage])
    await house.start("b", [Stage])
    await asyncio.sleep(5)
    for routing in ("direct", "gateway"):
        seen.clear()
        cluster = await house.connect("a", routing=routing)
        with baggage.scope(tenant="acme"):
            for n in range(6):
                stage = cluster.actor(Stage, f"s{n}")
                await stage.note()
                assert [each async for each in stage.feed()] == [{"tenant": "acme"}] * 2
                assert (await stage.look())["tenant"] == "acme"
        assert seen == [{"tenant": "acme"}] * 6


def test_baggage_is_bounded() -> None:
    """It is paid for by every call, so it must stay small."""
    with baggage.scope(a="1"):
        with pytest.raises(errors.ArgumentError, match="4096 may travel"):
            baggage["big"] = "x" * 5000
        with pytest.raises(errors.ArgumentError, match="64 may travel"):
            baggage.update({f"k{n}": "v" for n in range(100)})
        with pytest.raises(errors.ArgumentError, match="text"):
            baggage["n"] = 3  # type: ignore[assignment]
        baggage.clear()
        assert not baggage
        with pytest.raises(KeyError):
            del baggage["nope"]
    with pytest.raises(errors.ArgumentError, match="traceparent"), tracing("nonsense"):
        pass
    assert Trace(PARENT).tracestate == ""


@simulated
async def test_a_silo_refuses_what_no_client_of_ours_would_send(house: House) -> None:
    """Bounds that only clients keep are none."""
    cluster = await house.open([Stage])
    await cluster.actor(Stage, "a").look()
    (link,) = cluster._links.alive
    big = Carried({"k": "x" * 10_000})
    call = Call(link.next_id(), cluster.actor(Stage, "a")._durum_target.grain, "look", b"\x90")  # type: ignore[attr-defined]
    call.carried = big
    answer = await link.request(call)
    assert "may travel" in str(answer)
    assert await settled(asyncio.ensure_future(outcome(cluster.actor(Stage, "a").look())))
