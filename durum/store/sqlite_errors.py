"""SQLite's errors in Durum's words. Owns the mapping; knows no table and no thread."""

from __future__ import annotations

import sqlite3
from typing import Final

from durum import errors

_WORDS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full. Free some space; silos go on by themselves",
    sqlite3.SQLITE_READONLY: "it is read-only. Make the file and its folder writable",
    sqlite3.SQLITE_BUSY: (
        "another process has held its write lock too long. Look for a stopped silo, a backup or a "
        "shell with an open transaction"
    ),
    sqlite3.SQLITE_LOCKED: "another connection has held a lock too long",
    sqlite3.SQLITE_IOERR: "the disk reports an error. Look at the system's log",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened. Check the path and its permissions",
    sqlite3.SQLITE_PERM: "access is denied. Check the file's permissions",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
}
_LOST: Final = {
    sqlite3.SQLITE_CORRUPT: "it is damaged",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database",
}
_READONLY_DBMOVED: Final = 1032


def code_of(exc: sqlite3.Error) -> int:
    """The primary result code, or 0 where Python's own layer raised."""
    return (getattr(exc, "sqlite_errorcode", None) or 0) & 0xFF


def is_busy(exc: sqlite3.Error) -> bool:
    """Whether another connection holds the lock, so that trying again may help."""
    return code_of(exc) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def spoils_batch(exc: sqlite3.Error) -> bool:
    """Whether the cause is the file or the host, so that no other operation would fare better."""
    return code_of(exc) in _WORDS or code_of(exc) in _LOST


def translate(exc: sqlite3.Error, url: str, *, applied: bool | None) -> errors.StoreError:
    """Say in Durum's words what SQLite said.

    Args:
        exc: SQLite's error.
        url: the store's, for the message.
        applied: what is known of the operation's fate.
    """
    code = code_of(exc)
    if code in _LOST:
        return errors.DataLoss(
            f"{url}: {_LOST[code]} ({exc}). Nothing is built upon it. Stop the silos and restore "
            "the file from a backup."
        )
    if getattr(exc, "sqlite_errorcode", None) == _READONLY_DBMOVED:
        return moved(url)
    fate = "Nothing was changed" if applied is False else "It is unknown whether it was applied"
    return errors.StoreUnavailable(f"{url}: {_WORDS.get(code, exc)} ({exc}). {fate}.", applied)


def moved(url: str) -> errors.DataLoss:
    """The file at the path is not the one that is open."""
    return errors.DataLoss(
        f"{url}: the file was deleted or replaced while it was in use. Nothing is built upon "
        "another one. Stop the silos, put the right file in place, and start again."
    )


def closed(url: str, *, applied: bool | None) -> errors.StoreUnavailable:
    """The store was closed, before or during an operation."""
    return errors.StoreUnavailable(f"{url}: the store is closed.", applied)


def late(url: str, timeout_s: float) -> errors.StoreUnavailable:
    """No answer came in time."""
    return errors.StoreUnavailable(
        f"{url}: no answer within {timeout_s:g} s (store_timeout_s). It is unknown whether the "
        "operation was applied. Look for a slow or full disk.",
        None,
    )
