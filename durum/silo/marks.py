"""Which messages a grain has had. Pure: marks and a message in, a verdict out. Knows no store.

Messages come from outboxes, one for each partition, each in the order of its numbers, and a later one only
once an earlier one is done. So one mark for each outbox tells it all: how far it got. Numbers belong to a
lineage, which is one holding of the outbox's partition: a store that lost its last writes gives numbers
again, to other messages of another lineage. An older lineage is done before any message of a newer one comes,
so that the newest one's mark stands for all before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import msgspec

from durum.ids import GrainId, split_grain_id
from durum.store.parts import MARKS


class Mark(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """How far one outbox got at one grain.

    Args:
        epoch: the newest lineage's, which orders lineages.
        lineage: the token of the partition's owner then.
        number: of the last message that is done.
        half: of that one only a part is done: its method saved, and has not come to its end.
    """

    epoch: int
    lineage: bytes
    number: int
    half: bool = False


class Verdict(Enum):
    """What a message is to its receiver."""

    NEW = "new"
    DONE = "done"
    HALF = "half"
    """Done in part, and not to be run again."""
    OLDER = "older"
    """Done, unless the store of its sender has lost its last writes: then its owner's word is needed."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Mark).decode


def mark_name(partition: int, receiver: GrainId, grain: GrainId) -> bytes:
    """The part that holds the mark of one outbox.

    Args:
        partition: whose outbox.
        receiver: the grain as the senders name it: another name is another order.
        grain: the grain's own id.
    """
    alias = b"" if receiver == grain else split_grain_id(receiver)[0].encode()
    return MARKS + partition.to_bytes(2, "big") + alias


class Marks:
    """All marks of one grain.

    Args:
        stored: the parts that hold them.
    """

    __slots__ = ("_marks",)

    def __init__(self, stored: Mapping[bytes, bytes]) -> None:
        self._marks = {name: _decode(content) for name, content in stored.items()}

    def judge(self, name: bytes, epoch: int, lineage: bytes, number: int) -> Verdict:
        """Whether a message is new.

        Args:
            name: from mark_name.
            epoch, lineage, number: the message's.
        """
        mark = self._marks.get(name)
        if mark is None:
            return Verdict.NEW
        if lineage == mark.lineage:
            if number > mark.number:
                return Verdict.NEW
            return Verdict.HALF if mark.half and number == mark.number else Verdict.DONE
        return Verdict.OLDER if epoch < mark.epoch else Verdict.NEW

    def took(self, name: bytes, mark: Mark) -> None:
        """A commit with this mark has succeeded."""
        self._marks[name] = mark

    def __len__(self) -> int:
        return len(self._marks)

    def __repr__(self) -> str:
        return f"<Marks {self._marks}>"


def written(mark: Mark) -> bytes:
    """A mark as it is stored."""
    return _encode(mark)
