"""The simulated network: what TCP does when hosts stop, die or are cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from durum.ids import Address
from durum.testing import hosts, loop
from durum.testing.links import Cut, Link, resend_after
from durum.testing.loop import Order
from durum.testing.network import SimNetwork
from durum.testing.run import run
from durum.wire.network import Network

HOME = Address("b:7600")
USUAL = Link()


class Recorder(asyncio.Protocol):
    """Keeps what happened to it, with the time and the host it ran in."""

    def __init__(self, *, echo: bool = False) -> None:
        self.data = bytearray()
        self.events: list[str] = []
        self.at: list[float] = []
        self.ran_in: set[str] = set()
        self.lost: Exception | None = None
        self.echo = echo
        self.gone = asyncio.Event()
        self.paused = self.resumed = False

    def note(self, event: str) -> None:
        self.events.append(event)
        self.at.append(loop.current().time())
        self.ran_in.add(hosts.current())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.note("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.note("data")
        if self.echo:
            self.transport.write(data)

    def eof_received(self) -> None:
        self.note("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.note("lost")
        self.lost = exc
        self.gone.set()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.resumed = True


class Pair:
    """Host b listens, host a has connected."""

    def __init__(self, network: SimNetwork, *, echo: bool = False) -> None:
        self.network = network
        self.loop = network.loop
        self.accepted: list[Recorder] = []
        self.echo = echo

    async def open(self) -> Pair:
        await self.loop.start("b", self._listen())
        self.client = await self.loop.start("a", self._connect("a"))
        await asyncio.sleep(0.01)
        return self

    async def _listen(self) -> None:
        self.listener = await self.network.host("b").listen(HOME, self._accept)

    def _accept(self) -> Recorder:
        self.accepted.append(Recorder(echo=self.echo))
        return self.accepted[-1]

    async def _connect(self, host: str) -> Recorder:
        protocol = await self.network.host(host).connect(HOME, Recorder)
        assert isinstance(protocol, Recorder)
        return protocol

    @property
    def server(self) -> Recorder:
        return self.accepted[-1]

    def send(self, data: bytes) -> None:
        """Write from host a."""
        hosts.context("a").run(self.client.transport.write, data)

    def answer(self, data: bytes) -> None:
        """Write from host b."""
        hosts.context("b").run(self.server.transport.write, data)


def simulate(
    test: Callable[[Pair], Awaitable[None]],
    seed: int = 1,
    *,
    usual: Link = USUAL,
    echo: bool = False,
    order: Order = Order.HOSTS,
) -> None:
    async def main() -> None:
        pair = Pair(SimNetwork(loop.current(), usual), echo=echo)
        await test(await pair.open())

    run(main(), seed, order=order)


async def dial(network: SimNetwork, host: str, address: str) -> Recorder:
    """Connect as a host, from the world."""
    there: Network = network.host(host)
    protocol = await loop.current().start(host, there.connect(Address(address), Recorder))
    assert isinstance(protocol, Recorder)
    return protocol


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("order", list(Order))
def test_link_is_an_ordered_stream_whatever_the_seed(seed: int, order: Order) -> None:
    """A frame's second half before its first is not a fault of TCP, and would only hide real ones."""

    async def test(pair: Pair) -> None:
        pieces = [bytes([number]) * (number * 7 % 50 + 1) for number in range(200)]
        for piece in pieces:
            pair.send(piece)
            await asyncio.sleep(0.0001)
        await asyncio.sleep(30)
        assert bytes(pair.server.data) == b"".join(pieces) == bytes(pair.client.data)
        assert pair.client.ran_in == {"a"}
        assert pair.server.ran_in == {"b"}

    simulate(
        test, seed, usual=Link(latency_s=0.01, jitter_s=0.05, loss=0.05), echo=True, order=order
    )


def test_link_takes_its_time() -> None:
    """Latency is what makes races; and the same seed makes the same ones."""

    def times(seed: int) -> list[float]:
        found: list[float] = []

        async def test(pair: Pair) -> None:
            pair.network.slow("a", "b", latency_s=2, jitter_s=1)
            before = pair.loop.time()
            pair.send(b"x")
            await asyncio.sleep(5)
            found.append(pair.server.at[-1] - before)
            assert 2 <= found[-1] <= 3
            pair.network.heal_all()
            before = pair.loop.time()
            pair.send(b"y")
            await asyncio.sleep(5)
            assert pair.server.at[-1] - before <= 0.001

        simulate(test, seed)
        return found

    assert times(1) == times(1) != times(2)


