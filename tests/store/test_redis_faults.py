"""A real server that is stopped, killed, full, demoted, flushed or restarted under the store."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from durum import errors
from durum.clock import SystemClock
from durum.ids import GrainId, SystemEntropy, Token
from durum.store import redis_pipe
from durum.store.effects import Outgoing
from durum.store.protocol import NEVER_OWNED, Committed, Genesis, Level, Record, Store, Take
from durum.store.urls import open_store
from durum.views import Status
from tests.support.servers import PRODUCTS, Server
from tests.support.services import ALICE, BOB, SILO, Service, commit, row

Open = Callable[..., Any]
Start = Callable[..., Server]


@pytest.fixture
async def open_it() -> AsyncIterator[Open]:
    """Open stores that are closed after the test."""
    opened: list[Store] = []

    async def open_one(url: str, cluster: str = "shop", store_timeout_s: float = 1.5) -> Store:
        store = await open_store(
            url,
            cluster=cluster,
            clock=SystemClock(),
            entropy=SystemEntropy(),
            store_timeout_s=store_timeout_s,
        )
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture(params=PRODUCTS)
def server(request: pytest.FixtureRequest, fresh_server: Start) -> Server:
    """One server of this test's own."""
    return fresh_server(request.param)


@pytest.fixture
async def on_server(server: Server, open_it: Open) -> Service:
    """A service on it, with a limit that a test can wait for."""
    return await Service.create(await open_it(server.url, store_timeout_s=0.3))


async def until(condition: Callable[[], Any]) -> Any:
    """Ask again until the store is back; each asking is a real operation, so this is no sleep."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await condition()
            except errors.StoreUnavailable:
                await asyncio.sleep(0.02)


async def test_lost_scripts_are_loaded_again(server: Server, on_server: Service) -> None:
    """SCRIPT FLUSH and restarts make the server forget them; nothing ran, so nothing is doubled."""
    token = await on_server.hold()
    version = 0
    for n in range(5):
        server.ask("SCRIPT", "FLUSH")
        futures = [
            on_server.store.commit(commit(token, version=version)),
            *(
                on_server.store.commit(commit(token, grain=GrainId(f"K/{n}.{i}")))
                for i in range(50)
            ),
        ]
        answers = await asyncio.gather(*futures)
        version = answers[0].version
    assert version == 5
    assert (await on_server.store.owners(on_server.mark))[0].commits == 5 * 51


async def test_killed_connection_has_an_unknown_outcome_and_comes_back(
    server: Server, on_server: Service
) -> None:
    """What was written may have run. Sent again byte for byte, it counts once."""
    token = await on_server.hold()
    version = 0
    for _ in range(5):
        turn = commit(token, version=version)
        future = on_server.store.commit(turn)
        await asyncio.sleep(0)
        await asyncio.to_thread(server.ask, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        (result,) = await asyncio.gather(future, return_exceptions=True)
        if isinstance(result, errors.StoreUnavailable):
            assert result.applied is None
            result = await until(functools.partial(on_server.store.commit, turn))
        assert isinstance(result, Committed)
        version = result.version
    assert version == 5
    assert (await until(lambda: on_server.store.owners(on_server.mark)))[0].commits == 5


async def test_messages_of_commits_whose_answers_were_lost_are_posted_once(
    server: Server, on_server: Service
) -> None:
    """Their numbers are those of the first answer, which nobody got."""
    token, store = await on_server.hold(), on_server.store
    first = []
    for version in range(5):
        turn = commit(token, version=version, send=[Outgoing(BOB, b"%d" % version)] * 2)
        future = store.commit(turn)
        await asyncio.sleep(0)
        await asyncio.to_thread(server.ask, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        (result,) = await asyncio.gather(future, return_exceptions=True)
        if isinstance(result, errors.StoreUnavailable):
            result = await until(functools.partial(store.commit, turn))
        assert isinstance(result, Committed)
        first.append(result.first)
    assert first == [1, 3, 5, 7, 9]
    posted = await until(lambda: store.posted(0, token, 0, 99))
    assert [one.row for one in posted] == [b"%d" % (n // 2) for n in range(10)]


async def test_stopped_server_times_out_and_its_ghosts_are_kept_off(
    server: Server, on_server: Service
) -> None:
    """It runs what it has in its socket when it wakes up, long after everybody gave up."""
    token = await on_server.hold()
    await on_server.store.commit(commit(token, state=b"one"))
    server.stop()
    ghost = on_server.store.commit(commit(token, version=1, state=b"ghost"))
    never_sent: list[Any] = []
    with pytest.raises(errors.StoreUnavailable) as caught:
        await ghost
    assert caught.value.applied is None
    # The connection was given up and none can be made: this one is not sent at all.
    never_sent.append(on_server.store.commit(commit(token, grain=BOB)))
    with pytest.raises(errors.StoreUnavailable) as caught:
        await never_sent[0]
    assert caught.value.applied is False
    server.cont()
    record = await until(lambda: on_server.store.load(0, token, ALICE, raise_version=True))
    landed = record.state == b"ghost"
    assert record.version == (3 if landed else 2)
    # From here on nothing may change any more, however late it wakes up.
    assert await on_server.store.load(0, token, ALICE) == record
    assert (await on_server.store.load(0, token, BOB)).version == 0


async def test_beat_on_a_stopped_server_times_out(server: Server, on_server: Service) -> None:
    """A silo must learn in time that its lease is not renewed."""
    await on_server.store.write_row(on_server.mark, row(), seen=None, version=0)
    assert (await on_server.store.beat(on_server.mark, SILO)).status is Status.JOINING
    server.stop()
    with pytest.raises(errors.StoreUnavailable):
        async with asyncio.timeout(1.0):
            await on_server.store.beat(on_server.mark, SILO)
    server.cont()
    await until(lambda: on_server.store.beat(on_server.mark, SILO))


async def test_beat_does_not_wait_for_other_operations(
    server: Server, on_server: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease must not lapse because the main connection is stuck."""
    await on_server.store.write_row(on_server.mark, row(), seen=None, version=0)
    pipe = on_server.store._pipe  # type: ignore[attr-defined]
    monkeypatch.setattr(pipe, "_pump", lambda: None)  # nothing leaves on it any more
    stuck = on_server.store.verify(0, NEVER_OWNED)
    assert (await on_server.store.beat(on_server.mark, SILO)).heartbeat == 1
    assert not stuck.done()
    with pytest.raises(errors.StoreUnavailable):
        await stuck


