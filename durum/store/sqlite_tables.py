"""What each store operation does to the tables, inside a transaction that somebody else began.

Every function checks all it has to check before its first write, so that one that raises has changed
nothing and the others of its transaction are not harmed. Knows no thread, no future and no file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from durum import errors
from durum.ids import TOKEN_BYTES, GrainId, SiloId, Token
from durum.store import damage, rows, sqlite_fence
from durum.store.protocol import NEVER_OWNED, Commit, Committed, Genesis, Owner, Record, Take
from durum.views import SiloRow, Status, View

Check = Callable[[sqlite3.Connection, Commit], None]
"""Raises where a commit has to be refused."""


def check_version(stored: int, expected: int, grain: GrainId) -> None:
    """The second fence: against one's own commits whose fate was unknown.

    Raises:
        Superseded: the grain has another version.
    """
    if stored != expected:
        raise errors.Superseded(
            f"{grain} is at version {stored}, not {expected}; the operation changed nothing."
        )


def is_same_commit(last: bytes | None, this: bytes) -> bool:
    """Whether a commit is the grain's last one, sent again because its answer was lost."""
    return last == this


def check_mark(db: sqlite3.Connection, mark: str) -> tuple[int, int]:
    """Compare the genesis.

    Returns:
        The number of partitions, and the membership table's version.

    Raises:
        DataLoss: there is none, or another.
    """
    found = db.execute("SELECT mark, partitions, version FROM service").fetchone()
    if found is None or found[0] != mark:
        seen = "nothing" if found is None else f"service {found[0]}"
        raise errors.DataLoss(
            f"the store holds {seen} instead of service {mark}. Nothing is built upon it. Restore "
            "the store, or point the silos at the right one."
        )
    return found[1], found[2]


def create(db: sqlite3.Connection, genesis: Genesis) -> Genesis:
    """Write genesis and its owner records together, unless there is one."""
    found = read_genesis(db, genesis.cluster)
    if found is not None:
        return found
    db.execute(
        "INSERT INTO service VALUES (1, ?, ?, ?, ?, 0)",
        (genesis.mark, genesis.cluster, genesis.partitions, genesis.ring),
    )
    db.executemany(
        "INSERT INTO owners VALUES (?, ?, NULL, 0, ?, 0)",
        ((partition, genesis.mark, NEVER_OWNED) for partition in range(genesis.partitions)),
    )
    return genesis


def read_genesis(db: sqlite3.Connection, cluster: str) -> Genesis | None:
    """The file's genesis.

    Raises:
        ConfigError: it is another cluster's.
    """
    found = db.execute("SELECT mark, cluster, partitions, ring FROM service").fetchone()
    if found is None:
        return None
    if found[1] != cluster:
        raise errors.ConfigError(
            f"the store file belongs to cluster {found[1]!r}, not {cluster!r}. Choose another file, "
            f"or the cluster name {found[1]!r}."
        )
    return Genesis(mark=found[0], cluster=found[1], partitions=found[2], ring=found[3])


def read_table(
    db: sqlite3.Connection, mark: str
) -> tuple[View, dict[SiloId, int], dict[SiloId, int]]:
    """All rows with their heartbeats and loads."""
    _, version = check_mark(db, mark)
    found = db.execute(
        "SELECT s.silo, row, heartbeat, ifnull(load, 0)"
        " FROM silos AS s LEFT JOIN loads AS l ON l.silo = s.silo ORDER BY s.silo"
    ).fetchall()
    view = View(version=version, rows=tuple(rows.decode(raw) for _, raw, _, _ in found))
    heartbeats = {SiloId(silo): heartbeat for silo, _, heartbeat, _ in found}
    return view, heartbeats, {SiloId(silo): load for silo, _, _, load in found}


def table_version(db: sqlite3.Connection) -> int:
    """The membership table's version, or -1."""
    found = db.execute("SELECT version FROM service").fetchone()
    return -1 if found is None else found[0]


def write_row(
    db: sqlite3.Connection, mark: str, row: SiloRow, seen: SiloRow | None, version: int
) -> int | None:
    """Compare row and version, then set both."""
    removes = rows.check_write(row, seen)
    _, current = check_mark(db, mark)
    found = db.execute("SELECT row FROM silos WHERE silo = ?", (row.silo,)).fetchone()
    raw = None if found is None else found[0]
    if current != version or (None if raw is None else rows.decode(raw)) != seen:
        return None
    if removes:
        db.execute("DELETE FROM silos WHERE silo = ?", (row.silo,))
        db.execute("DELETE FROM loads WHERE silo = ?", (row.silo,))
    elif seen is not None and seen.status is Status.DEAD:
        return None
    else:
        db.execute(
            "INSERT INTO silos VALUES (?, ?, 0) ON CONFLICT DO UPDATE SET row = excluded.row",
            (row.silo, rows.encode(row, raw)),
        )
    db.execute("UPDATE service SET version = version + 1")
    return current + 1


def beat(db: sqlite3.Connection, mark: str, silo: SiloId, load: int) -> tuple[Status, int, int]:
    """Count one renewal and note the load, unless the silo is dead."""
    _, version = check_mark(db, mark)
    found = db.execute("SELECT row, heartbeat FROM silos WHERE silo = ?", (silo,)).fetchone()
    if found is None:
        raise errors.DataLoss(
            f"{silo} has no row in the membership table. It was removed long after its death, or "
            "the store has lost it."
        )
    status = rows.status_of(found[0])
    if status is Status.DEAD:
        return status, found[1], version
    db.execute("UPDATE silos SET heartbeat = heartbeat + 1 WHERE silo = ?", (silo,))
    db.execute("INSERT OR REPLACE INTO loads VALUES (?, ?)", (silo, load))
    return status, found[1] + 1, version


