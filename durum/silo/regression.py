"""Whether a table is older than one read before. Pure: two readings in, what was lost out."""

from __future__ import annotations

from durum.store.protocol import TableRead
from durum.views import Status


def lost(before: TableRead, after: TableRead) -> str:
    """What the later reading lacks of the earlier one.

    Args:
        before: read earlier; its answer had arrived before the later one was asked for.
        after: read later.

    Returns:
        A sentence for people, or "" where nothing is missing. After a failover that lost writes versions
        repeat, so equal ones have to have equal rows.
    """
    if after.view.version < before.view.version:
        return f"its version is {after.view.version}, {before.view.version} was seen"
    if after.view.version == before.view.version and after.view.by_id != before.view.by_id:
        return f"its rows differ at the same version {after.view.version}"
    for row in before.view.rows:
        now = after.view.by_id.get(row.silo)
        if now is None:
            # To die and to be removed takes two writes.
            needed = 1 if row.status is Status.DEAD else 2
            if after.view.version < before.view.version + needed:
                return f"the row of {row.silo} is missing"
        elif row.status is Status.DEAD and now.status is not Status.DEAD:
            return f"{row.silo} was dead and is {now.status}"
    for silo, heartbeat in before.heartbeats.items():
        later = after.heartbeats.get(silo)
        if later is not None and later < heartbeat:
            return f"the heartbeat of {silo} is {later}, {heartbeat} was seen"
    return ""
