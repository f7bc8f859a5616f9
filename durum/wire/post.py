"""Durable messages as bytes: in an outbox, on their way to a receiver, and as dead letters. Owns their form.

A row lies in the sender's store until its receiver has committed, and a letter until somebody has looked at
it, whatever releases run meanwhile: fields may be appended, never moved or removed.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import msgspec

from durum.ids import GrainId
from durum.wire.messages import Carried, Failure

DELIVER: Final = "durum.deliver"
"""Deliver messages to a grain; answered by Delivered."""
TELL: Final = "durum.tell"
"""Take in a client's message for a grain; answered once that is durable."""

POST: Final = frozenset({DELIVER, TELL})
"""What is asked of the grain itself, and is no turn of it."""


class Row(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One message, as its sender wrote it.

    Args:
        method: which method of the receiver shall run.
        args: for it, encoded.
        sender: the grain that sent it, or "" for a client.
        request: an id that stays the same along the chain, for logs; or "".
        carried: baggage and trace, where there are any.
        trusted: it may hold pickled values: whoever sent it may be believed.
        sent_ms: when, in milliseconds of store time.
    """

    method: str
    args: bytes
    sender: GrainId = GrainId("")
    request: str = ""
    carried: Carried | None = None
    trusted: bool = False
    sent_ms: int = 0


class Later(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A message that is not due yet, as it lies in its sender's record.

    Args:
        receiver: whose it is.
        row: see Row, encoded.
        due_ms: when it is due, in milliseconds of store time.
    """

    receiver: GrainId
    row: bytes
    due_ms: int


class Numbered(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A message in an outbox.

    Args:
        number: its own, in the outbox of its partition.
        epoch: under which it was sent.
        lineage: the token of the partition's owner then.
        row: see Row, encoded.
    """

    number: int
    epoch: int
    lineage: bytes
    row: bytes


class Deliver(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Messages of one outbox to one grain: its oldest ones, without a gap.

    Args:
        partition: whose outbox.
        token: of the partition's owner now, who delivers.
        receiver: the grain, by the name that the senders know it by.
        rows: by their numbers.
        attempt: which one this is for the first of them, from 1.
    """

    partition: int
    token: bytes
    receiver: GrainId
    rows: tuple[Numbered, ...]
    attempt: int = 1


class Delivered(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """How far that went.

    Args:
        number: of the last message that is done, or parked; 0 for none.
        failure: why the next one is not, where that was tried.
        counts: it was the message's own fault, so that it has one attempt less.
    """

    number: int
    failure: Failure | None = None
    counts: bool = False


class Tell(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A client's message.

    Args:
        method: which method of the receiver shall run.
        args: for it, encoded.
        delay_ms: how long after it was taken in; None: at once, or as `at_ms` says.
        at_ms: when, in milliseconds since 1970.
    """

    method: str
    args: bytes
    delay_ms: int | None = None
    at_ms: int | None = None


class Letter(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A dead letter: a message that its receiver could not take.

    Args:
        receiver: the grain.
        row: see Row, encoded.
        error: the type of what the last attempt raised, for people.
        text: what that said.
        traceback: where, or "".
        attempts: how many there were.
        parked_ms: when it was parked, in milliseconds of store time.
        message: its id while it was a message.
    """

    receiver: GrainId
    row: bytes
    error: str
    text: str
    traceback: str
    attempts: int
    parked_ms: int
    message: str


encode: Final = msgspec.msgpack.Encoder().encode
decode_row: Final = msgspec.msgpack.Decoder(Row).decode
decode_later: Final = msgspec.msgpack.Decoder(Later).decode
decode_deliver: Final = msgspec.msgpack.Decoder(Deliver).decode
decode_delivered: Final = msgspec.msgpack.Decoder(Delivered).decode
decode_tell: Final = msgspec.msgpack.Decoder(Tell).decode
decode_letter: Final = msgspec.msgpack.Decoder(Letter).decode


def message_id(partition: int, lineage: bytes, number: int) -> str:
    """The id of one message, the same at each attempt."""
    return f"{partition}-{lineage.hex()[:16]}-{number}"


def letter_name(parked_ms: int, unique: bytes) -> bytes:
    """The name of a dead letter: sorted by time.

    Args:
        parked_ms: when it was parked, in milliseconds of store time.
        unique: bytes that no other letter has.
    """
    return parked_ms.to_bytes(8, "big") + blake2b(unique, digest_size=8).digest()
