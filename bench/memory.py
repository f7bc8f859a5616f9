"""How many bytes does an activation take? Silos in a process each, filled by calls; how these grow.

    python -m bench.memory [ACTIVATIONS] [--check]

One JSON line for each kind of actor. `own` is what the instance and its fields take by themselves, so that
`beyond_own` is what Durum adds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import pathlib
import subprocess
import sys
import tempfile
from typing import Final

import durum
from bench.processes import ROOT
from durum.silo.silo import Silo

BAR: Final = 3 * 1024
_ACTIVATIONS: Final = 100_000
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


def main() -> int:
    """Measure each kind in a process of its own.

    Returns:
        1 with --check where a figure is above the bar, else 0.
    """
    given = [each for each in sys.argv[1:] if not each.startswith("-")]
    if given and given[0] in KINDS:
        asyncio.run(measure(given[0], int(given[1])))
        return 0
    count = given[0] if given else str(_ACTIVATIONS)
    short = False
    for name in KINDS:
        command = [sys.executable, "-m", "bench.memory", name, count]
        run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        line = run.stdout.splitlines()[-1]
        print(line, flush=True)
        short = short or json.loads(line)["beyond_own"] > BAR
    return int(short and "--check" in sys.argv)


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
            print(
                json.dumps(
                    {
                        "question": "bytes of an activation",
                        "kind": name,
                        "activations": activations,
                        "bytes": round(each),
                        "own": own,
                        "beyond_own": round(each - own),
                        "bar": BAR,
                    }
                )
            )
            await silo.kill()


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def size_of(instance: durum.Actor) -> int:
    """An instance and its attributes; each has a header of the collector's besides."""
    values = [each for each in vars(instance).values() if not isinstance(each, int | str)]
    return sum(sys.getsizeof(each) + 16 for each in (instance, vars(instance), *values))


if __name__ == "__main__":
    sys.exit(main())
