"""All simulation tools together, on a toy: silos that take one partition from each other and count.

It has no lease and no membership, so every fault falls on the fence. It proves that the tools find what
they are for: with the fence switched off in the store, the checkers must notice within a few seeds.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from durum import errors
from durum.errors import DidRun
from durum.ids import Address, GrainId, SeededEntropy, Token, silo_id
from durum.store.protocol import NEVER_OWNED, Commit, Committed, Genesis, Owner, Store, Take
from durum.store.urls import open_store
from durum.testing import hosts, loop
from durum.testing.clock import SimClock
from durum.testing.history import History
from durum.testing.ledgers import check_counter
from durum.testing.nemesis import USUAL, Fault, Nemesis, Plan
from durum.testing.network import SimNetwork
from durum.testing.run import run
from durum.testing.spans import check_log
from durum.testing.store import FaultyStore
from durum.testing.store_client import HostStore

GENESIS = Genesis(mark="0" * 32, cluster="toy", partitions=1, ring=1)
GRAIN = GrainId("Counter/c")


class Unfenced:
    """A store that takes every commit as the present owner's."""

    def __init__(self, inside: Store) -> None:
        self._inside = inside

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inside, name)

    def commit(self, commit: Commit) -> asyncio.Future[Committed]:
        async def forge() -> Committed:
            (owner,) = await self._inside.owners(GENESIS.mark)
            return await self._inside.commit(msgspec.structs.replace(commit, token=owner.token))

        return asyncio.get_running_loop().create_task(forge())


class ToyWorld:
    """Three machines with a toy silo each."""

    def __init__(self, store: FaultyStore) -> None:
        self.loop = loop.current()
        self.network = SimNetwork(self.loop)
        self.store = store
        self.history = History()
        self.entropy = SeededEntropy(self.loop.seed)
        self.stopping = False
        self.lives: dict[str, int] = {}
        self.clocks: dict[str, SimClock] = {}
        for machine in "abc":
            self.network.host(machine)
            self.clocks[machine] = SimClock.seeded(self.loop, machine)
            self.restart(machine)

    def silos(self) -> Sequence[str]:
        named = (f"{machine}#{life}" for machine, life in self.lives.items())
        return [host for host in named if not self.loop.is_dead(host)]

    def clock(self, host: str) -> SimClock:
        return self.clocks[hosts.machine(host)]

    def restart(self, machine: str) -> None:
        if all(hosts.machine(host) != machine for host in self.silos()):
            self.lives[machine] = self.lives.get(machine, 0) + 1
            host = f"{machine}#{self.lives[machine]}"
            self.loop.start(host, self.live(host), name=host)

    async def live(self, host: str) -> None:
        """Take the partition, count a while, and start again whenever anything goes wrong."""
        store, clock = self.store.host(host), self.clock(host)
        while not self.stopping:
            await clock.sleep(2 * self.entropy.fraction())
            try:
                token = await self.take(store, host)
                await self.count(store, clock, token, host)
            except (errors.StoreError, errors.Superseded, errors.CallError):
                continue

    async def take(self, store: Store, host: str) -> Token:
        (owner,) = await store.owners(GENESIS.mark)
        token = self.entropy.token()
        silo = silo_id(Address(f"{hosts.machine(host)}:1"), self.lives[hosts.machine(host)])
        take = Take(partition=0, seen=owner.token, token=token, silo=silo)
        found: Sequence[Owner] = await store.take(GENESIS.mark, [take])
        if found[0].token != token:
            raise errors.Superseded("another silo was quicker")
        return token

    async def count(self, store: HostStore, clock: SimClock, token: Token, host: str) -> None:
        record = await store.load(0, token, GRAIN, raise_version=True)
        version, value = record.version, int(record.state or b"0")
        while not self.stopping:
            await clock.sleep(0.05)
            value += 1
            add = self.add(store, token, version, value)
            await self.history.call("c", "add", 1, add, client=host)
            version += 1

    async def add(self, store: Store, token: Token, version: int, value: int) -> int:
        """One turn, as a caller sees it: the new value, or what is known of its fate."""
        commit = Commit(
            partition=0,
            token=token,
            grain=GRAIN,
            id=self.entropy.token(),
            version=version,
            state=b"%d" % value,
        )
        try:
            await store.commit(commit)
        except errors.Superseded as exc:
            raise errors.CommitFailed("fenced", DidRun.ROLLED_BACK) from exc
        except errors.StoreUnavailable as exc:
            did_run = DidRun.ROLLED_BACK if exc.applied is False else DidRun.MAYBE
            raise errors.CommitFailed("store away", did_run) from exc
        return value


async def play(plan: Plan, *, fenced: bool = True, for_s: float = 60) -> dict[str, Any]:
    running = loop.current()

    async def make() -> Store:
        store = await open_store(
            "memory:",
            cluster="toy",
            clock=SimClock(running),
            entropy=SeededEntropy(running.seed),
            threads=False,
        )
        return store if fenced else Unfenced(store)

    store = await FaultyStore.open(running, make)
    await store.inside.create(GENESIS)
    world = ToyWorld(store)
    nemesis = Nemesis(world, plan)
    await nemesis.run(for_s)
    healed = len(store.log.commits)
    await asyncio.sleep(30)
    after = len(store.log.commits) - healed
    world.stopping = True
    await asyncio.sleep(60)
    (owner,) = await store.inside.owners(GENESIS.mark)
    assert owner.token != NEVER_OWNED
    record = await store.inside.load(0, owner.token, GRAIN)
    await store.close()
    return {
        "wrong": check_log(store.log)
        + check_counter(world.history.operations(), int(record.state or b"0")),
        "after": after,
        "faults": {blow.fault for _, blow in nemesis.log},
        "digest": running.digest,
        "lives": sum(world.lives.values()),
    }


@pytest.mark.parametrize("seed", range(12))
def test_fenced_toy_survives_the_nemesis(seed: int) -> None:
    """No false alarm: what the fence protects, the checkers accept; and it works again at the end."""
    found = run(play(Plan(faults=USUAL)), seed)
    assert found["wrong"] == []
    assert found["after"] > 50


def test_nemesis_repeats_a_run_from_its_seed() -> None:
    """A failing seed has to fail again."""
    first, second = (run(play(Plan(faults=USUAL)), 5) for _ in range(2))
    assert first == second
    assert first["digest"] != run(play(Plan(faults=USUAL)), 6)["digest"]


def test_nemesis_repeats_a_run_in_another_process() -> None:
    """Memory addresses and the hash seed must decide nothing, in all the tools together."""
    code = (
        "from tests.sim.test_nemesis import *;"
        "found = run(play(Plan(faults=USUAL), for_s=30), 5); print(found['digest'], found['after'])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(found) == 1


def test_every_fault_is_reached_and_undone() -> None:
    """Over a few seeds each fault strikes, silos die and start again."""
    runs = [run(play(Plan(faults=USUAL, keep=0), for_s=120), seed) for seed in range(100, 104)]
    assert set().union(*(found["faults"] for found in runs)) == set(Fault)
    assert all(found["lives"] > 3 for found in runs)
    assert all(found["after"] > 50 for found in runs)


def test_missing_fence_is_found_by_lying_in_wait() -> None:
    """The bias pays: a paused owner's late commit, and a checker that sees it pass."""
    plan = Plan(faults={Fault.AMBUSH_PAUSE: 1})
    wrong = [run(play(plan, fenced=False), seed)["wrong"] for seed in range(5)]
    assert any("passed the fence" in line for lines in wrong for line in lines)
