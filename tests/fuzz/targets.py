"""What is fuzzed: for each target how it takes one input, what may come of it, and where inputs begin.

A target fails by raising anything that it does not name, by keeping more memory than it may, or by taking
too long. Both the script (`python -m tests.fuzz`) and tests/unit/wire/test_fuzz.py use these.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from durum import Actor, Limits, Opaque, errors
from durum.grains.kind import kind_of
from durum.ids import GrainId, SiloId
from durum.wire import frames, handshake, messages, opaque, untyped, values
from durum.wire.connection import Connection
from durum.wire.frames import FrameReader, FrameWriter, ProtocolError, Seal
from durum.wire.handshake import Handshake, Side, Step
from durum.wire.messages import AnyMessage, Call
from durum.wire.shapes import Misfit
from durum.wire.values import Codec
from tests.support import bombs
from tests.support.wire import OTHER_SECRET, SECRET, Recorder, client, silo

LIMIT_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Target:
    """One way in.

    Args:
        take: takes one input; raises AssertionError or anything unforeseen where it fails.
        corpus: inputs that are valid, to be changed.
    """

    take: Callable[[bytes], None]
    corpus: Sequence[bytes]


def sent() -> list[AnyMessage]:
    """One message of each kind."""
    grain, me = GrainId("Kind/key"), SiloId("10.0.0.1:7600@1")
    return [
        Call(1, grain, "add", b"\x91\x01", 5, "key", (messages.Hop(grain, 3),), 1, "request"),
        messages.Reply(2, b"\xc0"),
        messages.Failure(3, "", errors.DidRun.MAYBE, "text", "a:b", b"\x90", "trace"),
        messages.Cancel(4),
        messages.Moved(5, me.partition("@")[0], 9),  # type: ignore[arg-type]
        messages.Table(6, (), b"\xff\xff", (("Kind",),), (me,)),
        messages.Goodbye("bye"),
        messages.Probe(7, 8, me),
        messages.Ack(9, 10, alive=False),
        messages.HandOver(11, 12, (1, 2)),
        messages.Released(13, ((1, b"t" * 16),), more=True),
        messages.Gossip(14),
    ]


def framed(*batch: AnyMessage, seal: Seal | None = None) -> bytes:
    return FrameWriter(LIMIT_BYTES, seal).pack(batch)[0]


# Frames ---------------------------------------------------------------------------------------------


def take_frames(data: bytes) -> None:
    """A stream of frames, in pieces, with and without seals."""
    for seal in (None, Seal(b"key")):
        reader = FrameReader(LIMIT_BYTES)
        reader.seal = seal
        rest = memoryview(data)
        try:
            while rest:
                room = reader.writable()
                part = rest[: min(len(room), 997)]
                room[: len(part)] = part
                reader.filled(len(part))
                rest = rest[len(part) :]
                while (payload := reader.next()) is not None:
                    batch = frames.decode(payload)
                    assert len(batch) <= frames.MESSAGES_LIMIT
                assert reader.room_bytes <= max(256 * 1024, 4 * len(data) + 8192)
        except ProtocolError:
            pass


FRAMES = Target(
    take_frames,
    [
        framed(*sent()),
        *(framed(one) for one in sent()),
        framed(sent()[0], seal=Seal(b"key")) + framed(sent()[1]),
        framed(*[messages.Cancel(n) for n in range(300)]),
    ],
)


# Handshakes -----------------------------------------------------------------------------------------


def bodies() -> list[bytes]:
    """What is said in handshakes that succeed, and in those that do not."""
    found = [handshake.refusal("no room", again=True), handshake.refusal("no")]
    for secrets in ((), (SECRET,), (OTHER_SECRET, SECRET)):
        dialer = Handshake(client(*secrets), Side.DIALER, private=False)
        listener = Handshake(silo(*secrets), Side.LISTENER, private=False)
        said = dialer.begin()
        ends = [listener, dialer]
        while said:
            found.append(said)
            said = ends[0].receive(said).send
            ends.reverse()
    return found


def take_handshake(data: bytes) -> None:
    """The input as the first word, and as the second, to both sides; no secret is known to it."""
    hello = Handshake(client(SECRET), Side.DIALER, private=False).begin()
    answer = Handshake(silo(SECRET), Side.LISTENER, private=False).receive(hello).send
    for side, first in ((Side.LISTENER, hello), (Side.DIALER, answer)):
        mine = silo(SECRET) if side is Side.LISTENER else client(SECRET)
        for words in ([data], [first, data]):
            one = Handshake(mine, side, private=False)
            one.begin()
            step = Step()
            for word in words:
                if step.error is None:
                    step = one.receive(word)
            assert step.session is None, "somebody came in without the secret"
            assert len(step.send) <= handshake.HANDSHAKE_BYTES


HANDSHAKES = Target(take_handshake, bodies())


# Values ---------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    left: int
    right: str


@dataclass
class Node:
    name: str
    children: list[Node]
    extra: Any = None


class Row(msgspec.Struct):
    id: UUID
    amount: Decimal
    at: dt.datetime | None = None
    tags: dict[str, list[bytes]] = {}


CODECS: Final[Sequence[Codec[Any]]] = [
    values.codec(each)
    for each in (
        *(int, bool, float, str, bytes, Decimal, UUID, dt.datetime, dt.timedelta, Any),
        *(list[int], dict[str, Any], set[str], tuple[int, ...], tuple[int, str], frozenset[int]),
        *(Pair, Node, Row, int | str | None, list[Row | None], dict[int, Pair]),
    )
]
OPAQUE: Final = opaque.codec(Opaque[int])


class Fuzzed(Actor):
    number: int = 0
    node: Node | None = None
    thing: Opaque[Any] = None

    async def add(self, amount: int, node: Node | None = None, *, any_value: Any = None) -> int:
        return amount

    async def keep(self, thing: Opaque[int]) -> None: ...


FUZZED: Final = kind_of(Fuzzed)


def take_values(data: bytes) -> None:
    """Every decoder of values that sees bytes of others. None of them may open a pickle."""
    for codec in CODECS:
        _misfits(codec.decode, data)
        _misfits(codec.decode_json, data)
    readers: tuple[Callable[[bytes], object], ...] = (
        *(values.decode_plain, values.decode_map, values.decode_array, values.as_json),
        *(values.json_document, values.json_parts, untyped.decode),
    )
    for read in readers:
        _misfits(read, data)
    with contextlib.suppress(
        msgspec.MsgspecError, ValueError, RecursionError
    ):  # it is the bare one
        OPAQUE.read(data)
    with contextlib.suppress(errors.ArgumentError):
        FUZZED.methods["add"].invoke(FUZZED.create("key", object()), data).close()
    assert bombs.opened() == 0


def _misfits(read: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(Misfit):
        read(data)


VALUES = Target(
    take_values,
    [
        *(values.encode(each) for each in (None, True, 1, 2**70, -1.5, "text", b"bytes", [1, "a"])),
        *(values.encode(each) for each in ({"a": [1]}, Pair(1, "x"), Node("a", [Node("b", [])]))),
        values.encode(Row(UUID(int=1), Decimal("1.5"), dt.datetime(2024, 1, 1, tzinfo=dt.UTC))),
        values.encode([1, Node("a", [], {"x": 1}), 2**80]),
        untyped.encode(
            (1, {2}, Decimal(3), dt.timedelta(4), dt.date(2024, 1, 1), b"x", UUID(int=2))
        ),
        values.json_arguments(["1", '{"name":"a","children":[]}']),
        bombs.encoded(),
        b"\x91" + bombs.encoded(),
        b'{"name": "a", "children": [{"name": "b", "children": []}]}',
    ],
)


# A whole connection ---------------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """Takes everything, and counts it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.closed = False
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0