def test_a_reader_sees_seams_anywhere() -> None:
    """Code that takes one write for one read works on loopback and fails in the field."""

    async def test(pair: Pair) -> None:
        for _ in range(200):
            pair.send(b"0123456789")
        await asyncio.sleep(1)
        assert len(pair.server.data) == 2000
        assert pair.server.events.count("data") > 200

    simulate(test)


def test_closed_connection_delivers_all_and_then_its_end() -> None:
    """close() flushes."""

    async def test(pair: Pair) -> None:
        pair.send(b"last")
        hosts.context("a").run(pair.client.transport.close)
        await asyncio.sleep(1)
        assert pair.server.events[-2:] == ["eof", "lost"]
        assert pair.server.data == b"last"
        assert pair.server.lost is None
        assert pair.client.lost is None
        assert pair.network.connections("a") == pair.network.connections("b") == []
        assert not pair.network.links._directions

    simulate(test)


def test_data_for_a_closed_end_is_answered_with_a_reset() -> None:
    """The other end's kernel knows nothing of the connection any more, and says so."""

    async def test(pair: Pair) -> None:
        pair.network.cut("a", "b", one_way=True)
        hosts.context("a").run(pair.client.transport.close)
        await asyncio.sleep(1)
        assert "lost" not in pair.server.events
        pair.answer(b"are you there?")
        await asyncio.sleep(1)
        pair.network.heal("a", "b")
        await asyncio.sleep(5)
        assert "lost" in pair.server.events

    simulate(test)


def test_nobody_listening_refuses() -> None:
    """A refusal by the address itself is evidence that the process is gone; silence is not."""

    async def test(pair: Pair) -> None:
        with pytest.raises(ConnectionRefusedError):
            await dial(pair.network, "a", "b:1")
        await pair.listener.close()
        await pair.listener.close()
        with pytest.raises(ConnectionRefusedError):
            await dial(pair.network, "a", HOME)
        pair.send(b"still open")
        await asyncio.sleep(1)
        assert pair.server.data == b"still open"

    simulate(test)


def test_processes_of_one_machine_reach_each_other() -> None:
    """Whatever happens to the wires; and a client may well sit beside its silo."""

    async def test(pair: Pair) -> None:
        pair.network.isolate("b")
        near = await asyncio.wait_for(dial(pair.network, "b#client", HOME), 0.01)
        hosts.context("b#client").run(near.transport.write, b"hello")
        await asyncio.sleep(0.01)
        assert near.data == b"hello"

    simulate(test, echo=True)


def test_healed_connection_does_not_give_up_later() -> None:
    """The kernel's patience begins anew with each cut."""

    async def test(pair: Pair) -> None:
        pair.network.cut("a", "b")
        pair.send(b"x")
        await asyncio.sleep(100)
        pair.network.heal("a", "b")
        await asyncio.sleep(2000)
        assert pair.client.events == ["made"]
        assert pair.server.data == b"x"

    simulate(test)


def test_unknown_machine_is_unreachable() -> None:
    """A wrong name must not look like a dead silo."""

    async def test(pair: Pair) -> None:
        with pytest.raises(OSError, match="no machine"):
            await dial(pair.network, "a", "nowhere:1")

    simulate(test)


def test_listening_needs_a_free_address_of_ones_own() -> None:
    """Two silos on one address, or on another machine's, are mistakes that have to show."""

    async def test(pair: Pair) -> None:
        face = pair.network.host("b#2")
        with pytest.raises(OSError, match="taken"):
            await face.listen(HOME, Recorder)
        with pytest.raises(OSError, match="not on b"):
            await face.listen(Address("a:1"), Recorder)
        one = await face.listen(Address("b:0"), Recorder)
        two = await face.listen(Address("b:0"), Recorder)
        assert one.address != two.address
        assert "b:7600" in repr(pair.network)

    simulate(test)


# --- frozen and killed hosts ---------------------------------------------------------------------


def test_stopped_process_is_connected_to_and_says_nothing() -> None:
    """connect() succeeds, as its kernel answers: only an application's reply proves life."""

    async def test(pair: Pair) -> None:
        pair.loop.freeze("b")
        second = await asyncio.wait_for(dial(pair.network, "a", HOME), 1)
        hosts.context("a").run(second.transport.write, b"hello")
        pair.send(b"hello")
        await asyncio.sleep(10)
        assert len(pair.accepted) == 1
        assert second.events == ["made"]
        pair.loop.thaw("b")
        await asyncio.sleep(0.1)
        assert [bytes(one.data) for one in pair.accepted] == [b"hello", b"hello"]
        assert second.data == b"hello"

    simulate(test, echo=True)


