"""What only the embedded store can suffer: its file, its lock, its disk, its thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from durum import errors
from durum.clock import SystemClock
from durum.ids import GrainId, SystemEntropy
from durum.store import local_disk, sqlite_batch, sqlite_tables
from durum.store.protocol import Committed, Genesis, Level, Record, Store
from durum.store.urls import open_store
from tests.support.servers import die_with_parent
from tests.support.services import ALICE, BOB, SILO, Service, commit, row

Open = Callable[..., Any]


@pytest.fixture
async def open_it() -> AsyncIterator[Open]:
    """Open stores that are closed after the test."""
    opened: list[Store] = []

    async def open_one(url: str, cluster: str = "shop", **settings: Any) -> Store:
        store = await open_store(
            url, cluster=cluster, clock=SystemClock(), entropy=SystemEntropy(), **settings
        )
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """Where the file will be."""
    return tmp_path / "shop.db"


async def test_file_is_there_after_closing_and_opening_again(
    open_it: Open, path: pathlib.Path
) -> None:
    """Restarting everything loses nothing."""
    service = await Service.create(await open_it(f"sqlite:///{path}"))
    token = await service.hold()
    await service.store.commit(commit(token, state=b"kept", replies={b"k" * 16: b"r"}))
    await service.store.close()
    store = await open_it(f"sqlite:///{path}")
    assert await store.genesis() == service.genesis
    assert await store.load(0, token, ALICE) == Record(version=1, state=b"kept")
    assert (await store.durability()).level is Level.D2


@pytest.mark.parametrize("fate", ["deleted", "replaced"])
async def test_beat_tells_that_the_file_is_not_the_open_one(
    open_it: Open, path: pathlib.Path, tmp_path: pathlib.Path, fate: str
) -> None:
    """An open file goes on working after it is gone; two clusters would then run side by side."""
    service = await Service.create(await open_it(f"sqlite:///{path}"))
    await service.store.write_row(service.mark, row(), seen=None, version=0)
    await service.store.beat(service.mark, SILO)
    if fate == "deleted":
        path.unlink()
    else:
        copy = tmp_path / "copy.db"
        shutil.copy(path, copy)
        copy.rename(path)
    with pytest.raises(errors.DataLoss, match="deleted or replaced"):
        await service.store.beat(service.mark, SILO)


async def test_file_of_another_program_is_left_alone(open_it: Open, path: pathlib.Path) -> None:
    """A mistyped path must not put tables into somebody's database."""
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (x)")
    with pytest.raises(errors.ConfigError, match="another program"):
        await open_it(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as other:
        tables = other.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("theirs",)]


async def test_file_of_a_newer_durum_is_left_alone(open_it: Open, path: pathlib.Path) -> None:
    """Its tables may mean something else."""
    await (await open_it(f"sqlite:///{path}")).close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(errors.ConfigError, match="newer"):
        await open_it(f"sqlite:///{path}")


async def test_damaged_file_is_data_loss(open_it: Open, path: pathlib.Path) -> None:
    """Nothing is built upon it."""
    path.write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(errors.DataLoss):
        await open_it(f"sqlite:///{path}")


