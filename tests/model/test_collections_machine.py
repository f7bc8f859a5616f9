"""Random turns over a map and a list against a dict and a list, with a crash, a lost answer or a refusal at
any step on the way to the store. What a caller was told must be so, and a turn whose fate nobody knows must
have happened wholly or not at all.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import durum
from durum import errors
from durum.client.client import Cluster
from durum.errors import DidRun
from durum.grains import collection, entries, maps
from durum.grains.collection import Shelf
from durum.grains.entries import Entries
from durum.store import sqlite_parts
from durum.testing import run
from durum.testing.store import Stage
from durum.testing.store_client import Operation
from tests.support.shelves import UNKNOWN_LENGTH, Broken, Model, Shelves
from tests.support.turns import SEED, House, outcome

EXAMPLES = int(os.environ.get("DURUM_MODEL_EXAMPLES", "150"))

keys = st.integers(-3, 8)
texts = st.text("ab", max_size=3)
places = st.integers(0, 9)
changes = st.one_of(
    st.tuples(st.just("set"), keys, texts),
    st.tuples(st.just("set"), keys, texts),
    st.tuples(st.just("discard"), keys),
    st.tuples(st.just("clear")),
    st.tuples(st.just("append"), texts),
    st.tuples(st.just("append"), texts),
    st.tuples(st.just("lset"), places, texts),
    st.tuples(st.just("cut"), st.integers(0, 4)),
)
looks = st.one_of(
    st.tuples(st.just("get"), keys),
    st.tuples(st.just("many"), keys, keys, keys),
    st.tuples(st.just("contains"), keys),
    st.tuples(st.just("len")),
    st.tuples(st.just("items"), st.none() | keys, st.integers(1, 12)),
    st.tuples(st.just("lget"), places),
    st.tuples(st.just("slice"), places, places),
    st.tuples(st.just("llen")),
    st.tuples(st.just("all")),
)
steps = st.one_of(
    changes,
    changes,
    looks,
    st.tuples(st.just("pop"), keys),
    st.tuples(st.just("count")),
    st.tuples(st.just("save")),
)
ends = st.sampled_from([(), (), (), (("fail",),)])
faults = st.one_of(
    st.none(),
    st.none(),
    st.tuples(
        st.integers(1, 6),
        st.sampled_from(list(Stage)),
        st.sampled_from(["kill", "deaf", "refuse", "refuse all"]),
    ),
)
Turn = tuple[str, list[tuple[Any, ...]], tuple[int, Stage, str] | None, bool]
turns = st.one_of(
    st.tuples(st.just("run"), st.lists(steps, max_size=8), faults, st.booleans()),
    st.tuples(st.just("blind"), st.lists(changes, max_size=8), faults, st.booleans()),
    st.tuples(st.just("look"), st.lists(looks, max_size=6), faults, st.just(False)),
)


class World:
    """One silo at a time on machine `a`, and the actor that is tested."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.lives = 1
        self.model = Model()
        self.cluster: Cluster
        self._armed: tuple[int, Stage, str] | None = None
        self._seen = 0
        house.store.watch(self._watch)

    @property
    def host(self) -> str:
        return "a" if self.lives == 1 else f"a#{self.lives}"

    async def open(self) -> None:
        await self.house.start(self.host, [Shelves])
        self.cluster = await self.house.connect("a")

    def _watch(self, operation: Operation, stage: Stage) -> None:
        if operation.host != self.host or not operation.name.startswith(("load", "scan", "commit")):
            return
        self._seen += stage is Stage.SENT
        if self._armed is None or self._seen < self._armed[0]:
            return
        _, at, what = self._armed
        if what == "kill" and stage is at:
            self._armed = None
            self.house.kill(self.host)
        elif stage is Stage.SENT and what == "refuse all":
            if operation.name == "commit":
                operation.refused = "no"  # until the turn's deadline
        elif stage is Stage.SENT and what != "kill":
            self._armed = None
            if what == "refuse":
                operation.refused = "no"
            else:
                operation.replies = False  # the silo sends it again, and it may be there already

    async def turn(self, method: str, todo: list[Any], fault: Any, fails: bool) -> None:
        """Play one turn, and compare."""
        if fails:
            todo = [*todo, ("fail",)]
        self._armed, self._seen = fault, 0
        actor = durum.options(self.cluster.actor(Shelves, "x"), timeout=8)
        call = {"run": actor.run, "blind": actor.blind, "look": actor.look}[method]
        found = await outcome(call([list(step) for step in todo]))
        if fault is not None and fault[2] == "refuse all":
            await asyncio.sleep(3.0)  # until the silo has given up too
        self._armed = None
        possible = [self.model, *self._play(method, todo)]
        if isinstance(found, Exception):
            await self._failed(found, possible, fails)
        else:
            assert not fails
            self.model = possible[-1]
            if method != "blind":
                assert isinstance(found, list)
                self._compare(found, self.results, todo)
        if self.host not in self.house.silos:
            self.lives += 1
            await self.house.start(self.host, [Shelves])
        await self._agree(possible if self.unsure else [self.model])

    def _play(self, method: str, todo: list[Any]) -> list[Model]:
        """The states after each save, and after the end."""
        model, saved = self.model.fork(), []
        model.turns += method != "look"
        self.results: list[Any] = []
        self.unsure = False
        for step in todo:
            if step[0] == "fail":
                break
            self.results.append(model.step(*step))
            if step[0] == "save":
                saved.append(model.fork())
        self.saves = len(saved)
        return [*saved, model]

    async def _failed(self, error: Exception, possible: list[Model], fails: bool) -> None:
        if isinstance(error, Broken):
            assert fails
            self.model = possible[self.saves]
        elif isinstance(error, errors.CallError):
            self.unsure = error.did_run is not DidRun.NO
            if error.did_run is DidRun.ROLLED_BACK:
                self.unsure, self.model = False, possible[0]
        else:
            raise error

    def _compare(self, found: list[Any], expected: list[Any], todo: list[Any]) -> None:
        for step, mine, theirs in zip(todo, found, expected, strict=True):
            if step[0] != "len" or mine != UNKNOWN_LENGTH:
                assert mine == theirs, step

    async def _agree(self, possible: list[Model]) -> None:
        actor = durum.options(self.cluster.actor(Shelves, "x"), timeout=60)
        found = await actor.dump()
        fitting = [model for model in possible if model.dump() == found]
        assert fitting, f"{found} is none of {[model.dump() for model in possible]}"
        self.model = fitting[-1]
        self._count_stored()

    def _count_stored(self) -> None:
        """Whatever is stored is counted, as an entry or as one that still has to go."""
        db = self.house.store.inside._writer._db  # type: ignore[attr-defined]
        ((state,),) = db.execute("SELECT state FROM grains").fetchall() or [(None,)]
        fields = {} if state is None else msgspec.msgpack.decode(state)
        counted = sum(sum(fields.get(name, (0, 0, 0))[1:]) for name in ("items", "log"))
        assert db.execute("SELECT count(*) FROM parts").fetchone() == (counted,)