def test_killed_process_resets_its_connections_and_refuses_new_ones() -> None:
    """What it had written arrives; then its kernel breaks the connection, and the address says no."""

    async def test(pair: Pair) -> None:
        pair.answer(b"written just before")
        pair.loop.kill("b")
        await asyncio.sleep(1)
        assert pair.client.data == b"written just before"
        assert isinstance(pair.client.lost, ConnectionResetError)
        assert pair.server.events[-1] != "lost"
        with pytest.raises(ConnectionRefusedError):
            await dial(pair.network, "a", HOME)
        second = await pair.network.host("b#2").listen(HOME, Recorder)
        await dial(pair.network, "a", HOME)
        await second.close()

    simulate(test)


def test_killed_process_resets_what_it_never_accepted() -> None:
    """A connection that waited in a stopped process's queue breaks when it is killed."""

    async def test(pair: Pair) -> None:
        pair.loop.freeze("b")
        second = await dial(pair.network, "a", HOME)
        pair.loop.kill("b")
        await asyncio.sleep(1)
        assert isinstance(second.lost, ConnectionResetError)

    simulate(test)


def test_killed_process_writes_nothing_any_more() -> None:
    """Not even the farewell in a `finally` that Python runs when it forgets a coroutine."""

    async def test(pair: Pair) -> None:
        pair.loop.kill("b")
        pair.server.transport.write(b"ghost")
        pair.server.transport.close()
        pair.server.transport.abort()
        await asyncio.sleep(1)
        assert pair.client.data == b""
        assert isinstance(pair.client.lost, ConnectionResetError)

    simulate(test)


def test_reset_of_a_killed_process_waits_for_the_link() -> None:
    """Behind a cut nobody hears of a death."""

    async def test(pair: Pair) -> None:
        pair.network.cut("a", "b")
        pair.loop.kill("b")
        await asyncio.sleep(60)
        assert pair.client.events == ["made"]
        pair.network.heal("a", "b")
        await asyncio.sleep(120)
        assert isinstance(pair.client.lost, ConnectionResetError)

    simulate(test)


def test_data_for_a_killed_process_is_answered_with_a_reset() -> None:
    """Where the first reset was rejected, the next byte tells."""

    async def test(pair: Pair) -> None:
        pair.network.cut("b", "a", Cut.REJECT, one_way=True)
        pair.loop.kill("b")
        await asyncio.sleep(10)
        assert pair.client.events == ["made"]
        pair.network.heal("a", "b")
        pair.send(b"anyone?")
        await asyncio.sleep(1)
        assert isinstance(pair.client.lost, ConnectionResetError)

    simulate(test)


def test_connection_that_broke_before_it_was_accepted_is_told_so() -> None:
    """A protocol that hears connection_made must hear connection_lost, or it waits for ever."""

    async def test(pair: Pair) -> None:
        pair.loop.freeze("b")
        second = await dial(pair.network, "a", HOME)
        hosts.context("a").run(second.transport.abort)
        await asyncio.sleep(1)
        pair.loop.thaw("b")
        await asyncio.sleep(1)
        assert pair.accepted[-1].events == ["made", "lost"]

    simulate(test)


def test_given_up_connect_leaves_nothing_open() -> None:
    """A dial that timed out must not leave a connection that the silo counts."""

    async def test(pair: Pair) -> None:
        pair.network.slow("a", "b", latency_s=1, jitter_s=0)
        for patience_s in (0.5, 1.5, 2.5):
            task = asyncio.create_task(dial(pair.network, "a", HOME))
            await asyncio.sleep(patience_s)
            inner = [one for one in pair.loop.pending() if one.host == "a"]
            for one in inner:
                one.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled():
                hosts.context("a").run(task.result().transport.abort)
            await asyncio.sleep(10)
            assert len(pair.network.connections("b")) == 1
            assert len(pair.network.connections("a")) == 1

    simulate(test)


# --- cuts ----------------------------------------------------------------------------------------


def test_cut_link_stalls_bytes_until_it_is_healed() -> None:
    """Dropped packets are sent again: a partition delays, it does not lose."""

    async def test(pair: Pair) -> None:
        pair.network.cut("a", "b")
        pair.send(b"one ")
        await asyncio.sleep(5)
        pair.send(b"two")
        await asyncio.sleep(5)
        assert pair.server.data == b""
        pair.network.heal("a", "b")
        await asyncio.sleep(20)
        assert pair.server.data == b"one two"
        assert pair.client.lost is None

    simulate(test)


