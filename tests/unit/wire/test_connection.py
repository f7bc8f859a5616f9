"""Connections: every request ends, batches leave together, goodbyes lose nothing."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from durum.config import Limits
from durum.errors import DidRun
from durum.ids import Address
from durum.testing.run import run
from durum.wire import frames
from durum.wire.connection import Connection, LinkBroken
from durum.wire.frames import FrameTooLarge, ProtocolError
from durum.wire.loopback import LoopbackNetwork, LoopbackTransport, Medium
from durum.wire.messages import (
    Ack,
    AnyMessage,
    Call,
    Cancel,
    Failure,
    Goodbye,
    Gossip,
    HandOver,
    Moved,
    Probe,
    Released,
    Reply,
)
from durum.wire.network import TcpNetwork
from tests.support.wire import SECRET, call, echo, pair, quiet

Main = Callable[[], Coroutine[Any, Any, None]]


def simulated(main: Main) -> None:
    """Run on virtual time; what waits for ever is an error at once."""
    run(main(), 1)


def on_asyncio(main: Main) -> None:
    asyncio.run(main(), debug=True)


def on_uvloop(main: Main) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


loops = pytest.mark.parametrize("on_loop", [on_asyncio, on_uvloop])


def transport(connection: Connection) -> LoopbackTransport:
    found = connection._transport
    assert isinstance(found, LoopbackTransport)
    return found


@loops
@pytest.mark.parametrize("secrets", [(), (SECRET,)])
def test_connection_answers_over_tcp(
    on_loop: Callable[[Main], None], secrets: tuple[bytes, ...]
) -> None:
    """The same code has to run on both loops, alone and with many in flight."""

    async def main() -> None:
        both = await pair(network=TcpNetwork(), secrets=secrets)
        for batch in (1, 3, 500):
            calls = [call(both.near.next_id(), bytes([n % 256])) for n in range(batch)]
            answers = await asyncio.gather(*(both.near.request(each) for each in calls))
            assert answers == [Reply(each.id, each.args) for each in calls]
        assert both.near.peer.authenticated == bool(secrets)
        assert both.near.local
        assert "127.0.0.1" in both.near.remote
        await both.close()

    on_loop(main)


@loops
def test_connection_carries_large_messages_over_tcp(on_loop: Callable[[Main], None]) -> None:
    """Arguments near the frame's limit, several at once, through buffers that fill."""

    async def main() -> None:
        limits = Limits(frame_bytes=1 << 20)
        both = await pair(network=TcpNetwork(), limits=limits, secrets=(SECRET,))
        bodies = [bytes([n]) * 900_000 for n in range(8)]
        answers = await asyncio.gather(
            *(both.near.request(call(both.near.next_id(), body)) for body in bodies)
        )
        assert [answer.result for answer in answers if isinstance(answer, Reply)] == bodies
        await both.close()

    on_loop(main)


@loops
def test_connection_loss_over_tcp_is_told_to_both(on_loop: Callable[[Main], None]) -> None:
    """Real transports report loss in their own ways; the ends must not."""

    async def main() -> None:
        both = await pair(network=TcpNetwork(), answer=None)
        waiting = both.near.request(call(both.near.next_id()))
        await both.there.until(lambda: bool(both.there.messages))
        both.far.abort()
        with pytest.raises(LinkBroken) as caught:
            await waiting
        assert caught.value.sent
        await both.near.wait_closed()
        assert (len(both.here.ends), len(both.there.ends)) == (1, 1)
        await both.close()

    on_loop(main)


@pytest.mark.parametrize("segment_bytes", [0, 1, 7, 64])
def test_connection_does_not_depend_on_where_reads_end(segment_bytes: int) -> None:
    """TCP has no frames; a read may end anywhere, also within the handshake."""

    async def main() -> None:
        both = await pair(medium=Medium(segment_bytes=segment_bytes), secrets=(SECRET,))
        answers = [both.near.request(call(both.near.next_id(), bytes(n))) for n in range(50)]
        assert [a.result for a in await asyncio.gather(*answers) if isinstance(a, Reply)] == [
            bytes(n) for n in range(50)
        ]
        await both.close()

    simulated(main)


def test_connection_to_another_host_is_sealed() -> None:
    """Between hosts somebody may write into the stream; he can only cut it."""

    async def main() -> None:
        both = await pair(network=LoopbackNetwork("10.0.0.5"), secrets=(SECRET,))
        assert (both.near.local, both.far.local) == (True, False)
        answers = [both.near.request(call(both.near.next_id(), bytes([n]))) for n in range(9)]
        await asyncio.gather(*answers)
        own = both.far.request(call(both.far.next_id()))
        await both.here.until(lambda: bool(both.here.messages))
        transport(both.near).write(frames.FrameWriter(1000).pack([Reply(1, b"forged reply")])[0])
        with pytest.raises(LinkBroken, match="a frame's seal does not fit"):
            await own
        await both.close()

    simulated(main)


