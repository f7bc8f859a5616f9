"""Idempotency keys: a call with one takes effect once, and a repeat gets the same answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from durum import errors
from durum.errors import DidRun
from durum.grains.actor import Actor, read_only
from durum.grains.reference import options
from durum.testing.store import Stage
from durum.testing.store_client import Operation
from durum.wire.messages import Call, Cancel
from tests.support.turns import SMALL, Fate, House, outcome, settled, simulated


class Till(Actor, reply_window=timedelta(seconds=100), replies_kept=5):
    """Counts its runs."""

    runs: int = 0

    async def pay(self, amount: int) -> int:
        self.runs += 1
        return self.runs * 100 + amount

    async def pay_slowly(self, amount: int, seconds: float = 1.0) -> int:
        self.runs += 1
        await asyncio.sleep(seconds)
        return self.runs * 100 + amount

    async def refuse(self, amount: int) -> None:
        self.runs += 1
        raise ValueError(f"no {amount} {self.runs}")

    async def pay_by_half(self, amount: int, fails: bool) -> int:
        self.runs += 1
        await self.save()
        await asyncio.sleep(1.0)
        if fails:
            raise ValueError("after the save")
        self.runs += 10
        return amount

    async def return_nonsense(self) -> int:
        self.runs += 1
        return "x"  # type: ignore[return-value]

    async def grow(self, size: int) -> int:
        self._big = "x" * size
        self.text = self._big
        return size

    text: str = ""
    _big: str = ""

    @read_only
    async def count(self) -> int:
        return self.runs


class FreeTill(Actor, reentrant=True):
    runs: int = 0

    async def pay_slowly(self, amount: int, seconds: float = 1.0) -> int:
        self.runs += 1
        await asyncio.sleep(seconds)
        await self.save()
        return amount

    async def count(self) -> int:
        return self.runs


class Volatile(Actor):
    """Keys work without durable fields too: what is remembered is durable."""

    _runs: int = 0

    async def pay(self, amount: int) -> int:
        self._runs += 1
        return self._runs


def keyed(till: Till, key: str = "k", timeout: float | None = None) -> Till:
    return options(till, idempotency_key=key, timeout=timeout)


@simulated
async def test_repeat_gets_the_same_reply_and_does_not_run(house: House) -> None:
    """Whoever lost the reply asks again; paying twice is what the key is there against."""
    cluster = await house.open([Till])
    till = cluster.actor(Till, "t")
    assert await keyed(till).pay(5) == 105
    assert await keyed(till).pay(5) == 105
    assert await till.count() == 1
    assert await keyed(till, "other").pay(5) == 205
    assert len(house.commits()) == 2


@simulated
async def test_repeat_gets_the_same_reply_across_a_crash(house: House) -> None:
    """State and reply are committed together: a silo that died in between is no excuse."""
    cluster = await house.open([Till])
    till = cluster.actor(Till, "t")
    assert await keyed(till).pay(5) == 105
    house.kill("a")
    await house.start("a#2", [Till])
    assert await keyed(till).pay(5) == 105
    assert await till.count() == 1


@simulated
async def test_exception_is_remembered_and_what_the_method_changed_is_not(house: House) -> None:
    """An exception is an answer: a repeat that succeeds would contradict what the caller was told."""
    cluster = await house.open([Till])
    till = cluster.actor(Till, "t")
    for _ in range(2):
        with pytest.raises(ValueError, match="no 5 1"):
            await keyed(till).refuse(5)
    with pytest.raises(TypeError, match="returned what its annotation"):
        await keyed(till, "n").return_nonsense()
    house.kill("a")
    await house.start("a#2", [Till])
    with pytest.raises(ValueError, match="no 5 1"):
        await keyed(till).refuse(5)
    with pytest.raises(TypeError, match="returned what its annotation"):
        await keyed(till, "n").return_nonsense()
    assert await till.count() == 0


@simulated
async def test_key_of_another_call_is_refused(house: House) -> None:
    """Answering with the other call's reply would be wrong, running it a surprise."""
    cluster = await house.open([Till])
    till = cluster.actor(Till, "t")
    await keyed(till).pay(5)
    for call in (keyed(till).pay(6), keyed(till).pay_slowly(5)):
        with pytest.raises(
            errors.ArgumentError, match="another method or other arguments"
        ) as caught:
            await call
        assert caught.value.did_run is DidRun.NO
    assert await till.count() == 1


