"""Memory bombs, and names that are no names, from somebody who knows the secret, on a silo over real TCP."""

from __future__ import annotations

import asyncio
import resource
import struct

import msgspec
import pytest

from durum import Limits
from durum.ids import GrainId
from durum.wire import frames, values
from durum.wire.messages import Call, Cancel, Failure, Reply
from tests.support import bombs
from tests.support.attacks import Vault, ask, dial, leave, serving


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    bombs.disarm()


# Memory bombs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        b"\x91" * 200_000,
        b"\x91" + b"\x81\xa1a" * 100_000 + b"\xc0",
        b"\x91\xdd\xff\xff\xff\xff",
        b"\x91\xdf\xff\xff\xff\xff",
        b"\x91\xc6\xff\xff\xff\xff",
        b"\x91\xdb\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\x91\xc9\xff\xff\xff\xff\x01",
        b"\x91" + values.encode_fast(msgspec.msgpack.Ext(2, b"[" * 100_000)),
        values.encode_fast(msgspec.msgpack.Ext(2, b"[" * 100_000)),
        values.encode_fast(msgspec.msgpack.Ext(2, b"[" + b"9" * 5_000 + b"]")),
        b"",
        b"\xc1",
    ],
    ids=[
        "deep arrays",
        "deep maps",
        "array of 4 G",
        "map of 4 G",
        "bytes of 4 G",
        "text of 4 G",
        "4 G arguments",
        "extension of 4 G",
        "deep JSON inside",
        "deep JSON",
        "long number",
        "nothing",
        "reserved byte",
    ],
)
async def test_bomb_in_arguments_is_a_refusal(args: bytes) -> None:
    """Lengths are believed only as far as bytes have come, and depth has an end."""
    async with serving() as silo:
        friend = await dial(silo)
        for method in ("add", "echo"):
            answer = await ask(friend, method, args)
            assert isinstance(answer, Failure), answer
            assert (answer.error, answer.did_run) == ("ArgumentError", "no")
            assert len(answer.text) < 2_000
        await leave(friend)


@pytest.mark.parametrize(
    "wire",
    [
        b"\xff\xff\xff\xff",
        struct.pack("<I", 4 * 1024 * 1024 + 1),
        frames.frame(b"\xdd\xff\xff\xff\xff"),
        frames.frame(b"\x91" * 100_000),
        frames.frame(b"\xdc\xff\xff" + b"\x92\x04\x01" * 65_535),
        frames.frame(b"\x91\x93\x01\x01\xdb\xff\xff\xff\xff"),
    ],
    ids=["4 GB", "a byte too many", "4 G messages", "deep", "65535 messages", "text of 4 G"],
)
async def test_bomb_in_a_frame_ends_the_connection(wire: bytes) -> None:
    """From a friend too: knowing the secret is no leave to fill the memory."""
    async with serving() as silo:
        friend = await dial(silo)
        friend._transport.write(wire)
        await friend.wait_closed()


async def test_many_small_frames_cost_what_they_are() -> None:
    """Empty frames and frames of one byte: none is kept, and others are served between them."""
    async with serving() as silo:
        friend = await dial(silo)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cancel = frames.FrameWriter(4096).pack([Cancel(7)])[0]
        for _ in range(50):
            friend._transport.write(frames.frame(b"\x90") * 2_000 + cancel * 2_000)
            await asyncio.sleep(0)
        assert isinstance(await ask(friend, "add", b"\x91\x01"), Reply)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 32 * 1024, "kilobytes"
        await leave(friend)


async def test_slow_reader_is_cut_off() -> None:
    """Who asks for much and reads nothing gets neither our memory nor anybody else's time."""
    limits = Limits(unread_bytes=1024 * 1024, unread_s=0.5)
    async with serving(limits=limits) as silo:
        greedy = await dial(silo)
        greedy._transport.pause_reading()
        (far,) = (each for each in silo.life._server.connections if each.peer.role == "client")
        args = b"\x91\xc6" + struct.pack(">I", 100_000) + bytes(100_000)
        largest = 0
        for _ in range(500):
            if greedy._transport.is_closing():
                break
            greedy.send(Call(greedy.next_id(), GrainId("Vault/one"), "echo", args, 5_000))
            await asyncio.sleep(0.005)
            largest = max(largest, far._outflow.unread_bytes)
        assert 0 < largest <= 4 * limits.unread_bytes + 200_000
        async with asyncio.timeout(10):
            await far.wait_closed()
        await leave(greedy)


# Private methods, key injection ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        "_private",
        "__init__",
        "__class__",
        "__reduce__",
        "__dict__",
        "save",
        "actor",
        "deactivate",
        "context",
        "key",
        "total",
        "opened",
        "on_activate",
        "on_deactivate",
        "migrate_state",
        "",
        "add\0",
        "add ",
        "ADD",
        "\u0430dd",
        "echo.__globals__",
        "add()",
        "x" * 60_000,
    ],
)
async def test_method_that_is_not_public_cannot_be_called(method: str) -> None:
    """Names are looked up in a table made at registration, never on the object."""
    async with serving() as silo:
        friend = await dial(silo)
        answer = await ask(friend, method, b"\x90")
        assert isinstance(answer, Failure)
        assert (answer.error, answer.did_run) == ("NoSuchMethod", "no")
        assert len(answer.text) < 1_000
        await leave(friend)
    assert bombs.opened() == 0


HOSTILE = (
    "a",
    "{a}",
    "}a{",
    "a:b",
    "a/b",
    "../a",
    "a\0",
    "a\n",
    "\u0430",
    "a\u0301",
    "\u00e1",
    "*",
    "?",
    "%00",
    "a%2Fb",
    " a",
    "A",
    "__class__",
    "\ud7ff",
    "\U0001f600",
    "x" * 1024,
)


async def test_hostile_keys_are_grains_of_their_own() -> None:
    """Each holds its own number; none reads as another, whatever a store's syntax makes of it."""
    async with serving() as silo, silo.connect() as cluster:
        for amount, key in enumerate(HOSTILE, 1):
            assert await cluster.actor(Vault, key).add(amount) == amount
        for amount, key in enumerate(HOSTILE, 1):
            assert await cluster.actor(Vault, key).add(0) == amount


@pytest.mark.parametrize(
    "grain",
    [
        "",
        "Vault",
        "Vault/",
        "/one",
        "Vault/" + "x" * 1025,
        "vault/one",
        "Vault\0/one",
        "Nobody/one",
        "__main__/x",
        "../Vault/one",
        "Vault /one",
        "x" * 70_000 + "/one",
    ],
)
async def test_hostile_grain_ids_reach_nothing(grain: str) -> None:
    """Our clients send none of these; whoever writes frames himself is refused as shortly."""
    async with serving() as silo:
        friend = await dial(silo)
        answer = await ask(friend, "add", b"\x91\x01", grain)
        assert isinstance(answer, Failure)
        assert (answer.error, answer.did_run) in (("NoSuchKind", "no"), ("ArgumentError", "no"))
        assert len(answer.text) < 1_000
        await leave(friend)
