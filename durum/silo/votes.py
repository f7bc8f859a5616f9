"""What is written into a silo's row when others suspect it. Owns how votes count; knows no probes and no
store: rows in, rows out.
"""

from __future__ import annotations

import msgspec

from durum.config import Probing
from durum.ids import SiloId
from durum.views import SiloRow, Status, Suspicion, View

_VOTERS = frozenset({Status.ACTIVE, Status.LEAVING})


def counted(view: View, row: SiloRow, at: float, life_s: float) -> tuple[Suspicion, ...]:
    """The votes against a silo that count: of living members, not expired.

    Args:
        view: who lives. The dead do not vote: of two sides that condemn each other only one may win.
        row: the suspect's.
        at: store time now. Votes from its future count as well, as long: clocks may be set back.
        life_s: how long a vote lives.
    """
    return tuple(
        vote
        for vote in row.suspicions
        if view.status_of(vote.by) in _VOTERS and abs(at - vote.at) <= life_s
    )


def needed(view: View, settings: Probing) -> int:
    """How many votes declare a silo dead: one where fewer than three are left, the suspect included."""
    return settings.votes if len(view.live) >= 3 else 1


def voted(
    view: View, suspect: SiloId, vote: Suspicion, settings: Probing
) -> tuple[SiloRow, SiloRow] | None:
    """Add a vote against a silo, and declare it dead where that makes enough of them.

    It is marked gone where as many as a vote needs were refused by its own address.

    Returns:
        The new row and the present one, or None where there is nothing to write: the suspect is dead
        already, the voter is no living member, or the same vote stands.
    """
    row = view.by_id.get(suspect)
    if row is None or row.status is Status.DEAD or view.status_of(vote.by) not in _VOTERS:
        return None
    standing = counted(view, row, vote.at, settings.vote_life_s)
    mine = next((one for one in standing if one.by == vote.by), None)
    if mine is not None and (mine.refused or not vote.refused):
        votes = standing
    else:
        votes = (*(one for one in standing if one.by != vote.by), vote)
    enough = needed(view, settings)
    if len(votes) >= enough:
        gone = sum(one.refused for one in votes) >= enough
        reason = "its address refuses connections" if gone else "it does not answer probes"
        return (
            condemned(msgspec.structs.replace(row, suspicions=votes), vote.at, reason, gone=gone),
            row,
        )
    if votes == standing:
        return None
    return msgspec.structs.replace(row, suspicions=votes), row


def withdrawn(view: View, suspect: SiloId, by: SiloId) -> tuple[SiloRow, SiloRow] | None:
    """Take one's vote back: the suspect answers again.

    Returns:
        The new row and the present one, or None where there is no such vote or no such living silo.
    """
    row = view.by_id.get(suspect)
    if row is None or row.status is Status.DEAD:
        return None
    votes = tuple(vote for vote in row.suspicions if vote.by != by)
    if votes == row.suspicions:
        return None
    return msgspec.structs.replace(row, suspicions=votes), row


def condemned(row: SiloRow, at: float, reason: str, *, gone: bool) -> SiloRow:
    """The row of a silo that is dead now.

    Args:
        row: as it was.
        at: store time now.
        reason: for people.
        gone: its process is known to have ended.
    """
    return msgspec.structs.replace(row, status=Status.DEAD, since=at, reason=reason, gone=gone)
