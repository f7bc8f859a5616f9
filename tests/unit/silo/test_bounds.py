"""Limits, deadlines and cancellation: what a silo refuses, drops and stops."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from durum import errors
from durum.config import SiloConfig
from durum.errors import DidRun
from durum.grains.actor import Actor, read_only
from durum.grains.reference import options
from durum.wire.messages import Call, Cancel, Failure
from tests.support.turns import SMALL, House, outcome, settled, simulated

ran: list[str] = []
"""What began, of all grains; each test clears it."""


class Worker(Actor):
    """Says what it began, and takes its time."""

    done: int = 0

    async def work(self, name: str, seconds: float = 0.0) -> int:
        ran.append(name)
        self.done += 1
        if seconds:
            await asyncio.sleep(seconds)
        return self.done

    async def note(self, name: str) -> int:
        ran.append(name)
        self.done += 1
        return self.done

    async def stubborn(self, seconds: float) -> str:
        """Goes on although it was cancelled."""
        self.done += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            ran.append("cancelled")
            raise
        return "done"

    async def save_and_wait(self, seconds: float) -> None:
        self.done += 1
        await self.save()
        self.done += 10
        await asyncio.sleep(seconds)

    async def ask_late(self, seconds: float) -> int:
        """Call another when the time is over."""
        await asyncio.sleep(seconds)
        return await self.actor(Worker, "late").note("late")

    async def leave_caller(self, other: str) -> None:
        """A task that calls another after this turn."""

        async def later() -> None:
            await asyncio.sleep(0.1)
            ran.append(repr(await outcome(self.actor(Worker, other).note("never"))))

        self._task = asyncio.ensure_future(later())

    _task: asyncio.Task[None] | None = None

    async def ask(self, other: str, seconds: float) -> int:
        return await self.actor(Worker, other).work(other, seconds)

    @read_only
    async def get_done(self) -> int:
        return self.done


class Small(Worker, mailbox_limit=3):
    """Takes few calls."""

    async def on_activate(self) -> None:
        await asyncio.sleep(0.5)


def limited(**limits: float) -> SiloConfig:
    return msgspec.structs.replace(SMALL, limits=msgspec.structs.replace(SMALL.limits, **limits))


def refusals(outcomes: list[object]) -> list[errors.Overloaded]:
    return [each for each in outcomes if isinstance(each, errors.Overloaded)]


@pytest.mark.parametrize("awake", [False, True])
def test_mailbox_limit_refuses_at_once_what_would_wait(awake: bool) -> None:
    """An endless queue turns overload into an outage; a refused call did not run and may be sent again."""

    @simulated
    async def check(house: House) -> None:
        ran.clear()
        cluster = await house.open([Small])
        small = cluster.actor(Small, "s")
        if awake:
            await small.get_done()
        calls = [asyncio.ensure_future(small.work(str(n), 0.1)) for n in range(9)]
        ended = await settled(*calls)
        refused = refusals(ended)
        assert len(refused) == (5 if awake else 6)
        assert all(each.did_run is DidRun.NO for each in refused)
        assert len(ran) == 9 - len(refused)
        assert await small.get_done() == len(ran)
        assert house.busy() == 0

    check()


@simulated
async def test_silo_limit_on_calls_refuses_before_anything_runs(house: House) -> None:
    """However many grains share the load, a silo takes no more than it was told to."""
    ran.clear()
    config = limited(silo_calls=5)
    await house.start("a", [Worker], config)
    cluster = await house.connect("a")
    calls = [
        asyncio.ensure_future(cluster.actor(Worker, str(n)).work(str(n), 1.0)) for n in range(9)
    ]
    ended = await settled(*calls)
    assert len(refusals(ended)) == 4
    assert "silo_calls" in str(refusals(ended)[0])
    assert len(ran) == 5
    assert await cluster.actor(Worker, "8").work("8") == 1


@simulated
async def test_silo_limit_on_bytes_refuses_large_arguments(house: House) -> None:
    """A few large calls weigh as much as many small ones."""
    ran.clear()
    await house.start("a", [Worker], limited(silo_bytes=10_000))
    cluster = await house.connect("a")
    worker = cluster.actor(Worker, "w")
    calls = [asyncio.ensure_future(worker.work("x" * 6_000, 1.0)) for _ in range(4)]
    ended = await settled(*calls)
    assert len(refusals(ended)) == 2
    assert "silo_bytes" in str(refusals(ended)[0])
    assert house.silo().life.services.load.bytes == 0


@simulated
async def test_call_whose_deadline_passed_in_line_never_starts(house: House) -> None:
    """Its caller has gone: running it would surprise whoever has given up."""
    ran.clear()
    cluster = await house.open([Worker])
    worker = cluster.actor(Worker, "w")
    first = asyncio.ensure_future(worker.work("first", 2.0))
    await asyncio.sleep(0.1)
    late = asyncio.ensure_future(outcome(options(worker, timeout=0.5).work("late")))
    assert isinstance(await late, errors.CallTimeout)
    assert await first == 1
    await worker.get_done()
    assert ran == ["first"]
    assert house.busy() == 0


@simulated
async def test_expired_call_is_refused_even_if_nobody_swept_it(house: House) -> None:
    """The sweep is coarse, and may be late itself: what counts is the clock when the turn would begin."""
    ran.clear()
    cluster = await house.open([Worker])
    worker = cluster.actor(Worker, "w")
    await worker.get_done()
    sink = _Sink()
    dispatcher = house.silo().life._dispatcher
    target = worker._durum_target  # type: ignore[attr-defined]
    slow = msgspec.msgpack.encode(["first", 0.1])
    dispatcher.call(sink, Call(1, target.grain, "work", slow, 30_000))
    dispatcher.call(sink, Call(2, target.grain, "note", msgspec.msgpack.encode(["late"]), 50))
    await asyncio.sleep(0.15)
    assert ran == ["first"]
    late = sink.answers[2]
    assert (late.error, late.did_run) == ("CallTimeout", DidRun.NO)  # type: ignore[attr-defined]


class _Sink:
    """A caller, by hand."""

    trusted = True
    silo = None

    def __init__(self) -> None:
        self.answers: dict[int, object] = {}

    def send(self, message: object) -> None:
        self.answers[message.id] = message  # type: ignore[attr-defined]


@simulated
async def test_turn_past_its_deadline_calls_nobody(house: House) -> None:
    """Until the sweep comes it runs on; but whom it calls would work for a caller that has gone."""
    ran.clear()
    cluster = await house.open([Worker])
    worker = cluster.actor(Worker, "w")
    await worker.get_done()
    await cluster.actor(Worker, "late").get_done()
    began = house.loop.time()
    sink, dispatcher = _Sink(), house.silo().life._dispatcher
    grain = worker._durum_target.grain  # type: ignore[attr-defined]
    for number in range(20):
        args = msgspec.msgpack.encode([0.1 + number / 100 + 0.005])
        dispatcher.call(sink, Call(number, grain, "ask_late", args, 100 + 10 * number))
        await asyncio.sleep(0.4)
    assert house.loop.time() - began > 7
    assert ran == []


@simulated
async def test_call_of_a_late_task_ends_at_its_deadline_too(house: House) -> None:
    """It has no turn that is cancelled, and no connection that is swept; still every call ends."""
    ran.clear()
    cluster = await house.open([Worker], limited(call_timeout_s=3.0))
    blocked = asyncio.ensure_future(
        options(cluster.actor(Worker, "b"), timeout=20.0).work("b", 10.0)
    )
    await cluster.actor(Worker, "w").leave_caller("b")
    await asyncio.sleep(5.0)
    assert len(ran) == 2
    assert "CallTimeout" in ran[1]
    assert "did not run" in ran[1]
    await blocked


@simulated
async def test_running_turn_is_cancelled_at_its_deadline_and_rolled_back(house: House) -> None:
    """Without an end it would hold its grain for ever; with its changes kept it would have run by half."""
    ran.clear()
    cluster = await house.open([Worker])
    worker = cluster.actor(Worker, "w")
    with pytest.raises(errors.CallTimeout) as caught:
        await options(worker, timeout=1.0).stubborn(50)
    assert caught.value.did_run is DidRun.MAYBE
    assert await worker.get_done() == 0
    assert ran == ["cancelled"]
    assert house.loop.time() < 2


@simulated
async def test_cancelling_a_waiting_call_drops_it(house: House) -> None:
    """Whoever cancels does not want it any more; nothing of it must happen later."""
    ran.clear()
    cluster = await house.open([Worker])
    worker = cluster.actor(Worker, "w")
    first = asyncio.ensure_future(worker.work("first", 1.0))
    await asyncio.sleep(0.1)
    second = asyncio.ensure_future(worker.work("second"))
    third = asyncio.ensure_future(worker.work("third"))
    await asyncio.sleep(0.1)
    second.cancel()
    assert await first == 1
    assert await third == 2
    assert ran == ["first", "third"]
    assert house.busy() == 0


@simulated
async def test_cancelling_a_running_call_cancels_its_code_and_rolls_back(house: House) -> None:
    """As cancelling a local coroutine does; and the grain goes on at once."""
    ran.clear()
    cluster = await house.open([Worker])
    worker = cluster.actor(Worker, "w")
    call = asyncio.ensure_future(worker.stubborn(20))
    await asyncio.sleep(0.5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await worker.note("next") == 1
    assert ran == ["cancelled", "next"]
    assert house.loop.time() < 1


@simulated
async def test_cancelling_goes_down_the_chain(house: House) -> None:
    """Work for a caller that has gone must end everywhere, not only at the first grain."""
    ran.clear()
    cluster = await house.open([Worker])
    call = asyncio.ensure_future(cluster.actor(Worker, "a").ask("b", 20.0))
    await asyncio.sleep(0.5)
    call.cancel()
    await settled(call)
    await asyncio.sleep(0.1)
    assert await cluster.actor(Worker, "b").get_done() == 0
    assert house.busy() == 0


@pytest.mark.parametrize("method", ["work", "note"])
def test_call_cancelled_in_the_instant_it_arrives_leaves_its_grain_free(method: str) -> None:
    """A task that is cancelled before its first step never enters its coroutine: nobody would end the turn,
    and the grain would be blocked for ever."""

    @simulated
    async def check(house: House) -> None:
        ran.clear()
        cluster = await house.open([Worker])
        worker = cluster.actor(Worker, "w")
        await worker.get_done()
        sink, dispatcher = _Sink(), house.silo().life._dispatcher
        target = worker._durum_target  # type: ignore[attr-defined]
        args = msgspec.msgpack.encode(["x", 1.0] if method == "work" else ["x"])
        for number, key in enumerate(("", "key"), 1):
            dispatcher.call(sink, Call(number, target.grain, method, args, 30_000, key))
            dispatcher.cancel(sink, Cancel(number))
            dispatcher.cancel(sink, Cancel(number))
        await asyncio.sleep(0.1)
        assert await options(worker, timeout=5.0).note("after") <= 2
        assert house.busy() == 0

    check()


@simulated
async def test_commit_on_its_way_is_not_cancelled(house: House) -> None:
    """Its fate is the store's: taking it back in memory would part the two."""
    ran.clear()
    cluster = await house.open([Worker])
    worker = cluster.actor(Worker, "w")
    await worker.get_done()
    house.store.block("a", 1.0)
    call = asyncio.ensure_future(worker.work("x", 0.1))
    await asyncio.sleep(0.5)
    call.cancel()
    await settled(call)
    assert await worker.note("y") == 2
    house.kill("a")
    await house.start("a#2", [Worker])
    assert await worker.get_done() == 2


