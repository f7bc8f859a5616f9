"""Maps and lists on whole silos under seeded faults: an entry and what tells of it are never parted."""

from __future__ import annotations

import asyncio
import os

import pytest

from durum.errors import DidRun
from durum.testing import nemesis, run
from tests.support import pantry
from tests.support.pantry import Known
from tests.support.town import Town

SEEDS = int(os.environ.get("DURUM_SIM_SEEDS", "16"))
PANTRIES = ("p1", "p2", "p3")
RAGE_S = 30.0


async def scenario() -> list[str]:
    """Clients put and take while faults fall; afterwards each map is what its list tells of."""
    town = await Town.open()
    loop = town.loop
    until = loop.time() + RAGE_S + 5
    clients = [
        loop.start(name, town.stock(name, PANTRIES, until), name=name)
        for name in ("cook", "maid", "child")
    ]
    await asyncio.sleep(2.0)
    trouble = nemesis.Nemesis(town)
    await trouble.run(RAGE_S)
    await asyncio.gather(*clients)
    judge = loop.start("judge", town.judge((), (), PANTRIES), name="judge")
    wrong = await judge
    known = len(town.jars)
    await town.close()
    assert known > 30, f"only {known} jars were put"
    if wrong:
        wrong += [f"{at:.3f} {blow}" for at, blow in trouble.log]
    return wrong


@pytest.mark.parametrize("seed", range(SEEDS))
def test_collections_keep_their_promises_under_faults(seed: int) -> None:
    """Promises 1, 2 and 7 for entries: of each turn, all changes of map and list are there, or none."""
    wrong = run.run(scenario(), seed)
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("jars", "log", "line"),
    [
        ({}, ["+a"], "+a"),  # an entry is lost
        ({"a": 0, "b": 1}, ["+a"], "+a"),  # one came from nowhere
        ({"a": 0}, ["+a"], "+b"),  # what was acknowledged is not there
        ({"a": 1}, ["+a", "+a"], "+a"),  # a turn came twice
        ({}, ["-a"], "-a"),  # it took what was not there
    ],
)
def test_check_notices_what_does_not_add_up(
    jars: dict[str, int], log: list[str], line: str
) -> None:
    """A judge that lets all pass judges nothing."""
    lengths = (len(jars), len(log))
    assert pantry.check("p", (jars, log, lengths), [Known("p", line, DidRun.YES, None)])
    assert pantry.check("p", ({"a": 0}, ["+a"], (2, 1)), [])
    assert not pantry.check("p", ({"a": 0}, ["+a"], (1, 1)), [Known("p", "+a", DidRun.YES, 0)])
