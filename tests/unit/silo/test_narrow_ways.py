"""Narrow ways to lose, double or hang something, each of which was once open."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from durum import errors
from durum.client.delivery import Delivery
from durum.config import Limits, SiloConfig
from durum.errors import DidRun
from durum.grains.actor import Actor, read_only
from durum.grains.reference import options
from durum.ids import GrainId, SiloId, Token
from durum.silo.holdings import Holding, Holdings
from durum.silo.relay import Relay
from durum.tasks import TaskOwner
from durum.wire.connection import LinkBroken
from durum.wire.messages import Call, Failure
from tests.support.turns import House, outcome, simulated
from tests.unit.silo.test_outcomes import steal


class Stubborn(Actor):
    coins: int = 0

    async def add(self, coins: int) -> int:
        self.coins += coins
        return self.coins

    async def add_slowly(self, coins: int, seconds: float) -> int:
        job = asyncio.ensure_future(asyncio.sleep(seconds))
        while not job.done():  # as code that waits for a thread, which cannot be cancelled
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(job)
        self.coins += coins
        return self.coins

    async def go(self) -> None:
        self.deactivate()

    @read_only
    async def count(self) -> int:
        return self.coins


class Careful(Actor, strict_reads=True):
    coins: int = 5

    async def set(self, coins: int) -> None:
        self.coins = coins

    async def take(self, coins: int) -> str:
        if self.coins < coins:
            return f"only {self.coins}"
        self.coins -= coins
        return "taken"


class Deaf(Actor, reentrant=True):
    async def work(self) -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1000)

    async def ask_beside(self) -> None:
        self._beside = asyncio.get_running_loop().create_task(outcome(self.actor(Deaf, "d").work()))

    async def answered(self) -> bool:
        return self._beside.done()

    _beside: asyncio.Task[object]


@simulated
async def test_turn_that_is_left_behind_commits_nothing_beside_the_next_activation(
    house: House,
) -> None:
    """Both would live under one token, and what the one acknowledges the other would not know."""
    cluster = await house.open([Stubborn])
    stubborn = options(cluster.actor(Stubborn, "s"), timeout=400.0)
    assert await stubborn.add(1) == 1
    slow = asyncio.get_running_loop().create_task(outcome(stubborn.add_slowly(10, 120.0)))
    await asyncio.sleep(1)
    house.silo().life.catalog.activations[stubborn._durum_target.grain].retire()  # type: ignore[attr-defined]
    await asyncio.sleep(60)
    assert await stubborn.count() == 1
    late = await slow
    assert isinstance(late, errors.CommitFailed)
    assert late.did_run is DidRun.ROLLED_BACK
    assert await stubborn.count() == 1


@simulated
async def test_strict_kind_asks_the_store_also_where_a_turn_changed_nothing(house: House) -> None:
    """A refusal tells as much of the state as a read does."""
    cluster = await house.open([Careful])
    careful = cluster.actor(Careful, "c")
    await careful.set(5)
    house.operations.clear()
    await steal(house, careful)
    await outcome(options(careful, timeout=2.0).take(10))
    assert [one for one in house.operations if one.name == "verify"]


@simulated
async def test_call_of_a_task_that_outlived_its_turn_ends_whatever_its_target_does(
    house: House,
) -> None:
    """It has no turn that is cancelled at a deadline, and the link within a silo has no sweep."""
    cluster = await house.open([Deaf])
    deaf = cluster.actor(Deaf, "caller")
    await deaf.ask_beside()
    await asyncio.sleep(40)
    assert await deaf.answered()
    house.kill("a")


@pytest.mark.parametrize(("lost", "others"), [(1, 1), (5, 20)])
def test_store_that_made_up_its_count_after_a_loss_is_found_out(lost: int, others: int) -> None:
    """By the time anybody looks, nothing is missing but what had been acknowledged."""

    @simulated
    async def test(house: House) -> None:
        cluster = await house.open([Stubborn], SiloConfig(partitions=1))
        first = cluster.actor(Stubborn, "first")
        crowd = [cluster.actor(Stubborn, f"other{number}") for number in range(20)]
        for each in (first, *crowd):
            await each.add(1)
        await asyncio.sleep(0.5)
        snapshot = house.store.snapshot()
        for _ in range(lost):
            await first.add(1)
        life = house.silo().life
        await house.store.roll_back(snapshot)
        await asyncio.gather(*(outcome(options(o, timeout=2.0).add(1)) for o in crowd[:others]))
        await asyncio.sleep(10)
        error = life._halted.exception() if life._halted.done() else None
        house.kill("a")
        assert isinstance(error, errors.DataLoss)

    test()


def test_holding_knows_each_number_of_a_commit_once() -> None:
    """Answers may be lost or come late; a number that comes twice is a store that went back."""
    holding = Holding(0, 1, Token(b"t"), 0.0, 7)
    assert holding.counts(8)
    assert holding.counts(11)  # the answers of 9 and 10 are late
    assert holding.counts(10)
    assert not holding.counts(10)
    assert holding.counts(9)
    assert not holding.counts(11)
    assert not holding.counts(8)
    assert holding.counts(7)  # before this holding: not ours to judge
    assert holding.counts(1_000_000)
    assert holding.counts(500_000)  # of so many nobody keeps a list
    assert not holding.counts(1_000_000)


async def test_nobody_waits_for_a_partition_for_ever() -> None:
    """Calls come and give up as long as a partition is away; each must take its waiter along."""
    holdings = Holdings(1, lambda: 0.0)
    first, second = holdings.waiter(0), holdings.waiter(0)
    holdings.forget(0, first)
    holdings.forget(0, first)
    holdings.forget(0, second)
    assert not holdings._waiters


def test_call_that_may_have_run_is_never_said_to_have_kept_nothing() -> None:
    """The first attempt may still be running when a second one is rolled back."""
    delivery = Delivery(
        grain=GrainId("A/b"),
        hash=1,
        method="m",
        args=b"",
        key="k",
        origin=None,
        timeout_s=1,
        deadline=1,
    )
    delivery.judge(LinkBroken("it broke", sent=True))
    delivery.judge(Failure(1, "CommitFailed", DidRun.ROLLED_BACK, "the store is full"))
    assert delivery.ran is DidRun.MAYBE


class _Away:
    def leads_here(self, grain: str) -> bool:
        return False

    async def relay(self, call: Call) -> object:
        await asyncio.sleep(3600)
        return call


class _Client:
    def __init__(self) -> None:
        self.sent: list[Failure] = []

    def send(self, message: Failure) -> None:
        self.sent.append(message)


async def test_relay_carries_one_call_of_a_number() -> None:
    """Else a client that repeats numbers would get past the limit, and none could be cancelled."""
    owner = TaskOwner("relay")
    await owner.open()
    client = _Client()
    limits = msgspec.structs.replace(Limits(), silo_calls=10)
    relay = Relay(SiloId("s@1"), _Away(), owner, limits)  # type: ignore[arg-type]
    for _ in range(3):
        assert relay.take(client, Call(7, "A/b", "m", b"", 1000))  # type: ignore[arg-type]
    assert [failure.error for failure in client.sent] == ["Rejected", "Rejected"]
    assert relay.cancel(client, 7)  # type: ignore[arg-type]
    await owner.close()
