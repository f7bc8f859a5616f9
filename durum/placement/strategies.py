"""Which silo shall host a grain that is placed by itself. Pure: a view, loads and randomness in, a silo out.

It knows no store and no grain: who is asked, when, and what becomes of the answer is the directory's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from durum.grains import placement
from durum.grains.placement import LeastLoaded, OnSilos, Placement, PreferLocal, Random
from durum.ids import Address, SiloId, generation_of
from durum.views import SiloRow, View


@dataclass(frozen=True, slots=True)
class Offer:
    """What a view says of one kind.

    Args:
        placement: how its grains are placed, by those who host its newest class; None: by the hash of
            their ids, wherever the owner of their partition hosts the kind.
        hosting: active silos that host the kind at all.
        candidates: those of them that may be chosen: with the placement's role, and among these in the
            highest class version.
        version: that version; 0 where there are no candidates.
        works: its grains are stateless workers, which no record is kept of.
    """

    placement: Placement | None
    hosting: tuple[SiloRow, ...]
    candidates: tuple[SiloRow, ...]
    version: int
    works: bool = False


def offer(view: View, kind: str) -> Offer:
    """What a view says of a kind.

    The earlier lives of an address that has a later one are no candidates, and neither are silos of
    weight 0, unless there are no others, or the placement asks for a role: they keep out of what they are
    not named for.

    Args:
        view: the rows to decide by.
        kind: its name.
    """
    newest: dict[Address, SiloRow] = {}
    for row in sorted(view.active, key=lambda row: generation_of(row.silo)):
        newest[row.address] = row
    hosting = tuple(row for row in newest.values() if kind in row.kinds)
    if not hosting:
        return Offer(None, (), (), 0)
    # Where two silos differ, the newer class knows best; of two of one version, the one that came later.
    youngest = max(hosting, key=lambda row: (row.kinds[kind], generation_of(row.silo)))
    text = youngest.placements.get(kind)
    works = text == placement.WORKER
    way = None if text is None or works else placement.read(text)
    able = hosting
    if isinstance(way, OnSilos):
        able = tuple(row for row in hosting if way.role in row.roles)
    else:
        able = tuple(row for row in hosting if row.weight > 0) or hosting
    version = max((row.kinds[kind] for row in able), default=0)
    able = tuple(row for row in able if row.kinds[kind] == version)
    return Offer(way, hosting, able, version, works)


def roles_of(view: View) -> tuple[str, ...]:
    """All roles that active silos have, sorted."""
    return tuple(sorted({role for row in view.active for role in row.roles}))


class Loads:
    """How much each silo has to do: by its own last word, and what it was given since then."""

    def __init__(self) -> None:
        self._told: Mapping[SiloId, int] = {}
        self._given: dict[SiloId, int] = {}
        self._heartbeats: Mapping[SiloId, int] = {}

    def learn(self, loads: Mapping[SiloId, int], heartbeats: Mapping[SiloId, int]) -> None:
        """The table was read.

        Args:
            loads: what each silo told with its last heartbeat.
            heartbeats: their counts: a silo that has told anew knows what it was given.
        """
        self._given = {
            silo: given
            for silo, given in self._given.items()
            if heartbeats.get(silo) == self._heartbeats.get(silo)
        }
        self._told, self._heartbeats = loads, heartbeats

    def give(self, silo: SiloId) -> None:
        """A grain was placed there."""
        self._given[silo] = self._given.get(silo, 0) + 1

    def of(self, row: SiloRow) -> float:
        """A silo's load in proportion to its weight."""
        load = self._told.get(row.silo, 0) + self._given.get(row.silo, 0)
        return load / (row.weight or 1.0)

    def __repr__(self) -> str:
        return f"<Loads told={dict(self._told)} given={self._given}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Who wants a grain placed.

    Args:
        caller: the silo whose actor or gateway made the call, or None.
        owner: the silo that holds the grain's partition.
    """

    caller: SiloId | None
    owner: SiloId


def choose(
    given: Offer, asked: Asked, loads: Loads, fraction: Callable[[], float]
) -> SiloId | None:
    """Choose a silo.

    Args:
        given: see Offer.
        asked: see Asked.
        loads: see Loads.
        fraction: randomness, numbers in [0, 1).

    Returns:
        One of the candidates; None where there are none.
    """
    candidates = given.candidates
    if not candidates:
        return None
    match given.placement:
        case PreferLocal():
            able = {row.silo for row in candidates}
            near = next((silo for silo in (asked.caller, asked.owner) if silo in able), None)
            return near or _less_loaded(candidates, loads, fraction).silo
        case Random():
            return _any_of(candidates, fraction).silo
        case LeastLoaded() | OnSilos() | None:
            return _less_loaded(candidates, loads, fraction).silo


def _less_loaded(rows: Sequence[SiloRow], loads: Loads, fraction: Callable[[], float]) -> SiloRow:
    """The better of two that are taken at random: what all know of the least loaded one is out of date
    alike, and all would choose it at once.
    """
    one = _any_of(rows, fraction)
    others = [row for row in rows if row is not one]
    if not others:
        return one
    other = _any_of(others, fraction)
    return other if loads.of(other) < loads.of(one) else one


def _any_of(rows: Sequence[SiloRow], fraction: Callable[[], float]) -> SiloRow:
    return rows[int(fraction() * len(rows))]
