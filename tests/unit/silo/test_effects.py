"""Effects that turns stage: true together with their commit, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from durum import Actor, StatelessWorker, errors, read_only
from durum.errors import DidRun
from durum.grains.reference import options
from durum.ids import GrainId
from durum.placement.partitions import partition_of
from durum.silo.effects import Staged
from tests.support.turns import SMALL, Fate, House, outcome, simulated

TEST = b"\x00x"


def stage(actor: Actor, name: str, content: bytes | None = b"1") -> None:
    """Stage a part, as later features stage theirs."""
    actor._durum_host._stage("stage()").set_part(TEST + name.encode(), content)  # type: ignore[attr-defined]


class Desk(Actor):
    """Stages in every way there is."""

    runs: int = 0

    async def put(self, name: str) -> None:
        stage(self, name)

    async def count_and_put(self, name: str, *, fails: bool = False) -> int:
        self.runs += 1
        stage(self, name)
        await asyncio.sleep(0)
        if fails:
            raise ValueError("no")
        return self.runs

    async def save_between(self, first: str, second: str) -> None:
        stage(self, first)
        await self.save()
        stage(self, second)
        raise ValueError("after the save")

    async def around(self, outer: str, inner: str, *, fails: bool) -> None:
        stage(self, outer)
        await self.actor(Desk, self.key).put(inner)
        if fails:
            raise ValueError("after the call")

    async def put_late(self, name: str) -> None:
        async def later() -> None:
            await asyncio.sleep(1.0)
            try:
                stage(self, name)
            except errors.CommitFailed as exc:
                self._late = str(exc)

        self._task = asyncio.get_running_loop().create_task(later())

    async def linger(self, seconds: float) -> int:
        self.runs += 10
        await asyncio.sleep(seconds)
        return self.runs

    @read_only
    async def look(self) -> int:
        return self.runs

    @read_only
    async def look_and_put(self, name: str) -> None:
        stage(self, name)

    async def late(self) -> str:
        return self._late

    _late: str = ""


class Plain(Actor):
    """Has no durable fields."""

    async def put(self, name: str) -> str:
        stage(self, name)
        return name

    async def put_slowly(self, name: str) -> str:
        await asyncio.sleep(0.1)
        stage(self, name)
        return name

    async def nothing(self) -> None: ...


class Free(Actor, reentrant=True):
    """Commits its fields by save() only."""

    runs: int = 0

    async def put(self, name: str, *, save: bool) -> None:
        self.runs += 1
        stage(self, name)
        if save:
            await self.save()

    async def fail(self, name: str) -> None:
        stage(self, name)
        raise ValueError("no")


class Hooked(Actor):
    """Its hook stages."""

    async def on_activate(self) -> None:
        stage(self, "hook")

    async def nothing(self) -> None: ...


class Worker(Actor, placement=StatelessWorker()):
    async def put(self) -> None:
        stage(self, "x")


KINDS = [Desk, Plain, Free, Hooked, Worker]


async def parts(house: House, grain: str) -> list[str]:
    """Names of the parts that a grain has in the store."""
    inside, partition = house.store.inside, partition_of(GrainId(grain), SMALL.partitions)
    genesis = await inside.genesis()
    assert genesis is not None
    token = (await inside.owners(genesis.mark))[partition].token
    found = await inside.scan_parts(partition, token, GrainId(grain), TEST, b"", 100)
    return sorted(name.removeprefix(TEST).decode() for name, _ in found)


@simulated
async def test_effects_are_committed_with_the_turn(house: House) -> None:
    """Also where no field has changed."""
    cluster = await house.open(KINDS)
    desk = cluster.actor(Desk, "a")
    await desk.put("one")
    await desk.count_and_put("two")
    assert await parts(house, "Desk/a") == ["one", "two"]
    assert len(house.commits()) == 2


@simulated
async def test_effects_are_dropped_with_a_turn_that_fails(house: House) -> None:
    """And do not go along with the next one."""
    cluster = await house.open(KINDS)
    desk = cluster.actor(Desk, "a")
    assert isinstance(await outcome(desk.count_and_put("one", fails=True)), ValueError)
    keyed = options(desk, idempotency_key="k")
    assert isinstance(await outcome(keyed.count_and_put("two", fails=True)), ValueError)
    assert await desk.count_and_put("three") == 1
    assert await parts(house, "Desk/a") == ["three"]


@simulated
async def test_effects_are_dropped_where_the_commit_is_refused(house: House) -> None:
    """They are as much part of it as the fields."""
    cluster = await house.open(KINDS)
    desk = cluster.actor(Desk, "a")
    house.next_commits(*[Fate(refused="full")] * 20)
    failed = await outcome(desk.count_and_put("one"))
    assert isinstance(failed, errors.CommitFailed)
    house.store.heal_all()
    assert await desk.count_and_put("two") == 1
    assert await parts(house, "Desk/a") == ["two"]


@simulated
async def test_save_takes_effects_along(house: House) -> None:
    """What is staged after it belongs to the rest of the turn."""
    cluster = await house.open(KINDS)
    assert isinstance(
        await outcome(cluster.actor(Desk, "a").save_between("one", "two")), ValueError
    )
    assert await parts(house, "Desk/a") == ["one"]


@simulated
async def test_repeat_of_a_keyed_turn_stages_nothing(house: House) -> None:
    """It does not run: its effects have been true since the first time."""
    cluster = await house.open(KINDS)
    desk = options(cluster.actor(Desk, "a"), idempotency_key="k")
    assert await desk.count_and_put("one") == 1
    assert await desk.count_and_put("one") == 1
    assert len(house.commits()) == 1


@pytest.mark.parametrize("fails", [False, True])
def test_calls_inside_a_turn_have_their_own_effects(fails: bool) -> None:
    """The inner one's are true before it replies, and stay true whatever becomes of the outer one."""

    @simulated
    async def check(house: House) -> None:
        cluster = await house.open(KINDS)
        await outcome(cluster.actor(Desk, "a").around("outer", "inner", fails=fails))
        assert await parts(house, "Desk/a") == (["inner"] if fails else ["inner", "outer"])

    check()


