"""Who may go on: the comparison of tokens in an embedded store. Plain SQL inside somebody's transaction."""

from __future__ import annotations

import sqlite3

from durum import errors
from durum.ids import TOKEN_BYTES, GrainId, SiloId, Token, hosted_token
from durum.store.host_table import Host, Hosted
from durum.store.protocol import NEVER_OWNED


def check_record(held: bytes | None, partition: int) -> None:
    """Missing must never read as never owned.

    Raises:
        DataLoss: the partition has no owner record, which genesis gave it.
    """
    if held is None:
        raise errors.DataLoss(
            f"partition {partition} has no owner record, though its service was created with one. "
            "Nothing was changed. Restore the store from a backup."
        )


def check_token(held: bytes | None, token: Token, partition: int) -> None:
    """The fence: only the present holding may go on.

    Raises:
        DataLoss: see check_record.
        Superseded: the partition has another token.
    """
    if held != token or held == NEVER_OWNED:
        check_record(held, partition)
        raise errors.Superseded(
            f"partition {partition} has been taken over; the operation changed nothing."
        )


def check_host(found: Host | None, token: Token, grain: GrainId) -> None:
    """The fence of a grain that has a place of its own.

    Raises:
        Superseded: its host record has another token, or is gone.
    """
    if found is None or found.token != token:
        raise errors.Superseded(f"{grain} has another host; the operation changed nothing.")


def check(
    db: sqlite3.Connection, held: bytes | None, token: Token, partition: int, grain: GrainId
) -> None:
    """Compare whichever record the token is of.

    Args:
        db: where host records are.
        held: the token in the owner record; None where there is no record.
        token: what the operation came with.
        partition: the grain's partition.
        grain: which grain.

    Raises:
        DataLoss, Superseded: see check_token and check_host.
    """
    if len(token) <= TOKEN_BYTES:
        check_token(held, token, partition)
    else:
        check_record(held, partition)
        check_host(find_host(db, partition, grain), token, grain)


def verify(
    db: sqlite3.Connection, partition: int, token: Token, grain: GrainId | None = None
) -> None:
    """Read the owner record, and compare.

    Args:
        db, partition, token: as in `check`.
        grain: which; None where a hosted token may name it.
    """
    if grain is None:
        grain = GrainId(token[TOKEN_BYTES:].decode())
    check(db, owner_token(db, partition), token, partition, grain)


def owner_token(db: sqlite3.Connection, partition: int) -> bytes | None:
    """The token in the owner record; None where there is no record."""
    found = db.execute("SELECT token FROM owners WHERE partition = ?", (partition,)).fetchone()
    return None if found is None else found[0]


def check_unhosted(db: sqlite3.Connection, partition: int, token: Token, grain: GrainId) -> None:
    """Keep an owner from serving what somebody hosts.

    Raises:
        Hosted: the grain has a host record, and the token is the owner's.
    """
    if len(token) <= TOKEN_BYTES:
        found = find_host(db, partition, grain)
        if found is not None:
            raise Hosted(grain, found)


def find_host(db: sqlite3.Connection, partition: int, grain: GrainId) -> Host | None:
    """A grain's host record."""
    found = db.execute(
        "SELECT silo, token FROM hosts WHERE partition = ? AND grain = ?",
        (partition, grain.encode()),
    ).fetchone()
    return None if found is None else Host(SiloId(found[0]), hosted_token(found[1], grain))