@simulated
async def test_call_that_waits_for_its_partition_can_be_cancelled(house: House) -> None:
    """It waits in the silo as others wait in a mailbox, and must not run later either."""
    ran.clear()
    cluster = await house.open([Worker])
    life = house.silo().life
    worker = cluster.actor(Worker, "w")
    sink = _Sink()
    target = worker._durum_target  # type: ignore[attr-defined]
    partition = target.hash % SMALL.partitions
    holding = life.ownership.holding(partition)
    assert holding is not None
    holding.draining = True
    args = msgspec.msgpack.encode(["x"])
    life._dispatcher.call(sink, Call(1, target.grain, "note", args))
    life._dispatcher.call(sink, Call(2, target.grain, "note", args, 100))
    await asyncio.sleep(0.01)
    assert house.busy() == 2
    life._dispatcher.cancel(sink, Cancel(1))
    await asyncio.sleep(0.5)
    holding.draining = False
    await asyncio.sleep(1.0)
    assert ran == []
    assert house.busy() == 0
    assert list(sink.answers) == [2]
    assert sink.answers[2].did_run is DidRun.NO  # type: ignore[attr-defined]


@simulated
async def test_turn_that_saved_and_was_cancelled_says_what_is_kept(house: House) -> None:
    """`rolled_back` would be a lie: a part of it is durable."""
    cluster = await house.open([Worker])
    worker = cluster.actor(Worker, "w")
    await worker.get_done()
    sink, dispatcher = _Sink(), house.silo().life._dispatcher
    grain = worker._durum_target.grain  # type: ignore[attr-defined]
    dispatcher.call(sink, Call(1, grain, "save_and_wait", msgspec.msgpack.encode([9.0])))
    await asyncio.sleep(0.5)
    dispatcher.cancel(sink, Cancel(1))
    await asyncio.sleep(0.1)
    failure = sink.answers[1]
    assert failure.did_run is DidRun.YES  # type: ignore[attr-defined]
    assert "what it saved is kept" in failure.text  # type: ignore[attr-defined]
    assert await worker.get_done() == 1


