"""Actors that are placed one by one under seeded faults: what clients were told has to be true in the end."""

from __future__ import annotations

import asyncio
import os

import pytest

from durum.store import sqlite_fence
from durum.testing import nemesis, run
from tests.support.town import Booth, Market, Town, Wanderer

SEEDS = int(os.environ.get("DURUM_SIM_SEEDS", "12"))
KEYS = ("k1", "k2", "k3", "k4", "k5", "k6")
TILLS = ("t1", "t2", "t3", "t4")
RAGE_S = 30.0


USUAL = nemesis.Plan(faults=nemesis.USUAL)
CRUEL = nemesis.Plan(
    faults={nemesis.Fault.AMBUSH_PAUSE: 8, nemesis.Fault.ISOLATE: 1, nemesis.Fault.KILL: 1},
    lasts_s=(8.0, 14.0),
)
"""Silos stop with a commit on its way, for so long that others take their actors over."""


async def scenario(seed: int, plan: nemesis.Plan = USUAL) -> list[str]:
    """As for actors that go by their keys; on every third seed one silo hosts none of them."""
    idle = ("a",) if seed % 3 == 0 else ()
    town = await Town.open(market=Market(tally=Wanderer, till=Booth, idle=idle))
    loop = town.loop
    until = loop.time() + RAGE_S + 5
    clients = [
        *(
            loop.start(f"counter{i}", town.count(f"counter{i}", KEYS, until), name=f"counter{i}")
            for i in range(3)
        ),
        *(
            loop.start(f"trader{i}", town.trade(f"trader{i}", TILLS, until), name=f"trader{i}")
            for i in range(2)
        ),
    ]
    await asyncio.sleep(2.0)
    trouble = nemesis.Nemesis(town, plan)
    await trouble.run(RAGE_S)
    await asyncio.gather(*clients)
    judge = loop.start("judge", town.judge(KEYS, TILLS), name="judge")
    wrong = await judge
    answered = len(town.history.operations())
    placed = len(town.store.log.places)
    await town.close()
    assert answered > 50, f"only {answered} calls were made"
    assert placed > 20, f"only {placed} host records were written"
    if wrong:
        wrong += [f"{at:.3f} {blow}" for at, blow in trouble.log]
    return wrong


@pytest.mark.parametrize("seed", range(SEEDS))
def test_placed_actors_keep_their_promises_under_faults(seed: int) -> None:
    """Promises 1, 2, 3 and 7 where each actor has a host of its own: nothing acknowledged is lost, nothing
    keyed is done twice, and no host commits after another was named."""
    wrong = run.run(scenario(seed), seed)
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong)


def test_a_host_that_commits_without_its_token_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test above: a judge that lets all pass judges nothing."""
    assert not run.run(scenario(1, CRUEL), 1)
    monkeypatch.setattr(sqlite_fence, "check_host", lambda found, token, grain: None)
    found = (run.run(scenario(seed, CRUEL), seed) for seed in range(23, 63))
    wrong = next((each for each in found if each), [])
    assert any("passed the fence" in each for each in wrong)