async def play(todo: list[Turn]) -> None:
    """One history."""
    house = await House.build()
    try:
        world = World(house)
        await world.open()
        for turn in todo:
            await world.turn(*turn)
        await asyncio.sleep(0)
    finally:
        await house.close()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make pages, loads, purges and the cache so small that short histories go beyond them."""
    for module in (collection, sqlite_parts):
        monkeypatch.setattr(module, "PURGED_PER_COMMIT", 2)
    monkeypatch.setattr(maps, "PER_PAGE", 2)
    monkeypatch.setattr(entries, "_PER_LOAD", 2)
    monkeypatch.setattr(entries, "CACHED_ENTRIES", 3)


COMMON = settings(
    deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, database=None
)
histories = st.lists(turns, min_size=1, max_size=8)


@settings(COMMON, max_examples=EXAMPLES)
@given(histories)
def test_collections_are_what_a_dict_and_a_list_would_be(todo: list[Turn]) -> None:
    """A hundred kinds of turn and a handful of faults meet here as nobody would write them down."""
    run.run(play(todo), SEED)


def nothing(*_: Any) -> None:
    """Instead of what it replaces."""


def count_as_new(shelf: Shelf, name: bytes, content: bytes | None, *, there: bool) -> None:
    """Believes that no changed entry was there before."""
    del shelf.unresolved[name]
    shelf.length += content is not None


def never_move(shelf: Shelf) -> None:
    """Forgets that what is on its way is as good as stored."""


def purge_all(shelf: Shelf) -> tuple[bytes, bytes] | None:
    """Believes that one commit purges everything."""
    if not shelf._garbage:
        return None
    shelf._garbage = 0
    return shelf.spec.prefix, shelf.name(shelf.start)


MUTANTS = [
    (Entries, "roll_back", nothing),
    (Entries, "unstage", nothing),
    (Shelf, "settle", never_move),
    (Shelf, "resolve", count_as_new),
    (Shelf, "sweep", purge_all),
]


@pytest.mark.parametrize(
    ("owner", "name", "mutant"), MUTANTS, ids=[f"{m[1]}-{m[2].__name__}" for m in MUTANTS]
)
def test_histories_notice_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, mutant: Any
) -> None:
    """A machine that finds nothing in broken code proves nothing about ours."""
    monkeypatch.setattr(owner, name, mutant)

    @settings(COMMON, max_examples=400, phases=[Phase.generate], derandomize=True)
    @given(histories)
    def search(todo: list[Turn]) -> None:
        run.run(play(todo), SEED)

    with pytest.raises((AssertionError, Exception)):
        search()