@simulated
async def test_effects_of_a_kind_without_fields_are_committed(house: House) -> None:
    """Its version is read first, since nothing has loaded it; a turn that stages nothing reads nothing."""
    cluster = await house.open(KINDS)
    plain = cluster.actor(Plain, "a")
    await plain.nothing()
    assert not [each for each in house.operations if each.name in ("load", "commit")]
    assert await plain.put("one") == "one"
    assert await plain.put_slowly("two") == "two"
    assert await parts(house, "Plain/a") == ["one", "two"]
    assert len([each for each in house.operations if each.name == "load"]) == 1


@simulated
async def test_effects_of_a_kind_without_fields_wait_for_the_store(house: House) -> None:
    """Its version is asked for until the turn's deadline; then the turn fails, and nothing was kept."""
    cluster = await house.open(KINDS)
    plain = cluster.actor(Plain, "a")
    house.store.next("a", "load", Fate(refused="not now"), Fate(replies=False))
    assert await plain.put("one") == "one"
    other = cluster.actor(Plain, "b")
    house.store.next("a", "load", *[Fate(refused="not now")] * 100)
    failed = await outcome(options(other, timeout=5.0).put("one"))
    assert isinstance(failed, errors.CallError)
    assert failed.did_run is DidRun.ROLLED_BACK
    house.store.heal_all()
    assert await parts(house, "Plain/b") == []


@simulated
async def test_effects_of_a_reentrant_kind_go_out_with_their_turn(house: House) -> None:
    """Its fields wait for a save(), which no effect needs."""
    cluster = await house.open(KINDS)
    free = cluster.actor(Free, "a")
    await free.put("one", save=False)
    assert house.commits()[-1].args[0].state is None
    await free.put("two", save=True)
    assert isinstance(await outcome(free.fail("three")), ValueError)
    assert await parts(house, "Free/a") == ["one", "two"]


@simulated
async def test_effects_of_a_hook_are_committed_before_the_first_turn(house: House) -> None:
    """A hook commits as a turn does."""
    cluster = await house.open(KINDS)
    await cluster.actor(Hooked, "a").nothing()
    assert await parts(house, "Hooked/a") == ["hook"]


@simulated
async def test_effects_are_refused_where_nothing_commits_them(house: House) -> None:
    """In a turn that only reads, after the turn, and in a worker."""
    cluster = await house.open(KINDS)
    desk = cluster.actor(Desk, "a")
    assert "in a @read_only turn" in str(await outcome(desk.look_and_put("x")))
    await desk.put_late("x")
    await asyncio.sleep(2.0)
    assert "outside of a turn" in await desk.late()
    worker = cluster.actor(Worker, "a")
    assert "stateless worker" in str(await outcome(worker.put()))
    assert await parts(house, "Desk/a") == []


@pytest.mark.parametrize("refused", [False, True])
def test_effects_can_be_committed_beside_a_running_turn(refused: bool) -> None:
    """Whatever becomes of that commit, the turn's fields are as it left them."""

    @simulated
    async def check(house: House) -> None:
        cluster = await house.open(KINDS)
        desk = cluster.actor(Desk, "a")
        running = asyncio.ensure_future(desk.linger(10.0))
        await asyncio.sleep(1.0)
        durable = house.silo().life.catalog.activations[GrainId("Desk/a")]._durable
        staged = Staged()
        ends: list[object] = []
        staged.set_part(TEST + b"beside", b"1")
        if refused:
            house.next_commits(*[Fate(refused="full")] * 20)
        durable.commit(change=None, with_state=False, staged=staged, deadline=1e9, then=ends.append)
        await asyncio.sleep(5.0)
        house.store.heal_all()
        assert [type(end) for end in ends] == [errors.CommitFailed if refused else type(None)]
        assert await running == 10
        assert await desk.look() == 10
        assert await parts(house, "Desk/a") == ([] if refused else ["beside"])

    check()


def test_effects_say_what_they_are() -> None:
    """An empty list is false, and every kind of effect makes it true."""
    staged = Staged()
    assert not staged
    staged.post(GrainId("Desk/b"), b"row")
    staged.set_wake(b"w", 5)
    staged.set_letter(b"l", None)
    staged.set_part(b"p", None)
    assert repr(staged) == "<Staged parts=1 send=1 wake=1 park=1>"
