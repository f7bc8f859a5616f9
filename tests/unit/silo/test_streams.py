"""Streams of results: items as they come, no turn held between them, and an end that both sides know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import msgspec
import pytest

from durum import errors
from durum.config import Limits
from durum.grains.actor import Actor
from durum.grains.placement import StatelessWorker
from durum.grains.reference import options
from tests.support.turns import SMALL, House, outcome, simulated

made: list[int] = []
ended: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    made.clear()
    ended.clear()


class Odd(Exception):
    """The author's own."""


class Log(Actor):
    lines: list[int] = []

    async def add(self, line: int) -> int:
        self.lines.append(line)
        return len(self.lines)

    async def feed(self, start: int, end: int = 10_000) -> AsyncIterator[int]:
        try:
            for n in range(start, end):
                made.append(n)
                yield n
        finally:
            ended.append(f"feed of {self.key}")

    async def slow_feed(self, seconds: float) -> AsyncGenerator[int, None]:
        try:
            for n in range(100):
                await asyncio.sleep(seconds)
                made.append(n)
                yield n
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        finally:
            ended.append("slow")

    async def watch(self) -> AsyncIterator[int]:
        while True:
            yield len(self.lines)

    async def broken(self) -> AsyncIterator[int]:
        yield 1
        raise Odd("at two")

    async def wrong(self) -> AsyncIterator[int]:
        yield 1
        yield "two"  # type: ignore[misc]

    async def assigning(self) -> AsyncIterator[int]:
        yield 1
        self.lines = []
        yield 2

    async def copy(self, other: str, count: int) -> list[int]:
        found = []
        async for n in self.actor(Log, other).feed(0):
            found.append(n)
            if len(found) == count:
                break
        self.lines.extend(found)
        return found

    async def leave(self) -> None:
        self.deactivate()


class Spread(Actor, placement=StatelessWorker()):
    async def count(self, to: int) -> AsyncIterator[int]:
        for n in range(to):
            yield n


async def quiet(house: House) -> None:
    await asyncio.sleep(0.5)
    for silo in house.silos.values():
        assert len(silo.life._dispatcher.streams) == 0
        assert silo.life.services.load.calls == 0
    assert all(not cluster.router._streams for cluster in house.clusters)
    assert all(not cluster.router.deadlines.timed for cluster in house.clusters)


@simulated
async def test_items_come_one_by_one_to_the_end(house: House) -> None:
    """As from any async generator, across processes."""
    cluster = await house.open([Log])
    log = cluster.actor(Log, "a")
    assert [n async for n in log.feed(5, 105)] == list(range(5, 105))
    assert ended == ["feed of a"]
    stream = log.feed(0, 1)
    assert [n async for n in stream] == [0]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await quiet(house)


@simulated
async def test_nothing_is_sent_before_the_first_item_is_asked_for(house: House) -> None:
    """As with calls: a reference that is only looked at costs nothing."""
    cluster = await house.open([Log])
    stream = cluster.actor(Log, "a").feed(0)
    await asyncio.sleep(1)
    assert made == []
    del stream
    await quiet(house)


@simulated
async def test_a_slow_reader_holds_the_method_back(house: House) -> None:
    """Without back-pressure a long stream would fill the reader's memory."""
    config = msgspec.structs.replace(SMALL, limits=Limits(stream_window=8))
    cluster = await house.open([Log], config)
    stream = cluster.actor(Log, "a").feed(0)
    assert await anext(stream) == 0
    await asyncio.sleep(5)
    assert len(made) == 8
    for expected in range(1, 50):
        assert await anext(stream) == expected
        await asyncio.sleep(0.1)
        assert len(made) <= expected + 9
    del stream
    await quiet(house)


@simulated
async def test_no_turn_is_held_between_items(house: House) -> None:
    """Other turns run between two steps, and the next item sees what they have changed."""
    config = msgspec.structs.replace(SMALL, limits=Limits(stream_window=1))
    cluster = await house.open([Log], config)
    log = cluster.actor(Log, "a")
    stream = log.watch()
    first = await anext(stream)
    for n in range(5):
        await log.add(n)
    assert first == 0
    await anext(stream)  # made before, while there was credit
    assert await anext(stream) == 5
    await stream.aclose()  # type: ignore[attr-defined]
    await quiet(house)


