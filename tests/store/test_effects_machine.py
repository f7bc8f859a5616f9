"""Random histories of commits with effects, lost replies, ghosts, takeovers, hosts, erasures and full
outboxes against a small model. The second half switches a check off and demands that the machine notices.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from durum import errors
from durum.clock import SystemClock
from durum.ids import TOKEN_BYTES, GrainId, SystemEntropy, Token, hosted_token
from durum.store import redis_scripts, sqlite_effects, sqlite_grains, sqlite_tables
from durum.store.effects import Outgoing, Overfull, Posted, WakeUp
from durum.store.host_table import Host
from durum.store.protocol import NEVER_OWNED, Commit, Committed, Store, Take
from durum.store.urls import open_store
from tests.store import test_outbox, test_wake_ups
from tests.store.test_mutants import Sentence, fails
from tests.support.servers import PRODUCTS, Server
from tests.support.services import SILO, Service, commit, commit_id

ANN, BEN = GrainId("K/ann"), GrainId("K/ann\0b")
NAMES = (b"", b"\0", b"a", b"\xff")
_numbers = itertools.count(1)


@dataclass
class Grain:
    """What the model knows of one grain."""

    version: int = 0
    last: tuple[bytes, Committed] | None = None
    host: Token | None = None
    parts: dict[bytes, bytes] = field(default_factory=dict)
    wake: dict[bytes, int] = field(default_factory=dict)


class Model:
    """What the model knows of the partition."""

    def __init__(self) -> None:
        self.token = NEVER_OWNED
        self.epoch = 0
        self.commits = 0
        self.number = 0
        self.outbox: list[Posted] = []
        self.letters: dict[bytes, bytes] = {}
        self.grains = {ANN: Grain(), BEN: Grain()}

    def lets(self, token: Token, grain: GrainId) -> bool:
        """Whether the fence opens for a grain."""
        if len(token) > TOKEN_BYTES:
            return self.grains[grain].host == token
        return token == self.token and token != NEVER_OWNED

    def applied(self, turn: Commit) -> Committed | type[errors.DurumError]:
        """Apply a commit, or say how it must be refused."""
        grain = self.grains[turn.grain]
        if grain.last is not None and grain.last[0] == turn.id:
            return grain.last[1]
        if not self.lets(turn.token, turn.grain) or turn.version != grain.version:
            return errors.Superseded
        if turn.send and 0 < turn.send_limit < len(self.outbox) + len(turn.send):
            return Overfull
        self.commits += 1
        grain.version += 1
        first = self.number + 1 if turn.send else 0
        for one in turn.send:
            self.number += 1
            lineage = bytes(self.token)
            self.outbox.append(Posted(self.number, self.epoch, lineage, one.receiver, one.row))
        replace(grain.parts, turn.parts or {})
        replace(grain.wake, turn.wake)
        replace(self.letters, turn.park)
        answer = Committed(grain.version, self.commits, first)
        grain.last = (turn.id, answer)
        return answer

    def erased(self, name: GrainId) -> None:
        """Erase a grain."""
        grain = self.grains[name]
        self.commits += 1
        grain.version += 1
        grain.last = None
        grain.wake.clear()
        grain.parts = {key: mark for key, mark in grain.parts.items() if key == b"\0m"}

    def due(self) -> list[WakeUp]:
        """All wake-ups, in order."""
        found = [
            (due, grain.encode(), name)
            for grain, known in self.grains.items()
            for name, due in known.wake.items()
        ]
        return [WakeUp(due, GrainId(key.decode()), name) for due, key, name in sorted(found)]


def replace(known: dict[bytes, Any], changes: Any) -> None:
    """Set and drop by name."""
    for name, value in changes.items():
        if value is None:
            known.pop(name, None)
        else:
            known[name] = value


def named(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[bytes, Any]]:
    """Changes by name."""
    return st.dictionaries(st.sampled_from(NAMES), st.none() | values, max_size=3)


outgoing = st.builds(
    Outgoing, st.sampled_from((ANN, BEN)), st.sampled_from((b"", b"row", b"\0" * 99))
)
turns = st.fixed_dictionaries(
    {
        "grain": st.sampled_from((ANN, BEN)),
        "send": st.lists(outgoing, max_size=3),
        "send_limit": st.sampled_from((0, 0, 1, 3, 6)),
        "wake": named(st.integers(0, 2)),
        "park": named(st.sampled_from((b"", b"letter"))),
        "parts": st.dictionaries(
            st.sampled_from((b"\0m", b"p")), st.none() | st.just(b"1"), max_size=2
        ),
    }
)


class EffectsMachine(RuleBasedStateMachine):
    """One partition with two grains, and any number of silos that think they are its owner, or a host."""

    url: ClassVar[str] = "memory:"
    runner: ClassVar[asyncio.Runner]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.tokens: list[Token] = []
        self.hosts: dict[GrainId, list[Token]] = {ANN: [], BEN: []}
        self.sent: list[Commit] = []
        self.ghosts: list[Commit] = []
        self.acknowledged: list[tuple[Token, list[int]]] = []

    @initialize()
    def open(self) -> None:
        async def begin() -> Service:
            store: Store = await open_store(
                self.url,
                cluster=f"effects{next(_numbers)}" if "sqlite" not in self.url else "effects",
                clock=SystemClock(),
                entropy=SystemEntropy(),
                threads=False,
            )
            return await Service.create(store, 1)

        if self.url.startswith("sqlite"):
            Path(self.url.removeprefix("sqlite:///")).unlink(missing_ok=True)
        self.service = self.runner.run(begin())
        self.store = self.service.store
        self.take()

    def teardown(self) -> None:
        self.runner.run(self.store.close())

    def _do(self, operation: Callable[[], Any]) -> Any:
        async def run() -> Any:
            try:
                return await operation()
            except (errors.Superseded, Overfull) as exc:
                return exc

        return self.runner.run(run())

    # -- the partition and its grains change hands

    @rule()
    def take(self) -> None:
        model, token = self.model, Token(commit_id())
        take = Take(partition=0, seen=model.token, token=token, silo=SILO)
        model.token, model.epoch = token, model.epoch + 1
        self.tokens.append(token)
        self._compare_owner(self._do(lambda: self.store.take(self.service.mark, [take]))[0])

    @rule(grain=st.sampled_from((ANN, BEN)), lets_go=st.booleans())
    def place(self, grain: GrainId, lets_go: bool) -> None:
        model, seen = self.model, self.model.grains[grain].host
        host = None if lets_go else Host(SILO, hosted_token(Token(commit_id()), grain))
        found = self._do(lambda: self.store.place(0, model.token, grain, seen=seen, host=host))
        assert found == host
        model.grains[grain].host = None if host is None else host.token
        if host is not None:
            self.hosts[grain].append(host.token)

    def _token(self, data: st.DataObject, grain: GrainId) -> Token:
        """Mostly what a correct silo would have, else what a superseded one has."""
        right = self.model.grains[grain].host or self.model.token
        stale = [*self.hosts[grain][-2:], *self.tokens[-2:], right]
        return data.draw(st.sampled_from(stale)) if data.draw(st.integers(0, 4)) == 4 else right

    # -- turns end

    def _new(self, data: st.DataObject) -> Commit:
        turn: dict[str, Any] = data.draw(turns)
        version = self.model.grains[turn["grain"]].version
        if data.draw(st.integers(0, 9)) == 9:
            version += 1
        return commit(self._token(data, turn["grain"]), version=version, state=None, **turn)

    def _send(self, turn: Commit) -> None:
        got = self._do(lambda: self.store.commit(turn))
        expected = self.model.applied(turn)
        if isinstance(expected, Committed):
            assert got == expected
        else:
            assert type(got) is expected, f"{turn}: {got}"

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        turn = self._new(data)
        self.sent.append(turn)
        self._send(turn)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def commit_sent_again_after_a_lost_reply(self, data: st.DataObject) -> None:
        self._send(data.draw(st.sampled_from(self.sent[-3:][::-1])))

    @rule(data=st.data())
    def commit_stays_on_its_way(self, data: st.DataObject) -> None:
        self.ghosts.append(self._new(data))

    @precondition(lambda self: self.ghosts)
    @rule(data=st.data())
    def ghost_lands(self, data: st.DataObject) -> None:
        ghost = data.draw(st.sampled_from(self.ghosts))
        self.ghosts.remove(ghost)
        self.sent.append(ghost)
        self._send(ghost)

    @rule(data=st.data(), grain=st.sampled_from((ANN, BEN)))
    def erase(self, data: st.DataObject, grain: GrainId) -> None:
        token, version = self._token(data, grain), self.model.grains[grain].version
        erase = self.store.erase
        got = self._do(lambda: erase(0, token, grain, version, keep_s=99))
        if self.model.lets(token, grain):
            self.model.erased(grain)
            assert got == Committed(version + 1, self.model.commits)
            assert self._do(lambda: erase(0, token, grain, version, keep_s=99)) == got
        else:
            assert isinstance(got, errors.Superseded)

    # -- owners deliver

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        numbers = data.draw(st.lists(st.integers(1, self.model.number + 1), max_size=3))
        token = data.draw(st.sampled_from([self.model.token, *self.tokens[-2:]]))
        self.acknowledged.append((token, numbers))
        self._acknowledge(token, numbers)

    @precondition(lambda self: self.acknowledged)
    @rule()
    def acknowledge_sent_again(self) -> None:
        self._acknowledge(*self.acknowledged[-1])

    def _acknowledge(self, token: Token, numbers: list[int]) -> None:
        got = self._do(lambda: self.store.acknowledge(0, token, numbers))
        if token == self.model.token:
            assert got is None
            self.model.outbox = [one for one in self.model.outbox if one.number not in numbers]
        else:
            assert isinstance(got, errors.Superseded)

    @rule(after=st.integers(0, 9), limit=st.integers(0, 4))
    def read_outbox(self, after: int, limit: int) -> None:
        token = self.model.token
        found = self._do(lambda: self.store.posted(0, token, after, limit))
        assert found == [one for one in self.model.outbox if one.number > after][:limit]

    @rule(
        until=st.integers(0, 3),
        limit=st.integers(0, 4),
        after=st.none()
        | st.tuples(st.integers(0, 2), st.sampled_from((ANN, BEN)), st.sampled_from(NAMES)),
    )
    def read_wake_ups(
        self, until: int, limit: int, after: tuple[int, GrainId, bytes] | None
    ) -> None:
        token = self.model.token
        found = self._do(lambda: self.store.due(0, token, until, limit, after))
        expected = [one for one in self.model.due() if one.due_ms <= until]
        if after is not None:
            behind = after[0], after[1].encode(), after[2]
            expected = [
                one for one in expected if (one.due_ms, one.grain.encode(), one.name) > behind
            ]
        assert found == expected[:limit]

    @rule(limit=st.integers(1, 3))
    def read_all_wake_ups_in_pages(self, limit: int) -> None:
        token, found = self.model.token, list[WakeUp]()
        after: tuple[int, GrainId, bytes] | None = None
        while page := self._do(lambda: self.store.due(0, token, 9, limit, after)):  # noqa: B023
            found += page
            after = found[-1].due_ms, found[-1].grain, found[-1].name
        assert found == self.model.due()

    @rule(after=st.sampled_from(NAMES), limit=st.integers(0, 4))
    def read_letters(self, after: bytes, limit: int) -> None:
        found = self._do(lambda: self.store.letters(0, after, limit))
        names = sorted(name for name in self.model.letters if name > after or not after)
        assert found == [(name, self.model.letters[name]) for name in names][:limit]

    # -- looking

    @invariant()
    def store_is_as_the_model(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self._compare())

    async def _compare(self) -> None:
        model, store = self.model, self.store
        lost = Take(partition=0, seen=Token(b"?" * 16), token=Token(commit_id()), silo=None)
        self._compare_owner((await store.take(self.service.mark, [lost]))[0])
        assert await store.posted(0, model.token, 0, 1000) == model.outbox
        assert await store.due(0, model.token, 1000, 1000) == model.due()
        assert await store.letters(0, b"", 1000) == sorted(model.letters.items())
        assert await store.count_letters(0) == len(model.letters)
        for name, grain in model.grains.items():
            token = grain.host or model.token
            assert (await store.load(0, token, name)).version == grain.version
            found = await store.scan_parts(0, token, name, b"", b"", 9)
            assert found == sorted(grain.parts.items())

    def _compare_owner(self, owner: Any) -> None:
        model = self.model
        assert (owner.token, owner.epoch, owner.commits) == (
            model.token,
            model.epoch,
            model.commits,
        )
        assert owner.posted == len(model.outbox)
        assert owner.first_posted_epoch == (model.outbox[0].epoch if model.outbox else 0)
        due = model.due()
        assert owner.earliest_due_ms == (due[0].due_ms if due else None)


def run(url: str, *, examples: int, steps: int = 30) -> None:
    """Run the machine on a store; an AssertionError says that the store is not as the model."""
    with asyncio.Runner() as runner:
        machine = type("Machine", (EffectsMachine,), {"url": url, "runner": runner})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],  # a mutant needs to be caught, not explained
                suppress_health_check=list(HealthCheck),
                print_blob=False,
            ),
        )


def test_sqlite_in_memory_is_as_the_model() -> None:
    """The embedded store under random histories."""
    run("memory:", examples=50)


def test_sqlite_file_is_as_the_model(tmp_path: Path) -> None:
    """On a disk, where transactions roll back what failed."""
    run(f"sqlite:///{tmp_path}/effects.db", examples=15)


@pytest.mark.parametrize("product", PRODUCTS)
def test_scripts_are_as_the_model(servers: Callable[[str], Server], product: str) -> None:
    """On a real server."""
    run(servers(product).url, examples=25)


@pytest.mark.parametrize("kind", ["valkey-sentinel", "valkey-cluster", "redis-cluster"])
def test_scripts_are_as_the_model_on_many_servers(
    topologies: Callable[[str], str], kind: str
) -> None:
    """All keys of a script have one slot, and WAIT stands behind writes."""
    run(topologies(kind), examples=15)


# -- tests of the tests

SQLITE: list[tuple[Any, str, Any]] = [
    (sqlite_effects, "check_room", lambda *_: None),
    (sqlite_effects, "verify_owner", lambda *_: None),
    (sqlite_effects, "_first_of", lambda *_: 0),
    (sqlite_effects, "_write_letters", lambda *_: None),
    (sqlite_tables, "is_same_commit", lambda *_: False),
    (sqlite_tables, "check_version", lambda *_: None),
    (sqlite_grains, "drop_wake_ups", lambda *_: None),
    (sqlite_grains, "MARKS", b"\0none"),
]
SCRIPTS = [
    ("if sends > 0 and most > 0 and posted + sends > most then return -4 end", ""),
    ("held ~= ARGV[1] or ", ""),
    ("repeated = last and", "repeated = false and"),
    ("tonumber(first) or 0", "0"),
    ("redis.call('HSET', KEYS[2], 'i', answer .. ' ' .. first)", ""),
    ("redis.call('ZREM', KEYS[7], ARGV[6] .. string.sub(field, 3))", ""),
    ("redis.call('HSET', KEYS[2], 'w:' .. ARGV[at], ARGV[at + 1])", ""),
    ("redis.call('ZREM', KEYS[7], stem .. ARGV[at])", ""),
    ("redis.call('ZADD', KEYS[6], 0, name)", ""),
    ("redis.call('ZREMRANGEBYSCORE', KEYS[2], ARGV[i], ARGV[i])", ""),
    ("(grain[1] or '0') ~= ARGV[3]", "false"),
]


@pytest.mark.parametrize(("module", "name", "mutant"), SQLITE, ids=[one[1] for one in SQLITE])
def test_machine_notices_a_check_that_sqlite_lacks(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, mutant: Any
) -> None:
    """Without the check the machine must fail."""
    monkeypatch.setattr(module, name, mutant)
    with pytest.raises(AssertionError):
        run("memory:", examples=300)


@pytest.mark.parametrize(("old", "new"), SCRIPTS)
def test_machine_notices_a_check_that_the_scripts_lack(
    monkeypatch: pytest.MonkeyPatch, servers: Callable[[str], Server], old: str, new: str
) -> None:
    """Without the check the machine must fail."""
    url = servers("valkey").url
    original = redis_scripts.read_script
    names = ("commit_effects", "erase", "due", "acknowledge", "posted")
    assert any(old in original(name) for name in names)
    monkeypatch.setattr(redis_scripts, "read_script", lambda name: original(name).replace(old, new))
    with pytest.raises(AssertionError):
        run(url, examples=300)


SENTENCES: list[tuple[str, str, Sentence]] = [
    ("from = middle + 1", "from = to", partial(test_wake_ups.PAGES, limit=3)),
    ("if size >= most then break end", "", test_outbox.test_page_of_large_messages_ends_early),
    ("redis.call('PERSIST', prefix .. part .. id)", "", test_wake_ups.ANEW),
]


@pytest.mark.parametrize(("old", "new", "sentence"), SENTENCES, ids=["search", "size", "persist"])
async def test_sentence_fails_on_valkey_without_its_line(
    monkeypatch: pytest.MonkeyPatch,
    servers: Callable[[str], Server],
    old: str,
    new: str,
    sentence: Sentence,
) -> None:
    """What random histories of this size seldom meet."""
    url = servers("valkey").url
    assert not await fails(url, sentence)
    original = redis_scripts.read_script
    assert any(old in original(name) for name in ("due", "posted", "record"))
    monkeypatch.setattr(redis_scripts, "read_script", lambda name: original(name).replace(old, new))
    assert await fails(url, sentence)