def test_requests_of_one_round_leave_in_one_frame() -> None:
    """Messages, not system calls, are what costs; this is the largest single gain in speed."""

    async def main() -> None:
        both = await pair()
        before = both.near.statistics()
        answers = [both.near.request(call(both.near.next_id())) for _ in range(100)]
        await asyncio.gather(*answers)
        here, there = both.near.statistics(), both.far.statistics()
        # The first finds nothing in flight and leaves at once, the others together.
        assert (here.sent - before.sent, here.writes - before.writes) == (100, 2)
        assert (there.sent, there.writes) == (100, 2)
        assert (here.received, here.received_frames) == (100, 2)
        await both.close()

    simulated(main)


def test_lone_request_leaves_at_once() -> None:
    """Waiting for the round's end with nothing to wait for would only add latency."""

    async def main() -> None:
        both = await pair()
        first = both.near.request(call(both.near.next_id()))
        assert both.near.statistics().writes == 1
        second = both.near.request(call(both.near.next_id()))
        assert both.near.statistics().writes == 1
        await asyncio.gather(first, second)
        await both.close()

    simulated(main)


def test_answers_of_one_read_leave_when_it_ends() -> None:
    """A handler that answers at once must not cause a write for each answer."""
    writes: list[int] = []

    def look(connection: Connection, message: AnyMessage) -> None:
        echo(connection, message)
        writes.append(connection.statistics().writes)

    async def main() -> None:
        both = await pair(answer=look)
        both.near.send(Gossip(1))
        await quiet()
        writes.clear()
        await asyncio.gather(*(both.near.request(call(both.near.next_id())) for _ in range(5)))
        assert writes == [0, 1, 1, 1, 1]
        await both.close()

    simulated(main)


def test_late_answer_leaves_at_once_when_it_is_the_last() -> None:
    """A call that waited for the store is answered outside any read."""

    async def main() -> None:
        both = await pair(answer=None)
        ids = [both.near.next_id() for _ in range(3)]
        waiting = [both.near.request(call(request)) for request in ids]
        await both.there.until(lambda: len(both.there.messages) == 3)
        for request in ids:
            both.far.send(Reply(request, b""))
        assert both.far.statistics().writes == 0
        assert both.far.statistics().owed == 0
        await asyncio.gather(*waiting)
        assert both.far.statistics().writes == 1
        alone = both.near.request(call(both.near.next_id()))
        await both.there.until(lambda: len(both.there.messages) == 4)
        both.far.send(Reply(4, b""))
        assert both.far.statistics().writes == 2
        await alone
        await both.close()

    simulated(main)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (call, Reply(1, b"")),
        (call, Failure(1, "Overloaded", DidRun.NO, "full")),
        (call, Moved(1, Address("127.0.0.1:1"), 4)),
        (lambda n: Probe(n, 3), Ack(1, 3)),
        (lambda n: HandOver(n, 3, (1, 2)), Released(1, ((1, b"t"),))),
    ],
)
def test_every_kind_of_answer_ends_its_request(
    request_: Callable[[int], Call | Probe | HandOver], answer: AnyMessage
) -> None:
    """One future for each request, whatever it asks, in either direction."""

    async def main() -> None:
        both = await pair(answer=lambda connection, _: connection.send(answer))
        assert await both.near.request(request_(both.near.next_id())) == answer
        assert both.near.in_flight == both.far.statistics().owed == 0
        both.here.answer = lambda connection, _: connection.send(answer)
        assert await both.far.request(request_(both.far.next_id())) == answer
        await both.close()

    simulated(main)


def test_partial_release_goes_to_the_handler() -> None:
    """Partitions are handed over one by one; only the last answer ends the request."""

    def release(connection: Connection, message: AnyMessage) -> None:
        if isinstance(message, HandOver):
            connection.send(Released(0, ((9, b"own"),)))
            connection.send(Released(message.id, ((1, b"a"),), more=True))
            assert connection.statistics().owed == 1
            connection.send(Released(message.id, ((2, b"b"),)))
            connection.send(Released(message.id, ((2, b"again"),)))

    async def main() -> None:
        both = await pair(answer=release)
        last = await both.near.request(HandOver(both.near.next_id(), 1, (1, 2)))
        assert last == Released(1, ((2, b"b"),))
        assert both.here.messages == [
            Released(0, ((9, b"own"),)),
            Released(1, ((1, b"a"),), more=True),
            Released(1, ((2, b"again"),)),
        ]
        await both.close()

    simulated(main)