async def test_dead_server_says_not_applied(server: Server, on_server: Service) -> None:
    """What never left was never done."""
    token = await on_server.hold()
    server.kill()
    with pytest.raises(errors.StoreUnavailable):
        await on_server.store.commit(commit(token))  # finds the connection broken
    with pytest.raises(errors.StoreUnavailable) as caught:
        await on_server.store.commit(commit(token))
    assert caught.value.applied is False


@pytest.mark.parametrize("product", PRODUCTS)
async def test_synced_server_loses_nothing_when_killed(
    product: str, fresh_server: Start, open_it: Open
) -> None:
    """Nothing acknowledged, and another identity, which tells silos to look again."""
    server = fresh_server(product, "--appendonly", "yes", "--appendfsync", "always")
    service = await Service.create(await open_it(server.url))
    token = await service.hold()
    before = (await service.store.read_table(service.mark)).identity
    assert (await service.store.durability()).level is Level.D2
    version = 0
    for round_ in range(2):
        for _ in range(20):
            version = (await service.store.commit(commit(token, version=version))).version
        server.kill()
        server.start()
        record = await until(lambda: service.store.load(0, token, ALICE))
        assert record == Record(version=20 * (round_ + 1), state=b"state")
    after = (await until(lambda: service.store.read_table(service.mark))).identity
    assert after != before


@pytest.mark.parametrize("product", PRODUCTS)
async def test_emptied_server_is_data_loss(
    product: str, fresh_server: Start, open_it: Open
) -> None:
    """A server that came back with nothing is an outage, never a fresh start."""
    server = fresh_server(product)
    service = await Service.create(await open_it(server.url))
    token = await service.hold()
    await service.store.write_row(service.mark, row(), seen=None, version=0)
    server.kill()
    server.start()
    for operation in (
        lambda: service.store.beat(service.mark, SILO),
        lambda: service.store.read_table(service.mark),
        lambda: service.store.owners(service.mark),
        lambda: service.store.load(0, token, ALICE),
        lambda: service.store.commit(commit(token)),
    ):
        with pytest.raises(errors.DataLoss):
            await until(operation)


