"""TLS links: whose certificate is believed, what it proves, and how it is renewed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from cryptography.hazmat.primitives import serialization  # trustme stands on it

from durum.config import Limits, Tls, tls_of
from durum.errors import ConfigError, IncompatibleSilo
from durum.ids import Address, SiloId, join_address, split_address
from durum.testing.run import run
from durum.wire import links
from durum.wire.connection import Connection
from durum.wire.handshake import Introduction, TlsChannel
from durum.wire.loopback import LoopbackNetwork
from durum.wire.messages import Reply
from durum.wire.network import Network, TcpNetwork
from durum.wire.tls import Certificates, certificates
from tests.support.certificates import Authority
from tests.support.wire import ANYWHERE, OTHER_SECRET, SECRET, Recorder, call, client, echo, silo

LIMITS = Limits(handshake_s=2)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def impostor(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another CA, which signs for the same hosts."""
    return Authority(tmp_path_factory.mktemp("impostor"), "impostor")


@dataclass
class Door:
    """A silo that speaks TLS."""

    server: links.Server
    inside: Recorder
    network: Network

    async def enter(self, introduction: Introduction) -> Connection:
        return await links.dial(self.network, self.server.address, introduction, Recorder(), LIMITS)


@contextlib.asynccontextmanager
async def door(
    tls: Tls | None, *secrets: bytes, network: Network | None = None, limits: Limits = LIMITS
) -> AsyncIterator[Door]:
    network = network or TcpNetwork()
    inside = Recorder(echo)
    introduction = replace(silo(*secrets), tls=tls)
    server = await links.serve(network, ANYWHERE, introduction, inside, limits)
    try:
        yield Door(server, inside, network)
    finally:
        for connection in server.connections:
            connection.abort()
            await connection.wait_closed()
        await server.close()


async def leave(connection: Connection) -> None:
    connection.abort()
    await connection.wait_closed()


Main = Callable[[], Coroutine[Any, Any, None]]


def on_asyncio(main: Main) -> None:
    asyncio.run(main())


def on_uvloop(main: Main) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def in_simulation(main: Main) -> None:
    run(main(), 1)


loops = pytest.mark.parametrize("on_loop", [on_asyncio, on_uvloop])


@pytest.mark.parametrize("on_loop", [on_asyncio, on_uvloop, in_simulation])
def test_mutual_tls_needs_no_secret(on_loop: Callable[[Main], None], authority: Authority) -> None:
    """Certificates of one CA prove who both are; frames of any size pass, and none is sealed twice."""

    async def main() -> None:
        network = LoopbackNetwork() if on_loop is in_simulation else TcpNetwork()
        async with door(authority.silo(), network=network) as home:
            near = await home.enter(replace(client(), tls=authority.client()))
            far = home.inside.connections[0]
            assert near.peer.authenticated
            assert far.peer.authenticated
            assert near.trusted
            assert far.trusted
            assert near._writer._seal is None  # TLS seals already
            for size in (0, 1, 16_383, 16_384, 70_000, 3_000_000):
                answer = await near.request(call(near.next_id(), b"x" * size))
                assert isinstance(answer, Reply)
                assert len(answer.result) == size
            many = [near.request(call(near.next_id(), bytes([n % 256]))) for n in range(2000)]
            results = [(await each).result for each in many]  # type: ignore[union-attr]
            assert results == [bytes([n % 256]) for n in range(2000)]
            near.close()
            await near.wait_closed()
            await far.wait_closed()

    on_loop(main)


@loops
def test_certificate_of_another_ca_is_turned_away(
    on_loop: Callable[[Main], None], authority: Authority, impostor: Authority
) -> None:
    """By the silo where a client has it, by the client where a silo has it."""

    async def main() -> None:
        async with door(authority.silo()) as home:
            foreign = msgspec.structs.replace(impostor.client(), ca=authority.file)
            with pytest.raises((IncompatibleSilo, ConnectionError), match=r"refused|TLS|reset"):
                await home.enter(replace(client(), tls=foreign))
            with pytest.raises(IncompatibleSilo, match="certificate is not believed here"):
                await home.enter(replace(client(), tls=impostor.client()))
            with pytest.raises((IncompatibleSilo, ConnectionError)):
                await home.enter(replace(client(), tls=Tls(ca=authority.file)))
            assert home.inside.connections == []

    on_loop(main)


