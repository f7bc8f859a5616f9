"""Random histories of takes, commits, ghosts and lost replies against a small model of the store.

The second half switches a check off and demands that the machine notices: a test that cannot fail
proves nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
from durum.ids import (
    TOKEN_BYTES,
    GrainId,
    SystemEntropy,
    Token,
    hosted_token,
)
from durum.store import redis_scripts, sqlite_fence, sqlite_tables
from durum.store.host_table import Host, Hosted
from durum.store.protocol import NEVER_OWNED, Commit, Committed, Record, Store, Take
from durum.store.urls import open_store
from tests.support.servers import Server, binary_of
from tests.support.services import OTHER, SILO, Service, commit, commit_id

GRAINS = (GrainId("Account/alice"), GrainId("Account/bob"))
PARTITIONS = 2
KEYS = tuple(bytes([n]) * 16 for n in range(3))
PLACINGS = ("host", "move", "move", "none", "let go", "stale owner", "unseen")
_numbers = itertools.count(1)


@dataclass
class Grain:
    """What the model knows of one grain."""

    version: int = 0
    state: bytes | None = None
    replies: dict[bytes, bytes] = field(default_factory=dict)
    last: tuple[bytes, Committed] | None = None
    host: Host | None = None


@dataclass
class Partition:
    """What the model knows of one partition."""

    token: Token = NEVER_OWNED
    epoch: int = 0
    commits: int = 0
    grains: dict[GrainId, Grain] = field(
        default_factory=lambda: {grain: Grain() for grain in GRAINS}
    )

    def lets(self, token: Token, grain: GrainId) -> bool:
        """Whether the fence opens."""
        if len(token) > TOKEN_BYTES:
            host = self.grains[grain].host
            return host is not None and host.token == token
        return token == self.token and token != NEVER_OWNED

    def placed(
        self, token: Token, grain: GrainId, seen: Token | None, host: Host | None
    ) -> Host | errors.Superseded | None:
        """Apply a placing."""
        record = self.grains[grain]
        before = record.host and record.host.token
        if before == (host and host.token):
            return record.host
        if not self.lets(token, grain):
            return errors.Superseded()
        if before == seen:
            record.host = host
        return record.host

    def applied(self, turn: Commit) -> Committed | None:
        """Apply a commit; None where it must be refused."""
        grain = self.grains[turn.grain]
        if grain.last is not None and grain.last[0] == turn.id:
            return grain.last[1]
        if not self.lets(turn.token, turn.grain) or turn.version != grain.version:
            return None
        self.commits += 1
        grain.version += 1
        if turn.state is not None:
            grain.state = turn.state
        for key in turn.forget:
            grain.replies.pop(key, None)
        grain.replies.update(turn.replies or {})
        answer = Committed(grain.version, self.commits)
        grain.last = (turn.id, answer)
        return answer


class StoreMachine(RuleBasedStateMachine):
    """Two partitions, two grains in each, any number of silos that think they are the owner."""

    url: ClassVar[str] = "memory:"
    runner: ClassVar[asyncio.Runner]

    def __init__(self) -> None:
        super().__init__()
        self.model = [Partition() for _ in range(PARTITIONS)]
        self.tokens: list[list[Token]] = [[] for _ in range(PARTITIONS)]
        self.takes: list[Take] = []
        self.sent: list[Commit] = []
        self.ghosts: list[Commit] = []
        self.hosts: dict[tuple[int, GrainId], list[Token]] = defaultdict(list)
        self.placings: list[tuple[int, Token, GrainId, Token | None, Host | None]] = []

    @initialize()
    def open(self) -> None:
        async def begin() -> Service:
            store: Store = await open_store(
                self.url,
                cluster=f"machine{next(_numbers)}",
                clock=SystemClock(),
                entropy=SystemEntropy(),
                threads=False,
            )
            return await Service.create(store, PARTITIONS)

        self.service = self.runner.run(begin())
        self.store = self.service.store

    def teardown(self) -> None:
        self.runner.run(self.store.close())

    def _do(self, operation: Callable[[], Any]) -> Any:
        async def run() -> Any:
            try:
                return await operation()
            except errors.Superseded as exc:
                return exc

        return self.runner.run(run())

    # -- partitions change hands

    @rule(partition=st.integers(0, PARTITIONS - 1), silo=st.sampled_from([SILO, OTHER, None]))
    def take(self, partition: int, silo: Any) -> None:
        model = self.model[partition]
        token = Token(commit_id())
        self.takes.append(Take(partition=partition, seen=model.token, token=token, silo=silo))
        self._take(self.takes[-1])
        self.tokens[partition].append(token)

    @precondition(lambda self: self.takes)
    @rule(data=st.data())
    def take_sent_again(self, data: st.DataObject) -> None:
        self._take(data.draw(st.sampled_from(self.takes)))

    def _take(self, take: Take) -> None:
        model = self.model[take.partition]
        (owner,) = self._do(lambda: self.store.take(self.service.mark, [take]))
        if model.token == take.seen:
            model.token = take.token
            model.epoch += 1
        assert (owner.token, owner.epoch) == (model.token, model.epoch)

    # -- grains change hosts

    @precondition(lambda self: any(self.tokens))
    @rule(data=st.data(), grain=st.sampled_from(GRAINS), how=st.sampled_from(PLACINGS))
    def place(self, data: st.DataObject, grain: GrainId, how: str) -> None:
        held = [partition for partition, known in enumerate(self.tokens) if known]
        partition = data.draw(st.sampled_from(held))
        model, known = self.model[partition], self.hosts[partition, grain]
        record = model.grains[grain].host
        token, seen = model.token, None if record is None else record.token
        host = None
        if how not in ("none", "let go"):
            host = Host(SILO, hosted_token(Token(commit_id()), grain))
        if how == "stale owner":
            token = data.draw(st.sampled_from(self.tokens[partition][-2:]))
        elif how == "unseen":
            seen = data.draw(st.sampled_from([None, *known[-2:]]))
        elif how == "let go":
            token = seen = data.draw(st.sampled_from(known[-2:] or [token]))
            if not known:
                return
        if host is not None:
            known.append(host.token)
        self.placings.append((partition, token, grain, seen, host))
        self._place(*self.placings[-1])
        if how == "move":
            self.place(data, grain, "host")

    def _other_hosts(self) -> list[Token]:
        """A hosted token of whichever grain."""
        return [tokens[-1] for tokens in self.hosts.values() if tokens][-1:]

    @precondition(lambda self: self.placings)
    @rule(data=st.data())
    def place_sent_again(self, data: st.DataObject) -> None:
        self._place(*data.draw(st.sampled_from(self.placings[-3:])))

    def _place(
        self, partition: int, token: Token, grain: GrainId, seen: Token | None, host: Host | None
    ) -> None:
        got = self._do(lambda: self.store.place(partition, token, grain, seen=seen, host=host))
        expected = self.model[partition].placed(token, grain, seen, host)
        if isinstance(expected, errors.Superseded):
            assert isinstance(got, errors.Superseded)
        else:
            assert got == expected

    # -- turns end

    def _new(self, data: st.DataObject) -> Commit:
        partition = data.draw(st.integers(0, PARTITIONS - 1))
        model = self.model[partition]
        grain = data.draw(st.sampled_from(GRAINS))
        # Mostly what a correct silo would send, else what a superseded or confused one would.
        host = model.grains[grain].host
        hosts = self.hosts[partition, grain][-3:]
        stale = [*hosts, *self.tokens[partition][-3:], *self._other_hosts(), Token(b"?" * 16)]
        right = host.token if host else model.token
        token = right if data.draw(st.integers(0, 3)) else data.draw(st.sampled_from(stale))
        version = model.grains[grain].version
        if data.draw(st.integers(0, 4)) == 0:
            version = data.draw(st.integers(0, version + 1))
        return commit(
            token,
            partition=partition,
            grain=grain,
            version=version,
            state=data.draw(st.sampled_from([None, b"", b"x%d" % next(_numbers)])),
            replies=data.draw(
                st.dictionaries(st.sampled_from(KEYS), st.sampled_from([b"", b"r"]), max_size=2)
            ),
            forget=data.draw(st.lists(st.sampled_from(KEYS), max_size=2, unique=True)),
        )

    def _send(self, turn: Commit) -> None:
        got = self._do(lambda: self.store.commit(turn))
        expected = self.model[turn.partition].applied(turn)
        if expected is None:
            assert isinstance(got, errors.Superseded), f"{turn} was applied: {got}"
        else:
            assert got == expected

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        turn = self._new(data)
        self.sent.append(turn)
        self._send(turn)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def commit_sent_again_after_a_lost_reply(self, data: st.DataObject) -> None:
        self._send(data.draw(st.sampled_from(self.sent[-4:])))

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

    # -- activations begin

    @rule(data=st.data(), grain=st.sampled_from(GRAINS), raise_version=st.booleans())
    def load(self, data: st.DataObject, grain: GrainId, raise_version: bool) -> None:
        partition = data.draw(st.integers(0, PARTITIONS - 1))
        model = self.model[partition]
        host = model.grains[grain].host
        hosts = self.hosts[partition, grain][-3:]
        tokens = [*hosts, *self.tokens[partition][-3:], model.token]
        token = data.draw(st.sampled_from([*tokens, host.token if host else model.token]))
        got = self._do(
            lambda: self.store.load(partition, token, grain, raise_version=raise_version)
        )
        if not model.lets(token, grain):
            assert isinstance(got, errors.Superseded)
            assert not isinstance(got, Hosted)
            return
        if host is not None and host.token != token:
            assert isinstance(got, Hosted)
            assert got.host == host
            return
        if raise_version:
            model.grains[grain].version += 1
        assert got == Record(version=model.grains[grain].version, state=model.grains[grain].state)

    @invariant()
    def store_is_as_the_model(self) -> None:
        if hasattr(self, "store"):
            self.runner.run(self._compare())

    async def _compare(self) -> None:
        owners = await self.store.owners(self.service.mark)
        assert [(one.token, one.epoch, one.commits) for one in owners] == [
            (one.token, one.epoch, one.commits) for one in self.model
        ]
        held = [(partition, one) for partition, one in enumerate(self.model) if one.token]
        wanted = [
            (partition, record.host.token if record.host else one.token, grain)
            for partition, one in held
            for grain, record in one.grains.items()
        ]
        records = await asyncio.gather(*(self.store.load(*one) for one in wanted))
        replies = await asyncio.gather(*(self.store.replies(*one) for one in wanted))
        known = [self.model[partition].grains[grain] for partition, _, grain in wanted]
        assert records == [Record(version=one.version, state=one.state) for one in known]
        assert replies == [one.replies for one in known]
        hosts = await asyncio.gather(
            *(self.store.find_host(partition, grain) for partition, _, grain in wanted)
        )
        assert hosts == [one.host for one in known]


@pytest.fixture(scope="module")
def valkey() -> Iterator[str]:
    """A real server's URL."""
    if binary_of("valkey") is None:
        pytest.skip("valkey is not installed here")
    server = Server("valkey").start()
    yield server.url
    server.remove()


