"""Messages on whole silos under seeded faults: each takes effect once, in order, whatever dies when."""

from __future__ import annotations

import asyncio
import os

import pytest

from durum.testing import nemesis, run, spans
from tests.support.exchange import Broker, Exchange, Nomad
from tests.support.town import Market, Town

SEEDS = int(os.environ.get("DURUM_SIM_SEEDS", "12"))
KEYS = ("b1", "b2", "b3", "b4", "b5", "b6")
RAGE_S = 30.0


async def scenario(broker: type[Broker]) -> list[str]:
    """Clients have brokers talk while faults fall; afterwards all that was said has been heard."""
    town = await Town.open(market=Market(others=(Broker, Nomad)))
    loop, exchange = town.loop, Exchange(broker, KEYS)
    until = loop.time() + RAGE_S + 5

    async def client(name: str) -> None:
        async with town.client(name) as cluster:
            await exchange.clamour(cluster, name, loop.randomness(name), until, 0.2)

    clients = [loop.start(name, client(name), name=name) for name in ("ann", "bob", "cyd")]
    await asyncio.sleep(2.0)
    trouble = nemesis.Nemesis(town)
    await trouble.run(RAGE_S)
    await asyncio.gather(*clients)

    async def judge() -> list[str]:
        async with town.client("judge") as cluster:
            for _ in range(20):
                wrong = exchange.check(await exchange.closing(cluster))
                if not wrong:
                    break
                await asyncio.sleep(
                    10.0
                )  # a silo may have to be waited out; messages rest up to a minute
        return wrong

    wrong = await loop.start("judge", judge(), name="judge")
    wrong += [f"unexpected: {exc!r}" for exc in town.unexpected]
    wrong += spans.check_log(town.store.log)
    await town.close()
    assert exchange.acknowledged > 50, f"only {exchange.acknowledged} calls succeeded"
    if wrong:
        wrong += [f"{at:.3f} {blow}" for at, blow in trouble.log]
    return wrong


@pytest.mark.parametrize("seed", range(SEEDS))
def test_messages_take_effect_once_and_in_order_under_faults(seed: int) -> None:
    """Promises 2, 4 and 7: what a turn said is heard with its state, not without it, once, in order."""
    wrong = run.run(scenario(Broker), seed)
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("seed", range(SEEDS // 2))
def test_messages_of_placed_grains_take_effect_once_under_faults(seed: int) -> None:
    """Their commits are made elsewhere than where their outbox is delivered from."""
    wrong = run.run(scenario(Nomad), seed)
    assert not wrong, f"seed {seed}:\n" + "\n".join(wrong)