def _owner(found: tuple[int, str, str | None, int, bytes, int] | None, mark: str) -> Owner:
    if found is None or found[1] != mark:
        raise errors.DataLoss(
            "a partition has no owner record of this service. Nothing was changed. Restore the "
            "store from a backup."
        )
    partition, _, silo, epoch, token, commits = found
    return Owner(
        partition=partition,
        silo=None if silo is None else SiloId(silo),
        epoch=epoch,
        token=Token(token),
        commits=commits,
    )


def owners(db: sqlite3.Connection, mark: str) -> list[Owner]:
    """All owner records, none missing."""
    partitions, _ = check_mark(db, mark)
    found = {record[0]: record for record in db.execute("SELECT * FROM owners ORDER BY partition")}
    return [_owner(found.get(partition), mark) for partition in range(partitions)]


def take(db: sqlite3.Connection, mark: str, takes: Sequence[Take]) -> list[Owner]:
    """Change each record whose token is the one seen."""
    check_mark(db, mark)
    found: dict[int, Owner] = {}
    for one in takes:
        if len(one.token) != TOKEN_BYTES:
            raise errors.DurumBug(f"partition {one.partition} gets a token of another length.")
        record = db.execute("SELECT * FROM owners WHERE partition = ?", (one.partition,)).fetchone()
        found[one.partition] = _owner(record, mark)
    result = []
    for one in takes:
        owner = found[one.partition]
        if owner.token == one.seen and owner.token != one.token:
            owner = Owner(
                partition=one.partition,
                silo=one.silo,
                epoch=owner.epoch + 1,
                token=one.token,
                commits=owner.commits,
            )
            found[one.partition] = owner
            db.execute(
                "UPDATE owners SET silo = ?, epoch = ?, token = ? WHERE partition = ?",
                (owner.silo, owner.epoch, owner.token, owner.partition),
            )
        result.append(owner)
    return result


def load(
    db: sqlite3.Connection,
    partition: int,
    token: Token,
    grain: GrainId,
    raise_version: bool,  # noqa: FBT001 - handed on from the protocol's keyword
) -> Record:
    """Read a grain; on request raise its version."""
    sqlite_fence.verify(db, partition, token, grain)
    sqlite_fence.check_unhosted(db, partition, token, grain)
    key = grain.encode()
    found = db.execute(
        "SELECT version, state FROM grains WHERE partition = ? AND grain = ?", (partition, key)
    ).fetchone()
    version, state = (None, None) if found is None else found
    version = damage.version_of(version, state)
    if raise_version:
        version += 1
        db.execute(
            "INSERT INTO grains (partition, grain, version) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET version = excluded.version",
            (partition, key, version),
        )
    return Record(version=version, state=state)


def replies(
    db: sqlite3.Connection, partition: int, token: Token, grain: GrainId
) -> dict[bytes, bytes]:
    """All remembered replies."""
    sqlite_fence.verify(db, partition, token, grain)
    return dict(
        db.execute(
            "SELECT key, reply FROM replies WHERE partition = ? AND grain = ?",
            (partition, grain.encode()),
        ).fetchall()
    )


_BEFORE = """
SELECT o.token, o.commits, g.version, g.commit_id, g.commit_version, g.commit_number
FROM (SELECT ? AS partition) AS p
LEFT JOIN owners AS o ON o.partition = p.partition
LEFT JOIN grains AS g ON g.partition = p.partition AND g.grain = ?
"""
_WITH_STATE = """
INSERT INTO grains VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
version = excluded.version, state = excluded.state, commit_id = excluded.commit_id,
commit_version = excluded.commit_version, commit_number = excluded.commit_number
"""
_WITHOUT_STATE = """
INSERT INTO grains VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
version = excluded.version, commit_id = excluded.commit_id,
commit_version = excluded.commit_version, commit_number = excluded.commit_number
"""


def commit(db: sqlite3.Connection, turn: Commit, check: Check | None = None) -> Committed:
    """Write a turn's effects, after: applied already? token? version?

    Args:
        db: in whose transaction.
        turn: the effects.
        check: what else to look at, behind those and before the first write.
    """
    partition, key = turn.partition, turn.grain.encode()
    held, commits, stored, last_id, last_version, last_number = db.execute(
        _BEFORE, (partition, key)
    ).fetchone()
    if is_same_commit(last_id, turn.id):
        return Committed(last_version, last_number)
    if len(turn.token) > TOKEN_BYTES:
        sqlite_fence.check(db, held, turn.token, partition, turn.grain)
    else:
        sqlite_fence.check_token(held, turn.token, partition)
    check_version(stored or 0, turn.version, turn.grain)
    if check is not None:
        check(db, turn)
    version, commits = turn.version + 1, commits + 1
    if last_id is None:  # its first commit, or the first since it was erased
        db.execute("DELETE FROM tombstones WHERE partition = ? AND grain = ?", (partition, key))
    db.execute(
        _WITHOUT_STATE if turn.state is None else _WITH_STATE,
        (partition, key, version, turn.state, turn.id, version, commits),
    )
    db.execute("UPDATE owners SET commits = ? WHERE partition = ?", (commits, partition))
    if turn.forget:
        db.executemany(
            "DELETE FROM replies WHERE partition = ? AND grain = ? AND key = ?",
            ((partition, key, name) for name in turn.forget),
        )
    if turn.replies:
        db.executemany(
            "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)",
            ((partition, key, name, reply) for name, reply in turn.replies.items()),
        )
    return Committed(version, commits)
