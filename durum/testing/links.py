"""The simulated wires between machines. Owns how long each piece travels and what cuts do to it; knows
no addresses and no protocols.

It is TCP that travels here: nothing is ever lost, doubled or out of order, only late; or the connection
breaks.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from durum.testing import hosts
from durum.testing.loop import SimLoop
from durum.testing.sockets import SimTransport
from durum.wire.loopback import LoopbackTransport

RESEND_S: Final = 0.2
"""What is lost is sent again after this time, then after twice that, and so on."""

GIVE_UP_S: Final = 924.0
"""How long a kernel sends again before it breaks the connection."""

WITHIN_MACHINE_S: Final = 20e-6


class Cut(StrEnum):
    """What a cut does to what is sent into it."""

    DROP = "drop"
    """It vanishes. Connections stall until the cut is healed or the kernel gives up."""
    REJECT = "reject"
    """A firewall answers in the other's name: connections break as soon as they send, new ones are
    refused. The other end of a connection learns nothing."""


@dataclass(frozen=True, slots=True)
class Link:
    """One direction between two machines.

    Args:
        latency_s: every piece takes at least this long.
        jitter_s: and up to this much more.
        loss: the chance that a piece has to be sent again.
        cut: what a cut does, or None.
    """

    latency_s: float = 200e-6
    jitter_s: float = 800e-6
    loss: float = 0.0
    cut: Cut | None = None


@dataclass(slots=True)
class _Direction:
    """One end's pieces on their way to the other.

    Args:
        lands_at: when the latest of them lands; the next one does not overtake it.
        stalled: arrivals held up by a cut, with the time of their sending.
    """

    source: SimTransport
    lands_at: float = 0.0
    stalled: list[tuple[float, Callable[[], None]]] = field(default_factory=list)


class Links:
    """All wires of one simulation. It is the Carrier of every connection.

    Args:
        loop: whose time and seed they follow.
        usual: what a link is like where nothing else was said.
    """

    def __init__(self, loop: SimLoop, usual: Link) -> None:
        self.loop: Final = loop
        self.usual: Final = usual
        self._links: dict[tuple[str, str], Link] = {}
        self._random: Final = loop.randomness("links")
        self._directions: dict[SimTransport, _Direction] = {}

    def link(self, source: str, target: str) -> Link:
        """The wire from one machine to another."""
        return self._links.get((source, target), self.usual)

    def change(self, source: str, target: str, **changes: object) -> None:
        """Set properties of one direction. Whatever a cut held up there goes on once it is healed."""
        link = replace(self.link(source, target), **changes)  # type: ignore[arg-type]
        self._links[source, target] = link
        if link.cut is not Cut.DROP:
            for direction in list(self._directions.values()):
                if self._ends(direction.source) == (source, target):
                    self._resend(direction)

    def changed(self) -> list[tuple[str, str]]:
        """Directions of which something was said, in that order."""
        return list(self._links)

    def delay(self, source: str, target: str) -> float:
        """How long the next piece takes, without cuts."""
        if source == target:
            return WITHIN_MACHINE_S
        link = self.link(source, target)
        delay = link.latency_s + self._random.uniform(0, link.jitter_s)
        resend = RESEND_S
        while link.loss and self._random.random() < link.loss:
            delay += resend
            resend *= 2
        return delay

    def carry(self, source: LoopbackTransport, arrive: Callable[[], None]) -> None:
        assert isinstance(source, SimTransport)  # noqa: S101 - no others are made of this medium
        direction = self._directions.get(source)
        if direction is None:
            direction = self._directions[source] = _Direction(source)
        self._send(direction, self.loop.time(), arrive)

    def forget(self, source: SimTransport) -> None:
        """Both ends are gone; nothing of it is under way that anyone would miss."""
        self._directions.pop(source, None)

    def _send(self, direction: _Direction, sent_at: float, arrive: Callable[[], None]) -> None:
        source = direction.source
        cut = self.link(*self._ends(source)).cut
        if direction.stalled or cut is Cut.DROP:
            self._stall(direction, sent_at, arrive)
        elif cut is Cut.REJECT:
            self._reject(source)
        else:
            delay = self.delay(*self._ends(source))
            direction.lands_at = max(direction.lands_at, self.loop.time() + delay)
            self.loop.call_in_world_at(direction.lands_at, self._land, direction, sent_at, arrive)

    def _land(self, direction: _Direction, sent_at: float, arrive: Callable[[], None]) -> None:
        source = direction.source
        cut = self.link(*self._ends(source)).cut
        if cut is Cut.DROP or direction.stalled:
            # It was on the wire when the wire was cut.
            self._stall(direction, sent_at, arrive)
        elif cut is Cut.REJECT:
            self._reject(source)
        elif self.loop.is_dead(source.peer_end.host):
            source.peer_end.answer_reset()
        else:
            self.loop.call_soon(arrive, context=source.peer_end.context)

    def _stall(self, direction: _Direction, sent_at: float, arrive: Callable[[], None]) -> None:
        if not direction.stalled:
            self.loop.call_in_world(GIVE_UP_S, self._give_up, direction, sent_at)
        direction.stalled.append((sent_at, arrive))

    def _give_up(self, direction: _Direction, sent_at: float) -> None:
        if direction.stalled and direction.stalled[0][0] == sent_at:
            direction.source.lose(TimeoutError(errno.ETIMEDOUT, "the other end does not answer"))

    def _reject(self, source: SimTransport) -> None:
        error = ConnectionResetError(errno.ECONNRESET, "reset, as a firewall answered")
        self.loop.call_in_world(self.delay(*self._ends(source)), source.lose, error)

    def _resend(self, direction: _Direction) -> None:
        """The wire is whole again: what stalled goes when its sender next tries."""
        stalled, direction.stalled = direction.stalled, []
        if stalled:
            wait = resend_after(self.loop.time() - stalled[0][0])
            direction.lands_at = max(direction.lands_at, self.loop.time() + wait)
            for sent_at, arrive in stalled:
                self._send(direction, sent_at, arrive)

    def _ends(self, source: SimTransport) -> tuple[str, str]:
        return hosts.machine(source.host), hosts.machine(source.peer_end.host)


def resend_after(waited_s: float) -> float:
    """How long after a heal a kernel sends again what has waited so long: it doubles its patience."""
    due, step = RESEND_S, RESEND_S
    while due < waited_s:
        step *= 2
        due += step
    return due - waited_s
