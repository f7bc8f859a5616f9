"""A handshake over a transport, within its time. Owns the limit; knows no messages that come after.

Over TLS the time begins before the TLS handshake, and the first word is said after it.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Final

from durum.config import Limits
from durum.errors import DurumBug, IncompatibleSilo
from durum.wire import frames
from durum.wire.handshake import Handshake, Introduction, Session, Side, TlsChannel

_TLS_RECORDS: Final = (b"\x16\x03", b"\x15\x03")
"""How a TLS handshake, and how TLS's refusal of what is none, begin."""


class Greeting:
    """Plays one side of the handshake.

    Args:
        introduction: who this side is.
        side: whether it dialed.
        transport: where to write.
        limits: has the time that a stranger gets.
        done: called once with what was agreed.
        failed: called once with the reason; the connection must be closed then.
    """

    def __init__(
        self,
        introduction: Introduction,
        side: Side,
        transport: asyncio.Transport,
        limits: Limits,
        *,
        done: Callable[[Session], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._introduction = introduction
        self._side = side
        self._handshake: Handshake | None = None
        self._transport = transport
        self._limits = limits
        self._done = done
        self._failed = failed
        self._timer = asyncio.get_running_loop().call_later(limits.handshake_s, self._on_silence)

    def __repr__(self) -> str:
        return f"<Greeting {self._handshake or 'before TLS'!r}>"

    def begin(self, tls: TlsChannel | None = None) -> None:
        """Say the first word, where it is this side's.

        Args:
            tls: what TLS has shown, where the link is one.
        """
        private = is_local(self._transport)
        self._handshake = Handshake(self._introduction, self._side, private=private, tls=tls)
        self._say(self._handshake.begin())

    def receive(self, body: bytes) -> None:
        """Go on with the body of a frame; after begin() only."""
        if self._handshake is None:
            raise DurumBug("a greeting has received before it began. Please report it.")
        step = self._handshake.receive(body)
        self._say(step.send)
        if step.error is not None:
            self._failed(step.error)
        elif step.session is not None:
            self._timer.cancel()
            self._done(step.session)

    def on_garbage(self, why: Exception, start: bytes) -> None:
        """What came is not even a frame.

        Args:
            why: what is wrong with it.
            start: its first bytes.
        """
        text = f"the other side does not speak Durum's protocol: {why}"
        if start[:2] in _TLS_RECORDS:
            text += " It speaks TLS, and this side does not: give both the same tls= settings."
        self._failed(IncompatibleSilo(text))

    def stop(self) -> None:
        """The connection ends; the time limit no longer matters."""
        self._timer.cancel()

    def _say(self, body: bytes) -> None:
        if body:
            self._transport.write(frames.frame(body))

    def _on_silence(self) -> None:
        self._failed(
            TimeoutError(
                f"the other side did not introduce itself within {self._limits.handshake_s} s; "
                "it is stopped, very slow, or no silo."
            )
        )


def is_local(transport: asyncio.BaseTransport) -> bool:
    """Whether the other end of a transport is on this host, so that nobody in between can write."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return True  # a unix socket, or a pair within the process
    try:
        return ipaddress.ip_address(str(name[0]).partition("%")[0]).is_loopback
    except ValueError:
        return False
