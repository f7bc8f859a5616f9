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
from tests.support.certificates import Authority
from tests.support.clusters import Clustered
from tests.support.sentinels import LASTING_MS, Sentineled
from tests.support.servers import PRODUCTS, Server, binary_of
from tests.support.services import Service
from tests.support.tls_servers import TlsServer

_numbers = itertools.count()
TOPOLOGIES = ("redis-tls", "valkey-sentinel", "valkey-cluster", "redis-cluster")


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


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whoever signs the servers' certificates."""
    return Authority(tmp_path_factory.mktemp("tls"), "store")


@pytest.fixture(scope="session")
def lasting(authority: Authority) -> Iterator[Callable[[str], Server | Sentineled | Clustered]]:
    """Servers, or several that belong together; started when first asked for. No test breaks them."""
    running: dict[str, Server | Sentineled | Clustered] = {}

    def get(kind: str) -> Server | Sentineled | Clustered:
        product, _, form = kind.partition("-")
        if binary_of(product) is None:
            pytest.skip(f"{product} is not installed here")
        if kind not in running:
            match form:
                case "tls":
                    running[kind] = TlsServer(authority).start()
                case "sentinel":
                    running[kind] = Sentineled(product, down_after_ms=LASTING_MS)
                case _:
                    running[kind] = Clustered(product)
        return running[kind]

    yield get
    for one in running.values():
        one.remove()


@pytest.fixture(scope="session")
def topologies(
    lasting: Callable[[str], Server | Sentineled | Clustered], authority: Authority
) -> Callable[[str], str]:
    """The URL of each kind."""

    def get(kind: str) -> str:
        query = f"?ca={authority.file}" if kind.endswith("tls") else ""
        return f"{lasting(kind).url}{query}"

    return get


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


@pytest.fixture(params=["sqlite-file", "sqlite-inline", "memory", *PRODUCTS, *TOPOLOGIES])
async def store(
    request: pytest.FixtureRequest,
    tmp_path: pathlib.Path,
    servers: Callable[[str], Server],
    topologies: Callable[[str], str],
) -> AsyncIterator[Store]:
    """One provider, open and empty."""
    kind = request.param
    threads = kind != "sqlite-inline"
    if kind == "sqlite-file":
        url = f"sqlite:///{tmp_path}/deep/durum.db"
    elif kind in PRODUCTS:
        url = servers(kind).url
    elif kind in TOPOLOGIES:
        url = topologies(kind)
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
