"""TLS between a transport and the protocol on it. Owns one link's encryption; knows no frames.

It stands between the two as a filter, made of the `ssl` module's memory side: so a link is looked at
before anything is kept for it, and the same code runs on every loop and on links inside the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from durum.errors import ClusterError, IncompatibleSilo
from durum.wire import frames, handshake
from durum.wire.handshake import Side, TlsChannel
from durum.wire.tls import Certificates, Ready

_STRANGER_ROOM_BYTES: Final = 4 * 1024
_ROOM_BYTES: Final = 64 * 1024
_HANDSHAKE_RECORD: Final = 0x16
_SPEAK_TLS: Final = "this side speaks TLS, that side does not; give both the same tls= settings"


class Above(Protocol):
    """The protocol on top of a secured link; a BufferedProtocol besides."""

    def secured(self, channel: TlsChannel) -> None:
        """The TLS handshake is done; from here on it may write."""
        ...

    def insecure(self, error: ClusterError) -> None:
        """TLS has failed; it must close the link."""
        ...

    def get_buffer(self, sizehint: int) -> memoryview[int]: ...

    def buffer_updated(self, nbytes: int) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class SecuredTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """A transport to the protocol above, and the protocol of the transport below.

    Args:
        below: the transport; its protocol becomes this.
        above: whom to give what arrives.
        certificates: whose, and whom to believe.
        side: whether this end dialed.
        host: what was dialed, to compare with the certificate there.
    """

    def __init__(
        self,
        below: asyncio.Transport,
        above: Above,
        certificates: Certificates,
        side: Side,
        host: str,
    ) -> None:
        super().__init__()
        self._below = below
        self._above = above
        self._side = side
        self._tls_settings = certificates.tls
        ready = certificates.listening() if side is Side.LISTENER else certificates.dialing()
        self._ready: Ready = ready
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = ready.context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=side is Side.LISTENER,
            server_hostname=None
            if side is Side.LISTENER
            else self._tls_settings.server_name or host,
        )
        self._room = memoryview(bytearray(_STRANGER_ROOM_BYTES))
        self._speaks_tls: bool | None = None
        """Whether the other side does, by the first byte that came."""
        self._is_open = False
        self._is_over = False
        """Closed, failed or lost: nothing goes up or down any more."""

    def __repr__(self) -> str:
        state = "over" if self._is_over else "open" if self._is_open else "handshake"
        return f"<SecuredTransport {self._side} {state}>"

    def begin(self) -> None:
        """Take over the transport below, and begin with the TLS handshake."""
        self._below.set_protocol(self)
        self._shake()

    # From below

    def get_buffer(self, sizehint: int) -> memoryview[int]:  # noqa: ARG002 - the room is fixed
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_over:
            return
        self._incoming.write(self._room[:nbytes])
        if self._is_open:
            self._read()
            return
        if self._speaks_tls is None:
            self._speaks_tls = self._room[0] == _HANDSHAKE_RECORD
        self._shake()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self._above.connection_lost(exc)

    # From above

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._is_over or not data:
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError as exc:
            self._fail(exc)
            return
        self._below.write(self._outgoing.read())

    def close(self) -> None:
        if not self._is_over and self._is_open:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()  # says that no more comes, and would wait to hear the same
            self._flush()
        self._is_over = True
        self._below.close()

    def abort(self) -> None:
        self._is_over = True
        self._below.abort()

    def is_closing(self) -> bool:
        return self._is_over or self._below.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tls if name == "ssl_object" else self._below.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast("asyncio.BaseProtocol", self._above)  # Above says what is needed of it

    def is_reading(self) -> bool:
        return self._below.is_reading()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    # Inside

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as exc:
            self._fail(exc)
            return
        self._flush()
        self._is_open = True
        self._room = memoryview(bytearray(_ROOM_BYTES))
        self._above.secured(self._channel())
        self._read()

    def _read(self) -> None:
        incoming, tls, above = self._incoming, self._tls, self._above
        read = cast("Callable[[int, memoryview[int]], int]", tls.read)  # so it is with a buffer
        while not self._is_over and (incoming.pending or tls.pending()):
            room = above.get_buffer(-1)
            size, got, is_whole = len(room), 0, False
            try:
                while got < size and (incoming.pending or tls.pending()):
                    count = read(size - got, room[got:])
                    if not count:
                        is_whole = True  # the other side says that no more comes
                        break
                    got += count
            except ssl.SSLWantReadError:
                is_whole = True
            except ssl.SSLError as exc:
                self._fail(exc)
                return
            if got:
                above.buffer_updated(got)
            if is_whole:
                break
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())

    def _fail(self, exc: ssl.SSLError) -> None:
        self._flush()  # the alert that tells the other side why
        if self._speaks_tls is False and self._side is Side.LISTENER:
            self._below.write(frames.frame(handshake.refusal(_SPEAK_TLS)))
        was_open, self._is_open = self._is_open, False
        text = _explained(exc, self._side)
        self._above.insecure(
            IncompatibleSilo(text)
            if _is_of_certificates(exc) or not was_open
            else ClusterError(text)
        )

    def _channel(self) -> TlsChannel:
        other = self._tls.getpeercert(binary_form=True)
        settings = self._tls_settings
        if self._side is Side.DIALER:
            binding = hashlib.sha256(other or b"").digest()
            vouched = settings.verify_peer
        else:
            binding = self._ready.digest
            vouched = settings.verify_peer and settings.ca is not None
        names = _names(self._tls.getpeercert() or {}) if vouched and other else ()
        return TlsChannel(
            binding=binding,
            vouched=vouched and other is not None,
            names=names,
            server_name=settings.server_name or "",
        )


def _names(certificate: Any) -> tuple[str, ...]:
    """The DNS names and IP addresses that a verified certificate is for."""
    return tuple(
        name
        for kind, name in certificate.get("subjectAltName", ())
        if kind in ("DNS", "IP Address")
    )


def _is_of_certificates(exc: ssl.SSLError) -> bool:
    return isinstance(exc, ssl.SSLCertVerificationError) or "ALERT" in (exc.reason or "")


def _explained(exc: ssl.SSLError, side: Side) -> str:
    reason = (exc.reason or str(exc)).replace("_", " ").lower()
    if isinstance(exc, ssl.SSLCertVerificationError):
        who = "silo's" if side is Side.DIALER else "other side's"
        return (
            f"TLS failed: the {who} certificate is not believed here: {exc.verify_message}. Give both "
            "sides certificates of one CA; a silo's must have the host it is reached under, or the "
            "common server name."
        )
    if exc.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "TLS failed: the other side showed no certificate, and this side asks for one."
    if "ALERT" in (exc.reason or ""):
        return (
            f"TLS failed: the other side refused ({reason}). If it asks for a certificate, give this "
            "side one of its CA: Tls(cert=..., key=...)."
        )
    return f"TLS failed: {reason}. Does the other side speak TLS?"
