"""A turn is a transaction: what holds of one method's run, from its arguments to its answer."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass

import msgspec
import pytest

from durum import errors
from durum.errors import DidRun
from durum.grains.actor import Actor, read_only
from durum.grains.reference import options
from tests.support.turns import SMALL, House, outcome, settled, simulated

COLOUR: ContextVar[str] = ContextVar("colour", default="none")


class Bankrupt(Exception):
    """An exception of the author's own, with more than a text."""

    def __init__(self, missing: int) -> None:
        super().__init__(f"{missing} short")
        self.missing = missing


@dataclass
class Item:
    """A value that would be shared if it did not travel as bytes."""

    names: list[str]


class Account(Actor):
    """Changes, fails and waits as it is told."""

    balance: int = 0
    notes: list[str] = []
    _seen: int = 0

    async def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    async def deposit_slowly(self, amount: int, seconds: float = 1.0) -> int:
        self.balance += amount
        await asyncio.sleep(seconds)
        return self.balance

    @read_only
    async def get_balance(self) -> int:
        return self.balance

    @read_only
    async def get_notes(self) -> list[str]:
        return self.notes

    @read_only
    async def get_balance_slowly(self, seconds: float = 1.0) -> int:
        await asyncio.sleep(seconds)
        return self.balance

    @read_only
    async def cheat(self) -> int:
        self.balance = 5
        return 1

    @read_only
    async def cheat_inside(self) -> int:
        self.notes.append("x")
        return 1

    @read_only
    async def save_while_reading(self) -> None:
        await self.save()

    async def fail(self, amount: int) -> None:
        self.balance += amount
        self.notes.append("changed in place")
        self._seen += 1
        raise Bankrupt(amount)

    async def fail_slowly(self, amount: int) -> None:
        self.balance += amount
        await asyncio.sleep(0.1)
        self.notes.append("changed in place")
        raise ValueError("no")

    async def give_up(self) -> None:
        self.balance = 99
        raise asyncio.CancelledError

    async def get_seen(self) -> int:
        return self._seen

    async def return_nonsense(self) -> int:
        self.balance = 77
        return "not a number"  # type: ignore[return-value]

    async def return_much(self, size: int) -> str:
        self.balance = 78
        return "x" * size

    async def hold(self, note: str) -> int:
        self.notes.append(note)
        return len(self.notes)

    async def spoil(self) -> int:
        self.balance = "broken"  # type: ignore[assignment]
        return 1

    async def spoil_and_save(self) -> str:
        self.balance += 1
        self.notes.append(object())  # type: ignore[arg-type]
        try:
            await self.save()
        except TypeError:
            return f"{self.balance} {self.notes}"
        return "saved"

    async def save_then_fail(self, first: int, second: int) -> None:
        self.balance = first
        await self.save()
        self.balance = second
        raise ValueError("after the save")

    async def save_twice(self) -> int:
        self.balance += 1
        await self.save()
        await self.save()
        return self.balance

    async def paint(self) -> str:
        before = COLOUR.get()
        COLOUR.set("red")
        return before

    async def paint_slowly(self) -> str:
        before = COLOUR.get()
        COLOUR.set("red")
        await asyncio.sleep(0.01)
        return before

    async def use_asyncio(self) -> list[str]:
        """What people write."""
        seen = []
        try:
            async with asyncio.timeout(0.1):
                await asyncio.sleep(10)
        except TimeoutError:
            seen.append("timeout")
        async with asyncio.TaskGroup() as group:
            one = group.create_task(asyncio.sleep(0.1, "group"))
        seen.append(one.result())
        seen += await asyncio.gather(asyncio.sleep(0.1, "gather"), asyncio.sleep(0, "both"))
        self.balance += 1
        return seen

    async def fail_in_group(self) -> None:
        self.balance += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(10))
            group.create_task(self._break())

    async def _break(self) -> None:
        raise ValueError("in a group")


class Shelf(Actor):
    """Holds a mutable value, and hands it out."""

    async def keep(self, item: Item) -> Item:
        self._item = item
        return item

    async def get(self) -> Item:
        return self._item

    _item: Item


class Reader(Actor):
    """Calls another grain on its own silo."""

    async def change_what_came(self, key: str) -> tuple[list[str], list[str]]:
        shelf = self.actor(Shelf, key)
        mine = Item(["a"])
        returned = await shelf.keep(mine)
        mine.names.append("mine")
        returned.names.append("returned")
        return (await shelf.get()).names, returned.names