@simulated
async def test_key_on_a_read_only_method_is_refused(house: House) -> None:
    """It commits nothing, so nothing could be remembered: the promise would be empty."""
    cluster = await house.open([Till])
    with pytest.raises(errors.ArgumentError, match="is @read_only and records nothing"):
        await keyed(cluster.actor(Till, "t")).count()


@simulated
async def test_repeat_while_the_first_still_runs_waits_for_its_reply(house: House) -> None:
    """A caller whose connection broke comes again at once."""
    cluster = await house.open([Till])
    till = cluster.actor(Till, "t")
    calls = [asyncio.ensure_future(keyed(till).pay_slowly(5)) for _ in range(5)]
    assert await asyncio.gather(*calls) == [105] * 5
    assert await till.count() == 1


@simulated
async def test_repeat_waits_for_the_first_on_a_reentrant_kind_too(house: House) -> None:
    """Such kinds interleave everything but two runs of one key."""
    cluster = await house.open([FreeTill])
    till = cluster.actor(FreeTill, "t")
    one = options(till, idempotency_key="k")
    calls = [asyncio.ensure_future(one.pay_slowly(5)) for _ in range(4)]
    calls.append(asyncio.ensure_future(options(till, idempotency_key="other").pay_slowly(6)))
    assert await asyncio.gather(*calls) == [5, 5, 5, 5, 6]
    assert await till.count() == 2
    assert house.loop.time() < 2


@simulated
async def test_cancelled_repeat_does_not_let_others_run_beside_the_first(house: House) -> None:
    """It only waited: that it goes says nothing of the run that goes on."""
    cluster = await house.open([FreeTill])
    till = cluster.actor(FreeTill, "t")
    one = options(till, idempotency_key="k")
    first = asyncio.ensure_future(one.pay_slowly(5))
    await asyncio.sleep(0.1)
    second = asyncio.ensure_future(one.pay_slowly(5))
    await asyncio.sleep(0.1)
    second.cancel()
    await settled(second)
    third = asyncio.ensure_future(one.pay_slowly(5))
    assert [await first, await third] == [5, 5]
    assert await till.count() == 1


@simulated
async def test_key_works_on_a_kind_without_durable_fields(house: House) -> None:
    """Its effects may lie elsewhere, and the caller cannot know."""
    cluster = await house.open([Volatile])
    volatile = options(cluster.actor(Volatile, "v"), idempotency_key="k")
    assert [await volatile.pay(1), await volatile.pay(1)] == [1, 1]
    house.kill("a")
    await house.start("a#2", [Volatile])
    assert await volatile.pay(1) == 1


@simulated
async def test_call_that_saved_a_part_and_crashed_is_not_run_again(house: House) -> None:
    """The part would be doubled. The refusal comes at once, not after retrying until the deadline."""
    cluster = await house.open([Till])
    till = cluster.actor(Till, "t")
    call = asyncio.ensure_future(outcome(keyed(till).pay_by_half(5, False)))
    await asyncio.sleep(0.5)
    house.kill("a")
    await house.start("a#2", [Till])
    ended = await call
    assert isinstance(ended, errors.CommitFailed)
    assert "saved a part of its work" in str(ended)
    assert ended.did_run is DidRun.YES
    assert await till.count() == 1
    began = house.loop.time()
    assert isinstance(await outcome(keyed(till).pay_by_half(5, False)), errors.CommitFailed)
    assert house.loop.time() - began < 0.1


@simulated
async def test_call_that_saved_and_ended_is_remembered_as_it_ended(house: House) -> None:
    """The part that was saved is only the beginning of the story."""
    cluster = await house.open([Till])
    till = cluster.actor(Till, "t")
    assert await keyed(till).pay_by_half(5, False) == 5
    assert await keyed(till).pay_by_half(5, False) == 5
    assert await till.count() == 11
    for _ in range(2):
        with pytest.raises(ValueError, match="after the save"):
            await keyed(till, "f").pay_by_half(5, True)
    assert await till.count() == 12


