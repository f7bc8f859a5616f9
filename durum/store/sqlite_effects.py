"""Messages, wake-ups and dead letters in an embedded store. Plain SQL inside somebody's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from durum.ids import GrainId, Token
from durum.store import sqlite_fence, sqlite_parts, sqlite_tables
from durum.store.effects import Overfull, Posted, WakeUp
from durum.store.parts import PAGE_BYTES, Part
from durum.store.protocol import Commit, Committed, Owner, Take


def commit(db: sqlite3.Connection, turn: Commit) -> Committed:
    """Write the effects of a turn that sends, sets wake-ups or parks."""
    before = db.total_changes
    write = sqlite_parts.commit if turn.parts or turn.purge else sqlite_tables.commit
    committed = write(db, turn, check_room)
    if db.total_changes == before:  # applied before, and sent again because its answer was lost
        return msgspec.structs.replace(committed, first=_first_of(db, turn))
    _write_wake_ups(db, turn)
    _write_letters(db, turn)
    return msgspec.structs.replace(committed, first=_post(db, turn)) if turn.send else committed


def check_room(db: sqlite3.Connection, turn: Commit) -> None:
    """Refuse what would make the outbox longer than the turn allows.

    Raises:
        Overfull: there is no room.
    """
    if (
        turn.send
        and turn.send_limit
        and _outbox(db, turn.partition)[1] + len(turn.send) > turn.send_limit
    ):
        raise Overfull(turn.partition)


def _post(db: sqlite3.Connection, turn: Commit) -> int:
    partition, sends = turn.partition, len(turn.send)
    last, rows = _outbox(db, partition)
    epoch, lineage = db.execute(
        "SELECT epoch, token FROM owners WHERE partition = ?", (partition,)
    ).fetchone()
    db.executemany(
        "INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?)",
        (
            (partition, number, epoch, lineage, one.receiver.encode(), one.row)
            for number, one in enumerate(turn.send, last + 1)
        ),
    )
    db.execute(
        "INSERT OR REPLACE INTO outboxes VALUES (?, ?, ?)", (partition, last + sends, rows + sends)
    )
    db.execute(
        "INSERT OR REPLACE INTO sent VALUES (?, ?, ?, ?)",
        (partition, turn.grain.encode(), turn.id, last + 1),
    )
    return int(last) + 1


def _outbox(db: sqlite3.Connection, partition: int) -> tuple[int, int]:
    """The number that was given last, and how many messages there are."""
    found: tuple[int, int] | None = db.execute(
        "SELECT last, messages FROM outboxes WHERE partition = ?", (partition,)
    ).fetchone()
    return found or (0, 0)


def _first_of(db: sqlite3.Connection, turn: Commit) -> int:
    found = db.execute(
        "SELECT first FROM sent WHERE partition = ? AND grain = ? AND commit_id = ?",
        (turn.partition, turn.grain.encode(), turn.id),
    ).fetchone()
    return 0 if found is None else found[0]


def _write_wake_ups(db: sqlite3.Connection, turn: Commit) -> None:
    where = turn.partition, turn.grain.encode()
    db.executemany(
        "DELETE FROM wake_ups WHERE partition = ? AND grain = ? AND name = ?",
        ((*where, name) for name, due in turn.wake.items() if due is None),
    )
    db.executemany(
        "INSERT OR REPLACE INTO wake_ups VALUES (?, ?, ?, ?)",
        ((*where, name, due) for name, due in turn.wake.items() if due is not None),
    )


def _write_letters(db: sqlite3.Connection, turn: Commit) -> None:
    db.executemany(
        "DELETE FROM letters WHERE partition = ? AND name = ?",
        ((turn.partition, name) for name, letter in turn.park.items() if letter is None),
    )
    db.executemany(
        "INSERT OR REPLACE INTO letters VALUES (?, ?, ?)",
        (
            (turn.partition, name, letter)
            for name, letter in turn.park.items()
            if letter is not None
        ),
    )


def take(db: sqlite3.Connection, mark: str, takes: Sequence[Take]) -> list[Owner]:
    """Change owner records, and tell what is pending."""
    return [_with_pending(db, owner) for owner in sqlite_tables.take(db, mark, takes)]


def _with_pending(db: sqlite3.Connection, owner: Owner) -> Owner:
    epoch, earliest = db.execute(
        "SELECT (SELECT epoch FROM outbox WHERE partition = ?1 ORDER BY number LIMIT 1),"
        " (SELECT min(due_ms) FROM wake_ups WHERE partition = ?1)",
        (owner.partition,),
    ).fetchone()
    return msgspec.structs.replace(
        owner,
        posted=_outbox(db, owner.partition)[1],
        first_posted_epoch=epoch or 0,
        earliest_due_ms=earliest,
    )


def posted(
    db: sqlite3.Connection, partition: int, token: Token, after: int, limit: int
) -> list[Posted]:
    """Read a page of the outbox."""
    verify_owner(db, partition, token)
    page: list[Posted] = []
    size = 0
    for number, epoch, lineage, receiver, row in db.execute(
        "SELECT number, epoch, lineage, receiver, row FROM outbox"
        " WHERE partition = ? AND number > ? ORDER BY number LIMIT ?",
        (partition, after, limit),
    ):
        page.append(Posted(number, epoch, lineage, GrainId(receiver.decode()), row))
        size += len(row)
        if size >= PAGE_BYTES:
            break
    return page


def acknowledge(
    db: sqlite3.Connection, partition: int, token: Token, numbers: Sequence[int]
) -> None:
    """Take messages out of the outbox."""
    verify_owner(db, partition, token)
    gone = db.executemany(
        "DELETE FROM outbox WHERE partition = ? AND number = ?",
        ((partition, number) for number in numbers),
    )
    db.execute(
        "UPDATE outboxes SET messages = messages - ? WHERE partition = ?",
        (max(0, gone.rowcount), partition),
    )


def due(
    db: sqlite3.Connection,
    partition: int,
    token: Token,
    until_ms: int,
    limit: int,
    after: tuple[int, GrainId, bytes] | None,
) -> list[WakeUp]:
    """Read a page of wake-ups."""
    verify_owner(db, partition, token)
    sql = "SELECT due_ms, grain, name FROM wake_ups WHERE partition = ? AND due_ms <= ?"
    args: tuple[object, ...] = (partition, until_ms)
    if after is not None:
        sql += " AND (due_ms, grain, name) > (?, ?, ?)"
        args = (*args, after[0], after[1].encode(), after[2])
    sql += " ORDER BY due_ms, grain, name LIMIT ?"
    return [
        WakeUp(due_ms, GrainId(grain.decode()), name)
        for due_ms, grain, name in db.execute(sql, (*args, limit))
    ]


def letters(db: sqlite3.Connection, partition: int, after: bytes, limit: int) -> list[Part]:
    """Read a page of dead letters."""
    page: list[Part] = []
    size = 0
    behind = " AND name > ?" if after else ""
    for name, letter in db.execute(
        f"SELECT name, letter FROM letters WHERE partition = ?{behind} ORDER BY name LIMIT ?",  # noqa: S608 - constants
        (partition, *([after] if after else []), limit),
    ):
        page.append((name, letter))
        size += len(letter)
        if size >= PAGE_BYTES:
            break
    return page


def count_letters(db: sqlite3.Connection, partition: int) -> int:
    """How many dead letters there are."""
    found: tuple[int] = db.execute(
        "SELECT count(*) FROM letters WHERE partition = ?", (partition,)
    ).fetchone()
    return found[0]


def verify_owner(db: sqlite3.Connection, partition: int, token: Token) -> None:
    """Compare the owner record's token: a host has no say about a partition."""
    sqlite_fence.check_token(sqlite_fence.owner_token(db, partition), token, partition)
