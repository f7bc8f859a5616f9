"""Frames: what one side packs the other unpacks, and nothing else gets through."""

from __future__ import annotations

import contextlib
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durum.errors import DidRun
from durum.ids import Address, GrainId, SiloId
from durum.wire import frames
from durum.wire.frames import FrameReader, FrameTooLarge, FrameWriter, ProtocolError, Seal
from durum.wire.messages import (
    Ack,
    AnyMessage,
    Call,
    Cancel,
    Failure,
    Goodbye,
    Gossip,
    HandOver,
    Hop,
    Moved,
    Probe,
    Released,
    Reply,
    Table,
)

LIMIT = 1 << 20
KEY = b"k" * 32


def feed(reader: FrameReader, wire: bytes, step: int = 0) -> list[bytes]:
    """Give bytes to a reader in pieces and take the payloads that become whole."""
    payloads = []
    rest = wire
    while rest:
        room = reader.writable()
        size = min(len(room), len(rest), step or len(rest))
        room[:size] = rest[:size]
        rest = rest[size:]
        reader.filled(size)
        while (payload := reader.next()) is not None:
            payloads.append(bytes(payload))
    return payloads


def through(messages: list[AnyMessage], step: int = 0, limit: int = LIMIT) -> list[AnyMessage]:
    """Pack and unpack."""
    wire, refused = FrameWriter(limit).pack(messages)
    assert not refused
    return [m for body in feed(FrameReader(limit), wire, step) for m in frames.decode(body)]


text = st.text(max_size=40)
number = st.integers(0, 2**63 - 1)
silo_ids = st.builds(SiloId, text)
addresses = st.builds(Address, text)
hops = st.builds(Hop, st.builds(GrainId, text), number)
any_message: st.SearchStrategy[AnyMessage] = st.one_of(
    st.builds(
        Call,
        number,
        st.builds(GrainId, text),
        text,
        st.binary(max_size=200),
        number,
        text,
        st.lists(hops, max_size=3).map(tuple),
        st.integers(0, 9),
        text,
    ),
    st.builds(Reply, number, st.binary(max_size=200)),
    st.builds(Failure, number, text, st.sampled_from(DidRun), text, text, st.binary(), text),
    st.builds(Cancel, number),
    st.builds(Moved, number, addresses, number),
    st.builds(
        Table,
        number,
        st.lists(addresses, max_size=3).map(tuple),
        st.binary(max_size=50),
        st.lists(st.lists(text, max_size=2).map(tuple), max_size=3).map(tuple),
    ),
    st.builds(Goodbye, text),
    st.builds(Probe, number, number, silo_ids),
    st.builds(Ack, number, number, st.booleans()),
    st.builds(HandOver, number, number, st.lists(number, max_size=5).map(tuple)),
    st.builds(
        Released,
        number,
        st.lists(st.tuples(number, st.binary(max_size=16)), max_size=3).map(tuple),
        st.booleans(),
    ),
    st.builds(Gossip, number),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(any_message, max_size=20), st.integers(0, 50))
def test_frames_carry_every_message_unchanged(messages: list[AnyMessage], step: int) -> None:
    """500 batches, in pieces of any size: the wire adds and loses nothing."""
    assert through(messages, step) == messages


@settings(max_examples=300, deadline=None)
@given(st.lists(any_message, min_size=1, max_size=30), st.integers(250, 1200))
def test_frames_split_a_batch_by_size(messages: list[AnyMessage], limit: int) -> None:
    """300 batches over small frames: order is kept, no frame is too long, and only what fits alone
    goes."""
    wire, refused = FrameWriter(limit).pack(messages)
    reader = FrameReader(limit)
    got = [m for body in feed(reader, wire) for m in frames.decode(body)]
    lost = [id(m) for m, error in refused if isinstance(error, FrameTooLarge)]
    assert got == [m for m in messages if id(m) not in lost]


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=300))
def test_frames_refuse_garbage(wire: bytes) -> None:
    """1,000 inputs of any bytes: messages or a ProtocolError, never anything else."""
    reader = FrameReader(LIMIT)
    try:
        for body in feed(reader, wire):
            frames.decode(body)
    except ProtocolError:
        pass
    assert reader.room_bytes <= 8192


@settings(max_examples=1000, deadline=None)
@given(st.lists(any_message, min_size=1, max_size=3), st.data())
def test_frames_refuse_damaged_messages(messages: list[AnyMessage], data: st.DataObject) -> None:
    """1,000 real frames with some bytes changed: messages or a ProtocolError, never anything else."""
    payload = bytearray(FrameWriter(LIMIT).pack(messages)[0][4:])
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        frames.decode(bytes(payload))