class Counter(Actor):
    """No durable fields: no store access."""

    _count: int = 0

    async def add(self) -> int:
        self._count += 1
        return self._count

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@simulated
async def test_turn_commits_before_it_answers(house: House) -> None:
    """An answer that the store does not know of would be taken back by the next crash."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    assert await ann.deposit(3) == 3
    commits = house.commits()
    assert len(commits) == 1
    assert commits[0].done
    house.kill("a")
    await house.start("a#2", [Account])
    assert await ann.get_balance() == 3


@simulated
async def test_turn_that_changes_nothing_commits_nothing(house: House) -> None:
    """A write for each call that only looked would cost every reader a round trip."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    await ann.deposit(0)
    await ann.get_balance()
    await ann.get_notes()
    assert house.commits() == []


@simulated
async def test_kind_without_durable_fields_touches_no_store(house: House) -> None:
    """Such kinds are for speed; their authors pay for no store."""
    cluster = await house.open([Counter])
    house.operations.clear()
    counter = cluster.actor(Counter, "c")
    assert [await counter.add(), await counter.add()] == [1, 2]
    assert [o.name for o in house.operations if o.name in ("load", "commit", "verify")] == []


@pytest.mark.parametrize("method", ["fail", "fail_slowly"])
def test_turn_takes_back_what_it_changed_when_the_method_raises(method: str) -> None:
    """Half a change is worse than none: the next turn would build on it."""

    @simulated
    async def check(house: House) -> None:
        cluster = await house.open([Account])
        ann = cluster.actor(Account, "ann")
        await ann.deposit(3)
        await ann.hold("first")
        sent = len(house.commits())
        with pytest.raises((Bankrupt, ValueError)):
            await getattr(ann, method)(5)
        assert await ann.get_balance() == 3
        assert await ann.get_notes() == ["first"]
        assert len(house.commits()) == sent

    check()


@simulated
async def test_turn_leaves_underscore_attributes_alone_when_it_rolls_back(house: House) -> None:
    """They are the author's own: caches and counters that need not follow the state."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    await outcome(ann.fail(1))
    assert await ann.get_seen() == 1


@simulated
async def test_turn_raises_the_methods_exception_as_its_own_type(house: House) -> None:
    """Callers write `except Bankrupt`; the silo's traceback goes along, for people."""
    cluster = await house.open([Account])
    with pytest.raises(Bankrupt) as caught:
        await cluster.actor(Account, "ann").fail(5)
    assert (caught.value.args, caught.value.missing) == (("5 short",), 5)
    assert "raise Bankrupt(amount)" in caught.value.__notes__[0]


@simulated
async def test_turn_shows_nothing_of_the_exception_before_it(house: House) -> None:
    """Another caller's exception is none of this one's business, and misleads whoever reads it."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    await ann.deposit(1)
    calls = [ann.deposit_slowly(0, 0.1), ann.fail(111), ann.fail_slowly(5), ann.fail(222)]
    calls += [ann.return_nonsense(), ann.fail(333)]
    _, one, two, three, four, five = await settled(*map(asyncio.ensure_future, calls))
    for each in (one, two, three, four, five):
        assert "During handling" not in each.__notes__[0]
        assert "StopIteration" not in each.__notes__[0]
    assert "111" not in three.__notes__[0]


@simulated
async def test_turn_that_raises_cancelled_error_by_itself_ends(house: House) -> None:
    """A method without an await runs by hand, where nobody else would catch it; the grain must go on."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    with pytest.raises(
        errors.CommitFailed, match="cancelled before its end; nothing was kept"
    ) as caught:
        await ann.give_up()
    assert caught.value.did_run is DidRun.ROLLED_BACK
    assert await ann.deposit(1) == 1


