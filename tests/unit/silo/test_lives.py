"""Activations from birth to removal: hooks, idle collection, asking to go, and loads that fail."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from durum import errors
from durum.errors import DidRun
from durum.grains.actor import Actor, read_only
from durum.grains.reference import options
from durum.silo.silo import Silo
from tests.support.turns import SMALL, Fate, House, outcome, settled, simulated

seen: list[str] = []
"""What hooks were called, of all grains; each test clears it."""


class Diary(Actor, idle_after=timedelta(seconds=30)):
    """Writes down what happens to it."""

    woken: int = 0
    slept: int = 0
    lines: list[str] = []

    async def on_activate(self) -> None:
        self.woken += 1
        seen.append(f"{self.key} woken {self.woken}")

    async def on_deactivate(self, reason: str) -> None:
        self.slept += 1
        seen.append(f"{self.key} slept: {reason}")

    async def write(self, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)

    async def write_slowly(self, line: str, seconds: float) -> int:
        self.lines.append(line)
        await asyncio.sleep(seconds)
        return len(self.lines)

    async def sleep_now(self) -> str:
        self.lines.append("good night")
        self.deactivate()
        self.deactivate()
        return "asked"

    @read_only
    async def counts(self) -> list[int]:
        return [self.woken, self.slept, len(self.lines)]

    @read_only
    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Troubled(Actor):
    """Its hooks do as the key says."""

    value: int = 0
    _tries: int = 0

    async def on_activate(self) -> None:
        seen.append("try")
        match self.key:
            case "fails":
                raise ValueError("cannot wake")
            case "fails-once" if len(seen) < 2:
                raise ValueError("cannot wake yet")
            case "calls-itself":
                await self.actor(Troubled, self.key).get()
            case "calls-itself-through-another":
                await self.actor(Troubled, "helper").ask(self.key)
            case "slow":
                await asyncio.sleep(1)
            case "cancelled":
                gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                gone.cancel()
                await gone
            case "spoils":
                self.value = "x"  # type: ignore[assignment]
            case "changes":
                self.value = 5
            case "saves":
                self.value = 6
                await self.save()
            case "asks-who-cannot":
                await options(self.actor(Troubled, "stuck"), timeout=0.2).get()
            case "stuck":
                await asyncio.sleep(1000)
            case _:
                pass

    async def on_deactivate(self, reason: str) -> None:
        seen.append("going")
        match self.key:
            case "fails-to-go":
                raise ValueError("cannot sleep")
            case "never-goes":
                await asyncio.sleep(1e6)
            case "cancelled-going":
                gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                gone.cancel()
                await gone
            case "calls-itself-going":
                await self.actor(Troubled, self.key).get()
            case _:
                self.value += 1000

    @read_only
    async def get(self) -> int:
        return self.value

    async def ask(self, key: str) -> int:
        return await self.actor(Troubled, key).get()

    async def go(self) -> None:
        self.deactivate()


class Versioned(Actor, kind="Versioned", version=2):
    value: int = 0

    async def get(self) -> int:
        return self.value

    async def set(self, value: int) -> None:
        self.value = value


class Older(Actor, kind="Versioned", version=1):
    value: int = 0

    async def get(self) -> int:
        return self.value


@simulated
async def test_hooks_run_once_around_an_activation_and_their_changes_are_kept(house: House) -> None:
    """They are where authors open and close what belongs to a grain; what they change is state like all."""
    seen.clear()
    cluster = await house.open([Diary])
    ann = cluster.actor(Diary, "ann")
    assert await asyncio.gather(*(ann.write(str(n)) for n in range(3))) == [1, 2, 3]
    assert await ann.sleep_now() == "asked"
    assert await ann.counts() == [2, 1, 4]
    assert seen == ["ann woken 1", "ann slept: requested", "ann woken 2"]


@simulated
async def test_idle_activation_is_collected_and_a_busy_or_used_one_is_not(house: House) -> None:
    """Memory is for grains in use; a turn that takes longer than the limit is in use."""
    seen.clear()
    cluster = await house.open([Diary])
    silo = house.silo()
    used, busy = cluster.actor(Diary, "used"), cluster.actor(Diary, "busy")
    await cluster.actor(Diary, "idle").write("x")
    await used.write("x")
    turn = asyncio.ensure_future(options(busy, timeout=100).wait(70))
    for _ in range(7):
        await asyncio.sleep(8)
        await used.counts()
    assert sorted(silo.life.catalog.activations) == ["Diary/busy", "Diary/used"]
    assert "idle slept: idle" in seen
    await turn
    assert await cluster.actor(Diary, "idle").counts() == [2, 1, 1]


@simulated
async def test_calls_that_come_while_an_activation_goes_are_answered_by_the_next(
    house: House,
) -> None:
    """No call may be lost between two lives of a grain."""
    seen.clear()
    cluster = await house.open([Diary])
    ann = cluster.actor(Diary, "ann")
    slow = asyncio.ensure_future(ann.write_slowly("slow", 1.0))
    await asyncio.sleep(0.1)
    ending = asyncio.ensure_future(ann.sleep_now())
    waiting = [asyncio.ensure_future(ann.write(str(n))) for n in range(5)]
    assert await slow == 1
    assert await ending == "asked"
    assert await asyncio.gather(*waiting) == [3, 4, 5, 6, 7]
    assert "ann slept: requested" in seen


@simulated
async def test_failing_on_activate_refuses_its_calls_and_is_tried_again(house: House) -> None:
    """None of the calls ran, and the answer says so; the next one finds the grain well, perhaps."""
    seen.clear()
    cluster = await house.open([Troubled])
    for call in await settled(
        *(asyncio.ensure_future(cluster.actor(Troubled, "fails").get()) for _ in range(3))
    ):
        assert isinstance(call, errors.RemoteError)
        assert call.did_run is DidRun.NO
        assert "cannot wake" in str(call)
        assert "did not run" in str(call)
    seen.clear()
    once = cluster.actor(Troubled, "fails-once")
    assert isinstance(await outcome(once.get()), errors.RemoteError)
    assert await once.get() == 0
    assert house.busy() == 0


@pytest.mark.parametrize("key", ["calls-itself", "calls-itself-through-another"])
def test_on_activate_that_waits_for_its_own_grain_is_a_deadlock_at_once(key: str) -> None:
    """Nothing runs in a grain before its hook has ended: waiting would last until the deadline."""

    @simulated
    async def check(house: House) -> None:
        cluster = await house.open([Troubled])
        began = house.loop.time()
        with pytest.raises(errors.Deadlock, match="a hook of the last waits for itself") as caught:
            await cluster.actor(Troubled, key).get()
        assert caught.value.did_run is DidRun.NO
        assert house.loop.time() - began < 0.5

    check()


@simulated
async def test_what_on_activate_changes_is_committed_before_the_first_turn(house: House) -> None:
    """A turn must not build on what can still be lost."""
    cluster = await house.open([Troubled])
    assert await cluster.actor(Troubled, "changes").get() == 5
    assert await cluster.actor(Troubled, "saves").get() == 6
    assert len(house.commits()) == 2


@simulated
async def test_on_activate_that_was_cancelled_from_inside_does_not_block_its_grain(
    house: House,
) -> None:
    """The grain would neither answer nor be handed over, ever."""
    seen.clear()
    cluster = await house.open([Troubled])
    call = options(cluster.actor(Troubled, "cancelled"), timeout=2.0).get()
    with pytest.raises(errors.CallTimeout, match="its activation was cancelled") as caught:
        await call
    assert caught.value.did_run is DidRun.NO
    assert len(seen) > 2, "it was tried again"
    assert len(house.silo().life.catalog) == 0


@simulated
async def test_on_activate_that_leaves_what_cannot_be_stored_refuses(house: House) -> None:
    """The author's mistake, told by name, and only to those who call this grain."""
    cluster = await house.open([Troubled])
    with pytest.raises(errors.RemoteError, match="the field cannot be stored") as caught:
        await cluster.actor(Troubled, "spoils").get()
    assert caught.value.did_run is DidRun.NO