def run(url: str, *, examples: int, steps: int = 30) -> None:
    """Run the machine on a store; an AssertionError says that the store is not as the model."""
    with asyncio.Runner() as runner:
        machine = type("Machine", (StoreMachine,), {"url": url, "runner": runner})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                derandomize=True,
                database=None,
                # A mutant needs to be caught, not explained.
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                print_blob=False,
            ),
        )


def test_sqlite_is_as_the_model() -> None:
    """The embedded store under random histories."""
    run("memory:", examples=50)


def test_valkey_is_as_the_model(valkey: str) -> None:
    """The scripts on a real server under random histories."""
    run(valkey, examples=40)


# -- tests of the tests


def no_token_check(held: bytes | None, token: Token, partition: int) -> None:
    """The fence without its comparison."""
    if held is None:
        raise errors.DataLoss
    if held == NEVER_OWNED:
        raise errors.Superseded


def altered(old: str, new: str) -> Callable[[str], str]:
    """Scripts with one check taken out."""
    original = redis_scripts.read_script
    assert any(old in original(name) for name in ("commit", "raise", "fence_hosted"))
    return lambda name: original(name).replace(old, new)


def unraised(load: Callable[..., Record]) -> Callable[..., Record]:
    """A load that never raises the version."""
    return lambda db, partition, token, grain, raise_version: load(
        db, partition, token, grain, False
    )