def test_frame_refuses_a_length_before_it_allocates() -> None:
    """Four bytes must not cost four gigabytes."""
    reader = FrameReader(LIMIT)
    room = reader.room_bytes
    with pytest.raises(ProtocolError, match="claims 4294967295 bytes; 1048576 are allowed"):
        feed(reader, b"\xff\xff\xff\xff")
    assert reader.room_bytes == room


def test_frame_of_allowed_length_takes_memory_only_as_it_arrives() -> None:
    """A peer that announces much and sends little must not hold much."""
    reader = FrameReader(LIMIT)
    assert feed(reader, struct.pack("<I", LIMIT) + b"x" * 100) == []
    assert (reader.room_bytes, reader.waiting_bytes) == (4096, 104)


def test_reader_grows_for_a_long_frame_and_shrinks_after_it() -> None:
    """One large argument must not keep its memory for the life of the connection."""
    reader = FrameReader(LIMIT)
    body = b"y" * LIMIT
    assert feed(reader, frames.frame(body)) == [body]
    assert reader.room_bytes >= LIMIT
    assert feed(reader, frames.frame(b"z")) == [b"z"]
    assert reader.room_bytes == 256 * 1024


def test_reader_grows_where_reads_fill_it() -> None:
    """A busy connection gets room for larger reads, an idle one keeps to a page."""
    reader = FrameReader(LIMIT)
    frame = frames.frame(b"q" * 60)
    for _ in range(20):
        room = reader.writable()
        count = len(room) // len(frame)
        wire = frame * count
        room[: len(wire)] = wire
        reader.filled(len(wire))
        while reader.next() is not None:
            pass
    assert reader.room_bytes == 256 * 1024
    idle = FrameReader(LIMIT)
    for _ in range(20):
        feed(idle, frame)
    assert idle.room_bytes == 4096


def test_reader_keeps_the_start_of_a_frame_while_room_is_made() -> None:
    """A frame that lies across two reads must come out whole wherever the cut falls."""
    bodies = [bytes([n]) * 700 for n in range(40)]
    wire = b"".join(frames.frame(body) for body in bodies)
    for step in (1, 3, 699, 703, 704, 705, 3000):
        assert feed(FrameReader(LIMIT), wire, step) == bodies


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc0",
        b"\x93",
        b"\x91\x92\x63\x01",
        b"\x91\x92\x01\xa1x",
        b"\x91\x92\x04\x01\x00",
        b"\x91\x92\x07\xa2\xff\xff",
        b"\x91\x95\x04\x01" + b"\x91" * 100_000,
        b"\x91\x92\x04\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdd\x10\x00\x00\x00",
        b"\x91\x97\x01\x01\xa1a\xa1m\xc4\x00\x01\xa0\xdd\x10\x00\x00\x00",
        b"\xdc\xff\xff" + b"\x92\x04\x01" * 65535,
        b"\x80",
        b"GET / HTTP/1.1\r\n\r\n",
        b"cos\nsystem\n(S'id'\ntR.",
    ],
    ids=lambda payload: payload[:12].hex() or "empty",
)
def test_decode_refuses_what_is_not_messages(payload: bytes) -> None:
    """Truncated, mistyped, unknown, deep, huge, foreign and pickled: one error, and no memory."""
    with pytest.raises(ProtocolError, match="does not hold messages"):
        frames.decode(payload)


def test_decode_ignores_fields_that_a_newer_release_appended() -> None:
    """Two neighbouring releases talk during a rolling upgrade."""
    assert frames.decode(b"\x91\x94\x04\x07\xa3new\x91\x01") == [Cancel(7)]


def test_writer_refuses_only_the_message_that_is_too_large() -> None:
    """One caller's huge argument must not cost the others of its batch."""
    writer = FrameWriter(1000)
    batch: list[AnyMessage] = [Cancel(1), Reply(2, b"x" * 1000), Cancel(3)]
    wire, refused = writer.pack(batch)
    assert [m for b in feed(FrameReader(1000), wire) for m in frames.decode(b)] == [
        Cancel(1),
        Cancel(3),
    ]
    assert [message for message, _ in refused] == [batch[1]]
    assert isinstance(refused[0].error, FrameTooLarge)
    assert str(refused[0].error) == (
        "a Reply of 1006 bytes was not sent: a frame holds 997. Pass less, or raise "
        "Limits.frame_bytes on both sides."
    )


