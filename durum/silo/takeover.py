"""How a silo comes to hold what it should own. Pure: owner records and a view in, what to take and whom to
ask out. It knows no store, no network and no time of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from durum import errors
from durum.ids import SiloId
from durum.store.protocol import Owner
from durum.views import Status, View

AT_ONCE = -math.inf
"""The instant from which something may be served that nobody else can be serving."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The next steps towards what a silo should own.

    Args:
        takes: records to take, each with the boottime from which it may be served.
        asks: live holders, and what to ask of each.
        unread: partitions whose record has to be read first.
        strangers: holders that the view does not list: they joined after it or were pruned before it,
            which only a reading of the table begun from now on can tell.
    """

    takes: tuple[tuple[Owner, float], ...] = ()
    asks: Mapping[SiloId, tuple[int, ...]] = field(default_factory=dict)
    unread: tuple[int, ...] = ()
    strangers: tuple[SiloId, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """What a silo knows of the others.

    Args:
        me: this silo.
        view: who lives.
        pruned: silos known to be dead though the view does not list them.
    """

    me: SiloId
    view: View
    pruned: Collection[SiloId] = ()

    def unknown(self, silo: SiloId) -> bool:
        """Whether the view cannot tell: it may be older than the silo, or the silo long dead."""
        return silo not in self.view.by_id and silo not in self.pruned


def plan(
    wanted: Iterable[int],
    records: Sequence[Owner | None],
    standing: Standing,
    holdoff: Callable[[SiloId], float],
) -> Plan:
    """Decide the next steps.

    Args:
        wanted: partitions that this silo should own and does not hold, ascending.
        records: of each partition the newest record known, or None where there is none.
        standing: who lives.
        holdoff: from a dead owner to the boottime from which its partitions may be served.
    """
    serve_from: dict[SiloId, float] = {}
    takes: list[tuple[Owner, float]] = []
    asks: dict[SiloId, list[int]] = {}
    unread: list[int] = []
    strangers: dict[SiloId, None] = {}
    for partition in wanted:
        record = records[partition]
        if record is None:
            unread.append(partition)
        elif record.silo is None:
            # Whoever released it had waited out its own hold-off first.
            takes.append((record, AT_ONCE))
        elif standing.unknown(record.silo):
            strangers[record.silo] = None
        elif record.silo == standing.me or standing.view.status_of(record.silo) is Status.DEAD:
            # Our own, too: a take whose answer was lost. What came before it, nobody remembers.
            if record.silo not in serve_from:
                serve_from[record.silo] = holdoff(record.silo)
            takes.append((record, serve_from[record.silo]))
        else:
            asks.setdefault(record.silo, []).append(partition)
    return Plan(
        takes=tuple(takes),
        asks={silo: tuple(partitions) for silo, partitions in asks.items()},
        unread=tuple(unread),
        strangers=tuple(strangers),
    )


def waited_out(
    view: View, owner: SiloId, fenced_at: Callable[[SiloId], float], *, fast_failover: bool
) -> float:
    """From when a partition may be served that is taken from a dead silo, or from one's own lost take.

    All the dead that are not known to be gone are waited out, not only the owner: it may itself have
    taken the partition from another of them, and died before that one's lease was over.

    Args:
        view: who is dead, and who is known to be gone.
        owner: whom the record names.
        fenced_at: from a dead silo to the boottime at which its lease has surely ended.
        fast_failover: whether those known to be gone are spared the wait.
    """
    dead = [
        row.silo
        for row in view.rows
        if row.status is Status.DEAD and not (row.gone and fast_failover)
    ]
    if owner not in view.by_id:
        dead.append(owner)
    return max(map(fenced_at, dead), default=AT_ONCE)


def checked(records: Sequence[Owner], partitions: int) -> list[Owner]:
    """All owner records of a service, none missing.

    Raises:
        DataLoss: one is. It must never read as a partition that nobody has held yet.
    """
    if [record.partition for record in records] != list(range(partitions)):
        raise errors.DataLoss(
            f"the store has {len(records)} owner records of {partitions}. A partition without one has "
            "lost its data; nothing was built upon it. Restore the store."
        )
    return list(records)


def regressed(record: Owner, epoch: int, token: bytes, commits: int) -> str:
    """What an owner record lacks of what its holder knows, or "".

    Args:
        record: as read now.
        epoch: of the holding.
        token: of the holding.
        commits: the highest counter that a commit under the holding returned.
    """
    if record.token == token:
        if record.commits < commits:
            return f"its commit counter is {record.commits}, {commits} was seen"
        return ""
    if record.epoch <= epoch:
        return f"its epoch is {record.epoch} under another token, {epoch} was held"
    return ""
