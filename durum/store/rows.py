"""How a silo's row is written down. Owns its bytes, status letter first; knows no store.

The letter lets a store's script see the status without parsing anything else.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from durum import errors
from durum.views import SiloRow, Status

LETTERS: Final = {
    Status.JOINING: b"J",
    Status.ACTIVE: b"A",
    Status.LEAVING: b"L",
    Status.DEAD: b"D",
}
BY_LETTER: Final = {letter: status for status, letter in LETTERS.items()}

_decode = msgspec.msgpack.Decoder(SiloRow).decode


def encode(row: SiloRow, over: bytes | None = None) -> bytes:
    """Write a row down.

    Args:
        row: what to write.
        over: the bytes that it replaces; fields of a newer release in them are carried along.
    """
    fields: dict[str, Any] = {} if over is None else msgspec.msgpack.decode(over[1:])
    fields.update(msgspec.to_builtins(row))
    return LETTERS[row.status] + msgspec.msgpack.encode(fields)


def decode(raw: bytes) -> SiloRow:
    """Read a row.

    Raises:
        DataLoss: the bytes are not a row.
    """
    try:
        return _decode(raw[1:])
    except msgspec.DecodeError as exc:
        raise errors.DataLoss(
            f"a silo's row in the membership table is unreadable ({exc}). Nothing was changed. "
            "Look for another program that writes to this store."
        ) from exc


def status_of(raw: bytes) -> Status:
    """The status of an encoded row."""
    return BY_LETTER[raw[:1]]


def check_write(row: SiloRow, seen: SiloRow | None) -> bool:
    """Look at what a write asks for, before any store is asked.

    Returns:
        Whether it is a removal.

    Raises:
        DurumBug: it names two silos, or removes a row that is not dead.
    """
    if seen is None:
        return False
    if seen.silo != row.silo:
        raise errors.DurumBug(f"a write of {row.silo}'s row was compared with {seen.silo}'s.")
    removes = row == seen
    if removes and row.status is not Status.DEAD:
        raise errors.DurumBug(f"{row.silo} is {row.status}; only the rows of the dead are removed.")
    return removes
