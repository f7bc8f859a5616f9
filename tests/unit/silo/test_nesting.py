"""Turns inside turns: calls that come back to a grain whose turn waits for them, and those that come late."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from durum import errors
from durum.errors import DidRun
from durum.grains.actor import Actor, read_only
from durum.grains.reference import options
from tests.support.turns import Fate, House, outcome, settled, simulated


class Node(Actor):
    """Calls itself by way of another node, before or after it changes something."""

    value: int = 0
    _late: asyncio.Task[int] | None = None

    async def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    async def add_slowly(self, amount: int, seconds: float = 1.0) -> int:
        self.value += amount
        await asyncio.sleep(seconds)
        self.value += amount
        return self.value

    async def add_and_fail(self, amount: int) -> None:
        self.value += amount
        raise ValueError("inner")

    @read_only
    async def get(self) -> int:
        return self.value

    @read_only
    async def get_slowly(self) -> int:
        await asyncio.sleep(1)
        return self.value

    async def bounce(self, back: str, amount: int) -> int:
        """Call another node's `add`; that one waits for us."""
        return await self.actor(Node, back).add(amount)

    async def bounce_slowly(self, back: str, amount: int) -> int:
        return await self.actor(Node, back).add_slowly(amount)

    async def bounce_read(self, back: str) -> int:
        return await self.actor(Node, back).get()

    async def bounce_to_fail(self, back: str) -> None:
        await self.actor(Node, back).add_and_fail(1)

    async def ask_back(self, other: str, amount: int) -> int:
        """Have another node call us, and only then change something."""
        inner = await self.actor(Node, other).bounce(self.key, amount)
        self.value += 100
        return inner

    async def change_first(self, other: str) -> int:
        self.value += 1
        return await self.actor(Node, other).bounce(self.key, 10)

    async def save_first(self, other: str) -> int:
        self.value += 1
        await self.save()
        return await self.actor(Node, other).bounce(self.key, 10)

    async def ask_two(self, one: str, two: str) -> list[int]:
        """Both call back at once."""
        return list(
            await asyncio.gather(
                self.actor(Node, one).bounce_slowly(self.key, 1),
                self.actor(Node, two).bounce_slowly(self.key, 10),
            )
        )

    async def ask_two_and_change(self, one: str, two: str) -> list[str]:
        """Both call back; when the first is done, change something under the second's feet."""

        async def first() -> str:
            await self.actor(Node, one).bounce_slowly(self.key, 1)
            return "first"

        async def second() -> str:
            await asyncio.sleep(0.1)
            try:
                await self.actor(Node, two).bounce(self.key, 10)
            except errors.Deadlock as exc:
                return str(exc)
            return "second"

        async def third() -> str:
            await asyncio.sleep(1.2)  # the first's commit is on its way
            self.value += 100
            return "third"

        return list(await asyncio.gather(first(), second(), third()))

    async def ask_and_fail(self, other: str, after_s: float) -> None:
        """Fail while a call inside this turn goes on."""
        task = asyncio.ensure_future(self.actor(Node, other).bounce_slowly(self.key, 5))
        await asyncio.sleep(after_s)
        self._late = task
        raise ValueError("outer")

    async def ask_and_return(self, other: str, after_s: float) -> str:
        self._late = asyncio.ensure_future(self.actor(Node, other).bounce_slowly(self.key, 5))
        await asyncio.sleep(after_s)
        return "outer"

    async def save_beside_inner(self, other: str) -> str:
        """Save while a call that came back is half done."""
        task = asyncio.ensure_future(self.actor(Node, other).bounce_slowly(self.key, 5))
        await asyncio.sleep(0.5)
        try:
            await self.save()
        except errors.CommitFailed as exc:
            await task
            return str(exc)
        await task
        return "saved"

    async def catch_inner(self, other: str) -> str:
        try:
            await self.actor(Node, other).bounce_to_fail(self.key)
        except ValueError as exc:
            return f"{exc} {self.value}"
        return "nothing"

    async def call_self(self) -> int:
        return await self.actor(Node, self.key).add(1)

    @read_only
    async def read_and_ask(self, other: str, amount: int) -> int:
        await asyncio.sleep(0.5)
        return await self.actor(Node, other).bounce(self.key, amount)

    @read_only
    async def read_and_read(self, other: str) -> int:
        return await self.actor(Node, other).bounce_read(self.key)

    async def leave_task(self, seconds: float) -> str:
        """Leave a task behind that calls us, and saves, after this turn."""

        async def later() -> int:
            await asyncio.sleep(seconds)
            return await self.actor(Node, self.key).add(1000)

        self._late = asyncio.ensure_future(later())
        self.value += 1
        return "done"

    async def leave_saver(self) -> str:
        async def later() -> int:
            await asyncio.sleep(0.5)
            await self.save()
            return 1

        self._late = asyncio.ensure_future(later())
        return "done"

    @read_only
    async def get_late(self) -> int:
        assert self._late is not None
        return await self._late

    @read_only
    async def get_caller(self) -> tuple[str | None, str, str]:
        context = self.context
        return (context.caller, context.method, context.request)

    async def ask_caller(self, other: str) -> tuple[str | None, str, str]:
        return await self.actor(Node, other).get_caller()