@pytest.mark.parametrize(
    ("name", "mutant"),
    [
        ("check_token", no_token_check),
        ("check_version", lambda stored, expected, grain: None),
        ("load", unraised(sqlite_tables.load)),
        ("is_same_commit", lambda last, this: False),
        ("check_host", lambda found, token, grain: None),
        ("check_unhosted", lambda db, partition, token, grain: None),
    ],
)
def test_machine_notices_a_check_that_sqlite_lacks(
    monkeypatch: pytest.MonkeyPatch, name: str, mutant: Callable[..., Any]
) -> None:
    """Without the check the machine must fail."""
    module = sqlite_fence if hasattr(sqlite_fence, name) else sqlite_tables
    monkeypatch.setattr(module, name, mutant)
    with pytest.raises(AssertionError):
        run("memory:", examples=200)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("held ~= ARGV[1] or ", ""),
        ("if (grain[1] or '0') ~= ARGV[3] then", "if false then"),
        ("HINCRBY', KEYS[2], 'v', 1", "HINCRBY', KEYS[2], 'v', 0"),
        ("repeated = last and", "repeated = false and"),
        ("string.sub(host, 1, 16) ~= string.sub(ARGV[1], 1, 16)", "false"),
        ("if host then return host end", ""),
    ],
    ids=["token", "version", "raise", "same commit", "host", "unhosted"],
)
def test_machine_notices_a_check_that_the_scripts_lack(
    monkeypatch: pytest.MonkeyPatch, valkey: str, old: str, new: str
) -> None:
    """Without the check the machine must fail."""
    monkeypatch.setattr(redis_scripts, "read_script", altered(old, new))
    with pytest.raises(AssertionError):
        run(valkey, examples=200)