def test_forgotten_and_cancelled_requests_drop_their_answers() -> None:
    """A caller that gave up must neither leak nor be woken; the connection goes on."""

    async def main() -> None:
        both = await pair(answer=None)
        one, two, three = (both.near.request(call(both.near.next_id())) for _ in range(3))
        await both.there.until(lambda: len(both.there.messages) == 3)
        both.near.forget(1)
        two.cancel()
        for request in (1, 2, 3):
            both.far.send(Reply(request, b""))
        assert await three == Reply(3, b"")
        assert not one.done()
        assert both.near.in_flight == 0
        await both.close()

    simulated(main)


def test_released_request_that_was_cancelled_is_dropped() -> None:
    """As above, for the one kind of answer that is looked at twice."""

    async def main() -> None:
        both = await pair(answer=None)
        waiting = both.near.request(HandOver(both.near.next_id(), 1, ()))
        await both.there.until(lambda: bool(both.there.messages))
        waiting.cancel()
        both.far.send(Released(1, ()))
        await quiet()
        assert (both.near.in_flight, both.here.messages) == (0, [])
        await both.close()

    simulated(main)


def test_cancelled_call_is_not_owed() -> None:
    """A silo that is leaving must not wait for an answer that nobody wants."""

    async def main() -> None:
        both = await pair(answer=None)
        both.near.request(call(both.near.next_id()))
        both.near.send(Cancel(1))
        both.near.forget(1)
        await both.there.until(lambda: len(both.there.messages) == 2)
        assert both.far.statistics().owed == 0
        await both.close()

    simulated(main)


def test_loss_tells_which_requests_were_sent() -> None:
    """Only what surely did not run may be sent again by itself."""

    async def main() -> None:
        both = await pair(answer=None)
        sent, unsent = (both.near.request(call(both.near.next_id())) for _ in range(2))
        given_up = both.near.request(call(both.near.next_id()))
        given_up.cancel()
        transport(both.near).reset(ConnectionResetError("cable cut"))
        results = await asyncio.gather(sent, unsent, return_exceptions=True)
        assert [getattr(result, "sent", None) for result in results] == [True, False]
        assert str(results[0]) == (
            "the connection to 127.0.0.1:7600@1 ended after the request was sent: cable cut"
        )
        assert "before the request was sent" in str(results[1])
        assert [str(end) for end in both.here.ends] == ["cable cut"]
        assert [type(end) for end in both.there.ends] == [ConnectionResetError]
        await both.close()

    simulated(main)


def test_requests_after_the_end_are_refused_at_once() -> None:
    """Nothing may wait on a connection that cannot answer; what is sent besides is dropped."""

    async def main() -> None:
        both = await pair()
        both.near.close()
        with pytest.raises(LinkBroken) as caught:
            both.near.request(call(1))
        assert not caught.value.sent
        await both.near.wait_closed()
        for _ in range(3):
            both.near.send(Gossip(1))
        await quiet()
        assert both.near._out == []
        both.near.close()
        both.near.abort()
        assert both.here.ends == [None]
        assert repr(both.near).startswith("<Connection dialer with 127.0.0.1:7600@1 lost")
        await both.close()

    simulated(main)


def test_close_sends_what_was_given_before() -> None:
    """A last message must not be lost because the end came in the same round."""

    async def main() -> None:
        both = await pair(answer=None)
        waiting = both.near.request(call(both.near.next_id()))
        both.near.send(Gossip(1))
        both.near.send(Gossip(2))
        both.near.close()
        await both.far.wait_closed()
        with pytest.raises(LinkBroken, match="it was closed"):
            await waiting
        assert [m for m in both.there.messages if isinstance(m, Gossip)] == [Gossip(1), Gossip(2)]
        await both.close()

    simulated(main)


def test_request_that_fits_into_no_frame_is_refused() -> None:
    """The caller learns of it; the connection and the others of the batch go on."""

    async def main() -> None:
        both = await pair(limits=Limits(frame_bytes=1000))
        fits, large, also = (
            both.near.request(call(both.near.next_id(), bytes(size))) for size in (10, 5000, 900)
        )
        with pytest.raises(FrameTooLarge, match=r"a Call of 50\d\d bytes was not sent"):
            await large
        assert await fits == Reply(1, bytes(10))
        assert await also == Reply(3, bytes(900))
        assert both.near.statistics().sent == 2
        sizes = (10, 5000, 5000)
        in_flight, cancelled, forgotten = (
            both.near.request(call(both.near.next_id(), bytes(size))) for size in sizes
        )
        cancelled.cancel()
        both.near.forget(6)
        await in_flight
        assert not forgotten.done()
        await both.close()

    simulated(main)


