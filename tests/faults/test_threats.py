"""The threats that docs/security.md names, each tried on a whole silo over real TCP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import resource
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

import durum
from durum import Actor, Limits, Opaque, SiloConfig, errors
from durum.grains import failure
from durum.grains.kind import kind_of
from durum.ids import Address, GrainId, SiloId, join_address, split_address
from durum.wire import frames, links, stream, values
from durum.wire import greeting as wire_greeting
from durum.wire.connection import Connection
from durum.wire.handshake import Introduction
from durum.wire.messages import AnyMessage, Call, Failure, Gossip, HandOver, Probe, Reply
from durum.wire.network import TcpNetwork
from tests.support.certificates import Authority

SECRET = "correct horse battery staple 1949"
RAN: list[str] = []
"""What code of a payload has done."""


class Bomb:
    """Its pickle runs code when it is opened."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return RAN.append, ("opened",)


class Vault(Actor):
    """What is attacked."""

    opened: ClassVar[list[str]] = []
    total: int = 0

    async def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    async def echo(self, value: Any) -> Any:
        return value

    async def keep(self, thing: Opaque[Any]) -> str:
        return type(thing).__name__

    async def fetch(self) -> Opaque[Any]:
        return {self.total}

    async def fail(self, note: str) -> None:
        raise ValueError("the method's own words")

    async def _private(self) -> None:
        RAN.append("private")


@dataclass
class Listener:
    """Takes what a silo says unasked."""

    heard: list[AnyMessage] = field(default_factory=list)

    def opened(self, connection: Connection) -> None: ...

    def received(self, connection: Connection, message: AnyMessage) -> None:
        self.heard.append(message)

    def closed(self, connection: Connection, error: Exception | None) -> None: ...


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


@contextlib.asynccontextmanager
async def serving(
    secret: str = SECRET, limits: Limits | None = None, tls: durum.Tls | None = None
) -> AsyncIterator[durum.Silo]:
    config = SiloConfig(limits=limits or Limits(), partitions=16)
    async with durum.Silo(kinds=[Vault], secret=secret, tls=tls, config=config) as silo:
        yield silo
        async with silo.connect() as cluster:  # whatever happened, others are served
            assert await cluster.actor(Vault, "others").echo("still") == "still"


async def dial(silo: durum.Silo, secret: str = SECRET, **more: Any) -> Connection:
    """Connect as somebody who may, and then does what no client of ours would."""
    introduction = Introduction(
        **{
            "role": "client",
            "cluster": "default",
            "secrets": (secret.encode(),) if secret else (),
            **more,
        }
    )
    return await links.dial(TcpNetwork(), silo.address, introduction, Listener(), Limits())


async def ask(
    connection: Connection, method: str, args: bytes, grain: str = "Vault/one"
) -> AnyMessage:
    return await connection.request(Call(connection.next_id(), GrainId(grain), method, args, 5_000))


async def leave(connection: Connection) -> None:
    connection.abort()
    await connection.wait_closed()


def pickled(value: object) -> bytes:
    """The arguments of a call with one pickled value."""
    return b"\x91" + values.encode_fast(msgspec.msgpack.Ext(values.PICKLED, pickle.dumps(value)))


# A stranger joins -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "who",
    [
        {"secrets": ()},
        {"secrets": (b"not the right one at all",)},
        {
            "role": "silo",
            "silo": SiloId("127.0.0.1:1@1"),
            "secrets": (b"guessed, guessed, guessed",),
        },
        {"cluster": "another"},
        {"role": "silo", "silo": SiloId("127.0.0.1:1@1"), "mark": "00" * 16},
    ],
    ids=["no secret", "wrong secret", "a silo by guessing", "other cluster", "other service"],
)
async def test_stranger_does_not_join(who: dict[str, Any]) -> None:
    """Neither as a client nor as a silo, which others would hand partitions to."""
    async with serving() as silo:
        with pytest.raises(errors.IncompatibleSilo):
            await dial(silo, **who)
        assert [row.silo for row in silo.life.membership.view.rows] == [silo.id]


async def test_stranger_without_a_certificate_does_not_join(tmp_path: Path) -> None:
    """Mutual TLS alone keeps strangers out, and a client's certificate is none to be a silo with."""
    authority = Authority(tmp_path)
    async with serving("", tls=authority.silo()) as silo:
        for tls in (None, durum.Tls(ca=authority.file)):
            with pytest.raises((errors.IncompatibleSilo, ConnectionError)):
                await dial(silo, "", tls=tls)
        posing = {"role": "silo", "silo": SiloId("127.0.0.1:1@1"), "tls": authority.client()}
        with pytest.raises(errors.IncompatibleSilo, match="certificate is not for the silo"):
            await dial(silo, "", **posing)
        allowed = await dial(silo, "", tls=authority.client())
        assert isinstance(await ask(allowed, "add", b"\x91\x01"), Reply)
        await leave(allowed)