@pytest.mark.parametrize(
    ("wrong", "right", "word"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "memory"),
        (
            ("CONFIG", "SET", "min-replicas-to-write", "1"),
            ("CONFIG", "SET", "min-replicas-to-write", "0"),
            "replicas",
        ),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "read-only"),
    ],
    ids=["OOM", "NOREPLICAS", "READONLY"],
)
async def test_refused_write_is_not_applied_and_a_renewal_is_refused_too(
    server: Server, on_server: Service, wrong: tuple[str, ...], right: tuple[str, ...], word: str
) -> None:
    """A renewal is a write, so that a silo on a demoted or full server loses its lease."""
    token = await on_server.hold()
    await on_server.store.write_row(on_server.mark, row(), seen=None, version=0)
    before = await on_server.store.beat(on_server.mark, SILO)
    server.ask(*wrong)
    for operation in (
        lambda: on_server.store.commit(commit(token, replies={b"k" * 16: b"r"})),
        lambda: on_server.store.beat(on_server.mark, SILO),
    ):
        with pytest.raises(errors.StoreUnavailable, match=word) as caught:
            await operation()
        assert caught.value.applied is False
    server.ask(*right)
    assert await on_server.store.commit(commit(token)) == Committed(1, 1)
    assert await on_server.store.replies(0, token, ALICE) == {}
    after = await on_server.store.beat(on_server.mark, SILO)
    assert after.heartbeat == before.heartbeat + 1
    assert (after.identity != before.identity) == (word == "read-only")


async def test_busy_server_is_unavailable_and_recovers(server: Server, on_server: Service) -> None:
    """Somebody's endless script."""
    token = await on_server.hold()
    server.ask("CONFIG", "SET", "lua-time-limit", "20")
    endless = asyncio.create_task(asyncio.to_thread(server.ask, "EVAL", "while true do end", "0"))

    async def commit_until_refused() -> None:
        for version in range(10_000):
            await on_server.store.commit(commit(token, version=version))

    with pytest.raises(errors.StoreUnavailable):
        await commit_until_refused()
    server.ask("SCRIPT", "KILL")
    await endless
    await until(lambda: on_server.store.verify(0, token))


async def test_foreign_key_in_our_place_is_data_loss_and_writes_nothing(
    server: Server, on_server: Service
) -> None:
    """A script that fails between its writes could not be undone."""
    token = await on_server.hold()
    server.ask("SET", "durum:{shop:0}:r:Account/alice", "theirs")
    server.ask("SET", "durum:{shop:0}:g:Account/bob", "theirs")
    server.ask("HSET", "durum:{shop:1}:own", "c", "theirs")
    with pytest.raises(errors.DataLoss):
        await on_server.store.commit(commit(token, replies={b"k" * 16: b"r"}))
    with pytest.raises(errors.DataLoss):
        await on_server.store.commit(commit(token, grain=BOB))
    assert await on_server.store.load(0, token, ALICE) == Record(version=0, state=None)
    server.ask("HSET", "durum:{shop:1}:own", "t", b"x" * 16)
    with pytest.raises(errors.DataLoss):
        await on_server.store.commit(commit(b"x" * 16, partition=1))  # type: ignore[arg-type]
    assert b"durum:{shop:1}:g:" not in server.ask("KEYS", "*")


MEMBERS = "durum:{shop}:members"
OWNER = "durum:{shop:2}:own"


@pytest.mark.parametrize(
    ("damage", "noticed_by"),
    [
        (("HSET", MEMBERS, "v", "seven"), {"read_table", "beat"}),
        (("HDEL", MEMBERS, "v"), {"read_table", "beat"}),
        (("HSET", MEMBERS, f"h:{SILO}", "x"), {"read_table", "beat"}),
        (("HSET", MEMBERS, f"s:{SILO}", b"\xc1"), {"read_table", "beat"}),
        (("HSET", MEMBERS, "s:\udcff".encode(errors="surrogateescape"), b"A"), {"read_table"}),
        (("HSET", MEMBERS, "p", "x"), {"genesis", "owners"}),
        (("HDEL", MEMBERS, "p"), {"genesis", "owners"}),
        (("HSET", MEMBERS, "m", b"\xff"), {"genesis", "read_table", "beat", "owners"}),
        (("HSET", OWNER, "e", "seven"), {"owners", "take"}),
        (("HDEL", OWNER, "e"), {"owners"}),
        (("HSET", OWNER, "c", "seven"), {"owners", "take"}),
        (("HSET", OWNER, "s", b"\xff"), {"owners"}),
        (("HDEL", OWNER, "t"), {"owners", "take"}),
    ],
    ids=lambda value: " ".join(map(str, value[1:])) if isinstance(value, tuple) else None,
)
async def test_damaged_table_is_data_loss(
    server: Server, on_server: Service, damage: tuple[str | bytes, ...], noticed_by: set[str]
) -> None:
    """A number that is none must end in words that lead to it: not as an error of ours, and not as a store
    that is asked again for ever.
    """
    store, mark = on_server.store, on_server.mark
    await store.write_row(mark, row(), seen=None, version=0)
    await store.beat(mark, SILO)
    server.ask(*damage)
    take = Take(partition=2, seen=NEVER_OWNED, token=Token(b"n" * 16), silo=SILO)
    operations: dict[str, Callable[[], Any]] = {
        "genesis": store.genesis,
        "read_table": lambda: store.read_table(mark),
        "beat": lambda: store.beat(mark, SILO),
        "owners": lambda: store.owners(mark),
        "take": lambda: store.take(mark, [take]),
    }
    noticed = set()
    for name, operation in operations.items():
        try:
            await operation()
        except errors.DataLoss:
            noticed.add(name)
    assert noticed == noticed_by


