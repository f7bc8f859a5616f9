"""How a call finds its grain's owner, and which failures it survives. Links are played by the test; time is
virtual."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec
import pytest

from durum import errors
from durum.client.deadlines import withdraw
from durum.client.delivery import Origin
from durum.client.links import Links
from durum.client.router import Router
from durum.client.routes import Routes
from durum.config import Limits
from durum.errors import DidRun
from durum.grains.actor import Actor
from durum.grains.kind import kind_of
from durum.grains.reference import CallOptions, Target
from durum.ids import Address, SeededEntropy, SiloId
from durum.testing import loop, run
from durum.testing.clock import SimClock
from durum.wire.connection import LinkBroken
from durum.wire.messages import (
    AnyMessage,
    Call,
    Cancel,
    Failure,
    Goodbye,
    Hop,
    Moved,
    Open,
    Reply,
    Table,
)
from tests.unit.client.test_routes import table

A, B, C = Address("a:1"), Address("b:1"), Address("c:1")
PLAIN = CallOptions()
KEYED = CallOptions(None, "k")
Answer = AnyMessage | Exception | None


class Echo(Actor):
    async def say(self, what: str) -> str:
        return what


METHOD = kind_of(Echo).methods["say"]
TARGET = Target(kind_of(Echo), "e")
ARGS = METHOD.bind(("x",), {})
OK = METHOD.encode_result("yes")


class FakeLink:
    """One end of a connection: answers what it is told to, or nothing."""

    trusted = True

    def __init__(self, address: Address) -> None:
        self.address = address
        self.peer = type("Peer", (), {"silo": SiloId(f"{address}@1"), "address": address})()
        self.closing = False
        self.calls: list[Call] = []
        self.cancelled: list[int] = []
        self.pending: dict[int, asyncio.Future[AnyMessage]] = {}
        self.answers: deque[Answer | Callable[[Call], Answer]] = deque()
        self._number = 0

    @property
    def in_flight(self) -> int:
        return len(self.pending)

    def next_id(self) -> int:
        self._number += 1
        return self._number

    def request(self, message: Call | Open) -> asyncio.Future[AnyMessage]:
        assert isinstance(message, Call)
        if self.closing:
            raise LinkBroken("closing", sent=False)
        self.calls.append(message)
        future: asyncio.Future[AnyMessage] = asyncio.get_running_loop().create_future()
        self.pending[message.id] = future
        future.add_done_callback(lambda _: self.pending.pop(message.id, None))
        answer = self.answers.popleft() if self.answers else None
        if callable(answer):
            answer = answer(message)
        if isinstance(answer, Exception):
            future.set_exception(answer)
        elif answer is not None:
            answer.id = message.id  # type: ignore[union-attr]
            future.set_result(answer)
        return future

    def pending_up_to(self, newest: int) -> list[tuple[int, asyncio.Future[AnyMessage]]]:
        return [(number, future) for number, future in self.pending.items() if number <= newest]

    def forget(self, id: int) -> None:  # noqa: A002 - the wire's own name
        self.pending.pop(id, None)

    def send(self, message: AnyMessage) -> None:
        assert isinstance(message, Cancel)
        self.cancelled.append(message.id)

    def fail(self, *, sent: bool) -> None:
        """Break: what waits ends, and nothing more is taken."""
        self.closing = True
        for future in list(self.pending.values()):
            if not future.done():
                future.set_exception(LinkBroken("broke", sent=sent))


class FakeLinks:
    """Addresses that can be reached, and those that cannot."""

    def __init__(self) -> None:
        self.open: dict[Address, FakeLink] = {}
        self.alive: dict[FakeLink, None] = {}
        self.unreachable: dict[Address, Exception] = {}
        self.dialed: list[Address] = []
        self.dropped: list[FakeLink] = []

    async def get(self, address: Address) -> FakeLink:
        if address in self.open:
            return self.open[address]
        self.dialed.append(address)
        if address in self.unreachable:
            raise self.unreachable[address]
        return self.add(address)

    def add(self, address: Address) -> FakeLink:
        link = self.open[address] = FakeLink(address)
        self.alive[link] = None
        return link

    def drop(self, link: FakeLink) -> None:
        self.dropped.append(link)
        link.fail(sent=True)
        self.alive.pop(link, None)


class World:
    """A router, and what it stands on."""

    def __init__(self, **limits: float) -> None:
        self.loop = loop.current()
        self.links = FakeLinks()
        self.routes = Routes()
        self.router = Router(
            links=cast("Links", self.links),
            routes=self.routes,
            clock=SimClock(self.loop),
            entropy=SeededEntropy(1),
            limits=msgspec.structs.replace(Limits(), **limits),
        )
        self.sweep = asyncio.ensure_future(self.router.deadlines.sweep())

    def link(self, address: Address) -> FakeLink:
        return self.links.open.get(address) or self.links.add(address)

    def learn(self, news: Table) -> None:
        self.router.learn(news)

    async def call(self, options: CallOptions = PLAIN) -> str:
        return str(METHOD.decode_result(await self.router.call(TARGET, METHOD, ARGS, options)))


def simulated(
    test: Callable[[World], Coroutine[Any, Any, None]], **limits: float
) -> Callable[[], None]:
    @functools.wraps(test)
    def runs() -> None:
        async def main() -> None:
            world = World(**limits)
            try:
                await test(world)
            finally:
                world.sweep.cancel()
                await asyncio.wait([world.sweep])

        run.run(main(), 3)

    del runs.__wrapped__
    return runs


def with_limits(
    **limits: float,
) -> Callable[[Callable[[World], Coroutine[Any, Any, None]]], Callable[[], None]]:
    return lambda test: simulated(test, **limits)


@simulated
async def test_router_sends_a_call_straight_to_the_owner(world: World) -> None:
    """One look-up, one message, one answer; no timer and no task of its own."""
    link = world.link(A)
    world.learn(table(1, A))
    link.answers.append(Reply(0, OK))
    assert await world.call() == "yes"
    (sent,) = link.calls
    assert (sent.grain, sent.method, sent.args) == ("Echo/e", "say", ARGS)
    assert (sent.timeout_ms, sent.key, sent.chain, sent.hops) == (30_000, "", (), 0)


@simulated
async def test_router_dials_an_owner_that_is_not_connected(world: World) -> None:
    """Clients keep few connections; the others open when they are needed, once."""
    world.learn(table(1, B))
    one = asyncio.ensure_future(world.call())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.link(B).pending[1].set_result(Reply(1, OK))
    assert await one == "yes"
    world.link(B).answers.append(Reply(0, OK))
    assert await world.call() == "yes"
    assert world.links.dialed == [B]


@simulated
async def test_router_carries_deadline_key_chain_and_request_along(world: World) -> None:
    """A silo can only keep to what it is told."""
    link = world.link(A)
    world.learn(table(1, A))
    origin = Origin((Hop(TARGET.grain, 4),), "req", world.router._clock.boottime() + 2.0)
    link.answers += [Reply(0, OK)] * 3
    await world.router.call(TARGET, METHOD, ARGS, CallOptions(5.0, "key"))
    await world.router.call(TARGET, METHOD, ARGS, CallOptions(5.0), origin=origin)
    await world.router.call(TARGET, METHOD, ARGS, PLAIN, origin=origin)
    first, second, third = link.calls
    assert (first.timeout_ms, first.key, first.chain) == (5000, "key", ())
    assert (second.timeout_ms, second.chain, second.request) == (2000, origin.chain, "req")
    assert (third.timeout_ms, third.chain, third.request) == (2000, origin.chain, "req")


@simulated
async def test_router_goes_where_a_silo_sends_it_and_remembers(world: World) -> None:
    """The table may lag behind; the silo that was asked did not run the call."""
    world.learn(table(1, A))
    world.link(A).answers.append(Moved(0, B, 2))
    world.link(B).answers += [Reply(0, OK), Reply(0, OK)]
    began = world.loop.time()
    assert await world.call() == "yes"
    assert await world.call() == "yes"
    assert world.loop.time() == began, "it was told where to go, so it goes at once"
    assert [len(world.link(a).calls) for a in (A, B)] == [1, 2]
    assert world.link(B).calls[0].hops == 1


@simulated
async def test_router_slows_down_when_silos_send_it_in_circles(world: World) -> None:
    """Two silos with different views would keep a call spinning at full speed."""
    world.learn(table(1, A))
    world.link(A).answers += [Moved(0, B, 1)] * 1000
    world.link(B).answers += [Moved(0, A, 1)] * 1000
    with pytest.raises(errors.CallTimeout, match="sent on to") as caught:
        await world.call(CallOptions(5.0))
    assert caught.value.did_run is DidRun.NO
    hops = len(world.link(A).calls) + len(world.link(B).calls)
    assert 15 < hops < 60


@simulated
async def test_router_waits_for_a_table_where_nobody_owns_the_grain(world: World) -> None:
    """A cluster that is just starting, or between two owners, is no reason to fail."""
    call = asyncio.ensure_future(world.call())
    await asyncio.sleep(1)
    world.learn(table(1, None))
    await asyncio.sleep(1)
    world.link(B).answers.append(Reply(0, OK))
    world.learn(table(2, B))
    assert await call == "yes"


@pytest.mark.parametrize(
    ("news", "why"), [(None, "no active silo is known"), (table(1, A, None), "no silo owns")]
)
def test_router_says_why_a_call_never_left(news: Table | None, why: str) -> None:
    """`timed out` alone sends people looking in the wrong place."""

    @simulated
    async def check(world: World) -> None:
        if news is not None:
            owner = TARGET.hash % 2
            world.learn(table(1, *((None, A) if owner == 0 else (A, None))))
        with pytest.raises(errors.CallTimeout, match=why) as caught:
            await world.call(CallOptions(2.0))
        assert caught.value.did_run is DidRun.NO
        assert 2.0 <= world.loop.time() <= 2.3

    check()


@simulated
async def test_router_sends_again_what_was_never_sent(world: World) -> None:
    """The connection broke first: nothing can have run."""
    link = world.link(A)
    world.learn(table(1, A))
    link.answers.append(LinkBroken("broke", sent=False))
    link.answers.append(Reply(0, OK))
    assert await world.call() == "yes"
    assert len(link.calls) == 2


@simulated
async def test_router_does_not_repeat_what_may_have_run(world: World) -> None:
    """A second run would be a second deposit; the caller has to look, or to use a key."""
    link = world.link(A)
    world.learn(table(1, A))
    link.answers.append(LinkBroken("broke", sent=True))
    with pytest.raises(errors.SiloLost, match="idempotency_key") as caught:
        await world.call()
    assert caught.value.did_run is DidRun.MAYBE
    assert len(link.calls) == 1


@simulated
async def test_router_repeats_a_keyed_call_whatever_became_of_it(world: World) -> None:
    """The grain knows the key: it runs once."""
    link = world.link(A)
    world.learn(table(1, A))
    link.answers += [
        LinkBroken("broke", sent=True),
        Failure(0, "CommitFailed", DidRun.MAYBE, "unknown"),
        Failure(0, "CommitFailed", DidRun.ROLLED_BACK, "fenced"),
        Reply(0, OK),
    ]
    assert await world.call(KEYED) == "yes"
    assert [call.key for call in link.calls] == ["k"] * 4


@simulated
async def test_router_repeats_no_keyed_call_of_which_a_part_is_kept(world: World) -> None:
    """It will not get better; repeating until the deadline only hides the answer."""
    link = world.link(A)
    world.learn(table(1, A))
    link.answers.append(Failure(0, "CommitFailed", DidRun.YES, "saved a part"))
    with pytest.raises(errors.CommitFailed, match="saved a part"):
        await world.call(KEYED)
    assert len(link.calls) == 1


@simulated
async def test_router_never_says_that_a_call_did_not_run_where_an_earlier_attempt_may_have(
    world: World,
) -> None:
    """The second attempt was refused, but the first one is still out there."""
    link = world.link(A)
    world.learn(table(1, A))
    link.answers += [
        LinkBroken("broke", sent=True),
        Failure(0, "Overloaded", DidRun.NO, "too much"),
    ]
    with pytest.raises(errors.Overloaded) as caught:
        await world.call(KEYED)
    assert caught.value.did_run is DidRun.MAYBE


@pytest.mark.parametrize("error", ["NotServing", "ShuttingDown"])
def test_router_tries_again_where_a_silo_does_not_serve_now(error: str) -> None:
    """It did not run, and the next silo, or the same one later, will take it."""

    @simulated
    async def check(world: World) -> None:
        link = world.link(A)
        world.learn(table(1, A))
        link.answers += [Failure(0, error, DidRun.NO, "not now")] * 5
        link.answers.append(Reply(0, OK))
        assert await world.call() == "yes"
        assert 0.05 < world.loop.time() < 1.5

    check()


@simulated
async def test_router_tells_why_it_was_not_served_until_the_deadline(world: World) -> None:
    """The last refusal is the reason that people need."""
    link = world.link(A)
    world.learn(table(1, A))
    link.answers += [Failure(0, "NotServing", DidRun.NO, "its store is away")] * 500
    with pytest.raises(errors.CallTimeout, match="its store is away") as caught:
        await world.call(CallOptions(3.0))
    assert caught.value.did_run is DidRun.NO


@pytest.mark.parametrize("error", ["Overloaded", "NoSuchMethod", "ArgumentError", "Deadlock"])
def test_router_hands_other_refusals_to_the_caller_at_once(error: str) -> None:
    """Trying again by itself would make an overload worse, and the others cannot get better."""

    @simulated
    async def check(world: World) -> None:
        link = world.link(A)
        world.learn(table(1, A))
        link.answers.append(Failure(0, error, DidRun.NO, "no"))
        with pytest.raises(getattr(errors, error)):
            await world.call()
        assert len(link.calls) == 1

    check()


@simulated
async def test_router_answers_what_makes_no_sense_with_a_bug(world: World) -> None:
    """Anything else would hide that two releases do not fit together."""
    link = world.link(A)
    world.learn(table(1, A))
    link.answers.append(Goodbye())
    link.answers[0] = lambda call: cast("AnyMessage", _Odd())
    with pytest.raises(errors.DurumBug, match="answered by"):
        await world.call()


class _Odd:
    id = 0


@simulated
async def test_router_ends_a_call_at_its_deadline_and_withdraws_it(world: World) -> None:
    """Every call ends. It was sent, so it may have run; the silo learns that nobody waits."""
    link = world.link(A)
    world.learn(table(1, A))
    with pytest.raises(errors.CallTimeout, match="no answer within 2 s; it may have run") as caught:
        await world.call(CallOptions(2.0))
    assert caught.value.did_run is DidRun.MAYBE
    assert world.loop.time() == pytest.approx(2.0)
    assert link.cancelled == [link.calls[0].id]
    assert link.pending == {}


@with_limits(call_timeout_s=3.0)
async def test_router_sweeps_calls_that_have_no_timer_of_their_own(world: World) -> None:
    """The usual deadline costs nothing on the way out, and holds all the same."""
    link = world.link(A)
    world.learn(table(1, A))
    early = asyncio.ensure_future(world.call())
    timed = asyncio.ensure_future(world.call(CallOptions(9.0)))
    await asyncio.sleep(1.5)
    late = asyncio.ensure_future(world.call())
    await asyncio.sleep(1.8)
    assert early.done()
    assert not late.done()
    assert not timed.done(), "this one has its own"
    assert isinstance(early.exception(), errors.CallTimeout)
    link.pending[next(call.id for call in link.calls[2:])].set_result(Reply(0, OK))
    assert await late == "yes"
    with pytest.raises(errors.CallTimeout):
        await timed
    assert len(link.cancelled) == 2


@with_limits(call_timeout_s=3.0)
async def test_router_sweeps_connections_that_take_no_more_calls(world: World) -> None:
    """A silo that said goodbye and then was stopped would keep its callers waiting for ever."""
    link = world.link(A)
    world.learn(table(1, A))
    call = asyncio.ensure_future(world.call())
    await asyncio.sleep(0.5)
    link.closing = True
    del world.links.open[A]
    world.router.received(cast("Any", link), Goodbye("leaving"))
    with pytest.raises(errors.CallTimeout):
        await call
    assert world.loop.time() < 3.3
    del world.links.alive[link]
    await asyncio.sleep(0.2)


@simulated
async def test_router_withdraws_a_call_whose_caller_was_cancelled(world: World) -> None:
    """Whoever is gone wants no work done; both ways of sending tell the silo."""
    link = world.link(A)
    world.learn(table(1, A))
    for options in (PLAIN, CallOptions(20.0)):
        call = asyncio.ensure_future(world.call(options))
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.wait([call])
    assert link.cancelled == [call.id for call in link.calls]
    link.closing = True
    withdraw(link, 9)
    assert len(link.cancelled) == 2


@simulated
async def test_router_uses_no_connection_that_said_goodbye(world: World) -> None:
    """New calls go elsewhere; those under way are still answered there."""
    link = world.link(A)
    world.learn(table(1, A))
    under_way = asyncio.ensure_future(world.call())
    await asyncio.sleep(0.1)
    link.closing = True
    del world.links.open[A]
    world.links.unreachable[A] = ConnectionRefusedError("it leaves")
    world.router.received(cast("Any", link), Goodbye("leaving"))
    world.link(B).answers.append(Reply(0, OK))
    new = asyncio.ensure_future(world.call())
    await asyncio.sleep(0.1)
    world.router.received(cast("Any", world.link(B)), table(2, B))
    assert await new == "yes"
    link.pending[link.calls[0].id].set_result(Reply(1, OK))
    assert await under_way == "yes"


@simulated
async def test_router_breaks_what_waits_on_the_dead(world: World) -> None:
    """A machine that lost its power closes no connection: its callers would wait for the deadline."""
    link = world.link(A)
    world.learn(table(1, A))
    plain = asyncio.ensure_future(world.call())
    keyed = asyncio.ensure_future(world.call(KEYED))
    await asyncio.sleep(0.1)
    world.link(B).answers.append(Reply(0, OK))
    world.learn(table(2, B, dead=(SiloId("a:1@1"),)))
    world.router.lost(cast("Any", link))
    del world.links.open[A]
    with pytest.raises(errors.SiloLost):
        await plain
    assert await keyed == "yes"
    assert world.links.dropped == [link]


@simulated
async def test_router_looks_again_where_an_owner_cannot_be_reached(world: World) -> None:
    """It may be dead and nobody knows yet; the next table says who has its grains."""
    world.learn(table(1, A))
    world.links.unreachable[A] = ConnectionRefusedError("refused")
    call = asyncio.ensure_future(world.call())
    await asyncio.sleep(2)
    world.link(B).answers.append(Reply(0, OK))
    world.learn(table(2, B))
    assert await call == "yes"
    assert 5 < len(world.links.dialed) < 40


@simulated
async def test_router_says_who_could_not_be_reached(world: World) -> None:
    """An address that is wrong, or a firewall, can only be found by its name."""
    world.learn(table(1, A))
    world.links.unreachable[A] = TimeoutError()
    with pytest.raises(
        errors.CallTimeout, match=r"a:1 cannot be reached \(TimeoutError\)"
    ) as caught:
        await world.call(CallOptions(1.0))
    assert caught.value.did_run is DidRun.NO


@simulated
async def test_router_tells_what_is_known_of_a_call_when_it_is_closed(world: World) -> None:
    """A keyed call whose first attempt may have run must not be told as one that did not."""
    world.learn(table(1, A))
    world.link(A).answers.append(LinkBroken("broke", sent=True))
    world.links.unreachable[B] = ConnectionRefusedError("refused")
    call = asyncio.ensure_future(world.call(KEYED))
    await asyncio.sleep(0)
    world.router.close()
    with pytest.raises(errors.ShuttingDown, match="may have run") as caught:
        await call
    assert caught.value.did_run is DidRun.MAYBE
    world.link(A).closing = True
    with pytest.raises(errors.ShuttingDown, match="did not run") as caught:
        await world.call()
    assert caught.value.did_run is DidRun.NO


@simulated
async def test_router_goes_through_any_silo_where_it_was_told_to(world: World) -> None:
    """Behind a load balancer the owner's address leads nowhere; the silo that is reached passes it on."""
    world.router._carrier._through = True
    call = asyncio.ensure_future(world.call())
    await asyncio.sleep(1)
    link = world.link(A)
    link.answers += [Reply(0, OK)] * 2
    assert await call == "yes"
    world.learn(table(1, B))
    assert await world.call() == "yes"
    assert world.links.dialed == []
    owner = world.link(B)
    owner.answers.append(Reply(0, OK))
    world.learn(table(2, B))
    assert await world.call() == "yes"
    assert len(owner.calls) == 1


