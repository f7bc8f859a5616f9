"""What a commit makes true beside the grain's own record: messages in its partition's outbox, wake-ups, dead
letters. Owns their form; what stores promise of them is in effect_store.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from durum import errors
from durum.ids import GrainId
from durum.store.parts import PAGE_BYTES

NUMBER_LIMIT: Final = 2**53
"""Numbers and times are below it, since Redis sorts by floating-point numbers."""


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A message to append to the partition's outbox.

    Args:
        receiver: which grain it is for.
        row: the rest, of which a store knows nothing.
    """

    receiver: GrainId
    row: bytes


class Posted(msgspec.Struct, frozen=True, gc=False):
    """A message in a partition's outbox, until it is acknowledged.

    Args:
        number: its place in the partition; one more than the one before, for ever, whoever owned it.
        epoch: the owner record's epoch when it was committed.
        lineage: the owner record's token then. Only with it is a number unique: a store that went back in
            time gives numbers again.
        receiver: which grain it is for.
        row: what was given along.
    """

    number: int
    epoch: int
    lineage: bytes
    receiver: GrainId
    row: bytes


class WakeUp(msgspec.Struct, frozen=True, order=True, gc=False):
    """A durable "look at this grain at that time".

    Args:
        due_ms: when, in milliseconds of store time since 1970.
        grain: which grain.
        name: which of its wake-ups.
    """

    due_ms: int
    grain: GrainId
    name: bytes


class Overfull(errors.StoreError):
    """The partition's outbox has no room for what a commit sends. Nothing of the commit was written."""

    def __init__(self, partition: int) -> None:
        super().__init__(
            f"the outbox of partition {partition} is full; nothing was written. Wait until its messages "
            "are delivered."
        )


def is_last(page: Sequence[Posted], limit: int) -> bool:
    """Whether nothing comes behind a page of an outbox that was asked for with this limit."""
    return len(page) < limit and sum(len(one.row) for one in page) < PAGE_BYTES


def check_wake(wake: Mapping[bytes, int | None]) -> None:
    """Look at what a commit asks for, before any store is asked.

    Raises:
        DurumBug: a time is not one that every store can sort by.
    """
    for name, due_ms in wake.items():
        if due_ms is not None and not 0 <= due_ms < NUMBER_LIMIT:
            raise errors.DurumBug(f"wake-up {name!r}: {due_ms} ms is no time from 1970 on.")