async def test_creation_cut_short_is_completed_and_never_repeated(
    server: Server, open_it: Open
) -> None:
    """Half a genesis is none; a whole one with a missing record is a loss."""
    store = await open_it(server.url)
    server.ask("HSET", "durum:{shop}:members", "m", "f" * 32, "p", "4", "r", "1", "v", "0")
    server.ask(
        *("HSET", "durum:{shop:2}:own", "m", "f" * 32, "s", "", "e", "0", "t", "", "c", "17")
    )
    assert await store.genesis() is None
    mine = Genesis(mark="0" * 32, cluster="shop", partitions=9, ring=1)
    effective = await store.create(mine)
    assert (effective.mark, effective.partitions) == ("f" * 32, 4)
    assert await store.genesis() == effective
    owners = await store.owners(effective.mark)
    assert [owner.commits for owner in owners] == [0, 0, 17, 0]
    server.ask("DEL", "durum:{shop:1}:own")
    assert await store.create(mine) == effective
    with pytest.raises(errors.DataLoss):
        await store.owners(effective.mark)


async def test_two_services_share_a_server(server: Server, open_it: Open) -> None:
    """Their names keep them apart."""
    one = await Service.create(await open_it(server.url, "one"))
    two = await Service.create(await open_it(server.url, "two"))
    token = await one.hold()
    await one.store.commit(commit(token, state=b"one"))
    with pytest.raises(errors.Superseded):
        await two.store.load(0, token, ALICE)
    with pytest.raises(errors.DataLoss):
        await two.store.read_table(one.mark)


@pytest.mark.parametrize("product", PRODUCTS)
async def test_password_is_asked_for(product: str, fresh_server: Start, open_it: Open) -> None:
    """Without it, or with a wrong one, start-up ends with the setting to change."""
    server = fresh_server(product, tcp=True)
    server.ask("CONFIG", "SET", "requirepass", "hunter2")
    for url in (server.url, server.url.replace("//", "//:wrong@")):
        with pytest.raises(errors.ConfigError) as caught:
            await open_it(url)
        assert "wrong" not in str(caught.value).partition("(")[0]
    store = await open_it(server.url.replace("//", "//:hunter2@").replace("/0", "/2"))
    service = await Service.create(store)
    token = await service.hold()
    assert (await store.commit(commit(token))).version == 1
    assert (await store.durability()).unsafe == ()
    assert "hunter2" not in repr(store) + store.url
    assert b"db2" in server.ask("AUTH", "hunter2") + await asyncio.to_thread(
        ask_with_password, server
    )


def ask_with_password(server: Server) -> bytes:
    """INFO keyspace after AUTH, on one connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as line:
        line.sendall(b"AUTH hunter2\r\nINFO keyspace\r\n")
        line.settimeout(0.5)
        got = b""
        while b"db2" not in got:
            got += line.recv(4096)
        return got


async def test_eviction_is_unsafe(server: Server, on_server: Service) -> None:
    """A server that deletes what it likes loses what it acknowledged."""
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    durability = await on_server.store.durability()
    assert durability.level is Level.D0
    assert "noeviction" in durability.unsafe[0]


async def test_reconnecting_is_at_most_ten_times_a_second(
    fresh_server: Start, open_it: Open
) -> None:
    """A server that accepts and hangs up must not be hammered by every silo."""
    server = fresh_server("valkey", tcp=True)
    store = await open_it(server.url)
    server.kill()
    times: list[float] = []
    loop = asyncio.get_running_loop()

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        times.append(loop.time())
        writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", server.port)
    async with asyncio.timeout(10):
        while len(times) < 6:
            await asyncio.sleep(0.02)
    listener.close()
    await listener.wait_closed()
    # Two pipes, each with its own pace: more than ten a second between three of one would show.
    assert times[-1] - times[0] >= 0.1 * (len(times) / 2 - 1)
    await store.close()


async def test_listening_ends_when_it_is_cancelled_at_whatever_step(
    server: Server, on_server: Service
) -> None:
    """A library below may lose a cancellation, and a silo that is to end would then wait for ever."""

    async def listen() -> None:
        async for _ in on_server.store.hints():
            pass

    for steps in range(40):
        listening = asyncio.create_task(listen())
        for _ in range(steps):
            await asyncio.sleep(0)
        listening.cancel()
        _, pending = await asyncio.wait([listening], timeout=5)
        assert not pending, f"cancelled after {steps} steps"


async def test_stream_that_is_not_redis_ends_in_a_typed_error(open_it: Open) -> None:
    """A wrong port in the URL."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(errors.StoreUnavailable):
        await open_it(f"redis://127.0.0.1:{port}", store_timeout_s=0.5)
    listener.close()
    await listener.wait_closed()


