"""Faults that fall on simulated silos, one after another, as a seed decides. It owns their choice and their
end; what must hold meanwhile, World checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from durum.testing.links import Cut
from durum.testing.store import Chances, Stage
from durum.testing.store_client import Operation
from tests.support.silos import SimSilo, World

MACHINES: Final = ("a", "b", "c", "d")


class Nemesis:
    """Faults over a World.

    Args:
        world: where they fall.
        ghosts: whether writes may land long after they were given up.
    """

    def __init__(self, world: World, *, ghosts: bool = True) -> None:
        self._world: Final = world
        self._loop: Final = world.loop
        self._random: Final = world.loop.randomness("nemesis")
        self._ghosts: Final = ghosts
        self._frozen: Final[dict[str, None]] = {}
        self._over = False
        self.log: Final[list[str]] = []

    async def rage(self, seconds: float) -> None:
        """Let faults fall for so long, then end all of them."""
        until = self._loop.time() + seconds
        faults = self._faults()
        while self._loop.time() < until:
            await self._world.run_for(self._random.uniform(0.3, 4.0))
            victims = self._world.alive()
            if victims:
                name = self._random.choice(list(faults))
                victim = self._random.choice(victims)
                self.log.append(f"{self._loop.time():.3f} {name} {victim.host}")
                faults[name](victim)
            self._respawn()
        self.end()

    def end(self) -> None:
        """End all faults; every machine gets its silo back."""
        self._over = True
        for host in list(self._frozen):
            self._thaw(host)
        self._world.network.heal_all()
        self._world.store.heal_all()
        self._respawn()

    async def healed(self, within_s: float) -> None:
        """Wait until all is well, whatever silos the faults have left behind."""
        deadline = self._loop.time() + within_s
        while not self._world.settled(len(MACHINES)):
            self._respawn()
            await self._world.until(
                lambda: self._world.settled(len(MACHINES)) or self._missing() != [],
                deadline - self._loop.time(),
            )

    def _faults(self) -> dict[str, Callable[[SimSilo], None]]:
        faults: dict[str, Callable[[SimSilo], None]] = {
            "kill": lambda silo: self._loop.kill(silo.host),
            "terminate": lambda silo: silo.stop(),
            "short stop": lambda silo: self._freeze(silo, self._random.uniform(0.2, 4.0)),
            "long stop": lambda silo: self._freeze(silo, self._random.uniform(4.0, 16.0)),
            "stop while writing": self._freeze_at_write,
            "cut pair": self._cut_pair,
            "cut one way": self._cut_one_way,
            "isolate": self._isolate,
            "cut from store": self._cut_store,
            "stop store": self._stop_store,
            "bad store": self._bad_store,
            "other store process": lambda _: self._world.store.change_identity(),
        }
        if self._ghosts:
            faults["block store"] = self._block
        return faults

    def _missing(self) -> list[str]:
        there = {silo.listen.partition(":")[0] for silo in self._world.alive()}
        return [machine for machine in MACHINES if machine not in there]

    def _respawn(self) -> None:
        for machine in self._missing():
            self._world.start(machine)

    def _later(self, seconds: float, then: Callable[..., object], *args: object) -> None:
        self._loop.call_in_world(seconds, then, *args)

    def _freeze(self, silo: SimSilo, seconds: float) -> None:
        self._loop.freeze(silo.host)
        self._frozen[silo.host] = None
        self._later(seconds, self._thaw, silo.host)

    def _thaw(self, host: str) -> None:
        if self._frozen.pop(host, "") is None and not self._loop.is_dead(host):
            self._loop.thaw(host)

    def _freeze_at_write(self, silo: SimSilo) -> None:
        """Stop a silo at a stage of its next write: the case that chance alone seldom finds."""
        stage = self._random.choice([Stage.SENT, Stage.APPLIED])
        name = self._random.choice(["commit", "take", "beat", "write_row"])
        seconds = self._random.uniform(4.0, 16.0)
        armed = True

        def watch(operation: Operation, at: Stage) -> None:
            nonlocal armed
            if self._over:
                armed = False
            if armed and at is stage and operation.host == silo.host and operation.name == name:
                armed = False
                self._freeze(silo, seconds)

        self._world.store.watch(watch)

    def _cut_pair(self, silo: SimSilo) -> None:
        a, b = self._random.sample(MACHINES, 2)
        self._world.network.cut(a, b)
        self._later(self._random.uniform(0.5, 15.0), self._world.network.heal, a, b)

    def _cut_one_way(self, silo: SimSilo) -> None:
        a, b = self._random.sample(MACHINES, 2)
        self._world.network.cut(a, b, one_way=True)
        self._later(self._random.uniform(0.5, 15.0), self._world.network.heal, a, b)

    def _isolate(self, silo: SimSilo) -> None:
        a = self._random.choice(MACHINES)
        self._world.network.isolate(a)
        seconds = self._random.uniform(0.5, 15.0)
        for b in MACHINES:
            if b != a:
                self._later(seconds, self._world.network.heal, a, b)

    def _cut_store(self, silo: SimSilo) -> None:
        how = self._random.choice([Cut.DROP, Cut.REJECT])
        self._world.store.cut(silo.host, how)
        self._later(self._random.uniform(0.5, 12.0), self._world.store.heal, silo.host)

    def _stop_store(self, silo: SimSilo) -> None:
        self._world.store.stop()
        self._later(self._random.uniform(0.2, 8.0), self._world.store.go_on)

    def _bad_store(self, silo: SimSilo) -> None:
        chances = Chances(
            lost=0.05, ghost=0.2 if self._ghosts else 0.0, unanswered=0.15, refused=0.05
        )
        self._world.store.chances(silo.host, chances)
        self._later(
            self._random.uniform(1.0, 10.0), self._world.store.chances, silo.host, Chances()
        )

    def _block(self, silo: SimSilo) -> None:
        self._world.store.block(silo.host, self._random.uniform(0.5, 12.0))
