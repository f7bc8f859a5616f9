"""Host records in an embedded store. Plain SQL inside somebody's transaction."""

from __future__ import annotations

import sqlite3

from durum.ids import TOKEN_BYTES, GrainId, Token
from durum.store import sqlite_fence
from durum.store.host_table import Host


def place(
    db: sqlite3.Connection,
    partition: int,
    token: Token,
    grain: GrainId,
    seen: Token | None,
    host: Host | None,
) -> Host | None:
    """Compare and set, after: was it done already?"""
    held = sqlite_fence.owner_token(db, partition)
    sqlite_fence.check_record(held, partition)
    found = sqlite_fence.find_host(db, partition, grain)
    if is_done(found, host):
        return found
    sqlite_fence.check(db, held, token, partition, grain)
    if not is_seen(found, seen):
        return found
    key = grain.encode()
    if host is None:
        db.execute("DELETE FROM hosts WHERE partition = ? AND grain = ?", (partition, key))
    else:
        db.execute(
            "INSERT OR REPLACE INTO hosts VALUES (?, ?, ?, ?)",
            (partition, key, host.token[:TOKEN_BYTES], host.silo),
        )
    return host


def is_done(found: Host | None, host: Host | None) -> bool:
    """Whether a placing was applied before, and is sent again because its answer was lost."""
    return (found and found.token) == (host and host.token)


def is_seen(found: Host | None, seen: Token | None) -> bool:
    """Whether the record is as it was when the placing was decided."""
    return (found and found.token) == seen
