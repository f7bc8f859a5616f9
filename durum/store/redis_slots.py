"""Slots of a Redis cluster: which key is in which, and which master has which. Asks no server."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any, Final

from durum.ids import Address, join_address

SLOTS: Final = 16384


def slot_of(key: str) -> int:
    """The slot of a key; what stands between its first braces decides alone."""
    start = key.find("{")
    end = key.find("}", start + 1)
    tag = key[start + 1 : end] if start >= 0 and end > start + 1 else key
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


def masters(reply: Any, asked: str) -> Sequence[Address | None]:
    """Read the answer to CLUSTER SLOTS.

    Args:
        reply: as it came.
        asked: the host that answered; a node that does not know its own name leaves it out.

    Returns:
        The master of each slot; None for those that nobody serves.
    """
    found: list[Address | None] = [None] * SLOTS
    for first, last, master, *_ in reply:
        host = (master[0] or b"").decode()
        address = join_address(host if host not in ("", "?") else asked, int(master[1]))
        found[int(first) : int(last) + 1] = [address] * (int(last) - int(first) + 1)
    return found


def replicas(reply: Any) -> dict[int, int]:
    """How many replicas the range that begins at each slot has, of the same answer."""
    return {int(first): len(others) for first, _, _, *others in reply}


def redirection(text: str, asked: str) -> tuple[int, Address]:
    """Read `MOVED 3999 10.0.0.7:6381` or `ASK ...`.

    Args:
        text: the error.
        asked: the host that answered; a node that does not know its own name leaves it out.
    """
    _, slot, where = text.split(" ")[:3]
    host, _, port = where.rpartition(":")
    return int(slot), join_address(host.strip("[]") or asked, int(port))
