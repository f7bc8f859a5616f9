"""A simulated network: machines, the addresses on them, and faults between them. Owns who listens where
and how connections open; links own the bytes' way. Knows no frames.

    network = SimNetwork(loop.current())
    silo = Silo(..., network=network.host("a"), listen="a:7600")
    network.cut("a", "b")
"""

from __future__ import annotations

import asyncio
import errno
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from typing import Final

from durum.ids import Address, join_address, split_address
from durum.testing import hosts
from durum.testing.links import Cut, Link, Links
from durum.testing.loop import SimLoop
from durum.testing.sockets import KERNEL_BUFFER_BYTES, SimTransport
from durum.wire.loopback import Medium, join

SYN_RETRIES: Final = 6
"""A kernel asks again after 1, 3, 7 ... seconds, and gives up after 127."""


class SimNetwork:
    """All machines and the links between them.

    Args:
        loop: whose time and seed it follows.
        usual: what links are like where nothing else was said.
    """

    def __init__(self, loop: SimLoop, usual: Link = Link()) -> None:  # noqa: B008 - immutable
        self.loop: Final = loop
        self.links: Final = Links(loop, usual)
        self.medium: Final = Medium(carrier=self.links, window_bytes=KERNEL_BUFFER_BYTES)
        self.machines: Final[dict[str, None]] = {}
        self.places: Final[dict[Address, SimListener]] = {}
        self.ports: Final[Iterator[int]] = itertools.count(49_152)
        # By host, then in the order of opening: a kill breaks them in that order.
        self._ends: Final[dict[str, dict[SimTransport, None]]] = {}
        loop.on_kill(self._killed)

    def host(self, host: str) -> HostNetwork:
        """The network as one process sees it; its machine exists from now on."""
        self.machines.setdefault(hosts.machine(host))
        return HostNetwork(self, host)

    # --- faults ------------------------------------------------------------------------------

    def cut(self, a: str, b: str, how: Cut = Cut.DROP, *, one_way: bool = False) -> None:
        """Cut the link between two machines; one way: only what a sends to b."""
        self.links.change(a, b, cut=how)
        if not one_way:
            self.links.change(b, a, cut=how)

    def heal(self, a: str, b: str) -> None:
        """Make the link between two machines whole, both ways."""
        self.links.change(a, b, cut=None)
        self.links.change(b, a, cut=None)

    def partition(self, side: Iterable[str], other: Iterable[str], how: Cut = Cut.DROP) -> None:
        """Cut every link between two groups of machines."""
        for a, b in itertools.product(tuple(side), tuple(other)):
            self.cut(a, b, how)

    def isolate(self, a: str, how: Cut = Cut.DROP) -> None:
        """Cut a machine off from all others that exist now."""
        self.partition([a], [machine for machine in self.machines if machine != a], how)

    def slow(self, a: str, b: str, *, latency_s: float, jitter_s: float, loss: float = 0.0) -> None:
        """Make a link slow, both ways."""
        for source, target in ((a, b), (b, a)):
            self.links.change(source, target, latency_s=latency_s, jitter_s=jitter_s, loss=loss)

    def heal_all(self) -> None:
        """Make every link whole and as quick as usual."""
        usual = self.links.usual
        for source, target in self.links.changed():
            self.links.change(
                source,
                target,
                cut=None,
                latency_s=usual.latency_s,
                jitter_s=usual.jitter_s,
                loss=usual.loss,
            )

    # --- what people look at -----------------------------------------------------------------

    def connections(self, host: str) -> list[SimTransport]:
        """A process's open ends, oldest first."""
        return list(self._ends.get(host, ()))

    def __repr__(self) -> str:
        ends = sum(len(ends) for ends in self._ends.values())
        return (
            f"<SimNetwork machines={len(self.machines)} open={ends} listening={list(self.places)}>"
        )

    # --- between the faces and the kernel ----------------------------------------------------

    def end(self, host: str, local: Address, remote: Address, context: Context) -> SimTransport:
        """Make one end of a connection."""
        made = SimTransport(
            self.loop,
            host,
            self.medium,
            local=local,
            remote=remote,
            context=context,
            on_gone=self._gone,
        )
        self._ends.setdefault(host, {})[made] = None
        return made

    def _gone(self, end: SimTransport) -> None:
        self._ends.get(end.host, {}).pop(end, None)
        if end.joined and end.peer_end.gone:
            self.links.forget(end)
            self.links.forget(end.peer_end)

    def _killed(self, host: str) -> None:
        for address in [a for a, place in self.places.items() if place.host == host]:
            del self.places[address]
        for end in self.connections(host):
            end.die()