@simulated
async def test_turn_rolls_back_when_its_result_is_not_what_it_declares(house: House) -> None:
    """The caller could not read it, so it must not have happened either."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    with pytest.raises(
        TypeError, match="return_nonsense returned what its annotation does not allow"
    ):
        await ann.return_nonsense()
    assert await ann.get_balance() == 0


@simulated
async def test_turn_rolls_back_when_its_result_is_too_large_for_a_frame(house: House) -> None:
    """It could not be sent; an answer that says so beats a broken connection."""
    config = msgspec.structs.replace(
        SMALL, limits=msgspec.structs.replace(SMALL.limits, frame_bytes=10_000)
    )
    cluster = await house.open([Account], config)
    ann = cluster.actor(Account, "ann")
    with pytest.raises(errors.CommitFailed, match="its result has") as caught:
        await ann.return_much(9_500)
    assert caught.value.did_run is DidRun.ROLLED_BACK
    assert await ann.get_balance() == 0
    assert len(await ann.return_much(8_000)) == 8_000


@simulated
async def test_turn_rolls_back_when_its_state_is_too_large(house: House) -> None:
    """One grain must not fill the store; what it was told stays out as a whole."""
    config = msgspec.structs.replace(
        SMALL, limits=msgspec.structs.replace(SMALL.limits, state_bytes=1_000)
    )
    cluster = await house.open([Account], config)
    ann = cluster.actor(Account, "ann")
    assert await ann.hold("x" * 500) == 1
    with pytest.raises(errors.CommitFailed, match=r"its state would be 1\d\d\d bytes") as caught:
        await ann.hold("y" * 500)
    assert caught.value.did_run is DidRun.ROLLED_BACK
    assert await ann.hold("z") == 2


@simulated
async def test_turn_fails_alone_when_a_field_holds_what_cannot_be_stored(house: House) -> None:
    """It must neither stop the grain nor the silo: the author made a mistake in one method."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    await ann.deposit(2)
    with pytest.raises(TypeError, match="the field cannot be stored"):
        await ann.spoil()
    assert await ann.spoil_and_save() == "2 []", "save() has taken back too, and the method goes on"
    assert await ann.deposit(1) == 3
    assert house.busy() == 0


@simulated
async def test_read_only_turn_cannot_assign_a_field(house: House) -> None:
    """It never commits, so the change would live until the next crash."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    with pytest.raises(AttributeError, match="read_only"):
        await ann.cheat()
    with pytest.raises(AttributeError, match="never commits"):
        await ann.save_while_reading()
    assert await ann.get_balance() == 0


@simulated
async def test_read_only_turn_that_changes_the_inside_of_a_field_is_found_where_asked_for(
    house: House,
) -> None:
    """Python cannot refuse it; comparing costs, so `dev` and the tests do it."""
    cluster = await house.open([Account], msgspec.structs.replace(SMALL, check_read_only=True))
    ann = cluster.actor(Account, "ann")
    await ann.hold("kept")
    with pytest.raises(TypeError, match="changed the inside of a durable field"):
        await ann.cheat_inside()
    assert await ann.get_notes() == ["kept"]


@simulated
async def test_read_only_turns_run_together_and_writers_alone(house: House) -> None:
    """Ten slow reads take as long as one; two slow writes take twice as long."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    await ann.deposit(1)
    began = house.loop.time()
    assert await asyncio.gather(*(ann.get_balance_slowly() for _ in range(10))) == [1] * 10
    assert house.loop.time() - began < 1.1
    began = house.loop.time()
    assert await asyncio.gather(*(ann.deposit_slowly(1) for _ in range(2))) == [2, 3]
    assert 2.0 < house.loop.time() - began < 2.1


@simulated
async def test_save_keeps_what_came_before_it_when_the_turn_fails(house: House) -> None:
    """That is what save() is for; and the answer must not say that nothing was kept."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    with pytest.raises(ValueError, match="after the save"):
        await ann.save_then_fail(5, 6)
    assert await ann.get_balance() == 5
    house.kill("a")
    await house.start("a#2", [Account])
    assert await ann.get_balance() == 5


@simulated
async def test_save_sends_only_what_is_new(house: House) -> None:
    """A save without a change, and the end of a turn after one, have nothing to tell the store."""
    cluster = await house.open([Account])
    assert await cluster.actor(Account, "ann").save_twice() == 1
    assert len(house.commits()) == 1


@simulated
async def test_turn_that_is_cancelled_during_its_save_loses_nothing(house: House) -> None:
    """The save cannot be called back, so the next turn has to build on it: forgetting it would undo what
    was told to be durable."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    await ann.deposit(1)
    house.store.block("a", 0.5)
    call = asyncio.ensure_future(ann.save_then_fail(5, 6))
    await asyncio.sleep(0.1)
    call.cancel()
    after = asyncio.ensure_future(ann.deposit(1))
    await settled(call)
    assert await after == 6
    house.kill("a")
    await house.start("a#2", [Account])
    assert await ann.get_balance() == 6


