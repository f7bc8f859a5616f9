"""What was written and the other side has not read yet. Owns its bounds; knows no messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from durum.config import Limits

HARD_FACTOR: Final = 4
"""At this many times Limits.unread_bytes nobody waits for progress any more."""


class Outflow:
    """Writes to a transport and watches whether the other side keeps up.

    While more than `unread_bytes` are unread, nothing is read from the other side either, so that it
    cannot ask for more; if nothing at all leaves for `unread_s`, or four times the bound is unread, the
    connection is given up.

    Args:
        transport: where to write.
        limits: has the bounds.
        give_up: called at most once, with the reason.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        limits: Limits,
        loop: asyncio.AbstractEventLoop,
        give_up: Callable[[Exception], None],
    ) -> None:
        self.write = transport.write
        self._transport = transport
        self._limits = limits
        self._loop = loop
        self._give_up = give_up
        self.paused = False
        """The transport buffers; whoever writes calls check() afterwards."""
        self.sent_bytes = 0
        """All that was written; whoever writes counts it here before."""
        self._deaf = False
        self._gone_bytes = 0
        """What had left this process when we last looked."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def unread_bytes(self) -> int:
        """What the transport holds."""
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    def pause(self) -> None:
        """The transport holds more than it likes."""
        self.paused = True
        self._gone_bytes = self.sent_bytes - self.unread_bytes
        self._timer = self._loop.call_later(self._limits.unread_s, self._look)

    def resume(self) -> None:
        """The other side has read on."""
        self.stop()
        if self._deaf:
            self._deaf = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Close once everything is read, within handshake_s: a side that does not read must not keep
        our buffers for ever."""
        self.stop()
        self._transport.close()
        self._timer = self._loop.call_later(self._limits.handshake_s, self._transport.abort)

    def stop(self) -> None:
        """Watch no more."""
        self.paused = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def check(self) -> None:
        """Look at the bounds after more was written."""
        unread = self.unread_bytes
        bound = self._limits.unread_bytes
        if unread > HARD_FACTOR * bound:
            self._drop(unread)
        elif unread > bound and not self._deaf:
            self._deaf = True
            self._transport.pause_reading()

    def _look(self) -> None:
        unread = self.unread_bytes
        gone = self.sent_bytes - unread
        if unread > self._limits.unread_bytes and gone == self._gone_bytes:
            self._drop(unread)
            return
        self._gone_bytes = gone
        self._timer = self._loop.call_later(self._limits.unread_s, self._look)

    def _drop(self, unread: int) -> None:
        self.stop()
        self._give_up(
            TimeoutError(
                f"the other side does not read: {unread} bytes wait for it "
                f"(Limits.unread_bytes is {self._limits.unread_bytes})."
            )
        )