async def test_commands_of_one_tick_leave_in_one_write(on_server: Service) -> None:
    """A system call for each commit would cost more than the commit."""
    token = await on_server.hold()
    line = on_server.store._pipe._line  # type: ignore[attr-defined]
    writes: list[int] = []
    original = line.write

    def write(at: float, entries: list[Any], packed: list[bytes]) -> None:
        writes.append(len(entries))
        original(at, entries, packed)

    line.write = write
    await asyncio.gather(
        *(on_server.store.commit(commit(token, grain=GrainId(f"K/{n}"))) for n in range(100))
    )
    assert writes == [100]


async def test_pending_operations_end_when_the_store_is_closed(
    server: Server, on_server: Service
) -> None:
    """No caller waits for ever."""
    token = await on_server.hold()
    server.stop()
    sent = on_server.store.commit(commit(token))
    await asyncio.sleep(0)
    unsent = on_server.store.commit(commit(token, grain=BOB))
    await on_server.store.close()
    with pytest.raises(errors.StoreUnavailable) as caught:
        await sent
    assert caught.value.applied is None
    with pytest.raises(errors.StoreUnavailable) as caught:
        await unsent
    assert caught.value.applied in (None, False)
    server.cont()


@pytest.mark.parametrize("product", PRODUCTS)
async def test_server_with_a_broken_disk_refuses_and_recovers(
    product: str, fresh_server: Start, open_it: Open
) -> None:
    """MISCONF: it cannot save, so it takes no writes, renewals neither."""
    server = fresh_server(product, "--enable-protected-configs", "yes", tcp=True)
    service = await Service.create(await open_it(server.url))
    token = await service.hold()
    server.ask("CONFIG", "SET", "save", "3600 1")
    gone = server.folder / "gone"
    gone.mkdir()
    server.ask("CONFIG", "SET", "dir", str(gone))
    gone.rmdir()
    server.ask("BGSAVE")

    async def commit_until_refused() -> None:
        async with asyncio.timeout(10):
            for n in range(100_000):  # the save fails in a process of its own, some time soon
                await service.store.commit(commit(token, grain=GrainId(f"K/{n}")))

    with pytest.raises(errors.StoreUnavailable, match="disk") as caught:
        await commit_until_refused()
    assert caught.value.applied is False
    server.ask("CONFIG", "SET", "dir", str(server.folder))
    server.ask("CONFIG", "SET", "save", "")
    assert await service.store.commit(commit(token)) is not None


async def test_connection_that_ends_behind_its_introduction_is_made_again() -> None:
    """Nobody listens for its end at that very moment; the pipe must not wait for ever."""
    accepted = 0
    seen = asyncio.Event()

    async def greet_and_go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        if accepted == 3:
            seen.set()
        await reader.read(1 << 20)
        writer.write(b"$11\r\nrun_id:abcd\r\n")
        writer.close()

    listener = await asyncio.start_server(greet_and_go, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    endpoint = redis_pipe.Endpoint(url="redis://test", host="127.0.0.1", port=port)
    pipe = redis_pipe.Pipe(
        endpoint, (), clock=SystemClock(), entropy=SystemEntropy(), store_timeout_s=1.0
    )
    while not seen.is_set():
        with contextlib.suppress(errors.StoreUnavailable):
            await pipe.open()
            async with asyncio.timeout(5):
                await seen.wait()
    await pipe.close()
    listener.close()
    await listener.wait_closed()
