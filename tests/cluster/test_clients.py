"""How a cluster looks from outside: ways in, deadlines, cancellation, exceptions, and news of what moved."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

import durum
from durum import errors
from durum.errors import DidRun
from durum.ids import GrainId
from durum.wire.messages import Call, Failure
from tests.support.fleet import Fleet, appears, keys_at, raw_link
from tests.support.grains import Broke, Counter, Echo, Slow
from tests.support.load import read


async def test_each_kind_of_target_leads_to_the_whole_cluster(three: Fleet) -> None:
    """One address, many of them with some that are gone, or the store: all callers end up alike."""
    addresses = [silo.first_line["address"] for silo in three.silos]
    for targets in (addresses[:1], ["127.0.0.1:1", *addresses[1:]], [three.store]):
        async with three.connect(*targets) as cluster:
            assert set(cluster.silos) == set(addresses)
            for silo in three.silos:
                key = next(keys_at(cluster, Counter, silo, "target"))
                assert await cluster.actor(Counter, key).get() == 0


async def test_nobody_there_is_no_silo_and_says_what_was_tried(three: Fleet) -> None:
    """A person has to find the mistyped port in it."""
    with pytest.raises(errors.NoSilo, match=r"127\.0\.0\.1:1") as caught:
        async with durum.connect(["127.0.0.1:1", "127.0.0.1:2"], connect_timeout_s=0.5):
            pass
    assert "127.0.0.1:2" in str(caught.value)


async def test_client_finds_silos_that_all_moved_to_other_ports(sqlite_fleet: Fleet) -> None:
    """Everything was restarted somewhere else. Whoever knows the store needs no new address."""
    fleet = sqlite_fleet
    silos = await fleet.started(2)
    async with fleet.connect(fleet.store) as cluster:
        assert await cluster.actor(Counter, "one").add(1) == 1
        for silo in silos:
            fleet.terminate(silo)
        for silo in silos:
            await fleet.ended(silo)
        waiting = asyncio.create_task(cluster.actor(Counter, "one").add(1))
        (new,) = await fleet.start()
        assert await waiting == 2
        assert list(cluster.silos) == [new.first_line["address"]]


async def test_deadline_ends_a_running_turn_and_says_maybe(three: Fleet) -> None:
    """The caller has given up; the actor must not be kept by what nobody waits for, nor keep its effect."""
    async with three.connect() as cluster:
        counter = cluster.actor(Counter, "deadline")
        mark = str(three.home / "deadline")
        with pytest.raises(errors.CallTimeout) as caught:
            await durum.options(counter, timeout=1.0).linger(mark)
        assert caught.value.did_run in {DidRun.MAYBE, DidRun.ROLLED_BACK}
        await appears(three.home / "deadline-ended")
        assert await counter.get() == 0
        assert await counter.add(1) == 1


async def test_silo_says_that_the_deadline_passed_where_its_clock_is_first(three: Fleet) -> None:
    """The caller's timer may be late, on a busy machine; `except CallTimeout` has to catch it even so."""
    ended = []
    for silo in three.silos:
        async with raw_link(silo) as (link, _):
            args = msgspec.msgpack.encode([str(three.home / "late")])
            grain = GrainId("Counter/late")
            ended.append(await link.request(Call(link.next_id(), grain, "linger", args, 300)))
    (failure,) = [one for one in ended if isinstance(one, Failure)]
    assert (failure.error, failure.did_run) == ("CallTimeout", DidRun.ROLLED_BACK)


async def test_call_that_expires_in_the_queue_never_runs(three: Fleet) -> None:
    """Its caller has gone on to something else; running it now would surprise everybody."""
    async with three.connect() as cluster:
        counter = cluster.actor(Counter, "queue")
        first = asyncio.create_task(counter.linger(str(three.home / "queue")))
        await appears(three.home / "queue-began")
        with pytest.raises(errors.CallTimeout):
            await durum.options(counter, timeout=0.5).add(100)
        first.cancel()
        await asyncio.wait([first])
        assert await counter.add(1) == 1