@pytest.mark.parametrize("message", [Probe(1, 1), HandOver(1, 9, (0, 1, 2)), Gossip(10**9)])
async def test_client_cannot_speak_as_a_silo(message: AnyMessage) -> None:
    """Knowing the secret as a client is no leave to take partitions."""
    async with serving() as silo:
        client = await dial(silo)
        client.send(message)
        await client.wait_closed()
        assert silo.life.ownership.holding(0) is not None


# Code by payload ------------------------------------------------------------------------------------


async def test_stranger_cannot_have_anything_unpickled() -> None:
    """Before the proof nothing is decoded; without a secret nobody is ever trusted with a pickle."""
    async with serving() as silo:
        reader, writer = await asyncio.open_connection(*split_address(silo.address))
        writer.write(frames.frame(pickle.dumps(Bomb())))
        writer.write(
            frames.FrameWriter(4096).pack([Call(1, GrainId("Vault/x"), "keep", pickled(Bomb()))])[0]
        )
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
    async with serving("") as silo:
        open_to_all = await dial(silo, "")
        answer = await ask(open_to_all, "keep", pickled(Bomb()))
        assert isinstance(answer, Failure)
        assert (answer.error, answer.did_run) == ("NotAuthorized", "no")
        answer = await ask(open_to_all, "fetch", b"\x90")
        assert isinstance(answer, Failure)
        assert answer.error == "NotAuthorized"
        await leave(open_to_all)
        async with durum.connect(silo.address) as cluster:
            with pytest.raises(errors.NotAuthorized, match="nothing was sent, it did not run"):
                await cluster.actor(Vault, "x").keep(1)
    assert RAN == []


async def test_pickle_travels_between_those_who_proved_themselves(tmp_path: Path) -> None:
    """The same calls over links that are trusted: with the secret on one host, and with mutual TLS."""
    authority = Authority(tmp_path)
    for secret, tls in ((SECRET, None), ("", authority.silo()), (SECRET, authority.silo())):
        async with serving(secret, tls=tls) as silo, silo.connect() as cluster:
            assert await cluster.actor(Vault, "x").keep({1, 2}) == "set"
            assert await cluster.actor(Vault, "x").fetch() == {0}
            assert await cluster.actor(Vault, "x").keep(Bomb()) == "NoneType"
    assert RAN == ["opened"] * 3


async def test_pickle_is_refused_on_a_link_that_others_can_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond this host without TLS: sealed frames cannot be forged, but pickles ask for more."""
    monkeypatch.setattr(stream, "is_local", lambda transport: False)
    monkeypatch.setattr(wire_greeting, "is_local", lambda transport: False)
    async with serving() as silo:
        far = await dial(silo)
        assert far.peer.authenticated
        answer = await ask(far, "keep", pickled(Bomb()))
        assert isinstance(answer, Failure)
        assert answer.error == "NotAuthorized"
        assert isinstance(await ask(far, "add", b"\x91\x01"), Reply)
        await leave(far)
    assert RAN == []


@pytest.mark.parametrize("method", ["add", "echo", "fail"])
async def test_pickle_in_a_typed_argument_is_refused(method: str) -> None:
    """Also from those who are trusted: only a parameter that says Opaque is ever unpickled."""
    async with serving() as silo:
        friend = await dial(silo)
        answer = await ask(friend, method, pickled(Bomb()))
        assert isinstance(answer, Failure)
        assert (answer.error, answer.did_run) == ("ArgumentError", "no")
        await leave(friend)
    assert RAN == []


@pytest.mark.parametrize(
    "type_name",
    [
        "os:system",
        "subprocess:Popen",
        "builtins:eval",
        "builtins:exec",
        "builtins:SystemExit",
        "durum.wire.opaque:seal",
        "no_such_module_at_all:Error",
        "builtins:ValueError.__class__",
    ],
)
def test_exception_named_by_data_is_never_imported(type_name: str) -> None:
    """A silo that was taken over must not choose what its clients import or call."""
    answer = Failure(1, "", errors.DidRun.ROLLED_BACK, "text", type_name, values.encode(["id"]))
    rebuilt = failure.rebuild(answer, kind_of(Vault))
    assert type(rebuilt) is errors.RemoteError


# Replay, man in the middle --------------------------------------------------------------------------


class Tap:
    """Stands between a client and a silo, and keeps what passes."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.to_silo: asyncio.StreamWriter | None = None

    @contextlib.asynccontextmanager
    async def before(self, target: Address) -> AsyncIterator[Address]:
        host, port = split_address(target)

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(host, port)
            self.to_silo = far_writer

            async def pump(
                source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: list[bytes]
            ) -> None:
                with contextlib.suppress(ConnectionError):
                    while data := await source.read(65536):
                        kept.append(data)
                        sink.write(data)
                sink.close()

            await asyncio.gather(pump(reader, far_writer, self.kept), pump(far_reader, writer, []))

        server = await asyncio.start_server(relay, host, 0)
        try:
            yield join_address(host, server.sockets[0].getsockname()[1])
        finally:
            server.close()
            await server.wait_closed()


