"""Every provider of the store, each as a fixture parameter; real servers live for the whole session."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from durum.clock import SystemClock
from durum.ids import SystemEntropy
from durum.store.protocol import Store
from durum.store.urls import open_store
from tests.support.servers import PRODUCTS, Server, binary_of
from tests.support.services import Service

_numbers = itertools.count()


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[str], Server]]:
    """Start a product's server when it is first asked for, with settings that lose nothing."""
    running: dict[str, Server] = {}

    def get(product: str) -> Server:
        if binary_of(product) is None:
            pytest.skip(f"{product} is not installed here")
        if product not in running:
            running[product] = Server(product).start()
        return running[product]

    yield get
    for server in running.values():
        server.remove()


@pytest.fixture
def fresh_server() -> Iterator[Callable[..., Server]]:
    """Start servers of this test's own, which it may kill."""
    started: list[Server] = []

    def start(product: str, *settings: str, tcp: bool = False) -> Server:
        if binary_of(product) is None:
            pytest.skip(f"{product} is not installed here")
        started.append(Server(product, settings, tcp=tcp).start())
        return started[-1]

    yield start
    for server in started:
        server.remove()


@pytest.fixture(params=["sqlite-file", "sqlite-inline", "memory", *PRODUCTS])
async def store(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, servers: Callable[[str], Server]
) -> AsyncIterator[Store]:
    """One provider, open and empty."""
    kind = request.param
    threads = kind != "sqlite-inline"
    if kind == "sqlite-file":
        url = f"sqlite:///{tmp_path}/deep/durum.db"
    elif kind in PRODUCTS:
        url = servers(kind).url
    else:
        url = "memory:"
    opened = await open_store(
        url,
        cluster=f"c{next(_numbers)}",
        clock=SystemClock(),
        entropy=SystemEntropy(),
        threads=threads,
    )
    yield opened
    await opened.close()


@pytest.fixture
async def service(store: Store) -> Service:
    """A provider with a service of eight partitions created in it."""
    return await Service.create(store, partitions=8)
