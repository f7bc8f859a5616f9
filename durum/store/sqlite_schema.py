"""The embedded store's tables and how its file is opened. Knows no operation on them."""

from __future__ import annotations

import os
import pathlib
import sqlite3
from typing import Final

from durum import errors
from durum.store import sqlite_errors

MEMORY: Final = ":memory:"
APPLICATION: Final = 0x4475726D
"""`Durm` in the file's header: tells our file from another program's."""
VERSION: Final = 4
OLDEST: Final = (3, 35)
FACTS: Final = {
    "server": f"SQLite {sqlite3.sqlite_version}",
    "persistence": "write-ahead log, synchronous FULL",
}
"""For people: what runs, and how it keeps what it is given."""

# A grain's key is bytes, not text: SQLite leaves open what NUL in a text compares like.
TABLES: Final = """
CREATE TABLE service (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    mark TEXT NOT NULL, cluster TEXT NOT NULL, partitions INTEGER NOT NULL, ring INTEGER NOT NULL,
    version INTEGER NOT NULL);
CREATE TABLE silos (
    silo TEXT PRIMARY KEY, row BLOB NOT NULL, heartbeat INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE owners (
    partition INTEGER PRIMARY KEY,
    mark TEXT NOT NULL, silo TEXT, epoch INTEGER NOT NULL, token BLOB NOT NULL,
    commits INTEGER NOT NULL);
CREATE TABLE grains (
    partition INTEGER NOT NULL, grain BLOB NOT NULL,
    version INTEGER NOT NULL, state BLOB,
    commit_id BLOB, commit_version INTEGER, commit_number INTEGER,
    PRIMARY KEY (partition, grain)) WITHOUT ROWID;
CREATE TABLE replies (
    partition INTEGER NOT NULL, grain BLOB NOT NULL, key BLOB NOT NULL, reply BLOB NOT NULL,
    PRIMARY KEY (partition, grain, key)) WITHOUT ROWID;
CREATE TABLE tombstones (
    partition INTEGER NOT NULL, grain BLOB NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (partition, grain)) WITHOUT ROWID;
CREATE INDEX tombstones_until ON tombstones (until);
"""
# Parts belong to a holder, not to a grain: erasing a grain cuts them off at once, however many they are,
# and what nobody holds any more goes bit by bit.
_PARTS: Final = """
CREATE TABLE holders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    partition INTEGER NOT NULL, grain BLOB NOT NULL, UNIQUE (partition, grain));
CREATE TABLE parts (
    holder INTEGER NOT NULL, name BLOB NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (holder, name)) WITHOUT ROWID;
CREATE TABLE orphans (holder INTEGER PRIMARY KEY);
"""
_HOSTS: Final = """
CREATE TABLE hosts (
    partition INTEGER NOT NULL, grain BLOB NOT NULL, token BLOB NOT NULL, silo TEXT NOT NULL,
    PRIMARY KEY (partition, grain)) WITHOUT ROWID;
CREATE TABLE loads (silo TEXT PRIMARY KEY, load INTEGER NOT NULL) WITHOUT ROWID;
"""
_EFFECTS: Final = """
CREATE TABLE outboxes (
    partition INTEGER PRIMARY KEY, last INTEGER NOT NULL, messages INTEGER NOT NULL);
CREATE TABLE outbox (
    partition INTEGER NOT NULL, number INTEGER NOT NULL, epoch INTEGER NOT NULL, lineage BLOB NOT NULL,
    receiver BLOB NOT NULL, row BLOB NOT NULL,
    PRIMARY KEY (partition, number)) WITHOUT ROWID;
CREATE TABLE sent (
    partition INTEGER NOT NULL, grain BLOB NOT NULL, commit_id BLOB NOT NULL, first INTEGER NOT NULL,
    PRIMARY KEY (partition, grain)) WITHOUT ROWID;
CREATE TABLE wake_ups (
    partition INTEGER NOT NULL, grain BLOB NOT NULL, name BLOB NOT NULL, due_ms INTEGER NOT NULL,
    PRIMARY KEY (partition, grain, name)) WITHOUT ROWID;
CREATE INDEX wake_ups_due ON wake_ups (partition, due_ms, grain, name);
CREATE TABLE letters (
    partition INTEGER NOT NULL, name BLOB NOT NULL, letter BLOB NOT NULL,
    PRIMARY KEY (partition, name)) WITHOUT ROWID;
"""
# Only new tables: silos of an earlier release that have the file open go on while it is upgraded.
UPGRADES: Final = {1: _PARTS, 2: _HOSTS, 3: _EFFECTS}
"""What each earlier format lacks of the next one."""