def test_silo_is_compared_with_the_name_it_is_called_by(authority: Authority) -> None:
    """A client's certificate, or another host's, must not do for a silo's."""

    async def main() -> None:
        async with door(authority.silo("10.9.8.7", name="elsewhere")) as home:
            with pytest.raises(IncompatibleSilo, match="IP address mismatch"):
                await home.enter(replace(client(), tls=authority.client()))
        named = authority.silo("silo.durum.example", name="named", server_name="silo.durum.example")
        async with door(named) as home:
            with pytest.raises(IncompatibleSilo, match="mismatch"):
                await home.enter(replace(client(), tls=authority.client()))
            tls = authority.client(server_name="silo.durum.example")
            near = await home.enter(replace(client(), tls=tls))
            await leave(near)

    asyncio.run(main())


def test_client_certificate_is_none_to_join_with(authority: Authority) -> None:
    """Whoever may call must not thereby be able to act as a silo, which others hand partitions to."""

    async def main() -> None:
        async with door(authority.silo()) as home:
            posing = replace(silo(), tls=authority.client())
            with pytest.raises(IncompatibleSilo, match="certificate is not for the silo"):
                await home.enter(posing)
            near = await home.enter(replace(silo(), tls=authority.silo(name="second")))
            assert home.inside.connections[0].peer.role == "silo"
            await leave(near)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("names", "server_name", "name", "fits"),
    [
        (("127.0.0.1",), "", "127.0.0.1:7600@1", True),
        (("0:0:0:0:0:0:0:1",), "", "[::1]:7600@1", True),
        (("a.example",), "", "A.example.:7600@1", True),
        (("*.example",), "", "a.example:7600@1", True),
        (("*.example",), "", "a.b.example:7600@1", False),
        (("b.example",), "", "a.example:7600@1", False),
        (("silos",), "silos", "10.0.0.1:7600@1", True),
        (("10.0.0.1",), "silos", "10.0.0.1:7600@1", False),
        ((), "", "10.0.0.1:7600@1", False),
    ],
)
def test_certificate_names_a_silo(
    names: tuple[str, ...], server_name: str, name: str, fits: bool
) -> None:
    """The rule is the one by which dialers compare, so whoever can be dialed can also dial."""
    channel = TlsChannel(binding=b"", vouched=True, names=names, server_name=server_name)
    assert channel.may_be_silo(SiloId(name)) is fits


class Middle(asyncio.Protocol):
    """A man in the middle: ends TLS towards both sides with his own certificate, and relays."""

    def __init__(self, target: Address, own: ssl.SSLContext) -> None:
        self._target, self._own = target, own

    @classmethod
    async def stand(cls, target: Address, tls: Tls) -> tuple[asyncio.Server, Address, list[int]]:
        server_side = certificates(tls).listening().context
        client_side = ssl.create_default_context()
        client_side.check_hostname = False
        client_side.verify_mode = ssl.CERT_NONE
        relayed: list[int] = []

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(
                *split_address(target), ssl=client_side
            )

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                with contextlib.suppress(ConnectionError):
                    while data := await source.read(65536):
                        relayed.append(len(data))
                        sink.write(data)
                sink.close()

            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

        host, _ = split_address(target)
        server = await asyncio.start_server(relay, host, 0, ssl=server_side)
        return server, join_address(host, server.sockets[0].getsockname()[1]), relayed


@pytest.mark.parametrize("knows_the_ca", [False, True])
def test_relayed_proof_of_the_secret_is_worth_nothing(
    authority: Authority, impostor: Authority, knows_the_ca: bool
) -> None:
    """Whoever stands in the middle passes the proofs on unchanged; they name the certificate that each
    side saw, so neither fits. Even with a certificate that both sides would believe."""

    async def main() -> None:
        tls = msgspec.structs.replace(authority.silo(), ca=None)
        async with door(tls, SECRET) as home:
            his = (authority if knows_the_ca else impostor).silo("127.0.0.1", name="middle")
            middle, address, relayed = await Middle.stand(
                home.server.address, msgspec.structs.replace(his, ca=None)
            )
            trusting = Tls(ca=authority.file) if knows_the_ca else Tls(verify_peer=False)
            with pytest.raises(
                (IncompatibleSilo, ConnectionError), match=r"another certificate|closed"
            ):
                await links.dial(
                    TcpNetwork(), address, replace(client(SECRET), tls=trusting), Recorder(), LIMITS
                )
            assert len(relayed) >= 3  # he did relay the handshake
            assert home.inside.connections == []
            straight = await home.enter(replace(client(SECRET), tls=trusting))
            assert straight.trusted
            await leave(straight)
            middle.close()
            await middle.wait_closed()

    asyncio.run(main())


