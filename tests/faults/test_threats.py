"""The threats that docs/security.md names, each tried on a whole silo over real TCP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import durum
from durum import Limits, errors
from durum.grains import failure
from durum.grains.kind import kind_of
from durum.ids import Address, GrainId, SiloId, join_address, split_address
from durum.wire import frames, links, stream, values
from durum.wire import greeting as wire_greeting
from durum.wire.handshake import Introduction
from durum.wire.messages import AnyMessage, Call, Failure, Gossip, HandOver, Luggage, Probe, Reply
from durum.wire.network import TcpNetwork
from tests.support import bombs
from tests.support.attacks import SECRET, Listener, Vault, ask, dial, leave, pickled, serving
from tests.support.certificates import Authority


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    bombs.disarm()


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
        {"wire": (98, 99)},
    ],
    ids=[
        "no secret",
        "wrong secret",
        "a silo by guessing",
        "other cluster",
        "other service",
        "other protocol",
    ],
)
async def test_stranger_does_not_join(who: dict[str, Any]) -> None:
    """Neither as a client nor as a silo, which others would hand partitions to."""
    async with serving() as silo:
        with pytest.raises(errors.IncompatibleSilo):
            await dial(silo, **who)
        assert [row.silo for row in silo.life._table.view.rows] == [silo.id]


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


@pytest.mark.parametrize(
    "message",
    [
        Probe(1, 1),
        HandOver(1, 9, (0, 1, 2)),
        Gossip(10**9),
        Luggage(1, 0, b"t", ((GrainId("Vault/one"), b"\xc0"),)),
    ],
)
async def test_client_cannot_speak_as_a_silo(message: AnyMessage) -> None:
    """Knowing the secret as a client is no leave to take partitions."""
    async with serving() as silo:
        client = await dial(silo)
        client.send(message)
        await client.wait_closed()
        async with silo.connect() as cluster:
            await cluster.actor(Vault, "one").add(1)
        assert silo.life.ownership.wanted(0) == silo.id


# Code by payload ------------------------------------------------------------------------------------


async def test_stranger_cannot_have_anything_unpickled() -> None:
    """Before the proof nothing is decoded; without a secret nobody is ever trusted with a pickle."""
    async with serving() as silo:
        reader, writer = await asyncio.open_connection(*split_address(silo.address))
        writer.write(frames.frame(pickle.dumps(bombs.Bomb())))
        writer.write(
            frames.FrameWriter(4096).pack(
                [Call(1, GrainId("Vault/x"), "keep", pickled(bombs.Bomb()))]
            )[0]
        )
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
    async with serving("") as silo:
        open_to_all = await dial(silo, "")
        answer = await ask(open_to_all, "keep", pickled(bombs.Bomb()))
        assert isinstance(answer, Failure)
        assert (answer.error, answer.did_run) == ("NotAuthorized", "no")
        answer = await ask(open_to_all, "fetch", b"\x90")
        assert isinstance(answer, Failure)
        assert answer.error == "NotAuthorized"
        await leave(open_to_all)
        async with durum.connect(silo.address) as cluster:
            with pytest.raises(errors.NotAuthorized, match="nothing was sent, it did not run"):
                await cluster.actor(Vault, "x").keep(1)
    assert bombs.opened() == 0


async def test_pickle_travels_between_those_who_proved_themselves(tmp_path: Path) -> None:
    """The same calls over links that are trusted: with the secret on one host, and with mutual TLS."""
    authority = Authority(tmp_path)
    for secret, tls in ((SECRET, None), ("", authority.silo()), (SECRET, authority.silo())):
        async with serving(secret, tls=tls) as silo, silo.connect() as cluster:
            assert await cluster.actor(Vault, "x").keep({1, 2}) == "set"
            assert await cluster.actor(Vault, "x").fetch() == {0}
            assert await cluster.actor(Vault, "x").keep(bombs.Bomb()) == "NoneType"
    assert bombs.opened() == 3


async def test_pickle_is_refused_on_a_link_that_others_can_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond this host without TLS: sealed frames cannot be forged, but pickles ask for more."""
    monkeypatch.setattr(stream, "is_local", lambda transport: False)
    monkeypatch.setattr(wire_greeting, "is_local", lambda transport: False)
    async with serving() as silo:
        far = await dial(silo)
        assert far.peer.authenticated
        answer = await ask(far, "keep", pickled(bombs.Bomb()))
        assert isinstance(answer, Failure)
        assert answer.error == "NotAuthorized"
        assert isinstance(await ask(far, "add", b"\x91\x01"), Reply)
        await leave(far)
    assert bombs.opened() == 0


@pytest.mark.parametrize("method", ["add", "echo", "fail"])
async def test_pickle_in_a_typed_argument_is_refused(method: str) -> None:
    """Also from those who are trusted: only a parameter that says Opaque is ever unpickled."""
    async with serving() as silo:
        friend = await dial(silo)
        answer = await ask(friend, method, pickled(bombs.Bomb()))
        assert isinstance(answer, Failure)
        assert (answer.error, answer.did_run) == ("ArgumentError", "no")
        await leave(friend)
    assert bombs.opened() == 0


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

    from durum.cli.main import cli  # noqa: PLC0415

    context = click.Context(cli)
    options = [
        option
        for name in cli.list_commands(context)
        if (command := cli.get_command(context, name)) is not None
        for parameter in command.params
        for option in parameter.opts
    ]
    assert "--secret-file" in options
    assert not [o for o in options if "secret" in o and o != "--secret-file"]
    assert not [o for o in options if "password" in o or "token" in o]
    assert os.environ.get("DURUM_SECRET") is None
