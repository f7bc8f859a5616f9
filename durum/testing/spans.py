"""Whether owners took turns. Owns the judgement of a store's log; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from durum.ids import TOKEN_BYTES, GrainId, Token
from durum.store.host_table import Host
from durum.store.protocol import Commit
from durum.testing.store_log import Applied, Placed, StoreLog, Taken


@dataclass(frozen=True, slots=True)
class Span:
    """One holding's commits in one partition, or one host's of its grain, from its first to its last.

    Args:
        partition: which.
        token: the holding, or the hosted token.
        first: place of its first commit; only the order counts.
        last: place of its last one.
    """

    partition: int
    token: Token
    first: float
    last: float


def spans(commits: Iterable[Applied]) -> list[Span]:
    """Each holding's commits as one span, in the order of their beginnings."""
    found: dict[tuple[int, Token], Span] = {}
    for one in commits:
        key = one.commit.partition, one.commit.token
        first = found[key].first if key in found else one.number
        found[key] = Span(*key, first=first, last=one.number)
    return sorted(found.values(), key=lambda span: span.first)


def check_spans(found: Iterable[Span]) -> list[str]:
    """Spans of one partition never overlap: once a holding has committed, no earlier one does.

    Nor do those of one grain under hosted tokens; beside the partition's they may be.

    Returns:
        What is wrong, in words.
    """
    wrong: list[str] = []
    latest: dict[tuple[int, bytes], Span] = {}
    for span in sorted(found, key=lambda one: one.first):
        where = span.partition, span.token[TOKEN_BYTES:]
        before = latest.get(where)
        if before is not None and span.first <= before.last:
            wrong.append(
                f"partition {span.partition}: {span.token.hex()} committed at {span.first:g},"
                f" {before.token.hex()} still at {before.last:g}"
            )
        if before is None or span.last > before.last:
            latest[where] = span
    return wrong


def check_log(log: StoreLog) -> list[str]:
    """Judge all that a store has applied: spans, fence, versions and commit counters.

    Returns:
        What is wrong, in words.
    """
    wrong = check_spans(spans(log.commits))
    events: list[Applied | Taken | Placed] = [*log.commits, *log.takes, *log.places]
    fence = _Fence()
    versions: dict[str, int] = {}
    counters: dict[int, int] = {}
    for event in sorted(events, key=lambda one: one.number):
        if not isinstance(event, Applied):
            wrong += fence.change(event)
            continue
        commit, result = event.commit, event.result
        if not fence.lets_through(commit):
            wrong.append(f"{commit.grain}: a commit of {event.host} passed the fence at {event.at}")
        if commit.version < versions.get(commit.grain, 0):
            wrong.append(
                f"{commit.grain}: built on {commit.version}, which was no longer the newest"
            )
        if result.commits <= counters.get(commit.partition, 0):
            wrong.append(f"partition {commit.partition}: its counter fell to {result.commits}")
        versions[commit.grain] = result.version
        counters[commit.partition] = result.commits
    return wrong


class _Fence:
    """Which tokens are good at a moment."""

    def __init__(self) -> None:
        self._owners: dict[int, Token] = {}
        self._hosts: dict[tuple[int, GrainId], Host | None] = {}
        self._used: set[Token] = set()

    def change(self, event: Taken | Placed) -> list[str]:
        """Note who holds or hosts now; return what is wrong with it."""
        if isinstance(event, Taken):
            self._owners[event.partition] = token = event.token
        else:
            self._hosts[event.partition, event.grain] = event.record
            if event.record is None:
                return []
            token = event.record.token
        if token in self._used:
            return [f"partition {event.partition}: {token.hex()} was taken twice"]
        self._used.add(token)
        return []

    def lets_through(self, commit: Commit) -> bool:
        """Whether a commit came under a token that was good."""
        if len(commit.token) <= TOKEN_BYTES:
            return self._owners.get(commit.partition) == commit.token
        host = self._hosts.get((commit.partition, commit.grain))
        return host is not None and host.token == commit.token
