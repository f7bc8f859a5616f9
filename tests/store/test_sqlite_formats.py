"""Files of earlier formats: opened, upgraded in place, once."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3

from durum.clock import SystemClock
from durum.ids import SystemEntropy, Token, hosted_token
from durum.store import rows, sqlite_schema
from durum.store.effects import Outgoing
from durum.store.host_table import Host
from durum.store.protocol import Committed, Record
from durum.store.urls import open_store
from tests.support.services import ALICE, BOB, SILO, commit, row


def test_file_of_the_format_before_parts_is_upgraded(tmp_path: pathlib.Path) -> None:
    """Whoever upgrades Durum keeps his data."""
    path = str(tmp_path / "old.db")
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in sqlite_schema.TABLES.split(";\n"):
            db.execute(statement)
        db.execute("INSERT INTO silos VALUES ('a', x'00', 7)")
        db.execute(f"PRAGMA application_id = {sqlite_schema.APPLICATION}")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    for _ in range(2):
        upgraded, _ = sqlite_schema.connect(path, "sqlite:///old")
        with contextlib.closing(upgraded):
            (version,) = upgraded.execute("PRAGMA user_version").fetchone()
            assert version == sqlite_schema.VERSION
            assert upgraded.execute("SELECT count(*) FROM parts").fetchone() == (0,)
            assert upgraded.execute("SELECT count(*) FROM hosts").fetchone() == (0,)
            assert upgraded.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
            assert upgraded.execute("SELECT heartbeat FROM silos").fetchone() == (7,)


async def test_store_of_an_earlier_format_goes_on_as_if_it_were_new(tmp_path: pathlib.Path) -> None:
    """What was in it is there, and what is new in it works."""
    path = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        earlier = [sqlite_schema.TABLES, sqlite_schema.UPGRADES[1]]
        for statement in ";\n".join(earlier).split(";\n"):
            db.execute(statement)
        db.execute("INSERT INTO service VALUES (1, 'm', 'shop', 1, 1, 1)")
        db.execute("INSERT INTO owners VALUES (0, 'm', NULL, 3, ?, 8)", (b"t" * 16,))
        db.execute("INSERT INTO silos VALUES (?, ?, 5)", (SILO, rows.encode(row())))
        db.execute(
            "INSERT INTO grains VALUES (0, ?, 4, ?, ?, 4, 8)", (ALICE.encode(), b"old", b"i" * 16)
        )
        db.execute(f"PRAGMA application_id = {sqlite_schema.APPLICATION}")
        db.execute("PRAGMA user_version = 2")
        db.commit()
    store = await open_store(
        f"sqlite:///{path}", cluster="shop", clock=SystemClock(), entropy=SystemEntropy()
    )
    token = Token(b"t" * 16)
    assert await store.load(0, token, ALICE) == Record(version=4, state=b"old")
    assert (await store.read_table("m")).loads == {SILO: 0}
    await store.beat("m", SILO, 3)
    assert (await store.read_table("m")).loads == {SILO: 3}
    host = Host(SILO, hosted_token(Token(b"h" * 16), ALICE))
    assert await store.place(0, token, ALICE, seen=None, host=host) == host
    turn = commit(host.token, version=4, send=[Outgoing(BOB, b"1")], wake={b"w": 1})
    assert await store.commit(turn) == Committed(5, 9, 1)
    await store.close()


def test_upgrades_leave_what_an_earlier_release_writes(tmp_path: pathlib.Path) -> None:
    """Silos are upgraded one by one: the others have the file open, and go on with their statements."""
    db, _ = sqlite_schema.connect(str(tmp_path / "new.db"), "sqlite:///new")
    with contextlib.closing(db):
        for table, columns in (("silos", 3), ("owners", 6), ("grains", 7), ("parts", 3)):
            assert len(db.execute(f"PRAGMA table_info({table})").fetchall()) == columns


def test_file_that_is_ready_is_opened_beside_a_writer(tmp_path: pathlib.Path) -> None:
    """Busy silos pass its lock among themselves: who starts, or only looks, might never get it."""
    path = str(tmp_path / "new.db")
    busy, _ = sqlite_schema.connect(path, "sqlite:///new")
    with contextlib.closing(busy):
        busy.execute("BEGIN IMMEDIATE")
        other, _ = sqlite_schema.connect(path, "sqlite:///new")
        other.close()