def test_writer_refuses_only_the_message_that_cannot_be_encoded() -> None:
    """A lone surrogate in a method's name, or a number beyond 64 bits, is its caller's mistake."""
    bad: list[AnyMessage] = [Call(1, GrainId("a/b"), "\ud800", b""), Cancel(1 << 70)]
    wire, refused = FrameWriter(1000).pack([bad[0], Cancel(5), bad[1]])
    assert [m for b in feed(FrameReader(1000), wire) for m in frames.decode(b)] == [Cancel(5)]
    assert [message for message, _ in refused] == bad
    assert "a Call cannot be encoded and was not sent" in str(refused[0].error)


def test_writer_sends_nothing_where_everything_is_refused() -> None:
    """An empty frame would say nothing and still cost one."""
    wire, refused = FrameWriter(100).pack([Reply(1, b"x" * 200)])
    assert wire == b""
    assert len(refused) == 1


@pytest.mark.parametrize("count", [1, 15, 16, frames.MESSAGES_LIMIT, frames.MESSAGES_LIMIT + 1])
def test_writer_splits_by_count(count: int) -> None:
    """A frame's messages are bounded as well as its bytes, since the receiver keeps objects."""
    messages: list[AnyMessage] = [Cancel(n) for n in range(count)]
    wire, _ = FrameWriter(LIMIT).pack(messages)
    bodies = [frames.decode(body) for body in feed(FrameReader(LIMIT), wire)]
    assert [m for body in bodies for m in body] == messages
    assert len(bodies) == (1 if count <= frames.MESSAGES_LIMIT else 2)


def test_writer_splits_without_waste() -> None:
    """Parts small enough for one frame share it."""
    messages: list[AnyMessage] = [Reply(n, bytes(300)) for n in range(20)]
    wire, _ = FrameWriter(1000).pack(messages)
    sizes = [len(frames.decode(body)) for body in feed(FrameReader(1000), wire)]
    assert sizes == [3] * 6 + [2]


def test_sealed_frames_arrive() -> None:
    """Both ends of a direction count alike, over whole and over split batches."""
    writer, reader = FrameWriter(1000, Seal(KEY)), FrameReader(1000)
    reader.seal = Seal(KEY)
    for batch in ([Cancel(1)], [Reply(n, bytes(400)) for n in range(5)], [Goodbye()]):
        wire, _ = writer.pack(batch)
        assert [m for b in feed(reader, wire) for m in frames.decode(b)] == batch


def test_sealed_frame_of_the_full_size_is_allowed() -> None:
    """The seal comes on top of what a frame holds."""
    reader = FrameReader(100)
    reader.seal = Seal(KEY)
    body = Seal(KEY).mark(b"x" * 100) + b"x" * 100
    assert feed(reader, frames.frame(body)) == [b"x" * 100]


@pytest.mark.parametrize("kind", ["forged", "changed", "repeated", "left out", "unsealed", "short"])
def test_sealed_frames_refuse(kind: str) -> None:
    """Who sits in between can cut the connection, and nothing else."""
    writer = FrameWriter(1000, Seal(KEY))
    first, second = writer.pack([Cancel(1)])[0], writer.pack([Cancel(2)])[0]
    wire = {
        "forged": FrameWriter(1000, Seal(b"f" * 32)).pack([Cancel(1)])[0],
        "changed": first[:-1] + b"\x07",
        "repeated": first + first,
        "left out": second,
        "unsealed": FrameWriter(1000).pack([Goodbye("long enough for a seal")])[0],
        "short": frames.frame(b"x"),
    }[kind]
    reader = FrameReader(1000)
    reader.seal = Seal(KEY)
    with pytest.raises(ProtocolError, match="seal does not fit"):
        feed(reader, wire)


def test_decoded_messages_do_not_alias_the_room() -> None:
    """The room is written over by the next read while calls still wait in mailboxes."""
    reader = FrameReader(LIMIT)
    wire, _ = FrameWriter(LIMIT).pack([Reply(1, b"first")])
    room = reader.writable()
    room[: len(wire)] = wire
    reader.filled(len(wire))
    payload = reader.next()
    assert payload is not None
    (message,) = frames.decode(payload)
    room[:] = bytes(len(room))
    assert message == Reply(1, b"first")


def test_recursion_limit_bounds_depth() -> None:
    """Nesting costs stack; it ends in an error long before the stack does."""
    deep = b"\x91\x95\x04\x01" + b"\x91" * (sys.getrecursionlimit() * 2)
    with pytest.raises(ProtocolError, match="recursion"):
        frames.decode(deep)
