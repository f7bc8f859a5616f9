"""Random keyed calls on a whole silo against a table of keys: with a crash, a lost answer or a refusal before
and after every step on the way to the store, and with deletions, moves and the end of the window in between.
Each is repeated under its key until it has an answer, as its callers would do; its effect must be there once.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durum import errors
from durum.client.client import Cluster
from durum.config import Limits, SiloConfig
from durum.errors import DidRun
from durum.grains.actor import Actor, read_only
from durum.grains.reference import options
from durum.silo import replies
from durum.silo.replies import RememberedReplies
from durum.testing import run
from durum.testing.store import Stage
from durum.testing.store_client import Operation
from durum.wire.messages import Failure
from tests.support.turns import SEED, House, outcome

EXAMPLES: Final = int(os.environ.get("DURUM_MODEL_EXAMPLES", "80"))
WINDOW_S: Final = 300.0
KEPT: Final = 4
BODIES: Final = 2
_UNSURE_S: Final = 100.0
"""About the window's end nobody can tell: so long may a call take with all its faults."""

CONFIG: Final = SiloConfig(partitions=8, limits=Limits(reply_bodies_kept=BODIES))

T = TypeVar("T")
Found = int | Exception
_runs: list[int] = []


def _begin() -> int:
    """A number for each run of a method, which no rollback takes back."""
    _runs.append(len(_runs))
    return _runs[-1]


class Till(Actor, replies_kept=KEPT, reply_window=timedelta(seconds=WINDOW_S)):
    """Each effect is a line."""

    lines: list[str] = []

    async def add(self, key: str, x: int) -> int:
        self.lines.append(f"add {key} {x}")
        return _begin()

    async def fail(self, key: str, x: int) -> int:
        self.lines.append(f"fail {key} {x}")
        raise ValueError(_begin())

    async def halve(self, key: str, x: int) -> int:
        number = _begin()
        self.lines.append(f"half {key} {x}")
        await self.save()
        self.lines.append(f"whole {key} {x}")
        return number

    @read_only
    async def get(self) -> list[str]:
        return self.lines


FAULTS: Final = ("kill before", "kill after", "kill answered", "deaf", "refuse")
keys = st.sampled_from(["a", "b", "c", "d", "e", "f"])
faults = st.none() | st.tuples(st.integers(1, 4), st.sampled_from(FAULTS))
calls = st.tuples(
    st.just("call"),
    keys,
    st.sampled_from(["add", "add", "fail", "halve"]),
    st.sampled_from([1, 1, 1, 2]),
    st.sampled_from([1, 1, 2]),
    faults,
)
steps = st.one_of(
    calls,
    calls,
    calls,
    calls,
    st.tuples(st.just("wait"), st.sampled_from([1.0, 120.0, 450.0])),
    st.tuples(st.just("move")),
    st.tuples(st.just("crash")),
    st.tuples(st.just("delete"), faults),
)
Step = tuple[Any, ...]
histories = st.lists(steps, min_size=1, max_size=10)


@dataclass(frozen=True)
class Entry:
    """One key, as the model has it.

    Args:
        at: when it was recorded, give or take a call's duration.
        call: method and arguments.
        answer: what repeats get; None where the call has only saved.
    """

    at: float
    call: tuple[str, int]
    answer: tuple[str, str] | None


