"""Where bytes come from and go to, as a port. Knows addresses and protocols, no frames.

Connections are plain asyncio protocols, so the same code runs over TCP and over the simulator's links.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from durum.ids import Address, join_address, split_address


class Listener(Protocol):
    """A listening address."""

    address: Address

    async def close(self) -> None:
        """Stop accepting. Connections that are open stay open."""
        ...


class Network(Protocol):
    """How a process reaches others and is reached."""

    async def listen(
        self, address: Address, accept: Callable[[], asyncio.BaseProtocol]
    ) -> Listener:
        """Accept connections at an address; port 0 takes a free one, which the listener names.

        Raises:
            OSError: the address is taken or not this host's.
        """
        ...

    async def connect(
        self, address: Address, make: Callable[[], asyncio.BaseProtocol]
    ) -> asyncio.BaseProtocol:
        """Open a connection; the protocol's connection_made has run when this returns.

        Raises:
            ConnectionRefusedError: the address itself said no: nobody listens there.
            OSError: it could not be reached.
        """
        ...


class _TcpListener:
    def __init__(self, server: asyncio.Server, address: Address) -> None:
        self._server = server
        self.address = address

    async def close(self) -> None:
        self._server.close()


class TcpNetwork:
    """TCP of the running event loop."""

    async def listen(
        self, address: Address, accept: Callable[[], asyncio.BaseProtocol]
    ) -> Listener:
        host, port = split_address(address)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(accept, host, port, backlog=1024)
        bound = server.sockets[0].getsockname()[1]
        return _TcpListener(server, join_address(host, bound))

    async def connect(
        self, address: Address, make: Callable[[], asyncio.BaseProtocol]
    ) -> asyncio.BaseProtocol:
        host, port = split_address(address)
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(make, host, port)
        return protocol