def take_connection(data: bytes) -> None:
    """Bytes to an accepted connection, first without a handshake and then after one without a secret."""
    loop = asyncio.get_running_loop()
    for is_open in (False, True):
        recorder = Recorder()
        introduction = silo() if is_open else silo(SECRET)
        limits = Limits(frame_bytes=LIMIT_BYTES)
        connection = Connection(introduction, Side.LISTENER, recorder, limits)
        wire = Wire()
        connection.connection_made(wire)
        if is_open:
            dialer = Handshake(client(), Side.DIALER, private=True)
            said = dialer.begin()
            while said:
                _feed(connection, frames.frame(said))
                said = dialer.receive(wire.written[-1][4:]).send
            assert connection.was_open
        _feed(connection, data)
        if not is_open:
            assert not recorder.connections, "somebody came in without the secret"
            assert not recorder.messages
        for message in recorder.messages:
            assert isinstance(message, AnyMessage)
        connection.abort()
        connection.connection_lost(None)
    assert loop.is_running()


def _feed(connection: Connection, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        room = connection.get_buffer(-1)
        part = rest[: len(room)]
        room[: len(part)] = part
        connection.buffer_updated(len(part))
        rest = rest[len(part) :]


CONNECTIONS = Target(
    take_connection, [*FRAMES.corpus, *(frames.frame(body) for body in HANDSHAKES.corpus)]
)


TARGETS: Final[Mapping[str, Target]] = {
    "frames": FRAMES,
    "handshake": HANDSHAKES,
    "values": VALUES,
    "connection": CONNECTIONS,
}
