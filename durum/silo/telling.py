"""How messages are staged: those that go out at once, and those that wait until they are due. Owns what lies
in the sender's record meanwhile; commits nothing.
"""

from __future__ import annotations

from typing import Final

from durum import errors
from durum.grains.actor import Actor
from durum.ids import GrainId
from durum.silo.effects import Staged
from durum.silo.outbox import FRAME_ROOM
from durum.silo.services import Services
from durum.silo.staging import staging
from durum.silo.stored import StoredEntries
from durum.store import parts
from durum.wire import post as wire

WAKES: Final = b"d"
"""What the names of wake-ups of delayed messages begin with."""


def stage_message(
    staged: Staged, services: Services, receiver: GrainId, row: wire.Row, due_ms: int | None
) -> None:
    """Have a commit send a message, at once or later.

    Args:
        staged: the commit's effects.
        services: the silo's.
        receiver: whom.
        row: the message.
        due_ms: when, in milliseconds of store time; None: at once.

    Raises:
        ArgumentError: it is too large; nothing was staged.
    """
    written = wire.encode(row)
    limit = services.config.limits.frame_bytes - FRAME_ROOM
    if len(written) > limit:
        raise errors.ArgumentError(
            f"{receiver}.{row.method}: the message takes {len(written)} bytes, the limit is {limit}; nothing"
            " was sent. Send less, or in parts, or raise frame_bytes."
        )
    if due_ms is None:
        staged.post(receiver, written)
        return
    name = services.next_commit_id().hex().encode()
    staged.set_part(parts.DELAYED + name, wire.encode(wire.Later(receiver, written, due_ms)))
    staged.set_wake(WAKES + name, due_ms)


def wake_of(name: bytes, content: bytes) -> tuple[bytes, int]:
    """Name and time of the wake-up that a delayed message has, from its part."""
    return WAKES + name[len(parts.DELAYED) :], wire.decode_later(content).due_ms


class Drawer:
    """The messages of one grain that are not due yet. A Waker.

    Args:
        grain: which.
        services: the silo's.
        entries: its record, patiently read.
    """

    __slots__ = ("_entries", "_grain", "_services")

    def __init__(self, grain: GrainId, services: Services, entries: StoredEntries) -> None:
        self._grain = grain
        self._services = services
        self._entries = entries

    async def wake(self, instance: Actor, name: str) -> int | None:  # noqa: ARG002 - a Waker's
        """Send one that is due, with the running turn's commit. It gets its number, and its place, now."""
        part = parts.DELAYED + name.encode()
        content = (await self._entries.load([part])).get(part)
        staged = staging(self._grain, "a delayed message")
        if content is not None:
            later = wire.decode_later(content)
            if later.due_ms > self._services.reckoned() * 1000:
                return later.due_ms
            # It was taken in long ago, so a full outbox is no reason to refuse it.
            staged.send.append((later.receiver, later.row))
            staged.set_part(part, None)
        staged.set_wake(WAKES + name.encode(), None)
        return None

    def __repr__(self) -> str:
        return f"<Drawer {self._grain}>"
