"""A side that does not read: bounded memory, and an end where it never reads again."""

from __future__ import annotations

import asyncio

import pytest

from durum.config import Limits
from durum.testing import loop
from durum.testing.run import run
from durum.wire.connection import Connection
from durum.wire.loopback import LoopbackTransport
from durum.wire.messages import Gossip, Reply, Table
from tests.support.wire import call, pair, quiet

LIMITS = Limits(frame_bytes=1 << 20, unread_bytes=1_000_000, unread_s=10)
HALF = bytes(500_000)


def transport(connection: Connection) -> LoopbackTransport:
    found = connection._transport
    assert isinstance(found, LoopbackTransport)
    return found


def test_side_that_does_not_read_is_dropped() -> None:
    """What it asked for must not stay in our memory until its machine is switched off."""

    async def main() -> None:
        both = await pair(limits=LIMITS)
        transport(both.near).pause_reading()
        for _ in range(3):
            both.far.send(Reply(0, HALF))
        assert both.far.statistics().unread_bytes > 1_000_000
        before = loop.current().time()
        await both.far.wait_closed()
        assert loop.current().time() - before == pytest.approx(10)
        assert "the other side does not read: 1500" in str(both.there.ends[0])
        await both.close()

    run(main(), 1)


def test_side_that_reads_slowly_is_kept() -> None:
    """A long reply over a thin line is no fault as long as it moves."""

    async def main() -> None:
        both = await pair(limits=LIMITS)
        slow = transport(both.near)
        slow.pause_reading()
        both.here.answer = lambda *_: slow.pause_reading()
        for version in range(5):
            both.far.send(Table(version, (), HALF, ()))
            await quiet()
        for left in (4, 3, 2, 1, 0):
            await asyncio.sleep(9)
            slow.resume_reading()
            await quiet()
            assert both.far.statistics().unread_bytes // 500_000 == left
        assert not both.far.closing
        await both.close()

    run(main(), 1)


def test_little_unread_is_left_alone() -> None:
    """A stalled side that holds little memory is the failure detector's matter."""

    async def main() -> None:
        both = await pair(limits=LIMITS)
        transport(both.near).pause_reading()
        waiting = both.near.request(call(both.near.next_id(), HALF))
        await asyncio.sleep(100)
        assert not both.far.closing
        transport(both.near).resume_reading()
        assert isinstance(await waiting, Reply)
        await both.close()

    run(main(), 1)


def test_side_that_does_not_read_is_not_read_either() -> None:
    """Whoever asks without taking the answers must not be able to ask on."""

    async def main() -> None:
        both = await pair(limits=LIMITS)
        near, far = transport(both.near), transport(both.far)
        near.pause_reading()
        for _ in range(3):
            both.far.send(Reply(0, HALF))
        assert not far.is_reading()
        late = both.near.request(call(both.near.next_id(), b"late"))
        await quiet()
        assert both.there.messages == []
        near.resume_reading()
        assert await late == Reply(1, b"late")
        assert far.is_reading()
        await both.close()

    run(main(), 1)


def test_far_too_much_unread_ends_it_at_once() -> None:
    """Our own side may write faster than the time limit comes."""

    async def main() -> None:
        both = await pair(limits=LIMITS)
        transport(both.near).pause_reading()
        for _ in range(8):
            both.far.send(Reply(0, HALF))
            await quiet()
        await both.far.wait_closed()
        assert loop.current().time() < 1
        assert "the other side does not read: 4000" in str(both.there.ends[0])
        await both.close()

    run(main(), 1)


def test_close_towards_a_side_that_does_not_read_is_bounded() -> None:
    """A real transport waits for its buffer to empty; an end must not depend on the other side."""

    class Stubborn(asyncio.Transport):
        closed = aborted = 0

        def close(self) -> None:
            self.closed += 1

        def abort(self) -> None:
            self.aborted += 1

        def is_closing(self) -> bool:
            return bool(self.closed)

        def write(self, data: object) -> None:
            """Keep it for ever."""

    async def main() -> None:
        both = await pair(limits=LIMITS)
        stubborn = Stubborn()
        outflow = both.far._outflow
        outflow._transport = stubborn
        both.far.send(Gossip(1))
        outflow.close()
        await asyncio.sleep(2.9)
        assert (stubborn.closed, stubborn.aborted) == (1, 0)
        await asyncio.sleep(0.2)
        assert stubborn.aborted == 1
        await both.close()

    run(main(), 1)
