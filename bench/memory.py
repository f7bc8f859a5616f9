"""How many bytes does an activation take? Silos in a process each, filled by calls; how these grow.

    python -m bench.memory KIND ACTIVATIONS     one of them, in this process

What the instance and its fields take by themselves is not Durum's, and is taken off.
"""

from __future__ import annotations

import asyncio
import gc
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Final

import msgspec

import durum
from bench.processes import ROOT
from bench.rounds import QUICK, Effort, Reading
from durum.silo.silo import Silo

BAR: Final = 3 * 1024
_ACTIVATIONS: Final = 100_000
_QUICK_ACTIVATIONS: Final = 10_000
_WARM: Final = 2_000
_AT_ONCE: Final = 200
_PAGE: Final = 4096


class Plain(durum.Actor):
    """Nothing durable."""

    async def get(self) -> int:
        return 1


class Small(durum.Actor):
    """Two durable fields."""

    value: int = 0
    name: str = ""

    @durum.read_only
    async def get(self) -> int:
        return self.value


class Written(Small):
    """As Small, and each has committed once."""

    async def get(self) -> int:
        self.value += 1
        return self.value


class Shelved(durum.Actor):
    """Two collections."""

    items: durum.Map[str, int] = durum.Map()
    log: durum.List[str] = durum.List()

    @durum.read_only
    async def get(self) -> int:
        return len(self.items)


KINDS: Final[dict[str, type[Plain | Small | Shelved]]] = {
    kind.__name__: kind for kind in (Plain, Small, Written, Shelved)
}


def figures(effort: Effort) -> Iterator[Reading]:
    """Measure each kind in a process of its own."""
    count = _ACTIVATIONS if effort.rounds > QUICK.rounds else _QUICK_ACTIVATIONS
    for name in KINDS:
        command = [sys.executable, "-m", "bench.memory", name, str(count)]
        run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        yield msgspec.json.decode(run.stdout.splitlines()[-1], type=Reading)


async def measure(name: str, count: int) -> None:
    """Fill a silo, and say how much it has grown."""
    kind = KINDS[name]
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/memory.db"
        async with Silo(list(KINDS.values()), url, create=True) as silo, silo.connect() as cluster:

            async def call(first: int, last: int) -> None:
                for start in range(first, last, _AT_ONCE):
                    keys = range(start, min(start + _AT_ONCE, last))
                    await asyncio.gather(*(cluster.actor(kind, f"u-{n:07}").get() for n in keys))

            # What is loaded and grown once is not what an activation takes; so are the store's pages,
            # of which it keeps a fixed number.
            await call(0, _WARM)
            gc.collect()
            before, activations = resident(), len(silo.life.catalog)
            await call(_WARM, _WARM + count)
            gc.collect()
            grown, activations = resident() - before, len(silo.life.catalog) - activations
            instance = next(iter(silo.life.catalog.activations.values()))._durable.instance
            own = size_of(instance)
            each = grown / activations
            reading = Reading(
                question="memory of an activation, beyond the actor's own",
                name=f"{name}: {kind.__doc__}",
                value=round(each - own),
                unit="bytes",
                bar=BAR,
                note=f"{activations:,} of them; {round(each)} in all, {own} its own",
            )
            print(msgspec.json.encode(reading).decode())
            await silo.kill()


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def size_of(instance: durum.Actor) -> int:
    """An instance and its attributes; each has a header of the collector's besides."""
    values = [each for each in vars(instance).values() if not isinstance(each, int | str)]
    return sum(sys.getsizeof(each) + 16 for each in (instance, vars(instance), *values))


if __name__ == "__main__":
    asyncio.run(measure(sys.argv[1], int(sys.argv[2])))