@pytest.mark.parametrize("change", ["repeat", "flip", "insert"])
async def test_man_in_the_middle_can_only_cut(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """A frame that is repeated, changed or made up ends the connection; its call never runs."""
    monkeypatch.setattr(stream, "is_local", lambda transport: False)
    monkeypatch.setattr(wire_greeting, "is_local", lambda transport: False)
    async with serving() as silo:
        tap = Tap()
        async with tap.before(silo.address) as address:
            silo_address = silo.address
            introduction = Introduction(
                role="client", cluster="default", secrets=(SECRET.encode(),)
            )
            client = await links.dial(TcpNetwork(), address, introduction, Listener(), Limits())
            answer = await ask(client, "add", b"\x91\x05")
            assert isinstance(answer, Reply)
            frame = tap.kept[-1]
            if change == "flip":
                frame = frame[:-1] + bytes([frame[-1] ^ 1])
            elif change == "insert":
                frame = frames.FrameWriter(4096).pack(
                    [Call(99, GrainId("Vault/one"), "add", b"\x91\x05")]
                )[0]
            assert tap.to_silo is not None
            tap.to_silo.write(frame)
            await client.wait_closed()
            assert silo_address == silo.address
        async with silo.connect() as cluster:
            assert await cluster.actor(Vault, "one").add(0) == 5


async def test_recorded_handshake_opens_nothing() -> None:
    """Both sides' nonces are in the proof, so yesterday's is worth nothing today."""
    async with serving() as silo:
        tap = Tap()
        async with tap.before(silo.address) as address:
            introduction = Introduction(
                role="client", cluster="default", secrets=(SECRET.encode(),)
            )
            client = await links.dial(TcpNetwork(), address, introduction, Listener(), Limits())
            assert isinstance(await ask(client, "add", b"\x91\x05"), Reply)
            await leave(client)
        reader, writer = await asyncio.open_connection(*split_address(silo.address))
        writer.write(b"".join(tap.kept))
        heard = b""
        with contextlib.suppress(ConnectionError):
            heard = await reader.read()
        assert b"different cluster secrets" in heard
        writer.close()
        async with silo.connect() as cluster:
            assert await cluster.actor(Vault, "one").add(0) == 5


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
        cancel = frames.FrameWriter(4096).pack([durum_cancel(7)])[0]
        for _ in range(50):
            friend._transport.write(frames.frame(b"\x90") * 2_000 + cancel * 2_000)
            await asyncio.sleep(0)
        assert isinstance(await ask(friend, "add", b"\x91\x01"), Reply)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 32 * 1024, "kilobytes"
        await leave(friend)


def durum_cancel(request: int) -> AnyMessage:
    from durum.wire.messages import Cancel  # noqa: PLC0415

    return Cancel(request)


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
    assert RAN == []


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


# Leaks ----------------------------------------------------------------------------------------------


async def test_secrets_and_arguments_are_never_told(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by logs at any level, not by errors, not by what objects show of themselves."""
    caplog.set_level(logging.DEBUG)
    private = "argument-that-nobody-else-may-see"
    told: list[object] = []
    async with serving() as silo:
        with pytest.raises(errors.IncompatibleSilo) as wrong:
            await dial(silo, "another secret that is private")
        told.append(wrong.value)
        friend = await dial(silo)
        for method, args in (
            ("add", values.encode([private])),
            ("fail", values.encode([private])),
            ("echo", values.encode([private])[:-3]),
            ("echo", values.encode([private, private])),
            ("keep", values.encode([private])),
        ):
            answer = await ask(friend, method, args)
            assert isinstance(answer, Failure)
            told += [answer, failure.rebuild(answer, kind_of(Vault))]
        async with silo.connect() as cluster:
            with pytest.raises(ValueError, match="own words") as own:
                await cluster.actor(Vault, "one").fail(private)
            told += [own.value, *own.value.__notes__, cluster, cluster._introduction]
            with pytest.raises(errors.ArgumentError) as bad:
                await cluster.actor(Vault, "one").add(private)  # type: ignore[arg-type]
            told.append(bad.value)
        told += [silo, silo.life, silo._settings, friend, *silo.life._server.connections]
        await leave(friend)
    shown = (
        "\n".join(f"{each!r} {each}" for each in told) + caplog.text + "".join(capsys.readouterr())
    )
    for word in (SECRET, "another secret that is private", private):
        assert word not in shown


def test_secret_is_no_option_of_any_command() -> None:
    """Arguments of processes are seen by every user of a machine."""
    import click  # noqa: PLC0415

    from durum.cli.main import main  # noqa: PLC0415

    context = click.Context(main)
    options = [
        option
        for name in main.list_commands(context)
        if (command := main.get_command(context, name)) is not None
        for parameter in command.params
        for option in parameter.opts
    ]
    assert "--secret-file" in options
    assert not [o for o in options if "secret" in o and o != "--secret-file"]
    assert not [o for o in options if "password" in o or "token" in o]
    assert os.environ.get("DURUM_SECRET") is None
