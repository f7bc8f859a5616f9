"""A disk that is full, or may not be written, under a store and its silos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import durum
from durum import errors
from durum.cli import exits
from durum.client.client import Cluster
from durum.errors import DidRun
from tests.support import disks
from tests.support.disks import Disk
from tests.support.fleet import Fleet, until
from tests.support.grains import Counter
from tests.support.load import load
from tests.support.servers import Server
from tests.support.stores import StartServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

# SQLite on a file system in memory says that it keeps nothing, which is true, and not what is tested here.
ACCEPTED = "--accept-volatile-store"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small one."""
    reason = disks.why_not(tmp_path / "probe")
    if reason:
        pytest.skip(reason)
    with disks.mounted(tmp_path / "disk") as disk:
        yield disk


async def refused(cluster: Cluster) -> set[int]:
    """Add until that cannot be kept; what the counter may say afterwards.

    A file's last block may have room for a few more.
    """
    counter, value = durum.options(cluster.actor(Counter, "refused"), timeout=4), 0
    while True:
        try:
            value = await counter.add(1)
        except errors.CallError as exc:
            # Told "maybe", a commit may be on its way for as long as the call had time.
            return {value, value + 1} if exc.did_run is DidRun.MAYBE else {value}


async def test_database_file_on_a_full_disk(disk: Disk, tmp_path: Path) -> None:
    """No turn is kept by half and no silo is thought dead; once there is room, all goes on by itself."""
    async with Fleet(tmp_path, f"sqlite:///{disk.path}/service.db") as fleet:
        await fleet.create()
        await fleet.start(2, ACCEPTED)
        await fleet.shared(2)
        async with fleet.connect() as cluster, load(cluster) as calls:
            disk.fill()
            possible = await refused(cluster)
            disk.free()
            await calls.all_answer()
            assert await cluster.actor(Counter, "refused").get() in possible
        calls.only_typed()
        await fleet.nobody_evicted()
        assert "Traceback" not in fleet.log()


@pytest.mark.parametrize("sync", ["everysec", "always"])
async def test_append_only_file_on_a_full_disk(
    disk: Disk, tmp_path: Path, start_server: StartServer, sync: str
) -> None:
    """With `everysec` the server refuses writes until there is room. With `always` it ends itself, since it
    cannot keep what it says it keeps; started again it goes on with all that it confirmed.
    """
    folder = ("--appendonly", "yes", "--appendfsync", sync, "--dir", str(disk.path))
    server = start_server("valkey", *folder)
    async with Fleet(tmp_path, server.url) as fleet:
        await fleet.started(2)
        async with (
            fleet.connect() as cluster,
            load(cluster) as plain,
            load(cluster, keyed=True) as keyed,
        ):
            disk.fill()
            possible = await refused(cluster)
            disk.free()
            if sync == "always":
                await restarted(server)
            await plain.all_answer()
            await keyed.all_answer()
            assert await cluster.actor(Counter, "refused").get() in possible
        plain.only_typed()
        await fleet.nobody_evicted()
        assert "Traceback" not in fleet.log()


async def restarted(server: Server) -> None:
    """Wait for the server's own end, and start it again."""

    async def ended() -> bool:
        return server.process is not None and server.process.poll() is not None

    await until(ended, "the server's end")
    server.start()


async def test_database_file_that_may_only_be_read(disk: Disk, tmp_path: Path) -> None:
    """A silo cannot even write down that it is there. It ends in words that lead to the disk."""
    fleet = Fleet(tmp_path, f"sqlite:///{disk.path}/service.db")
    await fleet.create()
    disk.forbid_writing()
    ended = await fleet.refused(ACCEPTED)
    assert ended.code == exits.STORE, ended.err
    assert "permissions" in ended.err
    assert "Traceback" not in ended.err
