"""A network inside one process, in real time, whose links a test can cut. Owns who reaches whom; knows no
frames. The simulator has a network of its own, which also loses and delays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from durum.ids import Address, split_address
from durum.wire.loopback import LoopbackNetwork, LoopbackTransport, Medium
from durum.wire.network import Listener


class Switchboard:
    """All machines of one test. It is the Carrier of their links: what a cut holds up goes on after it."""

    def __init__(self) -> None:
        self._network: Final = LoopbackNetwork(medium=Medium(carrier=self))
        self._cuts: Final[dict[frozenset[str], None]] = {}
        self._held: Final[list[tuple[LoopbackTransport, Callable[[], None]]]] = []
        self._changed = asyncio.Event()

    def at(self, machine: str) -> Port:
        """The network as one machine sees it."""
        return Port(self, machine, self._network.at(machine))

    def cut(self, a: str, b: str) -> None:
        """Let nothing through between two machines, in either direction. It is held up, not lost."""
        self._cuts[frozenset((a, b))] = None

    def heal_all(self) -> None:
        """Make all links whole; what was held up goes on."""
        self._cuts.clear()
        held, self._held[:] = list(self._held), []
        for source, arrive in held:
            self.carry(source, arrive)
        self._changed.set()
        self._changed = asyncio.Event()

    def carry(self, source: LoopbackTransport, arrive: Callable[[], None]) -> None:
        if self._is_cut(_machine(source.local), _machine(source.remote)):
            self._held.append((source, arrive))
        else:
            source.loop.call_soon(arrive, context=source.peer.context)

    async def wait_reachable(self, a: str, b: str) -> None:
        """Return once the link between two machines is whole."""
        while self._is_cut(a, b):
            await self._changed.wait()

    def _is_cut(self, a: str, b: str) -> bool:
        return frozenset((a, b)) in self._cuts

    def __repr__(self) -> str:
        return f"<Switchboard cuts={len(self._cuts)} held={len(self._held)}>"


class Port:
    """The Network of one machine. Made by Switchboard.at."""

    def __init__(self, board: Switchboard, machine: str, network: LoopbackNetwork) -> None:
        self._board: Final = board
        self._machine: Final = machine
        self._network: Final = network

    async def listen(
        self, address: Address, accept: Callable[[], asyncio.BaseProtocol]
    ) -> Listener:
        return await self._network.listen(address, accept)

    async def connect(
        self, address: Address, make: Callable[[], asyncio.BaseProtocol]
    ) -> asyncio.BaseProtocol:
        await self._board.wait_reachable(self._machine, _machine(address))
        return await self._network.connect(address, make)


def _machine(address: Address) -> str:
    return split_address(address)[0]