def file_identity(path: str) -> tuple[int, int] | None:
    """Device and inode of what is at a path, or None."""
    try:
        found = os.stat(path)  # noqa: PTH116 - called at every renewal
    except OSError:
        return None
    return found.st_dev, found.st_ino


def connect(path: str, url: str) -> tuple[sqlite3.Connection, tuple[int, int] | None]:
    """Open the file, set it up for durable commits, and make the tables unless they are there.

    Returns:
        The connection, and which file it is (None in memory).

    Raises:
        ConfigError: the file belongs to something else, or to a newer Durum.
        StoreUnavailable: it cannot be opened.
        DataLoss: it is damaged.
    """
    if sqlite3.sqlite_version_info < OLDEST:
        raise errors.ConfigError(
            f"Python's SQLite is {sqlite3.sqlite_version}; Durum needs 3.35 or later. Use a newer "
            "Python build, or Redis."
        )
    db: sqlite3.Connection | None = None
    try:
        if path != MEMORY:
            pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        # Only one thread uses it at a time, but it may be made by another.
        db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        before = None if path == MEMORY else file_identity(path)
        _set_up(db, path, url)
        if before is not None and file_identity(path) != before:
            raise sqlite_errors.moved(url)
    except OSError as exc:
        raise errors.StoreUnavailable(
            f"{url}: {exc.strerror or exc}. Nothing was changed. Choose a path that can be written.",
            applied=False,
        ) from exc
    except sqlite3.Error as exc:
        if db is not None:
            db.close()
        raise sqlite_errors.translate(exc, url, applied=False) from exc
    except errors.DurumError:
        if db is not None:
            db.close()
        raise
    return db, before


def _set_up(db: sqlite3.Connection, path: str, url: str) -> None:
    # The file's first opener may be making the tables: wait for it here, and only here. Later
    # waits are the writer's own, which is fair between processes where busy_timeout is not.
    db.execute("PRAGMA busy_timeout = 5000")
    if path != MEMORY:
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise errors.ConfigError(
                f"{url}: the file system does not support SQLite's WAL (got {mode!r}). Use a local "
                "disk."
            )
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 4000")
    db.execute("PRAGMA cache_size = -65536")
    # A file that is ready is not locked: among busy writers, the turn might not come in time.
    if _marks(db) != (APPLICATION, VERSION):
        _make_tables(db, url)
    db.execute("PRAGMA busy_timeout = 0")


def _marks(db: sqlite3.Connection) -> tuple[int, int]:
    """Whose file it is, and which format it has."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return application, version


def _make_tables(db: sqlite3.Connection, url: str) -> None:
    db.execute("BEGIN IMMEDIATE")
    application, version = _marks(db)
    if application != APPLICATION:
        if application or db.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise errors.ConfigError(
                f"{url}: the file belongs to another program. Choose another path."
            )
        _run(db, TABLES)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        version = 1
    elif version > VERSION:
        raise errors.ConfigError(
            f"{url}: the file was written by a newer Durum (format {version}, this one knows "
            f"{VERSION}). Upgrade Durum."
        )
    for older in range(version, VERSION):
        _run(db, UPGRADES[older])
        db.execute(f"PRAGMA user_version = {older + 1}")
    db.execute("COMMIT")


def _run(db: sqlite3.Connection, script: str) -> None:
    """Execute statements inside of the transaction, which executescript would end."""
    for statement in script.split(";\n"):
        db.execute(statement)