@simulated
async def test_failed_call_of_a_hook_says_nothing_of_the_call_that_woke_the_grain(
    house: House,
) -> None:
    """That other call may have run; this one did not."""
    cluster = await house.open([Troubled])
    with pytest.raises(errors.CallTimeout) as caught:
        await cluster.actor(Troubled, "asks-who-cannot").get()
    assert caught.value.did_run is DidRun.NO


@simulated
async def test_commit_of_a_hook_that_the_store_refuses_is_tried_again(house: House) -> None:
    """No call ran, so all of them may wait for the store to be well again."""
    cluster = await house.open([Troubled])
    house.next_commits(*[Fate(refused="READONLY")] * 3)
    assert await cluster.actor(Troubled, "changes").get() == 5


@pytest.mark.parametrize(
    "key", ["fails-to-go", "cancelled-going", "calls-itself-going", "never-goes"]
)
def test_failing_on_deactivate_does_not_keep_its_grain(key: str) -> None:
    """One author's hook must not stop a hand-over."""

    @simulated
    async def check(house: House) -> None:
        limits = msgspec.structs.replace(SMALL.limits, drain_timeout_s=3.0)
        cluster = await house.open([Troubled], msgspec.structs.replace(SMALL, limits=limits))
        ann = cluster.actor(Troubled, key)
        seen.clear()
        await ann.go()
        assert await ann.get() == 0
        assert seen == ["try", "going", "try"] or seen == ["going", "try"]
        await ann.go()
        await asyncio.sleep(5)
        assert len(house.silo().life.catalog) == 0

    check()


