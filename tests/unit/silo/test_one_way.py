"""One-way calls: sent and forgotten. They run at most once, and tell nobody how they ended."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from durum import errors
from durum.config import Limits
from durum.grains.actor import Actor, one_way, read_only
from durum.grains.kind import kind_of
from durum.grains.reference import options
from durum.ids import grain_id
from durum.web import metrics
from durum.wire.messages import Notice
from tests.support.turns import SMALL, House, outcome, simulated

seen: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    seen.clear()


class Meter(Actor):
    total: int = 0

    @one_way
    async def add(self, amount: int) -> None:
        if amount < 0:
            raise ValueError("only up")
        self.total += amount
        seen.append(f"{self.key} +{amount} by {self.context.caller}")

    @one_way
    async def add_slowly(self, amount: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.total += amount

    @read_only
    async def get(self) -> int:
        return self.total

    async def spread(self, others: list[str], amount: int) -> int:
        for other in others:
            await self.actor(Meter, other).add(amount)
        return self.total

    async def echo(self) -> int:
        """Send to itself: the call must wait for this turn, not enter it."""
        await self.actor(Meter, self.key).add(1)
        await asyncio.sleep(1)
        self.total += 10
        return self.total


async def quiet(house: House) -> None:
    await asyncio.sleep(0.2)
    assert all(house.busy(host) == 0 for host in house.silos)


@simulated
async def test_the_caller_does_not_wait_for_the_method(house: House) -> None:
    """That is what it is for: a slow method costs its caller nothing."""
    cluster = await house.open([Meter])
    meter = cluster.actor(Meter, "a")
    began = house.loop.time()
    await meter.add_slowly(3, 5.0)
    assert house.loop.time() - began < 0.1
    assert await meter.get() == 3  # in line behind it
    assert house.loop.time() - began > 4.9


@simulated
async def test_many_one_way_calls_travel_in_few_writes(house: House) -> None:
    """A burst of them must not cost a system call each."""
    cluster = await house.open([Meter])
    meter = cluster.actor(Meter, "a")
    await meter.get()
    (link,) = cluster._links.alive
    before = link.statistics().writes
    for _ in range(100):
        await meter.add(1)
    assert await meter.get() == 100
    assert link.statistics().writes - before < 10


@simulated
async def test_what_it_raises_is_logged_and_taken_back(house: House) -> None:
    """Nobody is told, and still nothing of a failed turn may stay."""
    cluster = await house.open([Meter])
    meter = cluster.actor(Meter, "a")
    await meter.add(-1)
    await meter.add(2)
    assert await meter.get() == 2
    await quiet(house)


@simulated
async def test_actors_send_them_too_and_are_named_as_callers(house: House) -> None:
    """On the same silo as on another one."""
    await house.start("a", [Meter])
    await house.start("b", [Meter])
    cluster = await house.connect("a")
    await asyncio.sleep(3)
    names = [f"m{n}" for n in range(8)]
    assert await cluster.actor(Meter, "root").spread(names, 2) == 0
    assert [await cluster.actor(Meter, name).get() for name in names] == [2] * 8
    owners = {host for host, silo in house.silos.items() if len(silo.life.catalog)}
    assert owners == {"a", "b"}
    assert seen
    assert all(line.endswith("by Meter/root") for line in seen)


@simulated
async def test_a_call_to_oneself_waits_for_the_turn_that_sent_it(house: House) -> None:
    """The sender does not wait, so letting it in would break one turn at a time."""
    cluster = await house.open([Meter])
    meter = cluster.actor(Meter, "a")
    assert await meter.echo() == 10
    assert await meter.get() == 11


@simulated
async def test_overload_drops_and_counts_them(house: House) -> None:
    """There is nobody to tell, so the silo has to count."""
    config = msgspec.structs.replace(SMALL, limits=Limits(mailbox_calls=3))
    cluster = await house.open([Meter], config)
    meter = cluster.actor(Meter, "a")
    await meter.get()
    await meter.add_slowly(1, 5.0)
    for _ in range(10):
        await meter.add(1)
    await asyncio.sleep(6)
    assert await meter.get() == 4
    found = house.silo().statistics()
    assert found.dropped == 7
    page, _ = metrics.render(found)
    assert b"\ndurum_one_way_dropped_total 7.0\n" in page
    await quiet(house)


@simulated
async def test_one_that_reaches_the_wrong_silo_is_passed_on(house: House) -> None:
    """A table that is a moment old must not cost calls that nobody repeats."""
    first = await house.start("a", [Meter])
    cluster = await house.connect("a")
    meters = [cluster.actor(Meter, f"m{n}") for n in range(16)]
    for meter in meters:
        await meter.get()
    await house.start("b", [Meter])
    await asyncio.sleep(5)
    (link,) = [each for each in cluster._links.alive if each.peer.silo == first.id]
    data = kind_of(Meter).methods["add"].bind((5,), {})
    for n in range(16):  # all to one silo, as by a table from before
        link.send(Notice(grain_id("Meter", f"m{n}"), "add", data))
    await asyncio.sleep(1)
    assert [await meter.get() for meter in meters] == [5] * 16
    assert len(house.silo("b").life.catalog) > 0
    await quiet(house)


@simulated
async def test_hops_are_bounded(house: House) -> None:
    """Silos that disagree must not throw one call back and forth for ever."""
    first = await house.start("a", [Meter])
    await house.start("b", [Meter])
    cluster = await house.connect("a")
    await asyncio.sleep(5)
    data = kind_of(Meter).methods["add"].bind((5,), {})
    (link,) = [each for each in cluster._links.alive if each.peer.silo == first.id]
    for n in range(16):
        link.send(Notice(grain_id("Meter", f"m{n}"), "add", data, hops=99))
    await asyncio.sleep(1)
    dropped = first.life.services.load.dropped
    totals = [await cluster.actor(Meter, f"m{n}").get() for n in range(16)]
    assert dropped == totals.count(0) > 0


@simulated
async def test_without_a_silo_the_caller_is_told(house: House) -> None:
    """What was never sent did not run, and here that is known."""
    cluster = await house.open([Meter])
    meter = cluster.actor(Meter, "a")
    await meter.get()
    await house.silo().close()
    await asyncio.sleep(1)
    end = await outcome(options(meter, timeout=2).add(1))
    assert isinstance(end, errors.CallTimeout)
    assert end.did_run is errors.DidRun.NO


@simulated
async def test_a_key_is_refused(house: House) -> None:
    """Nothing is recorded, so a key would promise what is not so."""
    cluster = await house.open([Meter])
    end = await outcome(options(cluster.actor(Meter, "a"), idempotency_key="k").add(1))
    assert isinstance(end, errors.ArgumentError)


@simulated
async def test_they_go_through_a_gateway(house: House) -> None:
    """A client that reaches one silo only must not lose half of them."""
    await house.start("a", [Meter])
    await house.start("b", [Meter])
    cluster = await house.connect("a", routing="gateway")
    await asyncio.sleep(5)
    for n in range(16):
        await cluster.actor(Meter, f"m{n}").add(3)
    assert [await cluster.actor(Meter, f"m{n}").get() for n in range(16)] == [3] * 16


def test_a_one_way_method_returns_nothing() -> None:
    """A result that nobody gets is a mistake in the class."""
    with pytest.raises(errors.ConfigError, match=r"Odd\.ask is @one_way"):

        class Odd(Actor):
            @one_way  # type: ignore[type-var]
            async def ask(self) -> int:
                return 1

    with pytest.raises(errors.ConfigError, match="no `async def`"):
        one_way(lambda: None)  # type: ignore[type-var]
