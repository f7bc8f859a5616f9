"""The real wire over the simulated network: handshake, requests, and how they end under faults."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from durum.config import Limits
from durum.ids import Address, SeededEntropy, silo_id
from durum.testing import hosts, loop
from durum.testing.links import Cut, Link
from durum.testing.loop import Order
from durum.testing.network import SimNetwork
from durum.testing.run import run
from durum.wire.connection import Connection
from durum.wire.handshake import Introduction
from durum.wire.links import Server, dial, serve
from durum.wire.messages import Ack, AnyMessage, Probe

SECRET = b"a secret that is long enough for it"


class Echo:
    """Answers probes; keeps what happened."""

    def __init__(self) -> None:
        self.opened_in: list[str] = []
        self.lost: list[Exception | None] = []

    def opened(self, connection: Connection) -> None:
        self.opened_in.append(hosts.current())

    def received(self, connection: Connection, message: AnyMessage) -> None:
        assert isinstance(message, Probe)
        connection.send(Ack(id=message.id, version=message.version + 1))

    def closed(self, connection: Connection, error: Exception | None) -> None:
        self.lost.append(error)


def introduction(machine: str, seed: int) -> Introduction:
    return Introduction(
        role="silo",
        cluster="test",
        silo=silo_id(Address(f"{machine}:7600"), 1),
        secrets=(SECRET,),
        entropy=SeededEntropy(seed),
    )


class Rig:
    """Silo b serves, silo a has dialed."""

    def __init__(self, network: SimNetwork) -> None:
        self.network = network
        self.loop = network.loop
        self.near, self.far = Echo(), Echo()

    async def open(self) -> Rig:
        self.server: Server = await self.loop.start(
            "b",
            serve(
                self.network.host("b"),
                Address("b:7600"),
                introduction("b", 1),
                self.far,
                Limits(),
            ),
        )
        self.connection = await self.dial()
        return self

    async def dial(self) -> Connection:
        there = self.network.host("a")
        return await self.loop.start(
            "a", dial(there, Address("b:7600"), introduction("a", 2), self.near, Limits())
        )

    def probe(self, version: int) -> asyncio.Future[AnyMessage]:
        """Ask from host a."""
        message = Probe(id=self.connection.next_id(), version=version)
        return hosts.context("a").run(self.connection.request, message)


def simulate(
    test: Callable[[Rig], Awaitable[None]], seed: int = 1, order: Order = Order.HOSTS
) -> int:
    async def main() -> int:
        link = Link(latency_s=0.001, jitter_s=0.02, loss=0.02)
        rig = await Rig(SimNetwork(loop.current(), link)).open()
        await test(rig)
        for host in "ab":
            rig.loop.thaw(host)
            rig.loop.kill(host)
        return rig.loop.digest

    return run(main(), seed, order=order)


@pytest.mark.parametrize("seed", range(10))
def test_requests_find_their_answers(seed: int) -> None:
    """Frames come in pieces and late; every answer has to reach the one who asked, in its own host."""

    async def test(rig: Rig) -> None:
        answers = await asyncio.gather(*(rig.probe(number) for number in range(200)))
        found = [answer.version for answer in answers if isinstance(answer, Ack)]
        assert found == list(range(1, 201))
        assert rig.near.opened_in == ["a"]
        assert rig.far.opened_in == ["b"]

    assert simulate(test, seed) == simulate(test, seed)


def test_stopped_silo_accepts_but_does_not_answer() -> None:
    """Its kernel takes the bytes; only the answer after the thaw says that it lives."""

    async def test(rig: Rig) -> None:
        rig.loop.freeze("b")
        future = rig.probe(1)
        await asyncio.sleep(5)
        assert not future.done()
        with pytest.raises(OSError):
            await rig.dial()
        rig.loop.thaw("b")
        assert isinstance(await future, Ack)

    simulate(test)


def test_killed_silo_breaks_the_requests_that_wait_for_it() -> None:
    """At once: a broken connection is evidence, and callers must not wait out their deadline."""

    async def test(rig: Rig) -> None:
        future = rig.probe(1)
        await asyncio.sleep(0)
        rig.loop.kill("b")
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(future, 2)
        assert len(rig.near.lost) == 1
        assert rig.far.lost == []
        with pytest.raises(ConnectionRefusedError):
            await rig.dial()

    simulate(test)


@pytest.mark.parametrize("how", list(Cut))
def test_cut_link_holds_or_breaks_and_heals(how: Cut) -> None:
    """Dropped: the answer comes after the heal. Rejected: the connection is gone, a new one works."""

    async def test(rig: Rig) -> None:
        rig.network.cut("a", "b", how)
        future = rig.probe(1)
        await asyncio.sleep(3)
        rig.network.heal_all()
        if how is Cut.DROP:
            assert isinstance(await asyncio.wait_for(future, 10), Ack)
        else:
            with pytest.raises(ConnectionError):
                await future
            rig.connection = await rig.dial()
            assert isinstance(await rig.probe(1), Ack)

    simulate(test)