@pytest.mark.parametrize("secrets", [(), (OTHER_SECRET,)])
def test_tls_without_a_ca_asks_for_the_secret(
    authority: Authority, secrets: tuple[bytes, ...]
) -> None:
    """Encryption alone lets nobody in."""

    async def main() -> None:
        tls = msgspec.structs.replace(authority.silo(), ca=None)
        async with door(tls, SECRET) as home:
            with pytest.raises(IncompatibleSilo, match="secret"):
                await home.enter(replace(client(*secrets), tls=Tls(ca=authority.file)))

    asyncio.run(main())


def test_both_sides_are_told_where_only_one_speaks_tls(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """The usual mistake of a first set-up names itself, on both sides."""

    async def main() -> None:
        async with door(authority.silo()) as home:
            with pytest.raises(IncompatibleSilo, match="this side speaks TLS, that side does not"):
                await home.enter(client())
            assert "wrong version number. Does the other side speak TLS?" in caplog.text
        async with door(None) as home:
            with pytest.raises(ConnectionError, match="It may speak no TLS"):
                await home.enter(replace(client(), tls=authority.client()))
            while home.server.connections:
                await asyncio.sleep(0.01)
            assert "It speaks TLS, and this side does not" in caplog.text

    asyncio.run(main())


@loops
@pytest.mark.parametrize(
    "says", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\xff\xff"]
)
def test_stranger_who_never_ends_the_tls_handshake_is_closed(
    on_loop: Callable[[Main], None], authority: Authority, says: bytes
) -> None:
    """Time runs from the first byte, not from the end of the TLS handshake."""

    async def main() -> None:
        async with door(authority.silo(), limits=Limits(handshake_s=0.3)) as home:
            reader, writer = await asyncio.open_connection(*split_address(home.server.address))
            since = asyncio.get_running_loop().time()
            writer.write(says)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            assert asyncio.get_running_loop().time() - since < 2
            writer.close()
            while home.server.connections:
                await asyncio.sleep(0.01)
            assert home.inside.connections == []

    on_loop(main)


def test_garbage_inside_tls_ends_the_connection(authority: Authority) -> None:
    """A record that was changed on its way, or that is none."""

    async def main() -> None:
        async with door(authority.silo()) as home:
            near = await home.enter(replace(client(), tls=authority.client()))
            raw = near._transport._below  # type: ignore[attr-defined]
            raw.write(b"\x17\x03\x03\x00\x20" + os.urandom(32))
            far = home.inside.connections[0]
            await far.wait_closed()
            assert "TLS failed" in str(home.inside.ends[0])
            await leave(near)

    asyncio.run(main())


def test_certificates_are_renewed_without_a_restart(tmp_path: Path) -> None:
    """Old connections go on; new ones get the new certificate, also under a new CA."""
    authority = Authority(tmp_path)
    tls = authority.silo()

    async def main() -> None:
        async with door(tls) as home:

            async def seen() -> bytes:
                near = await home.enter(replace(client(), tls=authority.client()))
                certificate = near._transport.get_extra_info("ssl_object").getpeercert(True)
                answer = await near.request(call(near.next_id()))
                assert isinstance(answer, Reply)
                kept.append(near)
                return bytes(certificate)

            kept: list[Connection] = []
            first = await seen()
            assert await seen() == first
            authority.silo()  # writes over the files
            second = await seen()
            assert second != first
            for near in kept:
                assert isinstance(await near.request(call(near.next_id())), Reply)
                await leave(near)

    asyncio.run(main())


def test_half_written_certificates_leave_the_old_ones_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A renewal writes one file after the other; nobody may be turned away in between."""
    authority = Authority(tmp_path)
    tls = authority.silo()
    kept = Certificates(tls)
    first = kept.listening()
    assert kept.listening() is first
    cert, key = Path(tls.cert or ""), Path(tls.key or "")
    before = key.read_bytes()
    authority.silo()
    renewed, key_renewed = cert.read_bytes(), key.read_bytes()
    key.write_bytes(before)
    assert kept.listening() is first
    assert kept.listening() is first
    assert caplog.text.count("new certificates cannot be used; the old ones stay") == 1
    cert.unlink()
    assert kept.listening() is first
    cert.write_bytes(renewed)
    key.write_bytes(key_renewed)
    second = kept.listening()
    assert second is not first
    assert second.digest != first.digest
    assert repr(kept).startswith("<Certificates Tls(")


@pytest.mark.parametrize(
    ("tls", "text"),
    [
        (lambda d: Tls(cert=d / "none.pem"), "none.pem cannot be used: No such file"),
        (lambda d: Tls(cert=d / "ca.pem"), "ca.pem cannot be used"),
        (lambda d: Tls(cert=d / "ca-silo.pem", key=d / "other.key"), "KEY_VALUES_MISMATCH"),
        (
            lambda d: Tls(cert=d / "ca-silo.pem", key=d / "ca-silo.key", ca=d / "empty"),
            "CA certificates in .*empty cannot be used",
        ),
        (lambda d: Tls(ca=d / "ca.pem"), "needs a certificate"),
    ],
    ids=["missing", "no key", "other key", "empty ca", "no certificate"],
)
def test_files_that_cannot_be_used_are_named(
    tmp_path: Path, tls: Callable[[Path], Tls], text: str
) -> None:
    """TLS's own messages name no file."""
    authority = Authority(tmp_path)
    authority.silo()
    _, key = authority.issue("other", "x.example")
    key.rename(tmp_path / "other.key")
    (tmp_path / "empty").touch()

    async def main() -> None:
        with pytest.raises(ConfigError, match=text):
            async with door(tls(tmp_path)):
                pass

    asyncio.run(main())


def test_encrypted_key_is_refused_without_asking(tmp_path: Path) -> None:
    """OpenSSL would ask for the password at the terminal, and a silo would hang there."""
    tls = Authority(tmp_path).silo()
    path = Path(tls.key or "")
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    with pytest.raises(ConfigError, match="is encrypted; give it without a password"):
        Certificates(tls).listening()


@pytest.mark.parametrize(
    ("make", "refused"),
    [
        (lambda a: a.silo(), False),
        (lambda a: msgspec.structs.replace(a.silo(), ca=None), True),
        (lambda a: msgspec.structs.replace(a.silo(), verify_peer=False), True),
    ],
    ids=["mutual", "no ca", "believes anybody"],
)
def test_beyond_loopback_tls_must_be_mutual_where_there_is_no_secret(
    authority: Authority, make: Callable[[Authority], Tls], refused: bool
) -> None:
    """Encryption to anybody who comes is no authentication."""
    introduction = replace(silo(), tls=make(authority))
    if not refused:
        links.refuse_exposed(Address("0.0.0.0:7600"), introduction)
        return
    with pytest.raises(ConfigError, match=r"can be reached from other hosts, .* nor a TLS CA"):
        links.refuse_exposed(Address("0.0.0.0:7600"), introduction)
    links.refuse_exposed(Address("0.0.0.0:7600"), replace(introduction, secrets=(SECRET,)))


def test_tls_settings_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers are given paths that way; what is said in code goes first."""
    assert tls_of(None) is None
    monkeypatch.setenv("DURUM_TLS_CA", "/run/ca.pem")
    monkeypatch.setenv("DURUM_TLS_CERT", "/run/tls.pem")
    monkeypatch.setenv("DURUM_TLS_SERVER_NAME", "silos")
    assert tls_of(None) == Tls(cert="/run/tls.pem", ca="/run/ca.pem", server_name="silos")
    assert tls_of(Tls(ca="mine")) == Tls(ca="mine")
    with pytest.raises(ConfigError, match="key was given without a certificate"):
        Tls(key="k")


def test_old_tls_is_not_spoken(authority: Authority) -> None:
    """Both ends are Durum, so nothing older than 1.3 is ever needed."""

    async def main() -> None:
        async with door(authority.silo()) as home:
            context = ssl.create_default_context(cafile=str(authority.file))
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection(*split_address(home.server.address), ssl=context)

    asyncio.run(main())


def test_secured_transport_shows_where_it_stands(authority: Authority) -> None:
    """What is alive can be looked at, and shows no secret."""

    async def main() -> None:
        async with door(authority.silo()) as home:
            near = await home.enter(replace(client(), tls=authority.client()))
            transport = near._transport
            assert repr(transport) == "<SecuredTransport dialer open>"
            assert transport.get_protocol() is near
            assert transport.is_reading()
            await leave(near)
            assert repr(transport) == "<SecuredTransport dialer over>"
            assert transport.is_closing()
            transport.write(b"after the end")

    asyncio.run(main())
