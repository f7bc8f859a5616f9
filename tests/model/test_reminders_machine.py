"""Reminders against the simplest model, a list of what is due when, with a crash before or after any step
that a silo takes at the store.

The model knows nothing of commits, pages or wake-ups: a reminder that was set comes at its times, each time
once in the durable state; one that was cancelled comes no more; what nobody was told of may be either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from durum import errors
from durum.errors import DidRun
from durum.grains.actor import Actor, read_only
from durum.grains.reference import options
from durum.grains.reminders import Tick
from durum.testing import run
from durum.testing.store import Stage
from durum.testing.store_client import Operation
from tests.support.turns import SMALL, House

STEPS = ("commit", "due", "load", "scan_parts", "take")
NAMES = ("x", "y")
Rung = list[tuple[str, int, int]]


class Bell(Actor):
    rung: Rung = []
    life: int = 0

    async def set(self, name: str, every: float, count: int) -> int:
        """Set it anew: another life of the reminder, so that its ticks can be told from those before."""
        self.life += 1
        self.remind(name, every=every, count=count, missed="all", payload=self.life)
        return self.life

    async def cancel(self, name: str) -> None:
        self.context.reminders.cancel(name)

    @read_only
    async def ring(self) -> tuple[Rung, list[str]]:
        return self.rung, [each.name for each in await self.context.reminders.list()]

    async def on_reminder(self, name: str, tick: Tick) -> None:
        self.rung.append((name, tick.payload, tick.number))
        if tick.number == 2 and tick.attempt == 1:
            raise ValueError("not at once")


class Model:
    """What may be true of one actor's reminders."""

    def __init__(self) -> None:
        self.lives: dict[int, tuple[str, int]] = {}  # name and count
        self.current: dict[str, set[int]] = {name: set() for name in NAMES}  # lives that may stand
        self.whole: set[int] = set()  # lives that have to come to their end

    def set(self, name: str, life: int, count: int) -> None:
        self.whole -= self.current[name]
        self.lives[life], self.current[name] = (name, count), {life}
        self.whole.add(life)

    def unknown(self, name: str) -> None:
        """Something was asked for, and nobody knows whether it was done."""
        self.whole -= self.current[name]

    def check(self, rung: Rung) -> None:
        for life, (name, count) in self.lives.items():
            numbers = [number for each, of, number in rung if (each, of) == (name, life)]
            assert numbers == sorted(set(numbers)), f"doubled or out of order: {rung}"
            assert numbers == list(range(1, len(numbers) + 1)), f"left out: {rung}"
            if life in self.whole:
                assert len(numbers) == count, f"lost: {rung}, set {self.lives}"


CRASHES = st.lists(
    st.tuples(
        st.sampled_from(STEPS), st.integers(1, 6), st.sampled_from([Stage.SENT, Stage.APPLIED])
    ),
    max_size=3,
)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("set"),
            st.sampled_from(NAMES),
            st.sampled_from([1.0, 2.5, 7.0]),
            st.integers(1, 4),
        ),
        st.tuples(st.just("cancel"), st.sampled_from(NAMES), st.just(0.0), st.just(0)),
        st.tuples(st.just("wait"), st.just(""), st.sampled_from([0.5, 3.0, 8.0]), st.just(0)),
    ),
    min_size=1,
    max_size=8,
)


class Scene:
    """One silo that is killed where it was said, and started again."""

    def __init__(self, house: House, crashes: Sequence[tuple[str, int, Stage]]) -> None:
        self.house = house
        self.crashes = list(crashes)
        self.seen = 0
        self.lives = 0
        self.armed = True
        house.store.watch(self.watch)

    async def start(self) -> None:
        self.lives += 1
        await self.house.start(f"a#{self.lives}", [Bell], SMALL)

    def watch(self, operation: Operation, stage: Stage) -> None:
        if not self.crashes or not self.armed or not operation.host.startswith("a"):
            return
        name, nth, when = self.crashes[0]
        if operation.name != name or stage is not when:
            return
        self.seen += 1
        if self.seen >= nth:
            self.crashes.pop(0)
            self.seen = 0
            host = f"a#{self.lives}"
            if host in self.house.silos:
                self.house.kill(host)
                self.house.loop.call_in_world(1.0, self.again)

    def again(self) -> None:
        self.restarting = asyncio.get_running_loop().create_task(self.start())


async def play(actions: Sequence[tuple[str, str, float, int]], scene: Scene) -> None:
    house, model = scene.house, Model()
    await scene.start()
    cluster = await house.connect("a", config=SMALL)
    bell = options(cluster.actor(Bell, "b"), timeout=20)
    for action, name, seconds, count in actions:
        if action == "wait":
            await asyncio.sleep(seconds)
            continue
        try:
            if action == "set":
                model.set(name, await bell.set(name, seconds, count), count)
            else:
                await bell.cancel(name)
                model.whole -= model.current[name]
        except errors.CallError as exc:
            if exc.did_run not in {DidRun.NO, DidRun.ROLLED_BACK}:
                model.unknown(name)
    await asyncio.sleep(40)
    scene.armed = False
    await asyncio.sleep(40)
    rung, standing = await bell.ring()
    assert not standing, f"{standing} never came to an end"
    model.check(rung)


@given(actions=ACTIONS, crashes=CRASHES)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_reminders_are_what_a_list_would_be(
    actions: list[tuple[str, str, float, int]], crashes: list[tuple[str, int, Stage]]
) -> None:
    """Whatever step a silo dies at: set, ticked, failed, cancelled are each one commit, or none."""

    async def main() -> None:
        house = await House.build()
        try:
            await play(actions, Scene(house, crashes))
        finally:
            await house.close()

    run.run(main(), 7)
