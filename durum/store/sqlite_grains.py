"""Which grains an embedded store has, and how one is erased. Plain SQL inside somebody's transaction."""

from __future__ import annotations

import sqlite3
from typing import Final

from durum.ids import GrainId, Token
from durum.store import sqlite_fence, sqlite_parts
from durum.store.parts import MARKS
from durum.store.protocol import Committed
from durum.store.sqlite_tables import check_version

_PURGED_PER_ERASE: Final = 64
"""Bounds what one operation does; more goes with the next ones."""

_BEFORE: Final = """
SELECT o.token, o.commits, g.version, g.commit_id
FROM (SELECT ? AS partition) AS p
LEFT JOIN owners AS o ON o.partition = p.partition
LEFT JOIN grains AS g ON g.partition = p.partition AND g.grain = ?
"""
# A grain without a commit id was never committed, or was erased since.
_IN_RANGE: Final = "WHERE partition = ? AND grain >= ? AND grain < ? AND commit_id IS NOT NULL"


def _range(prefix: str) -> tuple[bytes, bytes]:
    """The least bytes of an id with this prefix, and bytes above all of them: UTF-8 has no 0xff."""
    return prefix.encode(), prefix.encode() + b"\xff"


def scan(
    db: sqlite3.Connection, partition: int, prefix: str, after: str, limit: int
) -> list[GrainId]:
    """Ids by the order of their bytes."""
    least, beyond = _range(prefix)
    found = db.execute(
        f"SELECT grain FROM grains {_IN_RANGE} AND grain > ? ORDER BY grain LIMIT ?",  # noqa: S608 - a constant
        (partition, least, beyond, after.encode(), limit),
    )
    return [GrainId(grain.decode()) for (grain,) in found]


def count(db: sqlite3.Connection, partition: int, prefix: str) -> int:
    """How many there are."""
    sql = f"SELECT count(*) FROM grains {_IN_RANGE}"  # noqa: S608 - a constant
    found: tuple[int] = db.execute(sql, (partition, *_range(prefix))).fetchone()
    return found[0]


def erase(
    db: sqlite3.Connection,
    partition: int,
    token: Token,
    grain: GrainId,
    version: int,
    times: tuple[float, float],
) -> Committed:
    """Leave a record without state, and a note of when the rest may go.

    Args:
        db, partition, token, grain, version: as in the protocol.
        times: now, and when the rest may go.
    """
    now, until = times
    key = grain.encode()
    held, commits, stored, last_id = db.execute(_BEFORE, (partition, key)).fetchone()
    sqlite_fence.check(db, held, token, partition, grain)
    if stored == version + 1 and last_id is None:
        return Committed(version + 1, commits)
    check_version(stored or 0, version, grain)
    _purge(db, now)
    version, commits = version + 1, commits + 1
    db.execute(
        "INSERT OR REPLACE INTO grains (partition, grain, version) VALUES (?, ?, ?)",
        (partition, key, version),
    )
    db.execute("UPDATE owners SET commits = ? WHERE partition = ?", (commits, partition))
    db.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?)", (partition, key, until))
    sqlite_parts.cut_off(db, partition, grain, MARKS)
    drop_wake_ups(db, partition, key)
    return Committed(version, commits)


def drop_wake_ups(db: sqlite3.Connection, partition: int, key: bytes) -> None:
    """Nobody is to be woken any more."""
    db.execute("DELETE FROM wake_ups WHERE partition = ? AND grain = ?", (partition, key))


def _purge(db: sqlite3.Connection, now: float) -> None:
    """Drop what was kept of grains that were erased long ago. A commit since has removed its tombstone."""
    over = db.execute(
        "SELECT partition, grain FROM tombstones WHERE until <= ? LIMIT ?", (now, _PURGED_PER_ERASE)
    ).fetchall()
    sqlite_parts.disown(db, over)
    for table in ("grains", "replies", "sent", "tombstones"):
        sql = f"DELETE FROM {table} WHERE partition = ? AND grain = ?"  # noqa: S608 - constants
        db.executemany(sql, over)
