"""Who has stopped answering. Owns misses, vetoes and this silo's doubt in its own health; pure: outcomes of
probes in, judgements out. It knows no time but what it is told, no network, no votes of others.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from durum.config import Probing
from durum.ids import SiloId
from durum.views import View

_HEALTH_LIMIT: Final = 3
_LATE_FRACTION: Final = 0.25


class Outcome(Enum):
    """How a probe ended."""

    ANSWERED = auto()
    """It answered us."""
    INDIRECT = auto()
    """It answered another silo, not us: the path between us is cut, and that condemns nobody."""
    SILENT = auto()
    """No answer in time."""
    REFUSED = auto()
    """We have no connection, and its own address refuses one or is another process's by now."""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of probes.

    Args:
        outcomes: of each silo that was probed.
        silence_s: for each, how long ago bytes of it last arrived on any connection.
        late_s: how much longer than planned the round took: our own doing, not theirs.
    """

    outcomes: Mapping[SiloId, Outcome]
    silence_s: Mapping[SiloId, float]
    late_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a round of probes says.

    Args:
        silent: to vote against.
        refused: to vote against, as known to be gone.
        answering: to withdraw votes from.
        cut_off: answer others but have newly stopped answering us.
    """

    silent: tuple[SiloId, ...] = ()
    refused: tuple[SiloId, ...] = ()
    answering: tuple[SiloId, ...] = ()
    cut_off: tuple[SiloId, ...] = ()


class Detector:
    """One silo's opinion of the others.

    Args:
        me: this silo.
        settings: see Probing.
    """

    def __init__(self, me: SiloId, settings: Probing) -> None:
        self._me = me
        self._settings = settings
        self._misses: dict[SiloId, int] = {}
        self._cut_off: dict[SiloId, None] = {}
        self._health = 0

    @property
    def patience_s(self) -> float:
        """How long to wait for a probe's answer: longer while this silo is itself unwell.

        Source: the local health multiplier of Lifeguard (Dadgar, Phillips, Currey 2017).
        """
        return self._settings.probe_s * (1 + self._health)

    def targets(self, view: View) -> tuple[SiloId, ...]:
        """Whom to probe: the next few along the ring, and whoever others suspect."""
        ring = self._ring(view)
        chosen = ring[: self._settings.targets]
        suspected = tuple(
            silo for silo in ring[self._settings.targets :] if view.by_id[silo].suspicions
        )
        return (*chosen, *suspected)

    def helpers(self, view: View, suspect: SiloId) -> tuple[SiloId, ...]:
        """Whom to ask to probe a suspect: those along the ring that answered us last."""
        ring = [silo for silo in self._ring(view) if silo != suspect and not self._misses.get(silo)]
        return tuple(ring[: self._settings.helpers])

    def needs_help(self, silo: SiloId) -> bool:
        """Whether the next miss could lead to a vote, so that others should be asked as well."""
        return self._misses.get(silo, 0) >= self._settings.misses - 1

    def judge(self, done: Round) -> Judgement:
        """Take in one round of probes."""
        late = done.late_s > self._settings.probe_s * _LATE_FRACTION
        self._weigh_own_health(done.outcomes, late=late)
        silent: list[SiloId] = []
        refused: list[SiloId] = []
        answering: list[SiloId] = []
        cut_off: list[SiloId] = []
        for silo, outcome in done.outcomes.items():
            match outcome:
                case Outcome.ANSWERED:
                    self._misses.pop(silo, None)
                    self._cut_off.pop(silo, None)
                    answering.append(silo)
                case Outcome.INDIRECT:
                    answering.append(silo)
                    if silo not in self._cut_off:
                        self._cut_off[silo] = None
                        cut_off.append(silo)
                case Outcome.REFUSED:
                    refused.append(silo)
                case Outcome.SILENT if not late:
                    # A round that ran late says more about us than about them: after a pause of our own
                    # every timer has run out before the first answer is read.
                    if self._missed(silo, done.silence_s.get(silo, 0.0)):
                        silent.append(silo)
                case _:
                    pass
        return Judgement(tuple(silent), tuple(refused), tuple(answering), tuple(cut_off))

    def forget(self, view: View) -> None:
        """Drop what is known of silos that no longer live."""
        live = frozenset(row.silo for row in view.live)
        self._misses = {silo: count for silo, count in self._misses.items() if silo in live}
        self._cut_off = {silo: None for silo in self._cut_off if silo in live}

    def _missed(self, silo: SiloId, silence_s: float) -> bool:
        misses = self._misses[silo] = self._misses.get(silo, 0) + 1
        if misses < self._settings.misses:
            return False
        # Bytes of it that arrived while it owed us answers prove that it lives, whatever became of those.
        return silence_s >= (self._settings.misses - 1) * self._settings.probe_s

    def _weigh_own_health(self, outcomes: Mapping[SiloId, Outcome], *, late: bool) -> None:
        answers = sum(outcome is Outcome.ANSWERED for outcome in outcomes.values())
        # Where a single silo is watched, its silence says nothing about us.
        alone = not answers and sum(o is Outcome.SILENT for o in outcomes.values()) >= 2
        if late or alone:
            self._health = min(self._health + 1, _HEALTH_LIMIT)
        else:
            self._health = max(self._health - 1, 0)

    def _ring(self, view: View) -> list[SiloId]:
        """All other living silos, from the one after this around the ring."""
        others = [row.silo for row in view.live if row.silo != self._me]
        mine = _place(self._me)
        return sorted(others, key=lambda silo: (_place(silo) <= mine, _place(silo)))

    def __repr__(self) -> str:
        return f"<Detector {self._me} health={self._health} misses={self._misses}>"


def _place(silo: SiloId) -> tuple[int, SiloId]:
    """A place on the ring of silos that puts neighbours by address far apart."""
    return zlib.crc32(silo.encode()), silo