@simulated
async def test_router_relays_a_call_as_it_came(world: World) -> None:
    """Key, chain and deadline are the caller's; its answer goes back whatever it is."""
    link = world.link(A)
    world.learn(table(1, A))
    chain = (Hop(TARGET.grain, 4),)
    call = Call(77, TARGET.grain, "say", ARGS, 4_000, "key", chain, 0, "req")
    link.answers += [Reply(0, OK), Failure(0, "", DidRun.ROLLED_BACK, "its own")]
    assert isinstance(await world.router.relay(call), Reply)
    failure = await world.router.relay(call)
    assert isinstance(failure, Failure)
    assert failure.text == "its own"
    (sent, _) = link.calls
    assert (sent.key, sent.chain, sent.request, sent.hops) == ("key", chain, "req", 1)
    assert sent.timeout_ms == 4_000
    link.answers += [LinkBroken("x", sent=True), Failure(0, "Overloaded", DidRun.NO, "no")]
    refused = await world.router.relay(call)
    assert isinstance(refused, Failure)
    assert refused.did_run is DidRun.MAYBE
    assert not world.router.leads_here(TARGET.grain)


@simulated
async def test_router_of_a_silo_keeps_calls_inside(world: World) -> None:
    """A silo that dialed itself would pay for a wire that leads nowhere."""
    inward = FakeLink(A)
    world.routes = Routes(own=(A, cast("Any", inward)))
    world.router._routes = world.router._carrier._routes = world.routes
    world.learn(table(1, B))
    world.link(B).answers.append(Moved(0, A, 2))
    inward.answers.append(Reply(0, OK))
    assert await world.call() == "yes"
    assert len(inward.calls) == 1


@simulated
async def test_router_leaves_no_timers_and_no_marks_behind(world: World) -> None:
    """A million calls later nothing of them may be in memory."""
    link = world.link(A)
    world.learn(table(1, A))
    link.answers += [Reply(0, OK)] * 50
    for number in range(50):
        await world.call(CallOptions(5.0, "k" if number % 2 else ""))
    assert world.router.deadlines.timed == set()
