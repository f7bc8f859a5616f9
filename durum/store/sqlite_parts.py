"""The parts of records in an embedded store. Plain SQL inside somebody's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from durum.ids import GrainId, Token
from durum.store import sqlite_tables
from durum.store.parts import PAGE_BYTES, PURGED_PER_COMMIT, Part, above
from durum.store.protocol import Commit, Committed
from durum.store.sqlite_fence import verify

_NAMES_PER_QUERY: Final = 500
_ORPHANS_PER_OPERATION: Final = 256
"""Bounds what one operation cleans up of grains that were erased; more goes with the next ones."""


def commit(
    db: sqlite3.Connection, turn: Commit, check: sqlite_tables.Check | None = None
) -> Committed:
    """Write the effects of a turn that has changed parts of the record. Args: as of sqlite_tables.commit."""
    before = db.total_changes
    committed = sqlite_tables.commit(db, turn, check)
    if db.total_changes != before:  # not one that was applied before
        _write(db, turn)
    return committed


def _write(db: sqlite3.Connection, turn: Commit) -> None:
    holder = _holder(db, turn.partition, turn.grain)
    if holder is None:
        holder = _new_holder(db, turn.partition, turn.grain)
    db.executemany(
        "DELETE FROM parts WHERE holder = ?1 AND name IN"
        " (SELECT name FROM parts WHERE holder = ?1 AND name >= ?2 AND name < ?3"
        " ORDER BY name LIMIT ?4)",
        ((holder, least, beyond, PURGED_PER_COMMIT) for least, beyond in turn.purge),
    )
    parts = turn.parts or {}
    db.executemany(
        "DELETE FROM parts WHERE holder = ? AND name = ?",
        ((holder, name) for name, content in parts.items() if content is None),
    )
    db.executemany(
        "INSERT OR REPLACE INTO parts VALUES (?, ?, ?)",
        ((holder, name, content) for name, content in parts.items() if content is not None),
    )
    _clean(db)


def load(
    db: sqlite3.Connection,
    partition: int,
    token: Token,
    grain: GrainId,
    names: Sequence[bytes],
    contents: bool,  # noqa: FBT001 - handed on from the protocol's keyword
) -> dict[bytes, bytes]:
    """Read parts by name."""
    verify(db, partition, token, grain)
    holder = _holder(db, partition, grain)
    found: dict[bytes, bytes] = {}
    if holder is None:
        return found
    what = "content" if contents else "x''"
    for start in range(0, len(names), _NAMES_PER_QUERY):
        some = names[start : start + _NAMES_PER_QUERY]
        places = ", ".join("?" * len(some))
        sql = f"SELECT name, {what} FROM parts WHERE holder = ? AND name IN ({places})"  # noqa: S608 - constants
        found.update(db.execute(sql, (holder, *some)))
    return found


def scan(
    db: sqlite3.Connection,
    partition: int,
    token: Token,
    grain: GrainId,
    bounds: tuple[bytes, bytes],
    limit: int,
) -> list[Part]:
    """Read a page by the order of names.

    Args:
        db, partition, token, grain, limit: as in the protocol.
        bounds: its prefix and after.
    """
    verify(db, partition, token, grain)
    prefix, after = bounds
    end = above(prefix)
    page: list[Part] = []
    size = 0
    sql = "SELECT name, content FROM parts WHERE holder = ? AND name >= ? AND name > ?"
    args: tuple[object, ...] = (_holder(db, partition, grain), prefix, after)
    if not after:
        sql, args = sql.removesuffix(" AND name > ?"), args[:-1]
    if end is not None:
        sql, args = sql + " AND name < ?", (*args, end)
    for name, content in db.execute(sql + " ORDER BY name LIMIT ?", (*args, limit)):
        page.append((name, content))
        size += len(content)
        if size >= PAGE_BYTES:
            break
    return page


def cut_off(db: sqlite3.Connection, partition: int, grain: GrainId, keep: bytes) -> None:
    """Take parts from a grain, in a step that does not depend on their number.

    Args:
        db, partition, grain: as in the protocol.
        keep: what the names of those begin with that stay.
    """
    former = _holder(db, partition, grain)
    if former is not None:
        disown(db, [(partition, grain.encode())])
        kept = db.execute(
            "SELECT name, content FROM parts WHERE holder = ? AND name >= ? AND name < ?",
            (former, keep, above(keep)),
        ).fetchall()
        if kept:
            holder = _new_holder(db, partition, grain)
            db.executemany("INSERT INTO parts VALUES (?, ?, ?)", ((holder, *one) for one in kept))
    _clean(db)


def disown(db: sqlite3.Connection, grains: Sequence[tuple[int, bytes]]) -> None:
    """Take all parts from grains, given by partition and key."""
    where = "WHERE partition = ? AND grain = ?"
    db.executemany(f"INSERT INTO orphans SELECT id FROM holders {where}", grains)  # noqa: S608 - a constant
    db.executemany(f"DELETE FROM holders {where}", grains)  # noqa: S608 - a constant


def _holder(db: sqlite3.Connection, partition: int, grain: GrainId) -> int | None:
    found = db.execute(
        "SELECT id FROM holders WHERE partition = ? AND grain = ?", (partition, grain.encode())
    ).fetchone()
    return None if found is None else found[0]


def _new_holder(db: sqlite3.Connection, partition: int, grain: GrainId) -> int:
    found: tuple[int] = db.execute(
        "INSERT INTO holders (partition, grain) VALUES (?, ?) RETURNING id",
        (partition, grain.encode()),
    ).fetchone()
    return found[0]


def _clean(db: sqlite3.Connection) -> None:
    """Drop some of what nobody holds any more."""
    found = db.execute("SELECT holder FROM orphans LIMIT 1").fetchone()
    if found is None:
        return
    dropped = db.execute(
        "DELETE FROM parts WHERE holder = ?1 AND name IN"
        " (SELECT name FROM parts WHERE holder = ?1 LIMIT ?2)",
        (found[0], _ORPHANS_PER_OPERATION),
    )
    if dropped.rowcount < _ORPHANS_PER_OPERATION:
        db.execute("DELETE FROM orphans WHERE holder = ?", found)