@simulated
async def test_calls_wait_for_a_store_that_is_away_and_run_once_it_is_back(house: House) -> None:
    """They did not run, so they may: a restart of the store fails nobody who has the time."""
    cluster = await house.open([Diary])
    house.store.next("a", "load", *[Fate(refused="LOADING")] * 5)
    began = house.loop.time()
    assert await cluster.actor(Diary, "ann").write("x") == 1
    assert house.loop.time() - began > 0.02


@simulated
async def test_calls_end_at_their_deadline_where_the_store_stays_away(house: House) -> None:
    """Every call ends, and says that it did not run."""
    cluster = await house.open([Diary])
    house.store.next("a", "load", *[Fate(refused="LOADING")] * 500)
    with pytest.raises(errors.CallTimeout, match="LOADING") as caught:
        await options(cluster.actor(Diary, "ann"), timeout=2.0).write("x")
    assert caught.value.did_run is DidRun.NO
    house.store.heal_all()
    assert await cluster.actor(Diary, "ann").write("x") == 1


@simulated
async def test_state_of_a_newer_class_is_left_alone(house: House) -> None:
    """Reading it with an older class would drop what that one does not know."""
    cluster = await house.open([Versioned])
    await cluster.actor(Versioned, "v").set(3)
    await house.silo().close()
    del house.silos["a"]
    await house.start("b", [Older])
    older = await house.connect("b")
    with pytest.raises(errors.CallError, match="version 2") as caught:
        await options(older.actor(Older, "v"), timeout=1.0).get()
    assert caught.value.did_run is DidRun.NO


@simulated
async def test_silo_that_leaves_lets_turns_end_and_hooks_run(house: House) -> None:
    """A rolling restart must not cost anybody a call."""
    seen.clear()
    cluster = await house.open([Diary])
    second = await house.start("b", [Diary])
    ann = cluster.actor(Diary, "ann")
    await cluster.actor(Diary, "bob").write("x")
    slow = asyncio.ensure_future(ann.write_slowly("x", 2.0))
    await asyncio.sleep(0.5)
    first: Silo = house.silos.pop("a")
    leaving = asyncio.ensure_future(first.close())
    later = [asyncio.ensure_future(ann.write(str(n))) for n in range(3)]
    assert await slow == 1
    assert await asyncio.gather(*later) == [2, 3, 4]
    await leaving
    assert await cluster.actor(Diary, "bob").write("y") == 2
    assert len(second.life.catalog) == 2


@simulated
async def test_turn_that_takes_longer_than_the_drain_is_cancelled_and_rolled_back(
    house: House,
) -> None:
    """One endless method must not keep a machine from going down; its caller learns that it kept nothing."""
    limits = msgspec.structs.replace(SMALL.limits, drain_timeout_s=2.0)
    config = msgspec.structs.replace(SMALL, limits=limits)
    await house.start("a", [Diary], config)
    cluster = await house.connect("a", config=config)
    slow = asyncio.ensure_future(outcome(cluster.actor(Diary, "ann").write_slowly("x", 20.0)))
    await asyncio.sleep(0.5)
    began = house.loop.time()
    await house.silos.pop("a").close()
    assert house.loop.time() - began < 5
    ended = await slow
    assert isinstance(ended, errors.CommitFailed)
    assert ended.did_run is DidRun.ROLLED_BACK


@simulated
async def test_hook_that_never_ends_does_not_keep_its_partition(house: House) -> None:
    """One author's hook must not keep a machine from going down, nor a partition from moving."""
    limits = msgspec.structs.replace(SMALL.limits, drain_timeout_s=2.0)
    config = msgspec.structs.replace(SMALL, limits=limits)
    cluster = await house.open([Troubled], config)
    stuck = asyncio.ensure_future(outcome(cluster.actor(Troubled, "stuck").get()))
    await asyncio.sleep(0.5)
    began = house.loop.time()
    await house.silos.pop("a").close()
    assert house.loop.time() - began < 6
    assert isinstance(await stuck, errors.CallError)


class Stubborn(Actor):
    """Does not let itself be cancelled."""

    async def stay(self) -> None:
        while True:
            try:
                await asyncio.sleep(1e6)
            except asyncio.CancelledError:
                seen.append("no")


@simulated
async def test_code_that_ignores_its_cancellation_keeps_no_silo_from_leaving(house: House) -> None:
    """One careless `except` must not hold a rolling restart for ever; the fence holds what it does later."""
    seen.clear()
    cluster = await house.open([Stubborn])
    staying = asyncio.get_running_loop().create_task(
        outcome(options(cluster.actor(Stubborn, "one"), timeout=300).stay())
    )
    await asyncio.sleep(1)
    began = asyncio.get_running_loop().time()
    silo = house.silo()
    silo.stop()
    await asyncio.wait_for(silo.run(), 120)
    took = asyncio.get_running_loop().time() - began
    assert took < 90, took
    assert "no" in seen
    staying.cancel()
    await settled(staying)
    house.kill("a")
