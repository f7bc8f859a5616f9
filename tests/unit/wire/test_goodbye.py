"""How a connection ends on purpose: answers go out, then the side that heard goodbye closes."""

from __future__ import annotations

import asyncio

import pytest

from durum.testing import loop
from durum.testing.run import run
from durum.wire.connection import LinkBroken
from durum.wire.messages import Goodbye, Reply
from tests.support.wire import call, pair, quiet


def test_goodbye_lets_answers_out_and_then_the_other_side_closes() -> None:
    """A rolling restart fails no call."""

    async def main() -> None:
        both = await pair(answer=None)
        waiting = both.near.request(call(both.near.next_id()))
        own = both.far.request(call(both.far.next_id()))
        await both.there.until(lambda: bool(both.there.messages))
        leaving = asyncio.create_task(both.far.leave("restart", 10))
        await both.here.until(lambda: Goodbye("restart") in both.here.messages)
        assert both.near.closing
        assert both.far.closing
        assert repr(both.far) == "<Connection listener with client closing in_flight=1 owed=1>"
        for end in (both.near, both.far):
            with pytest.raises(LinkBroken, match="takes no requests any more"):
                end.request(call(end.next_id()))
        both.far.send(Reply(1, b"late"))
        assert await waiting == Reply(1, b"late")
        await quiet()
        assert not leaving.done()
        both.near.send(Reply(1, b"too"))
        assert await own == Reply(1, b"too")
        await leaving
        assert (both.here.ends, both.there.ends) == ([None], [None])
        assert loop.current().time() < 1
        await both.close()

    run(main(), 1)


def test_goodbye_on_an_idle_connection_ends_it_at_once() -> None:
    """Nobody waits for nothing. Saying it twice says it once."""

    async def main() -> None:
        both = await pair()
        both.far.say_goodbye()
        both.far.say_goodbye()
        await both.far.wait_closed()
        assert both.here.messages == [Goodbye("")]
        await both.close()

    run(main(), 1)


def test_goodbye_from_both_sides_ends_when_nothing_is_in_flight() -> None:
    """Two silos that leave at the same time must not wait for each other."""

    async def main() -> None:
        both = await pair(answer=None)
        both.here.answer = None
        waiting = both.near.request(call(both.near.next_id()))
        await both.there.until(lambda: bool(both.there.messages))
        both.near.say_goodbye()
        both.far.say_goodbye()
        await quiet()
        assert both.near.in_flight == 1
        both.far.send(Reply(1, b""))
        await waiting
        await both.near.wait_closed()
        await both.far.wait_closed()
        await both.close()

    run(main(), 1)


def test_goodbye_waits_no_longer_than_it_was_told() -> None:
    """A client that never closes must not hold up a silo that leaves."""

    async def main() -> None:
        both = await pair(answer=None)
        waiting = both.near.request(call(both.near.next_id()))
        await both.there.until(lambda: bool(both.there.messages))
        before = loop.current().time()
        await both.far.leave("restart", 5)
        assert loop.current().time() - before == 5
        with pytest.raises(LinkBroken):
            await waiting
        await both.close()

    run(main(), 1)


def test_forgetting_the_last_request_lets_a_goodbye_end() -> None:
    """A caller that gives up during a goodbye must not keep the connection."""

    async def main() -> None:
        both = await pair(answer=None)
        both.near.request(call(both.near.next_id()))
        await both.there.until(lambda: bool(both.there.messages))
        both.far.say_goodbye()
        await both.here.until(lambda: bool(both.here.messages))
        both.near.forget(1)
        await both.near.wait_closed()
        await both.close()

    run(main(), 1)


def test_drained_waits_for_both_directions() -> None:
    """A drain has to know when the last answer is out."""

    async def main() -> None:
        both = await pair(answer=None)
        await both.near.drained()
        waiting = both.near.request(call(both.near.next_id()))
        await both.there.until(lambda: bool(both.there.messages))
        near = asyncio.create_task(both.near.drained())
        far = asyncio.create_task(both.far.drained())
        given_up = asyncio.create_task(both.far.drained())
        await quiet()
        assert not near.done()
        assert not far.done()
        given_up.cancel()
        await asyncio.wait([given_up])
        both.far.send(Reply(1, b""))
        await asyncio.gather(near, far, waiting)
        lost = both.near.request(call(both.near.next_id()))
        ended = asyncio.create_task(both.near.drained())
        await quiet()
        both.near.abort()
        await ended
        with pytest.raises(LinkBroken):
            await lost
        await both.close()

    run(main(), 1)
