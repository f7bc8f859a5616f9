"""Frames: lengths, batches, seals. Owns how messages become bytes and back; knows no sockets, no loop.

A frame is its length (four bytes, little-endian), a seal of 16 bytes where one was agreed, and one
msgpack array of messages. A length is checked before anything is kept for it.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct
from typing import Annotated, Final, NamedTuple

import msgspec

from durum.errors import ClusterError, DurumError
from durum.wire.messages import AnyMessage

MESSAGES_LIMIT: Final = 16_384
"""Messages in one frame. Three bytes can be a whole message, so bytes alone bound memory poorly."""
SEAL_BYTES: Final = 16
HEADER_BYTES: Final = 4

_IDLE_ROOM_BYTES: Final = 4 * 1024
_BUSY_ROOM_BYTES: Final = 256 * 1024
_U32: Final = Struct("<I")
_pack_u32 = _U32.pack
_unpack_u32 = _U32.unpack_from

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(
    Annotated[list[AnyMessage], msgspec.Meta(max_length=MESSAGES_LIMIT)]
).decode


class ProtocolError(ClusterError):
    """The other side sent what no release of Durum sends. The connection is closed."""


class Unsendable(DurumError):
    """A message cannot be encoded, so it was not sent. Others of its batch were."""


class FrameTooLarge(Unsendable):
    """A message alone exceeds frame_bytes, so it was not sent. Others of its batch were."""


class Refused(NamedTuple):
    """A message that was not sent, and why."""

    message: AnyMessage
    error: Unsendable


class Seal:
    """Marks the frames of one direction, in their order, so that none can be forged or repeated.

    Args:
        key: the direction's session key.
    """

    __slots__ = ("_count", "_key")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._count = 0

    def mark(self, payload: bytes | memoryview[int]) -> bytes:
        """Compute the next frame's mark."""
        count = self._count.to_bytes(8, "little")
        digest = blake2b(count, key=self._key, digest_size=SEAL_BYTES)
        digest.update(payload)
        self._count += 1
        return digest.digest()

    def check(self, body: memoryview[int]) -> memoryview[int]:
        """Part the next frame's body from its mark.

        Raises:
            ProtocolError: the mark is missing or not the one expected.
        """
        payload = body[SEAL_BYTES:]
        if not hmac.compare_digest(body[:SEAL_BYTES], self.mark(payload)):
            raise ProtocolError(
                "a frame's seal does not fit: it was forged, repeated or damaged on its way."
            )
        return payload


def frame(body: bytes) -> bytes:
    """Put a length before a body."""
    return _pack_u32(len(body)) + body


def decode(payload: bytes | memoryview[int]) -> list[AnyMessage]:
    """Decode a frame's messages.

    Raises:
        ProtocolError: it is not an array of messages.
    """
    try:
        messages: list[AnyMessage] = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as exc:
        raise ProtocolError(f"a frame does not hold messages: {exc}.") from exc
    return messages