@simulated
async def test_key_is_kept_for_its_window_and_new_ones_are_refused_when_it_is_full(
    house: House,
) -> None:
    """Making room by forgetting would break the promise of whichever key goes."""
    cluster = await house.open([Till])
    till = cluster.actor(Till, "t")
    for number in range(5):
        await keyed(till, str(number)).pay(5)
    with pytest.raises(errors.Overloaded, match="remembers 5 keyed calls") as caught:
        await keyed(till, "new").pay(5)
    assert caught.value.did_run is DidRun.NO
    assert await keyed(till, "0").pay(5) == 105
    await asyncio.sleep(101)
    assert await keyed(till, "0").pay(5) == 605, "the window is over: the key is new"


@simulated
async def test_reply_that_is_not_kept_any_more_says_that_the_call_ran(house: House) -> None:
    """Bodies may go, keys may not: the caller learns what matters, that it was done."""
    limits = msgspec.structs.replace(SMALL.limits, reply_bodies_kept=1)
    cluster = await house.open([Till], msgspec.structs.replace(SMALL, limits=limits))
    till = cluster.actor(Till, "t")
    await keyed(till, "a").pay(1)
    await keyed(till, "b").pay(1)
    with pytest.raises(errors.ReplyForgotten) as caught:
        await keyed(till, "a").pay(1)
    assert caught.value.did_run is DidRun.YES
    assert await keyed(till, "b").pay(1) == 201


@simulated
async def test_keyed_call_repeats_by_itself_until_the_store_has_taken_it(house: House) -> None:
    """That is what a key buys: no answer was lost that could not be asked for again."""
    cluster = await house.open([Till])
    till = cluster.actor(Till, "t")
    house.next_commits(
        Fate(replies=False), Fate(replies=False), Fate(lands=False), Fate(replies=False)
    )
    assert await keyed(till, timeout=20).pay(5) == 105
    assert await till.count() == 1


@simulated
async def test_keyed_call_survives_the_death_of_its_silo(house: House) -> None:
    """The silo dies between the store's yes and the caller's answer: it ran, and must not run again."""
    cluster = await house.open([Till])
    till = cluster.actor(Till, "t")
    struck = asyncio.Event()

    def strike(operation: Operation, stage: Stage) -> None:
        if operation.name == "commit" and stage is Stage.APPLIED and len(house.commits()) == 2:
            if not struck.is_set():
                house.kill("a")
            struck.set()

    house.store.watch(strike)
    calls = [asyncio.ensure_future(keyed(till, str(n)).pay_slowly(5, 0.1)) for n in range(4)]
    await struck.wait()
    await house.start("a#2", [Till])
    assert sorted(await asyncio.gather(*calls)) == [105, 205, 305, 405]
    assert await till.count() == 4


@simulated
async def test_state_that_is_too_large_is_an_answer_and_no_reason_to_try_again(
    house: House,
) -> None:
    """The method would run over and over until the deadline, each time in vain."""
    limits = msgspec.structs.replace(SMALL.limits, state_bytes=1_000)
    cluster = await house.open([Till], msgspec.structs.replace(SMALL, limits=limits))
    till = cluster.actor(Till, "t")
    began = house.loop.time()
    for _ in range(2):
        with pytest.raises(errors.CommitFailed, match="its state would be") as caught:
            await keyed(till).grow(2_000)
        assert caught.value.did_run is DidRun.ROLLED_BACK
    assert house.loop.time() - began < 0.5


class _Sink:
    """A caller, by hand."""

    trusted = True
    silo = None

    def __init__(self) -> None:
        self.answers: dict[int, object] = {}

    def send(self, message: object) -> None:
        self.answers[message.id] = message  # type: ignore[attr-defined]


@simulated
async def test_keyed_call_that_expires_while_its_replies_are_read_does_not_run(
    house: House,
) -> None:
    """Reading them takes a round trip, and longer where the store is slow."""
    cluster = await house.open([Till])
    till = cluster.actor(Till, "t")
    await till.count()
    house.store.block("a", 0.5)
    sink, dispatcher = _Sink(), house.silo().life._dispatcher
    grain = till._durum_target.grain  # type: ignore[attr-defined]
    args = msgspec.msgpack.encode([5])
    dispatcher.call(sink, Call(1, grain, "pay", args, 480, "k"))
    dispatcher.call(sink, Call(2, grain, "pay", args, 10_000, "c"))
    await asyncio.sleep(0.1)
    dispatcher.cancel(sink, Cancel(2))
    await asyncio.sleep(1.0)
    assert sink.answers[1].did_run is DidRun.NO  # type: ignore[attr-defined]
    assert await till.count() == 0
    assert house.busy() == 0
