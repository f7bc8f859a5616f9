"""The database file is deleted, replaced or kept locked by somebody under running silos."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

import durum
from durum import errors
from durum.cli import exits
from durum.errors import DidRun
from tests.support.fleet import Fleet
from tests.support.grains import Counter
from tests.support.load import load

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


def files(fleet: Fleet) -> list[Path]:
    return list(fleet.home.glob("service.db*"))


async def test_deleted_file_is_an_outage_of_all(sqlite_fleet: Fleet) -> None:
    """They would go on in a file that has no name any more, and lose it all with the last of them."""
    fleet = sqlite_fleet
    silos = await fleet.started(3)
    async with fleet.connect() as cluster:
        await cluster.actor(Counter, "one").add(1)
        for file in files(fleet):
            file.unlink()
        assert [await fleet.ended(silo) for silo in silos] == [exits.STORE] * 3
    assert "Traceback" not in fleet.log()
    ended = await fleet.refused()
    assert ended.code == exits.CONFIG
    assert files(fleet) == []


async def test_replaced_file_is_an_outage_of_all(sqlite_fleet: Fleet) -> None:
    """Yesterday's copy moved over it: two histories of one service, each with its own writers."""
    fleet = sqlite_fleet
    await fleet.create()
    backup = fleet.home / "backup"
    with contextlib.closing(sqlite3.connect(fleet.home / "service.db")) as database:
        database.execute("VACUUM INTO ?", (str(backup),))
    silos = await fleet.start(2)
    await fleet.shared(2)
    async with fleet.connect() as cluster:
        await cluster.actor(Counter, "one").add(1)
        shutil.move(backup, fleet.home / "service.db")
        assert [await fleet.ended(silo) for silo in silos] == [exits.STORE] * 2
    assert "Traceback" not in fleet.log()


async def test_file_locked_by_somebody_else_for_a_while(sqlite_fleet: Fleet) -> None:
    """A shell with an open transaction. Writers are told, and all goes on once it is closed."""
    fleet = sqlite_fleet
    await fleet.started(2)
    async with fleet.connect() as cluster, load(cluster) as calls:
        with contextlib.closing(sqlite3.connect(fleet.home / "service.db", timeout=10)) as database:
            database.execute("BEGIN IMMEDIATE")
            with pytest.raises(errors.CallError) as caught:
                await durum.options(cluster.actor(Counter, "locked"), timeout=4).add(1)
            assert caught.value.did_run is not DidRun.YES
            database.execute("ROLLBACK")
        await calls.all_answer()
        possible = {0, 1} if caught.value.did_run is DidRun.MAYBE else {0}
        assert await cluster.actor(Counter, "locked").get() in possible
    assert len((await fleet.view()).active) == 2
    assert {type(one) for one in calls.failures} <= {errors.CommitFailed, errors.CallTimeout}
