"""Faults at random, from a seed, where they hurt. Owns what strikes whom, when and for how long; knows
the world only by what a test tells of it.

Random faults alone rarely meet the moments that matter. So it lies in wait: for a silo that has just
sent a commit, to stop or kill it there, while the commit is still on its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random  # noqa: TID251 - only as a type; the loop makes it from the seed
from typing import Final, Protocol

from durum.testing import hosts
from durum.testing.clock import SimClock
from durum.testing.links import Cut
from durum.testing.loop import SimLoop
from durum.testing.network import SimNetwork
from durum.testing.store import Chances, Fate, FaultyStore, Stage
from durum.testing.store_client import Operation


class World(Protocol):
    """What the nemesis acts on. Whole-silo simulations implement it."""

    loop: SimLoop
    network: SimNetwork
    store: FaultyStore

    def silos(self) -> Sequence[str]:
        """Hosts of the silo processes that live, frozen ones too, in a fixed order."""
        ...

    def clock(self, host: str) -> SimClock:
        """The clock of a host's machine."""
        ...

    def restart(self, machine: str) -> None:
        """Start a silo's next life on a machine, unless one lives there, or none belongs there."""
        ...


class Fault(StrEnum):
    """What can strike."""

    KILL = "kill"
    PAUSE = "pause"
    AMBUSH_PAUSE = "pause with a commit on its way"
    AMBUSH_KILL = "kill with a commit on its way"
    CUT = "cut between two"
    CUT_ONE_WAY = "cut between two, one way"
    REJECT = "firewall between two"
    ISOLATE = "cut from all others"
    SLOW = "slow link between two"
    STORE_CUT = "cut from the store"
    STORE_REJECT = "firewall to the store"
    STORE_BLOCK = "stalled on the way to the store"
    STORE_STOP = "stopped store"
    LOST_REPLIES = "lost replies of the store"
    GHOSTS = "writes that land late"
    CLOCK_RATE = "clock of another rate"
    CLOCK_JUMP = "wall clock that jumps"


USUAL: Final[Mapping[Fault, float]] = {
    Fault.KILL: 2,
    Fault.PAUSE: 2,
    Fault.AMBUSH_PAUSE: 4,
    Fault.AMBUSH_KILL: 2,
    Fault.CUT: 1,
    Fault.CUT_ONE_WAY: 1,
    Fault.REJECT: 1,
    Fault.ISOLATE: 1,
    Fault.SLOW: 1,
    Fault.STORE_CUT: 2,
    Fault.STORE_REJECT: 1,
    Fault.STORE_BLOCK: 1,
    Fault.STORE_STOP: 0.5,
    Fault.LOST_REPLIES: 2,
    Fault.GHOSTS: 2,
    Fault.CLOCK_RATE: 1,
    Fault.CLOCK_JUMP: 0.5,
}
"""How often each fault strikes, relative to the others."""

