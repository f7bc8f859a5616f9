"""Idempotency keys: a call with one takes effect once, and a repeat gets the same answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from durum import errors
from durum.config import Limits
from durum.errors import DidRun
from durum.grains.actor import Actor, read_only
from durum.grains.kind import kind_of
from durum.grains.reference import CallOptions, Target, options
from durum.testing.store import Stage
from durum.testing.store_client import Operation
from durum.wire import values
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


class Mirror(Actor):
    """Calls itself, directly and through another."""

    runs: int = 0

    async def add(self, amount: int) -> int:
        self.runs += amount
        return self.runs

    async def add_by(self, way: list[str], key: str) -> int:
        if not way:
            return await options(self.actor(Mirror, self.key), idempotency_key=key).add(1)
        return await self.actor(Mirror, way[0]).add_to(way[1:], key)

    async def add_to(self, way: list[str], key: str) -> int:
        return await options(self.actor(Mirror, way[0]), idempotency_key=key).add(1)


class FreeMirror(Mirror, reentrant=True):
    async def add_by(self, way: list[str], key: str) -> int:
        return await options(self.actor(FreeMirror, self.key), idempotency_key=key).add(1)


@simulated
async def test_key_used_again_by_what_its_own_call_waits_for_is_a_deadlock(house: House) -> None:
    """Run, it would be the second effect under one key; to wait for the first, it would wait for itself."""
    cluster = await house.open([Mirror, FreeMirror])
    mirror, free = cluster.actor(Mirror, "m"), cluster.actor(FreeMirror, "m")
    before = house.loop.time()
    for one, way in ((mirror, []), (mirror, ["n", "m"]), (free, [])):
        failed = await outcome(
            options(one, idempotency_key=f"k{len(way)}").add_by(way, f"k{len(way)}")
        )
        assert isinstance(failed, errors.Deadlock)
        assert "idempotency key 'k" in str(failed)
    assert house.loop.time() - before < 1
    assert await options(mirror, idempotency_key="a").add_by([], "b") == 1
    assert await options(mirror, idempotency_key="c").add_by(["n", "m"], "d") == 2
    assert await options(free, idempotency_key="a").add_by([], "b") == 1


class Basket(Actor):
    items: dict[str, int] = {}

    async def put(self, names: set[str], counts: dict[str, int], each: int = 1) -> int:
        for name in names:
            self.items[name] = self.items.get(name, 0) + each
        return sum(self.items.values())


@simulated
async def test_arguments_that_mean_the_same_are_the_same_call(house: House) -> None:
    """Another process writes the same set in another order, and the command line names its arguments: whoever
    repeats a call from there must not be told that it is another one."""
    cluster = await house.open([Basket])
    basket = options(cluster.actor(Basket, "b"), idempotency_key="k")
    assert await basket.put({"a", "b"}, {"x": 1, "y": 2}) == 2
    assert await basket.put({"b", "a"}, {"y": 2, "x": 1}, 1) == 2
    method = kind_of(Basket).methods["put"]
    for args in (
        values.encode([["a", "b"], {"x": 1, "y": 2}]),
        values.encode([["b", "a"], {"y": 2, "x": 1}, 1]),
        values.encode({"counts": {"x": 1, "y": 2}, "names": ["b", "a"]}),
        values.json_arguments({"names": '["b", "a"]', "counts": '{"x": 1, "y": 2}', "each": "1"}),
    ):
        target = Target(kind_of(Basket), "b")
        reply = await cluster.router.call(target, method, args, CallOptions(None, "k"))
        assert reply == values.encode(2)
    for other in ({"a"}, {"a", "b", "c"}):
        assert isinstance(await outcome(basket.put(other, {})), errors.ArgumentError)
    assert isinstance(
        await outcome(basket.put({"a", "b"}, {"x": 1, "y": 2}, 3)), errors.ArgumentError
    )


@simulated
async def test_deleted_actor_remembers_its_calls_for_the_window_of_its_kind(house: House) -> None:
    """What it did before is done, and doing it again on its successor would be the second time."""

    class Lasting(Till, reply_window=timedelta(seconds=1000)):
        pass

    config = msgspec.structs.replace(SMALL, limits=Limits(reply_window_s=100.0))
    cluster = await house.open([Lasting], config)
    till = cluster.actor(Lasting, "t")
    assert await keyed(till).pay(5) == 105
    assert await cluster.admin.delete(Lasting, "t")
    house.kill("a")
    await asyncio.sleep(900)
    await house.start("a#2", [Lasting], config)
    await cluster.actor(Lasting, "other").pay(1)
    assert await cluster.admin.delete(Lasting, "other")  # an embedded store tidies up with it
    assert await keyed(till).pay(5) == 105
    assert await till.count() == 0


class Courier(Actor):
    tries: int = 0

    async def bring(self, to: str, seconds: float) -> int:
        """Calls another one under a key of its own; the time it has is its caller's."""
        self.tries += 1
        other = options(self.actor(Till, to), idempotency_key=f"{self.context.key} paid")
        return await other.pay_slowly(5, seconds)

    async def bring_in_group(self, to: str) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(options(self.actor(Till, to), timeout=0.5).pay_slowly(1, 1.0))

    async def bring_after_saving(self, to: str) -> None:
        self.tries += 1
        await self.save()
        await options(self.actor(Till, to), timeout=0.5).pay_slowly(1, 1.0)

    async def count(self) -> int:
        return self.tries


@simulated
async def test_what_could_not_be_reached_in_time_is_not_the_answer_for_a_day(house: House) -> None:
    """The caller lost patience, so did the method with whom it called: nothing was kept; a repeat may do."""
    cluster = await house.open([Till, Courier])
    courier, till = cluster.actor(Courier, "c"), cluster.actor(Till, "t")
    keyed = options(courier, idempotency_key="k")
    for _ in range(3):
        failed = await outcome(options(keyed, timeout=0.5).bring("t", 1.0))
        assert isinstance(failed, errors.CallTimeout)
        await asyncio.sleep(1)
    assert await keyed.bring("t", 1.0) == 105
    assert await keyed.bring("t", 1.0) == 105
    assert (await courier.count(), await till.count()) == (1, 1)


@simulated
async def test_own_time_limits_of_a_method_are_no_answer_either(house: House) -> None:
    """Also where they come in a group; but what was saved before is, since that must not be done again."""
    cluster = await house.open([Till, Courier])
    courier = cluster.actor(Courier, "c")
    grouped = options(courier, idempotency_key="g")
    for _ in range(2):
        failed = await outcome(grouped.bring_in_group("t"))
        assert isinstance(failed, ExceptionGroup)
    assert (await cluster.admin.inspect(Courier, "c")).replies == 0
    saved = options(courier, idempotency_key="s")
    first = await outcome(saved.bring_after_saving("t"))
    assert isinstance(first, errors.CallTimeout)
    assert first.did_run is DidRun.YES
    assert isinstance(await outcome(saved.bring_after_saving("t")), errors.CallTimeout)
    assert await courier.count() == 1
