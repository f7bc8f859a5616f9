"""What operators ask of silos. Owns the names of the requests and the form of their answers.

A request is a call whose method has a name that no Python method can have. So it goes the way that calls go,
with their routing, deadlines and authentication; a silo of a release that does not know it answers
NoSuchMethod; and the wire needs no message for it. Those about a grain go to its owner, the others to any
silo. Fields may be appended, never moved or removed.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from durum.ids import GrainId, SiloId
from durum.wire.letters import LETTERS, WAITING
from durum.wire.reminders import REMIND, TRUST_CLOCK, WAKE, WAKE_UPS

PREFIX: Final = "durum."
INSPECT: Final = "durum.inspect"
DEACTIVATE: Final = "durum.deactivate"
DELETE: Final = "durum.delete"
SCAN: Final = "durum.scan"
COUNT: Final = "durum.count"
SILOS: Final = "durum.silos"
NOW: Final = "durum.now"
WATCH: Final = "durum.watch"
"""Asks for a stream of what a grain publishes; no operator's request, but it goes the same way."""

ANYWHERE: Final = frozenset({SCAN, COUNT, SILOS, NOW, WAKE_UPS, TRUST_CLOCK, LETTERS, WAITING})
"""Those that any silo answers, whatever it owns."""
TURNS: Final = frozenset({WAKE, REMIND})
"""Those that are turns of their grain, and wait in its mailbox as calls do."""
PAGE_LIMIT: Final = 1000


class Scan(msgspec.Struct, array_like=True, frozen=True):
    """Grains whose id begins so.

    Args:
        prefix: kind, slash, and what the key begins with.
        partition: where to go on.
        after: the last id seen there, or "".
        limit: at most so many.
    """

    prefix: str
    partition: int = 0
    after: str = ""
    limit: int = 100


class Page(msgspec.Struct, array_like=True, frozen=True):
    """The answer to Scan.

    Args:
        grains: in the order of partitions, and within one of their bytes.
        partition: where to go on; P where nothing is left.
        partitions: P.
    """

    grains: tuple[GrainId, ...]
    partition: int
    partitions: int


class Count(msgspec.Struct, array_like=True, frozen=True):
    """How many grains have an id that begins so. Answered by a number."""

    prefix: str


class Inspected(msgspec.Struct, array_like=True, frozen=True):
    """The answer to INSPECT.

    Args:
        silo: the grain's owner.
        partition: the grain's.
        epoch: how often that has changed hands.
        version: how many commits the grain has had; 0: nothing is kept of it.
        state: as stored, or None.
        replies: how many keyed calls it remembers.
        active: "" or the activation's state.
        running: turns under way.
        waiting: calls that wait for them.
    """

    silo: SiloId
    partition: int
    epoch: int
    version: int
    state: bytes | None
    replies: int
    active: str = ""
    running: int = 0
    waiting: int = 0


class Member(msgspec.Struct, array_like=True, frozen=True):
    """One silo as the membership table has it.

    Args:
        silo: its id.
        status: joining, active, leaving or dead.
        since_s: how long it has had that.
        wanted: partitions that it should own.
        kinds: what it hosts, with class versions.
        roles: see SiloConfig.
        weight: its share.
        web: where its pages are, or "".
        pid: its process, on its own host.
        suspected_by: who votes against it.
        reason: why it left.
    """

    silo: SiloId
    status: str
    since_s: float
    wanted: int
    kinds: dict[str, int]
    roles: tuple[str, ...]
    weight: float
    web: str
    pid: int
    suspected_by: tuple[SiloId, ...]
    reason: str


class Members(msgspec.Struct, array_like=True, frozen=True):
    """The answer to SILOS: one view."""

    version: int
    partitions: int
    silos: tuple[Member, ...]


class Now(msgspec.Struct, array_like=True, frozen=True):
    """The answer to NOW: the silo that was asked, at this moment.

    Args:
        silo: its id.
        lease_left_s: below 0: it may not answer calls.
        ready: it serves all that it should own, and stays.
        durability: the store's level.
        trouble: why the last renewal failed, or "".
        held, serving: partitions.
        activations: by kind.
        calls: waiting or running.
        waiting: of those, waiting.
        answered: since the start.
        failed: of those, not by a value.
        committed, rolled_back, fenced: turns since the start.
        clients: connected.
    """

    silo: SiloId
    lease_left_s: float
    ready: bool
    durability: str
    trouble: str
    held: int
    serving: int
    activations: dict[str, int]
    calls: int
    waiting: int
    answered: int
    failed: int
    committed: int
    rolled_back: int
    fenced: int
    clients: int


class Cursor(NamedTuple):
    """Where a listing goes on."""

    partition: int
    after: str


def cursor_text(cursor: Cursor) -> str:
    """A cursor for people to hand back."""
    return f"{cursor.partition}:{cursor.after}"


def cursor_of(text: str) -> Cursor:
    """The cursor that cursor_text made.

    Raises:
        ValueError: it is none.
    """
    if not text:
        return Cursor(0, "")
    partition, colon, after = text.partition(":")
    if not colon:
        raise ValueError(text)
    return Cursor(int(partition), after)


encode: Final = msgspec.msgpack.Encoder().encode