def test_cut_catches_what_is_on_the_wire() -> None:
    """A cut is not so kind as to let the last packets through."""

    async def test(pair: Pair) -> None:
        pair.network.slow("a", "b", latency_s=1, jitter_s=0)
        pair.send(b"on its way")
        await asyncio.sleep(0.5)
        pair.network.cut("a", "b")
        await asyncio.sleep(10)
        assert pair.server.data == b""
        pair.network.heal("a", "b")
        await asyncio.sleep(30)
        assert pair.server.data == b"on its way"

    simulate(test)


def test_one_way_cut_lets_the_other_direction_pass() -> None:
    """The fault that fools every detector which only sends."""

    async def test(pair: Pair) -> None:
        pair.network.cut("a", "b", one_way=True)
        pair.send(b"lost")
        pair.answer(b"heard")
        await asyncio.sleep(5)
        assert pair.client.data == b"heard"
        assert pair.server.data == b""

    simulate(test)


def test_rejecting_firewall_breaks_only_the_end_that_sends() -> None:
    """The other end goes on believing in the connection, and a refusal is no proof of death."""

    async def test(pair: Pair) -> None:
        pair.network.isolate("b", Cut.REJECT)
        await asyncio.sleep(5)
        assert pair.client.events == pair.server.events == ["made"]
        pair.send(b"x")
        await asyncio.sleep(5)
        assert isinstance(pair.client.lost, ConnectionResetError)
        assert pair.server.events == ["made"]
        with pytest.raises(ConnectionRefusedError):
            await dial(pair.network, "a", HOME)
        pair.network.heal_all()
        pair.answer(b"y")
        await asyncio.sleep(5)
        assert isinstance(pair.server.lost, ConnectionResetError)

    simulate(test)


def test_reject_catches_what_is_on_the_wire_and_what_had_stalled() -> None:
    """A firewall rule that turns from DROP to REJECT ends the waiting."""

    async def test(pair: Pair) -> None:
        pair.network.slow("a", "b", latency_s=1, jitter_s=0)
        pair.send(b"x")
        pair.network.cut("a", "b", Cut.REJECT)
        await asyncio.sleep(5)
        assert isinstance(pair.client.lost, ConnectionResetError)
        pair.network.cut("a", "b", Cut.DROP)
        pair.answer(b"y")
        await asyncio.sleep(5)
        pair.network.cut("a", "b", Cut.REJECT)
        await asyncio.sleep(5)
        assert isinstance(pair.server.lost, ConnectionResetError)

    simulate(test)


def test_connect_through_a_cut_waits_and_gives_up() -> None:
    """A kernel asks for two minutes; a heal in time lets it through."""

    async def test(pair: Pair) -> None:
        pair.network.cut("a", "b", one_way=True)
        began = pair.loop.time()
        with pytest.raises(TimeoutError):
            await dial(pair.network, "a", HOME)
        assert pair.loop.time() - began == pytest.approx(127, abs=1)
        task = asyncio.create_task(dial(pair.network, "a", HOME))
        await asyncio.sleep(2)
        pair.network.heal("a", "b")
        await asyncio.wait_for(task, 5)

    simulate(test)


def test_connection_into_a_long_cut_breaks_at_last() -> None:
    """After a quarter of an hour the kernel gives up by itself."""

    async def test(pair: Pair) -> None:
        pair.network.cut("a", "b")
        pair.send(b"x")
        await asyncio.sleep(900)
        assert pair.client.events == ["made"]
        await asyncio.sleep(60)
        assert isinstance(pair.client.lost, TimeoutError)
        assert pair.server.events == ["made"]

    simulate(test)


def test_kernel_waits_longer_the_longer_it_has_waited() -> None:
    """A healed link is not used at once: the next attempt may be as far away as the cut was long."""
    assert resend_after(0) == pytest.approx(0.2)
    assert resend_after(0.3) == pytest.approx(0.3)
    assert 0 <= resend_after(50) <= 55


def test_writer_is_told_to_pause_while_nobody_reads() -> None:
    """Back-pressure has to reach the code that would otherwise fill its memory."""

    async def test(pair: Pair) -> None:
        pair.loop.freeze("b")
        for _ in range(8):
            pair.send(bytes(64 * 1024))
        assert pair.client.paused
        pair.loop.thaw("b")
        await asyncio.sleep(1)
        assert pair.client.resumed
        assert len(pair.server.data) == 8 * 64 * 1024

    simulate(test)