@pytest.mark.parametrize("threads", [True, False])
async def test_path_that_cannot_be_made_is_unavailable(
    open_it: Open, tmp_path: pathlib.Path, threads: bool
) -> None:
    """The message names the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.StoreUnavailable) as caught:
        await open_it(f"sqlite:///{tmp_path}/file/shop.db", threads=threads)
    assert caught.value.applied is False
    assert "file/shop.db" in str(caught.value)


async def test_file_of_another_cluster_is_refused(open_it: Open, path: pathlib.Path) -> None:
    """One file holds one service."""
    await Service.create(await open_it(f"sqlite:///{path}"))
    other = await open_it(f"sqlite:///{path}", cluster="bank")
    with pytest.raises(errors.ConfigError, match="'shop'"):
        await other.genesis()
    with pytest.raises(errors.ConfigError, match="'shop'"):
        await other.create(Genesis(mark="0" * 32, cluster="bank", partitions=8, ring=1))


async def test_lock_held_too_long_is_unavailable_and_not_applied(
    open_it: Open, path: pathlib.Path
) -> None:
    """A shell with an open transaction must not hang every call for ever."""
    service = await Service.create(await open_it(f"sqlite:///{path}", store_timeout_s=0.3))
    token = await service.hold()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(errors.StoreUnavailable, match="lock") as caught:
            await service.store.commit(commit(token))
        assert caught.value.applied is False
        assert (await service.store.load(0, token, ALICE)).version == 0  # reads go on
        other.execute("ROLLBACK")
    assert (await service.store.commit(commit(token))).version == 1


async def test_lock_held_shortly_is_waited_for(open_it: Open, path: pathlib.Path) -> None:
    """Several silo processes on one file are normal."""
    service = await Service.create(await open_it(f"sqlite:///{path}"))
    token = await service.hold()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        future = service.store.commit(commit(token))
        await asyncio.sleep(0.02)
        assert not future.done()
        other.execute("COMMIT")
    assert (await future).version == 1


@pytest.mark.parametrize(
    ("pragma", "undo", "words"),
    [
        ("max_page_count = 1", "max_page_count = 1000000", "disk is full"),
        ("query_only = 1", "query_only = 0", "read-only"),
    ],
)
async def test_full_or_read_only_disk_is_unavailable_and_recovers(
    open_it: Open, path: pathlib.Path, pragma: str, undo: str, words: str
) -> None:
    """Typed, not applied, and over when the disk is well again."""
    service = await Service.create(await open_it(f"sqlite:///{path}", threads=False))
    token = await service.hold()
    db = service.store._writer._db  # type: ignore[attr-defined]
    db.execute(f"PRAGMA {pragma}")
    large = commit(token, state=b"x" * 1_000_000)
    with pytest.raises(errors.StoreUnavailable, match=words) as caught:
        await service.store.commit(large)
    assert caught.value.applied is False
    assert (await service.store.load(0, token, ALICE)).version == 0
    db.execute(f"PRAGMA {undo}")
    assert (await service.store.commit(large)).version == 1


async def test_disk_that_hangs_is_unavailable_with_unknown_outcome(
    open_it: Open, path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell whether a sync that never returns has written; others must not wait for it."""
    service = await Service.create(await open_it(f"sqlite:///{path}", store_timeout_s=0.2))
    token = await service.hold()
    awake = threading.Event()
    original = sqlite_tables.commit

    def hang(db: sqlite3.Connection, turn: Any) -> Committed:
        awake.wait(10)
        return original(db, turn)

    monkeypatch.setattr(sqlite_tables, "commit", hang)
    late = commit(token, state=b"late")
    futures = [service.store.commit(late), service.store.commit(commit(token, grain=BOB))]
    for future in futures:
        with pytest.raises(errors.StoreUnavailable, match=r"0\.2 s") as caught:
            await future
        assert caught.value.applied is None
    awake.set()
    record = await service.store.load(0, token, ALICE, raise_version=True)
    assert record.version in (1, 2)
    if record.version == 2:
        assert record.state == b"late"


async def test_commit_that_fails_halfway_takes_no_other_along(
    open_it: Open, path: pathlib.Path
) -> None:
    """Whatever SQLite says in the middle of one, the others of its transaction run again."""
    service = await Service.create(await open_it(f"sqlite:///{path}"))
    token = await service.hold()
    bad: Any = {b"k" * 16: object()}  # fails after its state was written
    futures = [
        service.store.commit(
            commit(
                token,
                grain=GrainId(f"K/{n}"),
                replies=bad if n == 5 else {b"k" * 16: b"r"},
            )
        )
        for n in range(10)
    ]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert isinstance(results[5], Exception)
    good = [result for result in results if isinstance(result, Committed)]
    assert [one.commits for one in good] == list(range(1, 10))
    assert await service.store.load(0, token, GrainId("K/5")) == Record(version=0, state=None)


async def test_commits_of_one_tick_share_a_transaction(
    open_it: Open, path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sync for all of them: the reason that the embedded store is fast."""
    sizes: list[int] = []
    original = sqlite_batch.Batch.run

    def run(self: sqlite_batch.Batch, jobs: list[sqlite_batch.Job]) -> None:
        sizes.append(len(jobs))
        original(self, jobs)

    monkeypatch.setattr(sqlite_batch.Batch, "run", run)
    service = await Service.create(await open_it(f"sqlite:///{path}"))
    token = await service.hold()
    sizes.clear()
    await asyncio.gather(
        *(service.store.commit(commit(token, grain=GrainId(f"K/{n}"))) for n in range(1000))
    )
    assert sum(sizes) == 1000
    assert len(sizes) <= 2


async def test_memory_of_one_name_is_shared_and_a_private_one_is_not(open_it: Open) -> None:
    """Silos in one process find each other; two tests do not."""
    one, two = await open_it("memory:shop"), await open_it("memory:shop")
    private = await open_it("memory:")
    service = await Service.create(one)
    assert await two.genesis() == service.genesis
    assert await private.genesis() is None
    await one.close()
    assert await two.genesis() == service.genesis
    await two.close()
    assert await (await open_it("memory:shop")).genesis() is None


async def test_memory_is_not_opened_in_both_modes(open_it: Open) -> None:
    """Half inline and half threaded would be neither."""
    await open_it("memory:mode")
    with pytest.raises(errors.ConfigError, match="threads=True"):
        await open_it("memory:mode", threads=False)


async def test_inline_store_has_answered_when_it_returns(open_it: Open) -> None:
    """Virtual time has no threads to wait for."""
    service = await Service.create(await open_it("memory:", threads=False))
    token = await service.hold()
    before = threading.active_count()
    future = service.store.commit(commit(token))
    assert future.done()
    assert threading.active_count() == before


async def test_closing_ends_the_thread(open_it: Open, path: pathlib.Path) -> None:
    """Nothing is left behind."""
    store = await open_it(f"sqlite:///{path}")
    assert any("durum store" in thread.name for thread in threading.enumerate())
    await store.close()
    for thread in threading.enumerate():
        if "durum store" in thread.name:
            thread.join(5)
            assert not thread.is_alive()


WRITER = """
import asyncio, sys
from durum.clock import SystemClock
from durum.ids import GrainId, SystemEntropy
from durum.store.protocol import Commit
from durum.store.urls import open_store

async def main(url, partition, token, seconds):
    entropy, clock = SystemEntropy(), SystemClock()
    store = await open_store(url, cluster="shop", clock=clock, entropy=entropy)
    end = clock.boottime() + seconds

    async def write(number):
        version = 0
        while clock.boottime() < end:
            answer = await store.commit(Commit(partition=partition, token=token,
                grain=GrainId(f"K/{number}"), id=entropy.token(), version=version,
                state=b"%d" % (version + 1)))
            version = answer.version
            sys.stdout.write(f"{number} {version}\\n")
            sys.stdout.flush()

    await asyncio.gather(*(write(number) for number in range(8)))
    await store.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3]), float(sys.argv[4])))