@simulated
async def test_context_variables_do_not_leak_between_turns(house: House) -> None:
    """A tenant or trace id of one caller that shows up in another's turn is a breach."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    COLOUR.set("the caller's")
    painted = [await ann.paint(), await ann.paint(), await ann.paint_slowly(), await ann.paint()]
    assert painted == ["none"] * 4
    assert COLOUR.get() == "the caller's"


@simulated
async def test_methods_may_use_asyncio_as_they_like(house: House) -> None:
    """Timeouts, groups and gather are how people write; a turn is an ordinary task."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    assert await ann.use_asyncio() == ["timeout", "group", "gather", "both"]
    assert await ann.get_balance() == 1
    with pytest.raises(ExceptionGroup) as caught:
        await ann.fail_in_group()
    assert str(caught.value.exceptions[0]) == "in a group"
    assert await ann.get_balance() == 1


@simulated
async def test_grains_of_one_silo_share_no_mutable_value(house: House) -> None:
    """By reference on one silo and by value between two would be two languages."""
    cluster = await house.open([Shelf, Reader])
    lists = await cluster.actor(Reader, "r").change_what_came("s")
    assert list(lists) == [["a"], ["a", "returned"]]


@simulated
async def test_arguments_are_checked_when_they_arrive(house: House) -> None:
    """A caller in another language, or with an older class, must not reach the method with nonsense."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    with pytest.raises(errors.ArgumentError, match="amount") as caught:
        await ann.deposit("3")  # type: ignore[arg-type]
    assert caught.value.did_run is DidRun.NO
    method = ann._durum_target.kind.methods["deposit"]  # type: ignore[attr-defined]
    target = ann._durum_target  # type: ignore[attr-defined]
    plain = ann._durum_options  # type: ignore[attr-defined]
    for args in (msgspec.msgpack.encode(["3"]), msgspec.msgpack.encode([1, 2]), b"\xc1", b""):
        with pytest.raises(errors.ArgumentError) as caught:
            await cluster.router.call(target, method, args, plain)
        assert caught.value.did_run is DidRun.NO
    slow = ann._durum_target.kind.methods["deposit_slowly"]  # type: ignore[attr-defined]
    with pytest.raises(errors.ArgumentError):
        await cluster.router.call(target, slow, msgspec.msgpack.encode(["3"]), plain)
    assert await ann.deposit(1) == 1
    assert house.busy() == 0


@simulated
async def test_unknown_methods_and_kinds_are_refused_by_name(house: House) -> None:
    """Private methods and fields are not reachable; a wrong name says which ones there are."""
    cluster = await house.open([Account])
    ann = cluster.actor(Account, "ann")
    method = ann._durum_target.kind.methods["deposit"]  # type: ignore[attr-defined]
    for name in ("_break", "balance", "__init__", "on_activate", "nope"):
        fake = type("Method", (), {"name": name, "opaque": False, "one_way": False})()
        with pytest.raises(errors.NoSuchMethod, match="has no public method"):
            await cluster.router.call(
                ann._durum_target,  # type: ignore[attr-defined]
                fake,
                b"\x90",
                options(ann, timeout=1)._durum_options,  # type: ignore[attr-defined]
            )
    assert method.name == "deposit"
    with pytest.raises(errors.NoSuchKind, match="no active silo hosts the kind of 'Shelf/s'"):
        await cluster.actor(Shelf, "s").get()


@simulated
async def test_ten_thousand_waiting_calls_do_not_grow_the_stack(house: House) -> None:
    """Each ended turn begins the next; by calling itself it would overflow the stack and end the silo."""
    limits = msgspec.structs.replace(SMALL.limits, mailbox_calls=20_000)
    cluster = await house.open([Account, Counter], msgspec.structs.replace(SMALL, limits=limits))
    counter, ann = cluster.actor(Counter, "c"), cluster.actor(Account, "ann")
    await counter.add()
    slow = asyncio.ensure_future(counter.wait(1.0))
    await asyncio.sleep(0.1)
    waiting = [asyncio.ensure_future(counter.add()) for _ in range(10_000)]
    await slow
    assert await asyncio.gather(*waiting) == list(range(2, 10_002))
    slow2 = asyncio.ensure_future(ann.deposit_slowly(0))
    await asyncio.sleep(0.1)
    reads = [asyncio.ensure_future(ann.get_balance()) for _ in range(3_000)]
    await slow2
    assert await asyncio.gather(*reads) == [0] * 3_000
