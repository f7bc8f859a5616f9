"""A handshake over a transport, within its time. Owns the limit; knows no messages that come after."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable

from durum.config import Limits
from durum.errors import IncompatibleSilo
from durum.wire import frames
from durum.wire.handshake import Handshake, Introduction, Session, Side


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
        self._handshake = Handshake(introduction, side, private=is_local(transport))
        self._transport = transport
        self._limits = limits
        self._done = done
        self._failed = failed
        self._timer = asyncio.get_running_loop().call_later(limits.handshake_s, self._on_silence)
        self._say(self._handshake.begin())

    def __repr__(self) -> str:
        return f"<Greeting {self._handshake!r}>"

    def receive(self, body: bytes) -> None:
        """Go on with the body of a frame."""
        step = self._handshake.receive(body)
        self._say(step.send)
        if step.error is not None:
            self._failed(step.error)
        elif step.session is not None:
            self._timer.cancel()
            self._done(step.session)

    def on_garbage(self, why: Exception) -> None:
        """What came is not even a frame."""
        self._failed(IncompatibleSilo(f"the other side does not speak Durum's protocol: {why}"))

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
