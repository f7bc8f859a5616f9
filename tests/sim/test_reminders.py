"""Reminders of whole silos under seeded faults: what was set comes, not early, and in the state once."""

from __future__ import annotations

import asyncio
import os

import pytest

from durum.silo.reminders import Book
from durum.silo.table import Table
from durum.testing import loop, nemesis, run
from tests.support import belfry
from tests.support.belfry import Asked, Belfry
from tests.support.town import Town

SEEDS = int(os.environ.get("DURUM_SIM_SEEDS", "8"))
CLOCKS = [(101, (3600.0,)), (102, (-3600.0,)), (103, (3600.0, -3600.0))]
KEYS = ("b1", "b2", "b3", "b4")
RAGE_S = 25.0


async def scenario(clock_steps_s: tuple[float, ...], within_s: float) -> list[str]:
    """Clients set reminders while faults fall; afterwards all has to come that was asked for."""
    town = await Town.open(market=Belfry())
    belfry.enter(town)
    asked: list[Asked] = []
    until = town.loop.time() + RAGE_S + 5
    clients = [
        town.loop.start(name, belfry.set_at_random(town, name, KEYS, until, asked), name=name)
        for name in ("ringer0", "ringer1", "ringer2")
    ]
    for number, seconds in enumerate(clock_steps_s, 1):
        at = RAGE_S * number / (len(clock_steps_s) + 1)
        town.loop.call_in_world(at, town.store_clock.step_wall, seconds)
        if seconds < 0:
            belfry.set_back.append(town.loop.time() + at)
    await asyncio.sleep(2.0)
    trouble = nemesis.Nemesis(town)
    await trouble.run(RAGE_S)
    await asyncio.gather(*clients)
    judge = town.loop.start("judge", belfry.judge(town, asked, within_s), name="judge")
    wrong = await judge
    await town.close()
    assert len(asked) > 30, f"only {len(asked)} reminders were set"
    if wrong:
        wrong += [f"{at:.3f} {blow}" for at, blow in trouble.log]
    return wrong


LIMITS = loop.Limits(steps=20_000_000)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_reminders_come_once_and_not_early_under_faults(seed: int) -> None:
    """Promise 6, whatever dies, stops or is cut off: a wake-up stays in the store until a commit of its
    grain has moved it."""
    wrong = run.run(scenario((), 600.0), seed)
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("seed", "steps"), CLOCKS)
def test_reminders_come_though_the_store_clock_is_set_by_an_hour(
    seed: int, steps: tuple[float, ...]
) -> None:
    """Forward, back, and there and back again, among all the other faults."""
    wrong = run.run(scenario(steps, 3 * 3600.0), seed, limits=LIMITS)
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong)


MUTANTS: dict[str, tuple[object, str, object]] = {
    "ticks by a clock that is early": (
        Table,
        "reckoned",
        lambda self: self.store_time() + 0.5,
    ),
    "a tick that is not moved on with its commit": (
        Book,
        "_go_on",
        lambda self, name, then: None if then is None else then.wake_ms,
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_is_found(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that lets a broken silo pass proves nothing about a whole one."""
    owner, name, broken = MUTANTS[mutant]
    monkeypatch.setattr(owner, name, broken)
    assert any(run.run(scenario((), 200.0), seed) for seed in range(5))