@pytest.mark.parametrize("way", ["break", "aclose", "cancel", "forget"])
def test_a_reader_that_has_enough_ends_the_method(way: str) -> None:
    """Else every `break` would leave a generator behind on the silo."""

    @simulated
    async def enough(house: House) -> None:
        cluster = await house.open([Log])
        log = cluster.actor(Log, "a")
        if way == "break":
            async for n in log.feed(0):
                if n == 3:
                    break
        elif way == "aclose":
            async with aclosing(log.slow_feed(0.01)) as stream:
                assert await anext(stream) == 0
        elif way == "forget":
            forgotten = log.feed(0)
            await anext(forgotten)
            del forgotten
        else:
            reading = asyncio.ensure_future(anext(log.slow_feed(5.0)))
            await asyncio.sleep(1)
            reading.cancel()
            await asyncio.wait([reading])
        await quiet(house)
        assert ended
        count = len(made)
        await asyncio.sleep(5)
        assert len(made) == count
        assert await log.add(1) == 1

    enough()


@simulated
async def test_a_reader_that_dies_ends_the_method(house: House) -> None:
    """Nobody says goodbye when a process is killed."""
    await house.start("a", [Log])

    async def read() -> None:
        cluster = await house.connect("a", host="reader")
        async for _ in cluster.actor(Log, "a").feed(0):
            await asyncio.sleep(0.1)

    house.loop.start("reader", read())
    await asyncio.sleep(1)
    assert not ended
    house.loop.kill("reader")
    house.clusters.clear()
    await asyncio.sleep(2)
    assert ended == ["feed of a"]
    await quiet(house)


@simulated
async def test_errors_arrive_after_the_items_before_them_and_keep_their_type(house: House) -> None:
    """What came before is right, and the reader's `except` works."""
    cluster = await house.open([Log])
    log = cluster.actor(Log, "a")
    for method, kind in (
        (log.broken, Odd),
        (log.wrong, TypeError),
        (log.assigning, AttributeError),
    ):
        stream = method()
        assert await anext(stream) == 1
        with pytest.raises(kind):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    await quiet(house)


@simulated
async def test_arguments_are_checked(house: House) -> None:
    """At the caller where they cannot travel, at the silo where they do not fit."""
    cluster = await house.open([Log])
    log = cluster.actor(Log, "a")
    end = await outcome(anext(log.feed("x")))  # type: ignore[arg-type]
    assert isinstance(end, errors.ArgumentError)
    with pytest.raises(errors.ArgumentError):
        log.feed(object())  # type: ignore[arg-type]
    with pytest.raises(errors.ArgumentError, match="stream"):
        options(log, idempotency_key="k").feed(1)
    await quiet(house)


@simulated
async def test_a_stream_cannot_be_called(house: House) -> None:
    """A caller with an older class is told what to do."""
    cluster = await house.open([Log])
    log = cluster.actor(Log, "a")
    target, method = log._durum_target, log._durum_target.kind.methods["feed"]  # type: ignore[attr-defined]
    plain = log._durum_options  # type: ignore[attr-defined]
    with pytest.raises(errors.ArgumentError, match="async for"):
        await cluster.router.call(target, method, method.bind((1,), {}), plain)
    add = target.kind.methods["add"]
    source = cluster.router.stream(target, add, add.bind((1,), {}), plain)
    assert msgspec.msgpack.decode(await source.receive()) == 1
    with pytest.raises(StopAsyncIteration):
        await source.receive()
    await quiet(house)


@simulated
async def test_each_item_has_the_time_limit(house: House) -> None:
    """A stream may last for days, but not one item."""
    cluster = await house.open([Log])
    log = options(cluster.actor(Log, "a"), timeout=3)
    stream = log.slow_feed(2.0)
    assert [await anext(stream) for _ in range(4)] == [0, 1, 2, 3]
    await stream.aclose()
    end = await outcome(anext(log.slow_feed(5.0)))
    assert isinstance(end, errors.CallTimeout)
    await quiet(house)


@simulated
async def test_an_actor_reads_the_stream_of_another(house: House) -> None:
    """On the same silo and across silos."""
    await house.start("a", [Log])
    await house.start("b", [Log])
    cluster = await house.connect("a")
    await asyncio.sleep(5)
    for n in (
        *range(8),
        *range(8),
    ):  # also where the other is in memory already, and answers at once
        assert await cluster.actor(Log, f"r{n}").copy(f"w{n}", 50) == list(range(50))
    owners = {host for host, silo in house.silos.items() if len(silo.life.catalog)}
    assert owners == {"a", "b"}
    await quiet(house)
    assert len(ended) == 16


