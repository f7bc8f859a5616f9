"""Silos on machines whose wires carry packets in one direction only, or late, twice, in another order, or not
at all: what networks do every day must evict nobody, and lose and double nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from durum.ids import SiloId
from durum.views import View
from tests.support import switch
from tests.support.apart import SECRET, begin, fleet_in
from tests.support.fleet import Fleet
from tests.support.load import load
from tests.support.switch import SOUND, SwitchedTown, Wire

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

LONG = float(os.environ.get("DURUM_FAULTS_NETWORK_S", "9"))
"""How long a bad network lasts: 9 s are far more than it takes to vote out a silo that is silent."""


@pytest.fixture
def town() -> Iterator[SwitchedTown]:
    """Three machines; the store and the callers are at the gate."""
    reason = switch.why_not()
    if reason:
        pytest.skip(reason)
    with SwitchedTown("a", "b", "c", seed=10) as town:
        yield town


@pytest.fixture
def apart(town: SwitchedTown, tmp_path: Path) -> Iterator[Fleet]:
    """A service whose store all machines reach."""
    with fleet_in(town, tmp_path) as fleet:
        yield fleet


async def test_packets_that_come_late_twice_in_another_order_or_never(
    town: SwitchedTown, apart: Fleet
) -> None:
    """5 % lost, 20 +- 20 ms, 5 % doubled, 10 % reordered, between all machines and to the store. It is TCP's
    business to hide that, and ours to have the patience.
    """
    await begin(apart, town, "a", "b", "c")
    async with (
        apart.connect(secret=SECRET) as cluster,
        load(cluster) as plain,
        load(cluster, keyed=True) as keyed,
    ):
        before = town.harmed
        town.wire_all(Wire(delay_s=0.02, jitter_s=0.02, lost=0.05, doubled=0.05, reordered=0.1))
        await asyncio.sleep(LONG)  # the fault itself
        await plain.all_answer()
        await keyed.all_answer()
        assert town.harmed - before > 100
        town.wire_all(SOUND)
    plain.only_typed()
    await apart.nobody_evicted()


async def test_wires_that_carry_one_way_only_or_now_and_then(
    town: SwitchedTown, apart: Fleet
) -> None:
    """First nothing gets from one silo to another, while the way back is sound; then all the wires of one
    silo come and go. The one is seen by a third, the other is shorter than what counts: both of them stay.
    """
    await begin(apart, town, "a", "b", "c")
    async with (
        apart.connect(secret=SECRET) as cluster,
        load(cluster) as plain,
        load(cluster, keyed=True) as keyed,
    ):
        town.wire("a", "b", Wire(cut=True))
        await asyncio.sleep(LONG)  # the fault itself
        await plain.all_answer()
        assert evicted(await apart.view()) == []
        town.wire("a", "b", SOUND)
        for _ in range(int(LONG / 1.5)):
            for wire, lasts_s in ((Wire(cut=True), 0.5), (SOUND, 0.25)):
                for other in ("b", "c"):
                    town.wire("a", other, wire)
                    town.wire(other, "a", wire)
                await asyncio.sleep(lasts_s)  # the fault itself
        await plain.all_answer()
        await keyed.all_answer()
    plain.only_typed()
    await apart.nobody_evicted()


def evicted(view: View) -> list[SiloId]:
    """Who was taken out of a view."""
    return [row.silo for row in view.rows if row not in view.active]
