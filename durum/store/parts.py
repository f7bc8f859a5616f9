"""Parts of a grain's record: bytes by name. Owns their limits and order; what stores promise of them is in
part_store.py. Large collections are made of parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

Part = tuple[bytes, bytes]
"""Name and content."""

RESERVED: Final = b"\0"
"""Names that begin so are Durum's own. Those of a collection begin with its field's name."""
MARKS: Final = b"\x00m"
"""What the names of marks begin with: of messages that were received. They outlive the grain for a while."""
REMINDERS: Final = b"\x00r"
"""Likewise the definitions of reminders."""
DELAYED: Final = b"\x00d"
"""Likewise messages that are not due yet."""

PAGE_BYTES: Final = 1024 * 1024
"""A page ends with the part that reaches this many bytes of content."""
PURGED_PER_COMMIT: Final = 1000
"""How many parts one commit purges at most, so that no turn pays for a whole collection."""


def above(prefix: bytes) -> bytes | None:
    """The least bytes above all that begin with a prefix, or None where there are none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def is_last(page: Sequence[Part], limit: int) -> bool:
    """Whether nothing comes behind a page that was asked for with this limit."""
    return len(page) < limit and sum(len(content) for _, content in page) < PAGE_BYTES