def test_answer_that_fits_into_no_frame_becomes_a_failure() -> None:
    """A call must end; that its answer cannot travel is known here only."""
    huge: dict[int, AnyMessage] = {
        1: Reply(1, bytes(5000)),
        2: Failure(2, "", DidRun.ROLLED_BACK, "x" * 5000),
    }

    async def main() -> None:
        both = await pair(limits=Limits(frame_bytes=1000), answer=None)
        both.there.answer = lambda connection, m: (
            connection.send(huge[m.id]) if isinstance(m, Call) else None
        )
        waiting = [both.near.request(call(both.near.next_id())) for _ in range(2)]
        answers = await asyncio.gather(*waiting)
        outcomes = [(a.error, a.did_run) for a in answers if isinstance(a, Failure)]
        assert outcomes == [("CallError", DidRun.YES), ("CallError", DidRun.ROLLED_BACK)]
        assert "its reply could not be sent: a Reply of 50" in str(answers[0])
        await both.close()

    simulated(main)


def test_other_message_that_fits_into_no_frame_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody waits for it, so a person has to know."""

    async def main() -> None:
        both = await pair(limits=Limits(frame_bytes=1000))
        both.far.send(Goodbye("x" * 2000))
        await both.close()

    simulated(main)
    assert "a message could not be sent" in caplog.text


def test_handler_that_raises_costs_one_request_only(caplog: pytest.LogCaptureFixture) -> None:
    """Our own mistake in one call must not leave callers waiting, nor cost the others."""

    def fragile(connection: Connection, message: AnyMessage) -> None:
        if isinstance(message, Gossip) or (isinstance(message, Call) and message.args == b"bad"):
            raise RuntimeError("oops")
        echo(connection, message)

    async def main() -> None:
        both = await pair(answer=fragile)
        both.near.send(Gossip(1))
        answers = await asyncio.gather(
            *(both.near.request(call(both.near.next_id(), a)) for a in (b"a", b"bad", b"b"))
        )
        assert [type(answer) for answer in answers] == [Reply, Failure, Reply]
        assert isinstance(answers[1], Failure)
        assert (answers[1].error, answers[1].did_run) == ("DurumBug", DidRun.MAYBE)
        assert "RuntimeError('oops')" in answers[1].text
        await both.close()

    simulated(main)
    assert caplog.text.count("a message could not be handled") == 2


@pytest.mark.parametrize(
    "wire",
    [b"\xff\xff\xff\xff", struct.pack("<I", 3) + b"\xc0\xc0\xc0", frames.frame(b"\x80")],
    ids=["length", "garbage", "no array"],
)
def test_frame_that_is_none_ends_the_connection(wire: bytes) -> None:
    """After one byte too many no later byte means anything."""

    async def main() -> None:
        both = await pair()
        waiting = both.far.request(call(both.far.next_id()))
        transport(both.near).write(wire + frames.FrameWriter(100).pack([Gossip(1)])[0])
        with pytest.raises(LinkBroken):
            await waiting
        await both.far.wait_closed()
        assert [type(end) for end in both.there.ends] == [ProtocolError]
        assert both.there.messages == []
        await both.close()

    simulated(main)


def test_frames_of_a_read_after_an_abort_are_not_handled() -> None:
    """Whoever was cut off is not served, even with what had arrived already."""

    async def main() -> None:
        both = await pair(answer=lambda connection, _: connection.abort())
        writer = frames.FrameWriter(100)
        transport(both.near).write(writer.pack([Gossip(1)])[0] + writer.pack([Gossip(2)])[0])
        await both.far.wait_closed()
        assert both.there.messages == [Gossip(1)]
        await both.close()

    simulated(main)


def test_connection_remembers_when_it_last_heard() -> None:
    """Bytes received lately veto a suspicion."""

    async def main() -> None:
        both = await pair()
        await asyncio.sleep(3)
        both.near.send(Gossip(1))
        await both.there.until(lambda: bool(both.there.messages))
        assert (both.near.last_received, both.far.last_received) == (0, 3)
        await both.close()

    simulated(main)


def test_requests_can_be_listed_by_age() -> None:
    """Whoever lost an answer to a probe asks what else is older than that."""

    async def main() -> None:
        both = await pair(answer=None)
        waiting = [both.near.request(call(both.near.next_id())) for _ in range(3)]
        assert both.near.pending_up_to(2) == [(1, waiting[0]), (2, waiting[1])]
        assert both.near.pending_up_to(9) == [(n + 1, waiting[n]) for n in range(3)]
        for request in (1, 2, 3):
            both.near.forget(request)
        await both.close()

    simulated(main)
