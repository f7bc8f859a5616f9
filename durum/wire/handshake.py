"""Who may connect: a mutual proof of the cluster secret. Owns its rules and messages; does no I/O.

    dialer                                listener
      Hello (versions, cluster, nonce)  ->
                                        <-  Hello (versions, cluster, nonce)
      Proof (role, silo, mark, proofs)  ->
                                        <-  Proof (role, silo, mark, proof)

A proof is an HMAC-SHA256, keyed by the secret, over a label of its side and everything said before it
and in it, as the very bytes that travelled. Both nonces are in there, so a recorded handshake proves
nothing; the labels differ, so nobody's own proof serves against him; versions and cluster are in there,
so nobody in between can talk the two down. The dialer proves first, so a stranger who dials gets no
material to guess secrets from. Session keys come from the same transcript. Either side may send a
Refusal instead, then closes.

Over TLS the transcript begins with the listener's certificate as each side saw it, so a proof that
somebody in between relays into another TLS link is worth nothing there.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from durum.errors import IncompatibleSilo
from durum.ids import SiloId, address_of
from durum.wire.introduction import (  # callers find them beside their handshake
    Introduction as Introduction,  # noqa: PLC0414
)
from durum.wire.introduction import Peer as Peer  # noqa: PLC0414
from durum.wire.introduction import Role as Role  # noqa: PLC0414
from durum.wire.introduction import Session as Session  # noqa: PLC0414
from durum.wire.introduction import Side as Side  # noqa: PLC0414
from durum.wire.introduction import TlsChannel as TlsChannel  # noqa: PLC0414

HANDSHAKE_BYTES: Final = 2048
"""The largest message of a handshake. Strangers get no more memory than this."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done after a message of the handshake.

    Args:
        send: a body to send, or b"".
        session: the handshake is done.
        error: the handshake has failed; close after sending. ConnectionAbortedError where the other
            side may accept later.
    """

    send: bytes = b""
    session: Session | None = None
    error: IncompatibleSilo | ConnectionAbortedError | None = None


_Text = Annotated[str, msgspec.Meta(max_length=512)]
_Nonce = Annotated[bytes, msgspec.Meta(min_length=16, max_length=64)]
_Mac = Annotated[bytes, msgspec.Meta(max_length=64)]


# Later releases may append fields to these, never move one: both sides compute over the raw bytes.
class _Hello(msgspec.Struct, array_like=True, tag="durum-hello"):
    lowest: int
    highest: int
    cluster: _Text
    nonce: _Nonce
    guarded: bool
    sealed: bool


class _Claims(msgspec.Struct, array_like=True):
    role: Role
    silo: _Text
    mark: _Text
    through: bool = False


class _Proof(msgspec.Struct, array_like=True, tag="durum-proof"):
    claims: bytes
    first: _Mac = b""
    second: _Mac = b""


class _Refusal(msgspec.Struct, array_like=True, tag="durum-refusal"):
    reason: _Text
    again: bool = False


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Hello | _Proof | _Refusal).decode

_GARBLED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SILO: Final = re.compile(r".{1,400}:[0-9]{1,5}@[0-9]{1,20}")
_NOBODY: Final = re.compile("")
_decode_claims = msgspec.msgpack.Decoder(_Claims).decode


class _Failed(Exception):
    """Ends the handshake.

    Args:
        reason: for this side's error.
        say: for the other side, or "" where it gets no answer.
    """

    def __init__(self, reason: str, say: str = "") -> None:
        super().__init__(reason)
        self.say = say


class _TryAgain(Exception):
    """The other side has no room at the moment."""


def refusal(reason: str, *, again: bool = False) -> bytes:
    """A body that tells the other side why it is turned away, and whether to try again later."""
    return _encode(_Refusal(reason[:512], again))


class Handshake:
    """One side of a handshake: bodies of frames in, steps out.

    Args:
        introduction: who this side is.
        side: whether it dialed.
        private: nobody else can write to the link, so its frames need no seal.
        tls: what TLS has shown, where the link is one; it is private then.
    """

    def __init__(
        self,
        introduction: Introduction,
        side: Side,
        *,
        private: bool,
        tls: TlsChannel | None = None,
    ) -> None:
        self._mine = introduction
        self._side = side
        self._tls = tls
        self._sealed = not private and tls is None
        self._version = 0
        self._transcript = hashlib.sha256(b"" if tls is None else b"tls" + tls.binding)
        self._hello = _encode(
            _Hello(
                introduction.wire[0],
                introduction.wire[1],
                introduction.cluster,
                bytes(introduction.entropy.token()),
                bool(introduction.secrets),
                self._sealed,
            )
        )
        self._waits_for: Literal["hello", "proof", "nothing"] = "hello"

    def __repr__(self) -> str:
        return (
            f"<Handshake {self._side} cluster={self._mine.cluster!r} waits_for={self._waits_for}>"
        )

    def begin(self) -> bytes:
        """The body to send first; b"" for a listener."""
        return self._said(self._hello) if self._side is Side.DIALER else b""

    def receive(self, body: bytes) -> Step:
        """Go on with a body from the other side. After an error or a session, it is over."""
        try:
            return self._go_on(body)
        except _TryAgain as exc:
            return Step(error=ConnectionAbortedError(str(exc)))
        except _Failed as exc:
            said = refusal(exc.say) if exc.say else b""
            return Step(said, error=IncompatibleSilo(f"the handshake failed: {exc}."))

    def _go_on(self, body: bytes) -> Step:
        waits_for, self._waits_for = self._waits_for, "nothing"
        message = _parse(body)
        if waits_for == "hello" and isinstance(message, _Hello):
            return self._on_hello(message, body)
        if waits_for == "proof" and isinstance(message, _Proof):
            return self._on_proof(message, body)
        raise _Failed(f"it sent a {type(message).__name__[1:].lower()}, not a {waits_for}")

    def _on_hello(self, hello: _Hello, body: bytes) -> Step:
        self._agree(hello)
        self._said(body)
        self._waits_for = "proof"
        if self._side is Side.LISTENER:
            return Step(self._said(self._hello))
        return Step(self._prove(self._mine.secrets))

    def _on_proof(self, proof: _Proof, body: bytes) -> Step:
        secret = self._verify(proof)
        vouched = self._tls is not None and self._tls.vouched
        peer = self._meet(proof, authenticated=bool(secret) or vouched)
        self._said(body)
        # A dialer has proved itself before; a listener answers with the one secret both have.
        answers = self._side is Side.LISTENER
        send = self._prove((secret,) if secret else ()) if answers else b""
        if not self._sealed:
            return Step(send, Session(peer=peer))
        keys = {side: self._sign(secret, "key", side) for side in Side}
        theirs = Side.LISTENER if self._side is Side.DIALER else Side.DIALER
        return Step(send, Session(peer=peer, send_key=keys[self._side], receive_key=keys[theirs]))

    def _agree(self, hello: _Hello) -> None:
        mine = self._mine
        if hello.cluster != mine.cluster:
            raise _Failed(
                f"this is cluster {mine.cluster!r}, that is cluster {hello.cluster!r}",
                f"this is cluster {hello.cluster!r}, that is cluster {mine.cluster!r}",
            )
        lowest, highest = mine.wire
        self._version = min(highest, hello.highest)
        if self._version < max(lowest, hello.lowest):
            here, there = f"{lowest} to {highest}", f"{hello.lowest} to {hello.highest}"
            text = "this side speaks protocol versions {}, that side {}; upgrade the older one"
            raise _Failed(text.format(here, there), text.format(there, here))
        if hello.guarded != bool(mine.secrets):
            have, lack = (
                "that side has a cluster secret, this side has none",
                ("this side has a cluster secret, that side has none"),
            )
            if not hello.guarded:
                have, lack = lack, have
            raise _Failed(f"{have}; give both the same", f"{lack}; give both the same")
        # Without a secret there is no key, and whoever chose that has said so.
        self._sealed = bool(mine.secrets) and (self._sealed or hello.sealed)

    def _verify(self, proof: _Proof) -> bytes:
        """Find the secret that the other side has proved to know; b"" where none is needed."""
        theirs = Side.LISTENER if self._side is Side.DIALER else Side.DIALER
        for secret in self._mine.secrets:
            expected = self._sign(secret, "proof", theirs, proof.claims)
            first = hmac.compare_digest(expected, proof.first)
            second = hmac.compare_digest(expected, proof.second)
            if first or second:
                return secret
        if self._mine.secrets:
            text = "the two sides have different cluster secrets"
            if self._tls is not None:
                text += ", or somebody between them has another certificate"
            raise _Failed(text, text)
        return b""

    def _meet(self, proof: _Proof, *, authenticated: bool) -> Peer:
        try:
            claims = _decode_claims(proof.claims)
        except _GARBLED as exc:
            raise _Failed("its claims cannot be read") from exc
        form = _SILO if claims.role == "silo" else _NOBODY
        if not form.fullmatch(claims.silo):
            raise _Failed(f"it claims to be the {claims.role} {claims.silo[:80]!r}")
        mine = self._mine.mark
        if mine and claims.mark and claims.mark != mine:
            text = (
                "the two sides belong to different services (their genesis marks differ); "
                "check which store each was given"
            )
            raise _Failed(text, text)
        if claims.role == "silo":
            self._refuse_posing(claims.silo)
        silo = SiloId(claims.silo) if claims.silo else None
        return Peer(
            role=claims.role,
            silo=silo,
            address="" if silo is None else address_of(silo),
            version=self._version,
            authenticated=authenticated,
            through=claims.through and claims.role == "client",
        )

    def _refuse_posing(self, silo: str) -> None:
        """A client's certificate of the same CA is none to join with as a silo."""
        tls = self._tls
        if tls is None or not tls.vouched or self._side is Side.DIALER or tls.may_be_silo(silo):
            return
        text = "{} certificate is not for the silo {}, nor for the name that all silos share"
        raise _Failed(text.format("its", silo[:80]), text.format("this side's", silo[:80]))

    def _prove(self, secrets: tuple[bytes, ...]) -> bytes:
        mine = self._mine
        claims = _encode(_Claims(mine.role, mine.silo or "", mine.mark, mine.through))
        macs = [self._sign(secret, "proof", self._side, claims) for secret in secrets]
        return self._said(_encode(_Proof(claims, *macs)))

    def _sign(self, secret: bytes, purpose: str, side: Side, claims: bytes = b"") -> bytes:
        label = f"durum {purpose} by {side}".encode()
        content = label + b"\0" + self._transcript.digest() + claims
        return hmac.digest(secret, content, "sha256")

    def _said(self, body: bytes) -> bytes:
        self._transcript.update(len(body).to_bytes(4, "little") + body)
        return body


def _parse(body: bytes) -> _Hello | _Proof:
    if len(body) > HANDSHAKE_BYTES:
        raise _Failed(f"it sent {len(body)} bytes; {HANDSHAKE_BYTES} are allowed here")
    try:
        message: _Hello | _Proof | _Refusal = _decode(body)
    except _GARBLED as exc:
        raise _Failed("it does not speak Durum's protocol") from exc
    if isinstance(message, _Refusal):
        reason = "".join(c if c.isprintable() else "?" for c in message.reason)
        if message.again:
            raise _TryAgain(f"the other side has no room now: {reason}.")
        raise _Failed(f"the other side refused: {reason}")
    return message