class Strict(Actor, reentrancy="never"):
    """Cycles are a mistake here."""

    value: int = 0

    async def add(self) -> int:
        self.value += 1
        return self.value

    async def cycle(self, other: str) -> int:
        return await self.actor(Bouncer, other).bounce(self.key)


class Bouncer(Actor):
    async def bounce(self, key: str) -> int:
        return await self.actor(Strict, key).add()


class Free(Actor, reentrant=True):
    """Interleaves, and commits by save()."""

    a: int = 0
    b: int = 0

    async def set_a(self, value: int, before_s: float, after_s: float) -> None:
        await asyncio.sleep(before_s)
        self.a = value
        await self.save()
        await asyncio.sleep(after_s)

    async def set_b(self, value: int, before_s: float = 0.0) -> None:
        await asyncio.sleep(before_s)
        self.b = value
        await self.save()

    async def set_unsaved(self, value: int) -> None:
        self.a = value

    async def fail(self, before_s: float) -> None:
        await asyncio.sleep(before_s)
        raise ValueError("free")

    async def get(self) -> tuple[int, int]:
        return self.a, self.b


@simulated
async def test_call_that_comes_back_runs_inside_the_turn_that_waits_for_it(house: House) -> None:
    """Queued behind that turn it would wait for its caller's caller: a deadlock until the deadline."""
    cluster = await house.open([Node])
    ann = cluster.actor(Node, "ann")
    assert await ann.ask_back("bob", 5) == 5
    assert await ann.get() == 105
    assert await ann.call_self() == 106
    assert house.busy() == 0


@simulated
async def test_turn_with_uncommitted_changes_lets_nothing_in_and_says_why(house: House) -> None:
    """The inner turn would commit them before it answers, and the outer one can still roll back."""
    cluster = await house.open([Node])
    ann = cluster.actor(Node, "ann")
    with pytest.raises(errors.Deadlock) as caught:
        await ann.change_first("bob")
    assert caught.value.did_run is DidRun.ROLLED_BACK, (
        "ann's turn ran; what did not is the inner call"
    )
    assert "Node/ann -> Node/bob -> Node/ann" in str(caught.value)
    assert "uncommitted changes: save first" in str(caught.value)
    assert await ann.get() == 0
    assert await ann.save_first("bob") == 11


@simulated
async def test_turns_inside_one_turn_run_one_at_a_time(house: House) -> None:
    """They are writers like all others: at once they would lose each other's changes."""
    cluster = await house.open([Node])
    ann = cluster.actor(Node, "ann")
    assert sorted(await ann.ask_two("bob", "cyd")) in ([2, 22], [20, 22])
    assert await ann.get() == 22


@simulated
async def test_turn_that_waited_inside_another_is_refused_once_that_one_has_changes(
    house: House,
) -> None:
    """It came in time and waited for its turn; by then it would commit what can still roll back."""
    cluster = await house.open([Node])
    for key in ("ann", "bob", "cyd"):
        await cluster.actor(Node, key).add(0)
    house.store.block("a", 1.5)
    first, second, third = await cluster.actor(Node, "ann").ask_two_and_change("bob", "cyd")
    assert (first, third) == ("first", "third")
    assert "Node/ann -> Node/cyd -> Node/ann: the turn that waits has uncommitted changes" in second
    assert await cluster.actor(Node, "ann").get() == 102