@simulated
async def test_streams_go_through_a_gateway(house: House) -> None:
    """With back-pressure and both ends, as without one."""
    await house.start("a", [Log])
    await house.start("b", [Log])
    await asyncio.sleep(5)
    cluster = await house.connect("a", routing="gateway")
    for n in range(8):
        log = cluster.actor(Log, f"w{n}")
        assert [i async for i in log.feed(0, 100)] == list(range(100))
        stream = log.broken()
        assert await anext(stream) == 1
        with pytest.raises(Odd):
            await anext(stream)
        async for i in log.feed(0):
            if i == 40:
                break
    await asyncio.sleep(1)
    assert len(ended) == 16
    before = len(made)
    stuck = cluster.actor(Log, "w0").feed(0)
    await anext(stuck)
    await asyncio.sleep(5)
    assert len(made) - before <= 200
    del stuck
    await quiet(house)


@simulated
async def test_a_handover_ends_streams_by_a_typed_error(house: House) -> None:
    """The reader has to know that it must begin anew, and that what it has is right."""
    first = await house.start("a", [Log])
    await house.start("b", [Log])
    cluster = await house.connect("a", "b")
    await asyncio.sleep(5)
    streams = [cluster.actor(Log, f"w{n}").slow_feed(0.05) for n in range(8)]
    for stream in streams:
        assert await anext(stream) == 0

    async def read(stream: AsyncIterator[int]) -> int:
        last = 0
        async for n in stream:
            assert n == last + 1
            last = n
        return last

    reading = [asyncio.ensure_future(outcome(read(stream))) for stream in streams]
    moving = list(first.life.catalog.activations)
    await asyncio.sleep(0.5)
    await first.close()
    ends = await asyncio.gather(*reading)
    moved = [end for end in ends if isinstance(end, errors.StreamMoved)]
    assert len(moved) == len(moving) > 0
    assert all(end == 99 for end in ends if not isinstance(end, errors.StreamMoved))
    del house.silos["a"]
    await quiet(house)
    assert ended.count("slow") == 8


@simulated
async def test_a_deactivated_actor_ends_its_streams(house: House) -> None:
    """An instance that is gone must not go on to speak."""
    cluster = await house.open([Log])
    log = cluster.actor(Log, "a")
    stream = log.watch()
    await anext(stream)
    await log.leave()

    async def read_on() -> None:
        async for _ in stream:
            pass

    with pytest.raises(errors.StreamMoved):
        await read_on()
    assert await anext(log.watch()) == 0
    await quiet(house)


@simulated
async def test_an_open_stream_keeps_its_actor(house: House) -> None:
    """A reader that pauses for long must find the stream where it was."""
    config = msgspec.structs.replace(SMALL, limits=Limits(idle_after_s=10))
    cluster = await house.open([Log], config)
    stream = cluster.actor(Log, "a").feed(0)
    await anext(stream)
    await asyncio.sleep(100)
    assert [await anext(stream) for _ in range(100)] == list(range(1, 101))
    del stream
    await asyncio.sleep(100)
    assert len(house.silo().life.catalog) == 0


@simulated
async def test_a_silo_that_dies_ends_its_streams(house: House) -> None:
    """The reader gets an error, not silence."""
    cluster = await house.open([Log])
    stream = cluster.actor(Log, "a").slow_feed(1.0)
    await anext(stream)
    house.kill("a")
    end = await outcome(anext(stream))
    assert isinstance(end, errors.SiloLost)


@simulated
async def test_streams_of_workers_and_the_limit(house: House) -> None:
    """Bounded like all that callers can make a silo keep."""
    config = msgspec.structs.replace(SMALL, limits=Limits(streams=2))
    cluster = await house.open([Spread, Log], config)
    assert [n async for n in cluster.actor(Spread, "s").count(5)] == list(range(5))
    open_ones = [cluster.actor(Log, f"{n}").feed(0) for n in range(2)]
    for stream in open_ones:
        await anext(stream)
    end = await outcome(anext(cluster.actor(Log, "x").feed(0)))
    assert isinstance(end, errors.Overloaded)
    del open_ones, stream
    await quiet(house)


def test_a_stream_says_what_it_yields() -> None:
    """Items are checked by their type, as arguments are."""
    with pytest.raises(errors.ConfigError, match=r"Vague\.feed yields"):

        class Vague(Actor):
            async def feed(self):  # type: ignore[no-untyped-def]
                yield 1