_OF_TWO: Final = {Fault.CUT, Fault.CUT_ONE_WAY, Fault.REJECT, Fault.SLOW}
_KILLS: Final = {Fault.KILL, Fault.AMBUSH_KILL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How hard it strikes.

    Args:
        faults: which, and how often each relative to the others.
        gap_s: shortest and longest time between two blows.
        lasts_s: shortest and longest time until one is undone, or a killed silo starts again.
        keep: a kill leaves at least so many silos alive.
    """

    faults: Mapping[Fault, float]
    gap_s: tuple[float, float] = (0.5, 5.0)
    lasts_s: tuple[float, float] = (0.3, 12.0)
    keep: int = 1


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault that strikes.

    Args:
        fault: what.
        victim: whom.
        other: the other end, for faults between two; else "".
        lasts_s: how long.
    """

    fault: Fault
    victim: str
    other: str
    lasts_s: float

    def __str__(self) -> str:
        other = f" and {self.other}" if self.other else ""
        return f"{self.fault}: {self.victim}{other} for {self.lasts_s:.3f} s"


def decide(plan: Plan, chance: Random, silos: Sequence[str], writers: Sequence[str]) -> Blow | None:
    """Choose the next blow. Pure, but for what it draws.

    Args:
        plan: how hard.
        chance: the seed's randomness.
        silos: who lives.
        writers: who waits for the answer to a commit; preferred, two times in three.

    Returns:
        The blow, or None where nobody lives.
    """
    possible = {
        fault: weight
        for fault, weight in plan.faults.items()
        if (fault not in _OF_TWO or len(silos) > 1)
        and (fault not in _KILLS or len(silos) > plan.keep)
    }
    if not silos or not possible:
        return None
    (fault,) = chance.choices(list(possible), weights=list(possible.values()))
    busy = [silo for silo in silos if silo in writers]
    victim = chance.choice(busy if busy and chance.random() < 2 / 3 else list(silos))
    others = [silo for silo in silos if silo != victim]
    other = chance.choice(others) if fault in _OF_TWO else ""
    return Blow(fault, victim, other, chance.uniform(*plan.lasts_s))


class Nemesis:
    """Strikes a world.

    Args:
        world: whom.
        plan: how hard.
    """

    def __init__(self, world: World, plan: Plan = Plan(faults=USUAL)) -> None:
        self.log: Final[list[tuple[float, Blow]]] = []
        """Every blow and its virtual time, for people."""
        self._world: Final = world
        self._plan: Final = plan
        self._chance: Final = world.loop.randomness("nemesis")
        self._ambushes: Final[dict[str, Blow]] = {}
        self._over = False
        world.store.watch(self._seen)

    async def run(self, for_s: float) -> None:
        """Strike for so long, then undo everything and leave the world alone."""
        loop = self._world.loop
        end = loop.time() + for_s
        while (gap := self._chance.uniform(*self._plan.gap_s)) < end - loop.time():
            await asyncio.sleep(gap)
            silos, writers = self._world.silos(), self._world.store.writers()
            blow = decide(self._plan, self._chance, silos, writers)
            if blow is not None:
                self.strike(blow)
        await asyncio.sleep(max(0.0, end - loop.time()))
        self.heal()

    def strike(self, blow: Blow) -> None:
        """Do it now, and undo it when its time is over."""
        self.log.append((self._world.loop.time(), blow))
        if blow.fault in {Fault.AMBUSH_KILL, Fault.AMBUSH_PAUSE}:
            # The commit lands when the victim is gone, or about when it wakes up again.
            late_s = blow.lasts_s * self._chance.uniform(0, 1.5)
            self._world.store.next(blow.victim, "commit", Fate(late_s=late_s))
            self._ambushes[blow.victim] = blow
            return
        self._hit(blow)
        self._world.loop.call_in_world(blow.lasts_s, self._lift, blow)

    def heal(self) -> None:
        """Undo everything that lasts. Silos that were killed start again."""
        world = self._world
        self._over = True
        self._ambushes.clear()
        world.network.heal_all()
        world.store.heal_all()
        for silo in world.silos():
            world.loop.thaw(silo)
        for machine in list(world.network.machines):
            world.restart(machine)

    def _seen(self, operation: Operation, stage: Stage) -> None:
        if operation.name != "commit" or stage is not Stage.SENT:
            return
        blow = self._ambushes.pop(operation.host, None)
        if blow is None:
            return
        kills = blow.fault is Fault.AMBUSH_KILL
        now = Blow(Fault.KILL if kills else Fault.PAUSE, blow.victim, "", blow.lasts_s)
        if not kills or len(self._world.silos()) > self._plan.keep:
            self._hit(now)
            self._world.loop.call_in_world(now.lasts_s, self._lift, now)

    def _hit(self, blow: Blow) -> None:
        _HIT[blow.fault](_Scene(self._world, self._chance, blow))

    def _lift(self, blow: Blow) -> None:
        if not self._over and blow.fault in _LIFT:
            _LIFT[blow.fault](_Scene(self._world, self._chance, blow))


class _Scene:
    """One blow and all that it needs."""

    def __init__(self, world: World, chance: Random, blow: Blow) -> None:
        self.loop: Final = world.loop
        self.network: Final = world.network
        self.store: Final = world.store
        self.clock: Final = world.clock
        self.restart: Final = world.restart
        self.chance: Final = chance
        self.lasts_s: Final = blow.lasts_s
        self.victim: Final = blow.victim
        self.machine: Final = hosts.machine(blow.victim)
        self.other: Final = hosts.machine(blow.other)


def _slow(at: _Scene) -> None:
    latency_s, loss = at.chance.uniform(0, 0.5), at.chance.uniform(0, 0.1)
    at.network.slow(at.machine, at.other, latency_s=latency_s, jitter_s=0.1, loss=loss)


def _quick(at: _Scene) -> None:
    usual = at.network.links.usual
    at.network.slow(at.machine, at.other, latency_s=usual.latency_s, jitter_s=usual.jitter_s)


def _rejoin(at: _Scene) -> None:
    for each in at.network.machines:
        if each != at.machine:
            at.network.heal(at.machine, each)


def _ghosts(at: _Scene) -> None:
    at.store.chances(at.machine, Chances(ghost=0.4, ghost_s=2 * at.lasts_s))


_HIT: Final[Mapping[Fault, Callable[[_Scene], None]]] = {
    Fault.KILL: lambda at: at.loop.kill(at.victim),
    Fault.PAUSE: lambda at: at.loop.freeze(at.victim),
    Fault.CUT: lambda at: at.network.cut(at.machine, at.other),
    Fault.CUT_ONE_WAY: lambda at: at.network.cut(at.machine, at.other, one_way=True),
    Fault.REJECT: lambda at: at.network.cut(at.machine, at.other, Cut.REJECT),
    Fault.ISOLATE: lambda at: at.network.isolate(at.machine),
    Fault.SLOW: _slow,
    Fault.STORE_CUT: lambda at: at.store.cut(at.machine),
    Fault.STORE_REJECT: lambda at: at.store.cut(at.machine, Cut.REJECT),
    Fault.STORE_BLOCK: lambda at: at.store.block(at.machine, at.lasts_s),
    Fault.STORE_STOP: lambda at: at.store.stop(),
    Fault.LOST_REPLIES: lambda at: at.store.chances(at.machine, Chances(lost=0.1, unanswered=0.3)),
    Fault.GHOSTS: _ghosts,
    Fault.CLOCK_RATE: lambda at: at.clock(at.victim).set_rate(at.chance.uniform(0.98, 1.02)),
    Fault.CLOCK_JUMP: lambda at: at.clock(at.victim).step_wall(at.chance.uniform(-3600, 3600)),
}
"""All but the ambushes, which become a kill or a pause."""

_LIFT: Final[Mapping[Fault, Callable[[_Scene], None]]] = {
    Fault.KILL: lambda at: at.restart(at.machine),
    Fault.PAUSE: lambda at: at.loop.thaw(at.victim),
    Fault.CUT: lambda at: at.network.heal(at.machine, at.other),
    Fault.CUT_ONE_WAY: lambda at: at.network.heal(at.machine, at.other),
    Fault.REJECT: lambda at: at.network.heal(at.machine, at.other),
    Fault.ISOLATE: _rejoin,
    Fault.SLOW: _quick,
    Fault.STORE_CUT: lambda at: at.store.heal(at.machine),
    Fault.STORE_REJECT: lambda at: at.store.heal(at.machine),
    Fault.STORE_STOP: lambda at: at.store.go_on(),
    Fault.LOST_REPLIES: lambda at: at.store.chances(at.machine, Chances()),
    Fault.GHOSTS: lambda at: at.store.chances(at.machine, Chances()),
}
"""Those that end by themselves, or stay as they are, are not here."""