@simulated
async def test_turn_that_fails_does_not_take_back_what_a_turn_inside_it_is_doing(
    house: House,
) -> None:
    """The inner turn would commit the half it changes afterwards."""
    cluster = await house.open([Node])
    ann = cluster.actor(Node, "ann")
    with pytest.raises(ValueError, match="outer"):
        await ann.ask_and_fail("bob", 0.5)
    assert await ann.get() == 10
    house.kill("a")
    await house.start("a#2", [Node])
    assert await ann.get() == 10


@simulated
async def test_turn_that_returns_waits_for_the_turn_inside_it(house: House) -> None:
    """Its commit would contain the other's half-done changes."""
    cluster = await house.open([Node])
    ann = cluster.actor(Node, "ann")
    assert await ann.ask_and_return("bob", 0.5) == "outer"
    states = [o.args[0].state for o in house.commits()]
    assert len(states) == 1
    assert await ann.get() == 10


@simulated
async def test_save_commits_nothing_of_a_turn_inside(house: House) -> None:
    """It is half done, and may still fail."""
    cluster = await house.open([Node])
    ann = cluster.actor(Node, "ann")
    assert "while a call runs inside this turn" in await ann.save_beside_inner("bob")
    assert len(house.commits()) == 1
    assert await ann.get() == 10


@simulated
async def test_inner_turn_that_fails_leaves_the_outer_one_as_it_was(house: House) -> None:
    """The outer turn catches the exception and goes on; what the inner one changed must be gone."""
    cluster = await house.open([Node])
    ann = cluster.actor(Node, "ann")
    await ann.add(7)
    assert await ann.catch_inner("bob") == "inner 7"


@simulated
async def test_call_back_into_a_reader_waits_for_no_other_reader_to_change(house: House) -> None:
    """Other readers run beside the one that waits, and would see fields change in mid-turn."""
    cluster = await house.open([Node])
    ann = cluster.actor(Node, "ann")
    assert await ann.read_and_ask("bob", 1) == 1
    reading = asyncio.ensure_future(ann.get_slowly())
    asking = asyncio.ensure_future(outcome(ann.read_and_ask("bob", 1)))
    refused = await asking
    assert isinstance(refused, errors.Deadlock)
    assert "@read_only turns run beside" in str(refused)
    assert await reading == 1
    reading = asyncio.ensure_future(ann.get_slowly())
    assert await ann.read_and_read("bob") == 1
    await reading


@simulated
async def test_kind_that_never_reenters_refuses_at_once(house: House) -> None:
    """The author wants to see the cycle, with its chain, and not to wait for a deadline."""
    cluster = await house.open([Strict, Bouncer])
    began = house.loop.time()
    with pytest.raises(errors.Deadlock, match="Strict/s -> Bouncer/b -> Strict/s"):
        await cluster.actor(Strict, "s").cycle("b")
    assert house.loop.time() - began < 0.1
    assert await cluster.actor(Strict, "s").add() == 1


@simulated
async def test_task_that_outlived_its_turn_takes_its_place_in_line(house: House) -> None:
    """Nobody waits for it any more: it may neither enter another turn nor be called a deadlock."""
    cluster = await house.open([Node])
    ann = cluster.actor(Node, "ann")
    assert await ann.leave_task(0.5) == "done"
    slow = asyncio.ensure_future(ann.add_slowly(10))
    await asyncio.sleep(0.8)
    assert await slow == 21
    assert await ann.get_late() == 1021


@simulated
async def test_task_that_calls_while_its_turn_commits_takes_its_place_in_line(house: House) -> None:
    """The turn's changes are not committed yet, but it waits for nothing: no deadlock."""
    cluster = await house.open([Node])
    ann = cluster.actor(Node, "ann")
    await ann.add(0)
    house.store.block("a", 0.6)
    assert await ann.leave_task(0.3) == "done"
    assert await ann.get_late() == 1001


@simulated
async def test_save_outside_of_a_turn_is_refused(house: House) -> None:
    """It would commit the half of whatever turn is running then."""
    cluster = await house.open([Node])
    ann = cluster.actor(Node, "ann")
    await ann.leave_saver()
    slow = asyncio.ensure_future(ann.add_slowly(1, 2.0))
    await asyncio.sleep(1.0)
    assert house.commits() == []
    await slow
    with pytest.raises(errors.CommitFailed, match="outside of a turn"):
        await ann.get_late()