@simulated
async def test_lease_that_lapsed_refuses_turns_and_old_answers(house: House) -> None:
    """Another silo may serve the grain by then: this one may neither begin a turn nor answer by what it
    has in memory."""
    ran.clear()
    cluster = await house.open([Worker])
    worker = cluster.actor(Worker, "w")
    await worker.get_done()
    sink, dispatcher = _Sink(), house.silo().life._dispatcher
    grain = worker._durum_target.grain  # type: ignore[attr-defined]
    dispatcher.call(sink, Call(1, grain, "stubborn", msgspec.msgpack.encode([0.5])))
    dispatcher.call(sink, Call(2, grain, "note", msgspec.msgpack.encode(["queued"])))
    house.silo().life._lease.end()
    dispatcher.call(sink, Call(3, grain, "note", msgspec.msgpack.encode(["new"])))
    await asyncio.sleep(0.6)
    assert ran == []
    assert [sink.answers[n].error for n in (2, 3)] == ["NotServing"] * 2  # type: ignore[attr-defined]
    assert all(sink.answers[n].did_run is DidRun.NO for n in (2, 3))  # type: ignore[attr-defined]


@simulated
async def test_turn_that_only_looked_does_not_answer_once_the_lease_has_lapsed(
    house: House,
) -> None:
    """What it saw may be long overtaken."""
    cluster = await house.open([Worker])
    worker = cluster.actor(Worker, "w")
    await worker.get_done()
    sink, dispatcher = _Sink(), house.silo().life._dispatcher
    grain = worker._durum_target.grain  # type: ignore[attr-defined]
    dispatcher.call(sink, Call(1, grain, "ask", msgspec.msgpack.encode(["other", 0.5])))
    await asyncio.sleep(0.2)
    house.silo().life._lease.end()
    await asyncio.sleep(0.5)
    failure = sink.answers[1]
    assert isinstance(failure, Failure)
    assert failure.error == "CommitFailed"
    assert failure.did_run is DidRun.ROLLED_BACK
    assert "lease lapsed" in failure.text