class FrameReader:
    """Where received bytes are collected until they are whole frames.

    It begins with little room and grows with what really arrives, never with what a length claims.

    Args:
        limit_bytes: the largest frame, without length and seal; may be raised later.
    """

    __slots__ = ("_end", "_room", "_start", "_view", "limit_bytes", "seal")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.seal: Seal | None = None
        """Checked on every frame once it is set."""
        self._start = 0
        self._end = 0
        self._resize(_IDLE_ROOM_BYTES)

    @property
    def room_bytes(self) -> int:
        """How much memory it holds."""
        return len(self._room)

    @property
    def waiting_bytes(self) -> int:
        """How much has arrived of a frame that is not whole yet."""
        return self._end - self._start

    def start(self) -> bytes:
        """The first bytes of what waits, to tell what else the other side may speak."""
        return bytes(self._view[self._start : min(self._end, self._start + 8)])

    def writable(self) -> memoryview[int]:
        """Give room for what arrives next. Ends the life of every view that next() returned."""
        size = len(self._room)
        if self._start == self._end:
            # A read that filled the room suggests more to come; a long frame is over when it is.
            if self._end == size and size < min(self._busy_bytes(), _BUSY_ROOM_BYTES):
                self._resize(size * 2)
            elif size > _BUSY_ROOM_BYTES:
                self._resize(_BUSY_ROOM_BYTES)
            self._start = self._end = 0
            return self._view
        if self._end * 2 > size:
            self._make_room(size)
        return self._view[self._end :]

    def filled(self, size: int) -> None:
        """Count bytes that were written into writable()."""
        self._end += size

    def next(self) -> memoryview[int] | None:
        """Take the next whole frame's payload. The view is good until writable() is called.

        Raises:
            ProtocolError: the length is beyond the limit, or the seal is wrong.
        """
        start = self._start
        if self._end - start < HEADER_BYTES:
            return None
        size: int = _unpack_u32(self._room, start)[0]
        seal = self.seal
        if size > self.limit_bytes + (0 if seal is None else SEAL_BYTES):
            raise ProtocolError(
                f"a frame claims {size} bytes; {self.limit_bytes} are allowed here."
            )
        stop = start + HEADER_BYTES + size
        if stop > self._end:
            return None
        self._start = stop
        body = self._view[start + HEADER_BYTES : stop]
        return body if seal is None else seal.check(body)

    def _busy_bytes(self) -> int:
        return HEADER_BYTES + SEAL_BYTES + self.limit_bytes

    def _make_room(self, size: int) -> None:
        rest = self._view[self._start : self._end]
        if len(rest) * 2 > size:
            # The frame under way fills more than half; its length was checked when it began.
            self._resize(size * 2)
        self._view[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def _resize(self, size: int) -> None:
        self._room = bytearray(size)
        self._view = memoryview(self._room)


class FrameWriter:
    """Makes batches of messages into frames.

    Args:
        limit_bytes: the largest frame, without length and seal.
        seal: marks every frame, where one was agreed.
    """

    __slots__ = ("_limit_bytes", "_seal")

    def __init__(self, limit_bytes: int, seal: Seal | None = None) -> None:
        self._limit_bytes = limit_bytes
        self._seal = seal

    def pack(self, messages: Sequence[AnyMessage]) -> tuple[bytes, Sequence[Refused]]:
        """Encode a batch into one frame, or into more where it would be too large.

        Returns: the frames, and the messages that fit into none.
        """
        try:
            payload = _encode(messages)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return self._pack_singly(messages)
        if len(payload) > self._limit_bytes or len(messages) > MESSAGES_LIMIT:
            return self._pack_singly(messages)
        if self._seal is None:
            return _pack_u32(len(payload)) + payload, ()
        return self._frame(payload), ()

    def _pack_singly(self, messages: Sequence[AnyMessage]) -> tuple[bytes, Sequence[Refused]]:
        frames: list[bytes] = []
        refused: list[Refused] = []
        parts: list[bytes] = []
        size = 0
        # The array's own header takes at most three bytes below MESSAGES_LIMIT.
        limit = self._limit_bytes - 3
        for message in messages:
            part = self._encode_one(message, limit)
            if isinstance(part, Unsendable):
                refused.append(Refused(message, part))
                continue
            if size + len(part) > limit or len(parts) == MESSAGES_LIMIT:
                frames.append(self._frame(_array(parts)))
                parts, size = [], 0
            parts.append(part)
            size += len(part)
        if parts:
            frames.append(self._frame(_array(parts)))
        return b"".join(frames), refused

    def _encode_one(self, message: AnyMessage, limit: int) -> bytes | Unsendable:
        name = type(message).__name__
        try:
            part = _encode(message)
        except (TypeError, ValueError, OverflowError, RecursionError) as exc:
            return Unsendable(f"a {name} cannot be encoded and was not sent: {exc}.")
        if len(part) > limit:
            return FrameTooLarge(
                f"a {name} of {len(part)} bytes was not sent: a frame holds {limit}. "
                "Pass less, or raise Limits.frame_bytes on both sides."
            )
        return part

    def _frame(self, payload: bytes) -> bytes:
        if self._seal is None:
            return _pack_u32(len(payload)) + payload
        return _pack_u32(SEAL_BYTES + len(payload)) + self._seal.mark(payload) + payload


def _array(parts: list[bytes]) -> bytes:
    count = len(parts)
    header = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return header + b"".join(parts)