@simulated
async def test_context_names_the_calling_grain_and_one_request_along_the_chain(
    house: House,
) -> None:
    """Logs of several grains can be put together by it."""
    cluster = await house.open([Node])
    caller, method, request = await cluster.actor(Node, "ann").ask_caller("bob")
    assert (caller, method) == ("Node/ann", "get_caller")
    assert request.startswith("Node/ann#")
    assert (await cluster.actor(Node, "ann").get_caller())[0] is None


@simulated
async def test_call_made_in_a_turn_has_no_more_time_than_the_turn(house: House) -> None:
    """The caller is gone by then; what runs on runs for nobody."""
    cluster = await house.open([Node])
    ann = options(cluster.actor(Node, "ann"), timeout=0.5)
    began = house.loop.time()
    with pytest.raises(errors.CallTimeout):
        await ann.bounce_slowly("bob", 1)
    await asyncio.sleep(0.3)
    assert house.loop.time() - began < 1.0
    assert house.busy() == 0
    assert await cluster.actor(Node, "bob").get() == 0


@simulated
async def test_reentrant_turns_interleave_and_commit_by_save_only(house: House) -> None:
    """That is the bargain of such kinds."""
    cluster = await house.open([Free])
    free = cluster.actor(Free, "f")
    began = house.loop.time()
    await asyncio.gather(free.set_a(1, 1.0, 0.0), free.set_b(2, 1.0))
    assert house.loop.time() - began < 1.1
    await free.set_unsaved(9)
    assert await free.get() == (9, 2)
    house.kill("a")
    await house.start("a#2", [Free])
    assert await free.get() == (1, 2)


@simulated
async def test_reentrant_turn_that_fails_does_not_take_back_a_save_on_its_way(house: House) -> None:
    """The save will be told to its caller as done; forgetting it in memory, the next save would undo it."""
    cluster = await house.open([Free])
    free = cluster.actor(Free, "f")
    await free.set_b(1)
    house.store.block("a", 0.6)
    saving = asyncio.ensure_future(free.set_a(5, 0.1, 0.0))
    failing = asyncio.ensure_future(outcome(free.fail(0.3)))
    await saving
    assert isinstance(await failing, ValueError)
    assert await free.get() == (5, 1)
    await free.set_b(2)
    house.kill("a")
    await house.start("a#2", [Free])
    assert await free.get() == (5, 2)


@simulated
async def test_save_that_waited_behind_one_that_failed_fails_too(house: House) -> None:
    """Its fields were taken back with the other's: to call it done would lose what it saved."""
    cluster = await house.open([Free])
    free = cluster.actor(Free, "f")
    await free.set_b(1)
    house.next_commits(Fate(late_s=1.0, refused="READONLY"), *[Fate(refused="READONLY")] * 200)
    brief = options(free, timeout=0.7)
    first = asyncio.ensure_future(brief.set_a(5, 0.1, 0.0))
    second = asyncio.ensure_future(options(free, timeout=20.0).set_b(6, 0.3))
    outcomes = await settled(first, second)
    assert isinstance(outcomes[0], errors.CallError)
    assert isinstance(outcomes[1], errors.CommitFailed)
    assert outcomes[1].did_run is DidRun.ROLLED_BACK
    house.store.heal_all()
    assert await free.get() == (0, 1)


@simulated
async def test_saves_of_a_reentrant_kind_keep_their_order(house: House) -> None:
    """An older state that is written after a newer one undoes it."""
    cluster = await house.open([Free])
    free = cluster.actor(Free, "f")
    await free.set_b(0)
    house.store.block("a", 0.5)
    await asyncio.gather(*(free.set_a(n, n / 100, 0.0) for n in range(1, 9)))
    assert await free.get() == (8, 0)
    house.kill("a")
    await house.start("a#2", [Free])
    assert await free.get() == (8, 0)


@simulated
async def test_turns_of_two_silos_and_of_two_lives_have_different_numbers(house: House) -> None:
    """A chain that names another silo's turn must not match one of ours: the call would enter a turn that
    does not wait for it."""
    await house.start("a", [Node])
    await house.start("b", [Node])
    lives = [house.silo(host).life for host in ("a", "b")]
    house.kill("a")
    lives.append((await house.start("a#2", [Node])).life)
    numbers = sorted(next(life.services.turns) for life in lives)
    assert numbers[0] > 0
    assert all(after - before > 1_000_000 for before, after in pairwise(numbers))