async def test_cancelling_the_caller_cancels_the_turn_and_rolls_it_back(three: Fleet) -> None:
    """`asyncio.timeout` around a call must mean what it says on the other side as well."""
    async with three.connect() as cluster:
        counter = cluster.actor(Counter, "cancelled")
        call = asyncio.create_task(counter.linger(str(three.home / "cancelled")))
        await appears(three.home / "cancelled-began")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await appears(three.home / "cancelled-ended")
        assert await counter.get() == 0


async def test_client_that_vanishes_does_not_keep_an_actor(three: Fleet) -> None:
    """Its process was killed in the middle of a call; the others wait no longer than it would have."""
    async with three.connect() as other:
        async with three.connect() as cluster:
            counter = durum.options(cluster.actor(Counter, "vanished"), timeout=2)
            call = asyncio.create_task(counter.linger(str(three.home / "vanished")))
            await appears(three.home / "vanished-began")
        with pytest.raises(errors.CallError):
            await call
        await appears(three.home / "vanished-ended")
        assert await other.actor(Counter, "vanished").add(1) == 1


async def test_exceptions_of_users_come_back_as_their_own_type(three: Fleet) -> None:
    """`except Broke` is how people write programs; and the turn has left nothing behind."""
    async with three.connect() as cluster:
        counter = cluster.actor(Counter, "poor")
        await counter.add(10)
        with pytest.raises(Broke, match="poor lacks 32") as caught:
            await counter.spend(42)
        assert (caught.value.who, caught.value.missing) == ("poor", 32)
        assert any("in spend" in note for note in caught.value.__notes__)
        assert await counter.get() == 10


async def test_keyed_call_takes_effect_once_whoever_repeats_it(three: Fleet) -> None:
    """Two processes with one order in hand: the second gets the first one's answer."""
    async with three.connect() as one, three.connect() as other:
        counters = [cluster.actor(Counter, "order") for cluster in (one, other) for _ in range(20)]
        answers = await asyncio.gather(
            *(durum.options(counter, idempotency_key="7").add(3) for counter in counters)
        )
        assert answers == [3] * len(answers)
        assert await one.actor(Counter, "order").get() == 3


async def test_keyed_exception_is_remembered_too(three: Fleet) -> None:
    """A refusal is an outcome. Repeating it after the money came must not spend it by surprise."""
    async with three.connect() as cluster:
        counter = cluster.actor(Counter, "refusal")
        keyed = durum.options(counter, idempotency_key="buy 7")
        for _ in range(2):
            with pytest.raises(Broke, match="lacks 5"):
                await keyed.spend(5)
            await counter.add(5)
        assert await counter.get() == 10


async def test_many_clients_count_together(three: Fleet) -> None:
    """Turns of one actor come one after the other, wherever the calls come from."""
    async with three.connect() as a, three.connect() as b, three.connect() as c:
        answers = await asyncio.gather(
            *(cluster.actor(Counter, "shared").add(1) for cluster in (a, b, c) for _ in range(50))
        )
        assert sorted(answers) == list(range(1, 151))
        assert await read(b.actor(Counter, "shared")) == 150


async def test_closed_client_ends_its_calls_typed(three: Fleet) -> None:
    """A program that ends must not hang on what is under way, nor take it for done."""
    cluster = await three.connect()
    calls = [asyncio.create_task(cluster.actor(Slow, "closing").work()) for _ in range(50)]
    await calls[0]
    await cluster.close()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    failed = [one for one in outcomes if not isinstance(one, int)]
    assert failed
    assert {type(one) for one in failed} <= {errors.SiloLost, errors.ShuttingDown}
    with pytest.raises(errors.ShuttingDown):
        await cluster.actor(Echo, "x").same("late")