class SimListener:
    """A listening address. Made by HostNetwork.listen."""

    def __init__(
        self,
        network: SimNetwork,
        host: str,
        address: Address,
        accept: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        self.address = address
        self.host: Final = host
        self.context: Final = hosts.adopt(host)
        self._network: Final = network
        self._accept: Final = accept

    def accepted(self, end: SimTransport) -> None:
        """Give a new connection to the process, in its context: once it runs."""
        end.open(self._accept())

    async def close(self) -> None:
        if self._network.places.get(self.address) is self:
            del self._network.places[self.address]


class HostNetwork:
    """The Network of one process."""

    def __init__(self, network: SimNetwork, host: str) -> None:
        self._network: Final = network
        self._host: Final = host
        self._machine: Final = hosts.machine(host)

    async def listen(
        self, address: Address, accept: Callable[[], asyncio.BaseProtocol]
    ) -> SimListener:
        machine, port = split_address(address)
        if machine != self._machine:
            raise OSError(errno.EADDRNOTAVAIL, f"{address} is not on {self._machine}")
        bound = join_address(machine, port or next(self._network.ports))
        if bound in self._network.places:
            raise OSError(errno.EADDRINUSE, f"{bound} is taken")
        listener = SimListener(self._network, self._host, bound, accept)
        self._network.places[bound] = listener
        return listener

    async def connect(
        self, address: Address, make: Callable[[], asyncio.BaseProtocol]
    ) -> asyncio.BaseProtocol:
        opening = _Opening(self._network, self._host, address)
        try:
            end = await opening.done
        except asyncio.CancelledError:
            opening.give_up()
            raise
        protocol = make()
        end.open(protocol)
        return protocol


class _Opening:
    """A connection that is being opened, as the kernels do it: neither process has a part in it."""

    def __init__(self, network: SimNetwork, host: str, address: Address) -> None:
        self.done: Final[asyncio.Future[SimTransport]] = network.loop.create_future()
        self._network: Final = network
        self._host: Final = host
        self._address: Final = address
        self._source: Final = hosts.machine(host)
        self._target: Final = split_address(address)[0]
        self._context: Final = hosts.adopt(host)
        self._end: SimTransport | None = None
        self._ask(0)

    def give_up(self) -> None:
        """Nobody waits any more."""
        if self._end is not None:
            self._end.abort()

    def _ask(self, attempt: int) -> None:
        if self.done.done():
            return
        links = self._network.links
        there = links.link(self._source, self._target).cut
        back = links.link(self._target, self._source).cut
        if self._target not in self._network.machines:
            self._fail(OSError(errno.EHOSTUNREACH, f"there is no machine {self._target}"))
        elif there is Cut.REJECT:
            self._fail(ConnectionRefusedError(errno.ECONNREFUSED, f"{self._address} refused"))
        elif there is None and back is None:
            self._later(self._source, self._target, self._arrive)
        elif attempt == SYN_RETRIES:
            error = TimeoutError(errno.ETIMEDOUT, f"{self._address} does not answer")
            self._network.loop.call_in_world(2**attempt, self._settle, error)
        else:
            self._network.loop.call_in_world(2**attempt, self._ask, attempt + 1)

    def _arrive(self) -> None:
        network = self._network
        place = network.places.get(self._address)
        if self.done.done() or network.loop.is_dead(self._host):
            return
        if place is None:
            self._fail(ConnectionRefusedError(errno.ECONNREFUSED, f"{self._address} refused"))
            return
        local = join_address(self._source, next(network.ports))
        self._end = network.end(self._host, local, self._address, self._context)
        far = network.end(place.host, self._address, local, place.context)
        join(self._end, far)
        self._later(self._target, self._source, self._settle, self._end)
        # The listener's process takes it when it runs; its kernel has opened it already.
        network.loop.call_soon(place.accepted, far, context=place.context)

    def _fail(self, error: OSError) -> None:
        self._later(self._target, self._source, self._settle, error)

    def _later(self, source: str, target: str, then: Callable[..., None], *args: object) -> None:
        delay = self._network.links.delay(source, target)
        self._network.loop.call_in_world(delay, then, *args)

    def _settle(self, outcome: SimTransport | OSError) -> None:
        if self.done.done():
            return
        if isinstance(outcome, OSError):
            self.done.set_exception(outcome)
        else:
            self.done.set_result(outcome)