class World:
    """One silo at a time on machine `a`, the actor, and the model."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.lives = 1
        self.entries: dict[str, Entry] = {}
        self.lines: list[str] = []
        self.cluster: Cluster
        self._armed: tuple[int, str] | None = None
        self._seen = 0
        house.store.watch(self._watch)

    @property
    def host(self) -> str:
        return "a" if self.lives == 1 else f"a#{self.lives}"

    @property
    def now(self) -> float:
        return self.house.loop.time()

    async def open(self) -> None:
        await self.house.start(self.host, [Till], CONFIG)
        self.cluster = await self.house.connect("a")

    # Faults -------------------------------------------------------------------------------------------

    def _watch(self, operation: Operation, stage: Stage) -> None:
        wanted = ("load", "replies", "commit", "erase")
        if self._armed is None or operation.host != self.host or operation.name not in wanted:
            return
        self._seen += stage is Stage.SENT
        nth, what = self._armed
        if self._seen < nth or stage is not _STAGES[what]:
            return
        self._armed = None
        if what in ("kill before", "refuse"):
            operation.refused = "no"
        if what == "deaf":
            operation.replies = False
        if what.startswith("kill"):
            self.house.kill(self.host)

    async def _through(self, call: Callable[[], Awaitable[T]]) -> T | Exception:
        """What came of a call; a silo that dies of it is started again meanwhile."""
        task = asyncio.ensure_future(outcome(call()))
        while not task.done():
            await asyncio.wait({task}, timeout=1.0)
            if self.host not in self.house.silos:
                self.lives += 1
                await self.house.start(self.host, [Till], CONFIG)
        return task.result()

    async def _surely(self, call: Callable[[], Awaitable[T]]) -> T:
        """As a caller who repeats what may be repeated."""
        for _ in range(10):
            found = await self._through(call)
            if not isinstance(found, Exception):
                return found
            assert isinstance(found, errors.CallError), found
        raise AssertionError("never done")

    # Steps --------------------------------------------------------------------------------------------

    async def step(self, what: str, *how: Any) -> None:
        while any(
            abs(self.now - entry.at - WINDOW_S) < _UNSURE_S for entry in self.entries.values()
        ):
            await asyncio.sleep(_UNSURE_S)
        self._seen = 0
        todo: dict[str, Callable[..., Awaitable[None]]] = {
            "call": self._call,
            "wait": asyncio.sleep,
            "move": self._move,
            "crash": self._crash,
            "delete": self._delete,
        }
        await todo[what](*how)
        self._armed = None
        await self._look()

    async def _move(self) -> None:
        await self._surely(lambda: self.cluster.admin.deactivate(Till, "t"))

    async def _crash(self) -> None:
        self.house.kill(self.host)

    async def _delete(self, fault: tuple[int, str] | None) -> None:
        self._armed = fault
        await self._surely(lambda: self.cluster.admin.delete(Till, "t"))
        self.lines = []

    async def _look(self) -> None:
        till = self.cluster.actor(Till, "t")
        assert await self._surely(till.get) == self.lines

    async def _call(
        self, key: str, method: str, x: int, callers: int, fault: tuple[int, str] | None
    ) -> None:
        self._armed = fault
        before = len(_runs)
        each = [self._repeat(key, method, x) for _ in range(callers)]
        found = await asyncio.gather(*each)
        began, self._armed = before < len(_runs), None
        first = {_told(one) for one in found}
        assert len(first) == 1, found
        self._judge(key, (method, x), found[0], began=began)

    async def _repeat(self, key: str, method: str, x: int) -> Found:
        """Call, again under the same key where the outcome is not known, until it is."""
        till = options(self.cluster.actor(Till, "t"), idempotency_key=key, timeout=8.0)
        for _ in range(10):
            found: Found = await self._through(lambda: getattr(till, method)(key, x))
            if not isinstance(found, errors.CallError):
                return found
            if isinstance(found, errors.ArgumentError | errors.Overloaded | errors.ReplyForgotten):
                return found
            if isinstance(found, errors.CommitFailed) and found.did_run is DidRun.YES:
                return found
        raise AssertionError(f"never answered: {found!r}")

    def _judge(self, key: str, call: tuple[str, int], found: Found, *, began: bool) -> None:
        live = [k for k, e in self.entries.items() if self.now - e.at <= WINDOW_S]
        entry = self.entries.get(key) if key in live else None
        if entry is None:
            if len(live) >= KEPT:
                assert isinstance(found, errors.Overloaded), found
                assert not began
            else:
                assert began, "an answer to what never ran"
                self._record(key, call, found)
            return
        assert not began, "what ran within the window ran again"
        if entry.call != call:
            assert isinstance(found, errors.ArgumentError), found
        elif entry.answer is None:
            assert isinstance(found, errors.CommitFailed), found
        elif isinstance(found, errors.ReplyForgotten):
            younger = list(self.entries)[list(self.entries).index(key) + 1 :]
            bodies = [k for k in younger if self.entries[k].answer is not None]
            assert len(bodies) >= BODIES, "only bodies beyond the newest may go"
        else:
            assert _told(found) == entry.answer

    def _record(self, key: str, call: tuple[str, int], found: Found) -> None:
        method, x = call
        partial = isinstance(found, errors.CommitFailed)
        if method == "fail":
            assert isinstance(found, ValueError), found
        elif partial:
            assert method == "halve"
            self.lines.append(f"half {key} {x}")
        else:
            assert isinstance(found, int), found
            done = ("add",) if method == "add" else ("half", "whole")
            self.lines += [f"{word} {key} {x}" for word in done]
        self.entries.pop(key, None)
        self.entries[key] = Entry(self.now, call, None if partial else _told(found))


_STAGES: Final = {
    "kill before": Stage.SENT,
    "kill after": Stage.APPLIED,
    "kill answered": Stage.ANSWERED,
    "deaf": Stage.SENT,
    "refuse": Stage.SENT,
}


def _told(found: Found) -> tuple[str, str]:
    return type(found).__name__, str(found)


async def play(todo: list[Step]) -> None:
    """One history."""
    house = await House.build()
    try:
        world = World(house)
        await world.open()
        for step in todo:
            await world.step(*step)
    finally:
        await house.close()


COMMON = settings(
    deadline=None, suppress_health_check=list(HealthCheck), print_blob=True, database=None
)


@settings(COMMON, max_examples=EXAMPLES)
@given(histories)
def test_keyed_calls_take_effect_once_and_are_remembered(todo: list[Step]) -> None:
    """A caller who repeats must be told the truth, whatever fell when: this is the whole worth of a key."""
    run.run(play(todo), SEED)


def nothing_known(*_: Any) -> None:
    """Instead of what was remembered."""


def forget_early(self: RememberedReplies, key: bytes, call: bytes, now: float) -> Any:
    """Believes that more time has passed."""
    return RECALL(self, key, call, now + WINDOW_S / 2)


def keep_no_failures(
    self: RememberedReplies, key: bytes, call: bytes, outcome: Any, now: float
) -> Any:
    """Remembers only what went well."""
    change = REMEMBER(self, key, call, outcome, now)
    return replies.Change({}, (), {}) if isinstance(outcome, Failure) else change


def keep_no_parts(
    self: RememberedReplies, key: bytes, call: bytes, outcome: Any, now: float
) -> Any:
    """Believes that what has only saved may run again."""
    change = REMEMBER(self, key, call, outcome, now)
    return replies.Change({}, (), {}) if outcome is None else change


def forget_bodies(
    self: RememberedReplies, key: bytes, call: bytes, outcome: Any, now: float
) -> Any:
    """Keeps no reply but the newest."""
    self._limits = msgspec.structs.replace(self._limits, reply_bodies_kept=1)
    return REMEMBER(self, key, call, outcome, now)


def no_room_needed(self: RememberedReplies, now: float) -> None:
    """Believes that there is room for everything."""


RECALL: Final = RememberedReplies.recall
REMEMBER: Final = RememberedReplies.remember


def call(key: str, method: str = "add", x: int = 1, fault: tuple[int, str] | None = None) -> Step:
    """One step."""
    return ("call", key, method, x, 1, fault)


MUTANTS: Final = [
    ("recall", nothing_known, [call("a"), call("a")]),
    ("recall", forget_early, [call("a"), ("wait", 170.0), call("a")]),
    ("remember", keep_no_failures, [call("a", "fail"), ("move",), call("a", "fail")]),
    ("remember", keep_no_parts, [call("a", "halve", fault=(4, "kill before"))]),
    ("remember", forget_bodies, [call("a"), call("b"), call("a")]),
    ("_need_room", no_room_needed, [call(key) for key in "abcde"]),
]


@pytest.mark.parametrize(
    ("name", "mutant", "history"), MUTANTS, ids=[f"{m[0]}-{m[1].__name__}" for m in MUTANTS]
)
def test_machine_notices_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, name: str, mutant: Any, history: list[Step]
) -> None:
    """A machine that finds nothing in broken code proves nothing about ours."""
    run.run(play(history), SEED)
    monkeypatch.setattr(RememberedReplies, name, mutant)
    with pytest.raises(AssertionError):
        run.run(play(history), SEED)


def test_machine_notices_calls_that_are_taken_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That the answer of another call is no answer, the machine has to know."""
    monkeypatch.setattr(replies, "digest_call", lambda *_: b"same")
    with pytest.raises(AssertionError):
        run.run(play([call("a", x=1), call("a", x=2)]), SEED)