"""


def start(program: str, *arguments: str) -> Any:
    """Another process, which dies with this one."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call
    )


def start_writer(path: pathlib.Path, partition: int, token: bytes, seconds: float) -> Any:
    """Another process that commits as fast as it can and prints what was acknowledged."""
    return start(WRITER, f"sqlite:///{path}", str(partition), token.hex(), str(seconds))


def last_versions(output: bytes) -> dict[str, int]:
    """The last acknowledged version of each grain."""
    lines = [line.split() for line in output.decode().split("\n")[:-1]]
    return {number: int(version) for number, version in lines}


async def test_two_processes_on_one_file_both_get_on(open_it: Open, path: pathlib.Path) -> None:
    """Neither starves, nothing is lost, nothing fails."""
    service = await Service.create(await open_it(f"sqlite:///{path}"))
    tokens = [await service.hold(partition) for partition in range(2)]
    writers = [start_writer(path, n, token, 1.0) for n, token in enumerate(tokens)]
    outputs = [writer.communicate(timeout=30)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    owners = await service.store.owners(service.mark)
    for partition, output in enumerate(outputs):
        acknowledged = last_versions(output)
        assert owners[partition].commits == sum(acknowledged.values())
        assert owners[partition].commits >= 50
        for number, version in acknowledged.items():
            record = await service.store.load(partition, tokens[partition], GrainId(f"K/{number}"))
            assert record == Record(version=version, state=b"%d" % version)


CREATOR = """
import asyncio, sys
from durum.clock import SystemClock
from durum.ids import SystemEntropy
from durum.store.protocol import Genesis
from durum.store.urls import open_store

async def main(url):
    entropy = SystemEntropy()
    store = await open_store(url, cluster="shop", clock=SystemClock(), entropy=entropy)
    mark = entropy.token().hex()
    print((await store.create(Genesis(mark=mark, cluster="shop", partitions=64, ring=1))).mark)
    await store.close()

asyncio.run(main(sys.argv[1]))
"""


async def test_processes_that_start_at_once_on_a_new_file_agree(
    open_it: Open, path: pathlib.Path
) -> None:
    """The demo starts three; one of them makes the tables and the genesis."""
    creators = [start(CREATOR, f"sqlite:///{path}") for _ in range(4)]
    marks = {creator.communicate(timeout=30)[0].decode().strip() for creator in creators}
    assert [creator.returncode for creator in creators] == [0] * 4
    (mark,) = marks
    assert len(await (await open_it(f"sqlite:///{path}")).owners(mark)) == 64


async def test_killed_process_loses_nothing_acknowledged(open_it: Open, path: pathlib.Path) -> None:
    """kill -9 in the middle of writing: at most what was under way may be there besides."""
    service = await Service.create(await open_it(f"sqlite:///{path}"))
    token = await service.hold()
    writer = start_writer(path, 0, token, 30)
    lines = b"".join(writer.stdout.readline() for _ in range(300))
    writer.kill()
    acknowledged = last_versions(lines + writer.communicate()[0])
    for number, version in acknowledged.items():
        record = await service.store.load(0, token, GrainId(f"K/{number}"))
        assert version <= record.version <= version + 1
        assert record.state == b"%d" % record.version


def test_network_and_memory_disks_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's WAL does not work across hosts, and a tmpfs keeps nothing."""
    monkeypatch.setattr(
        pathlib.Path,
        "read_text",
        lambda self, **_: "a / ext4 rw 0 0\nb /mnt nfs4 rw 0 0\nc /mnt/tmp tmpfs rw 0 0\n",
    )
    assert "nfs4" in local_disk.unsafe("/mnt/shop.db")
    assert local_disk.unsafe("/mntx/shop.db") == ""
    assert local_disk.unsafe("/mnt/tmp/shop.db") == ""
    assert "tmpfs" in local_disk.warning("/mnt/tmp/shop.db")
    assert local_disk.warning("/home/shop.db") == ""
