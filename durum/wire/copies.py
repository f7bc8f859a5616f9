"""How a grain's record travels out of one service and into another, piece by piece. Owns the form of the
requests; they are calls with reserved names, as in administration.py.

A record goes in pieces, since it may be larger than a frame: slices of its state, then remembered replies,
then parts. Fields may be appended, never moved or removed.
"""

from __future__ import annotations

from typing import Final

import msgspec

COPY: Final = "durum.copy"
PASTE: Final = "durum.paste"

SLICE_BYTES: Final = 512 * 1024
"""A piece ends with what reaches this many bytes."""
PIECE_PARTS: Final = 500
"""And has at most so many replies, or parts."""


class Place(msgspec.Struct, array_like=True, frozen=True):
    """Where in a record a piece begins.

    Args:
        state: how many bytes of the state come before it.
        replies: the last key before it; None where the state is not over.
        parts: the last name before it; None where the replies are not over.
    """

    state: int = 0
    replies: bytes | None = None
    parts: bytes | None = None


class Piece(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """A piece of a record: the answer to COPY.

    Args:
        version: the record's, while all of the piece was read. Pieces of one version make one record.
        state: the next bytes of the state; None where it has none.
        replies: remembered replies by key.
        parts: names and contents.
        after: where the next piece begins; None: this is the last.
    """

    version: int
    state: bytes | None = None
    replies: dict[bytes, bytes] = {}
    parts: tuple[tuple[bytes, bytes], ...] = ()
    after: Place | None = None


class Copy(msgspec.Struct, array_like=True, frozen=True):
    """Please read a piece.

    Args:
        place: where it begins.
        hold: let no turn of the grain run until the last piece was read, or a while has passed. For grains
            that change faster than they can be read.
    """

    place: Place = Place()
    hold: bool = False


class Paste(msgspec.Struct, array_like=True, frozen=True, kw_only=True):
    """Please write a piece of a record, after the grain's turns and before the next. Answered by Pasted.

    Args:
        version: what the piece before has led to; None for the first, which needs a grain that has kept
            nothing.
        replace: for the first: take away what the grain has kept.
        piece: what to write. The state takes effect with the last piece.
        last: whether it is that.
    """

    version: int | None
    piece: Piece
    last: bool
    replace: bool = False


class Pasted(msgspec.Struct, array_like=True, frozen=True):
    """The answer to PASTE.

    Args:
        version: the record's now; for the piece after it.
        occupied: nothing was written, since the grain has kept something already.
    """

    version: int
    occupied: bool = False
