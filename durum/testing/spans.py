"""Whether owners took turns. Owns the judgement of a store's log; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from durum.ids import Token
from durum.testing.store_log import Applied, StoreLog, Taken


@dataclass(frozen=True, slots=True)
class Span:
    """One holding's commits in one partition, from its first to its last.

    Args:
        partition: which.
        token: the holding.
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

    Returns:
        What is wrong, in words.
    """
    wrong: list[str] = []
    latest: dict[int, Span] = {}
    for span in sorted(found, key=lambda one: one.first):
        before = latest.get(span.partition)
        if before is not None and span.first <= before.last:
            wrong.append(
                f"partition {span.partition}: {span.token.hex()} committed at {span.first:g},"
                f" {before.token.hex()} still at {before.last:g}"
            )
        if before is None or span.last > before.last:
            latest[span.partition] = span
    return wrong


def check_log(log: StoreLog) -> list[str]:
    """Judge all that a store has applied: spans, fence, versions and commit counters.

    Returns:
        What is wrong, in words.
    """
    wrong = check_spans(spans(log.commits))
    events: list[Applied | Taken] = [*log.commits, *log.takes]
    tokens: dict[int, Token] = {}
    used: set[Token] = set()
    versions: dict[str, int] = {}
    counters: dict[int, int] = {}
    for event in sorted(events, key=lambda one: one.number):
        if isinstance(event, Taken):
            if event.token in used:
                wrong.append(f"partition {event.partition}: {event.token.hex()} was taken twice")
            used.add(event.token)
            tokens[event.partition] = event.token
            continue
        commit, result = event.commit, event.result
        if tokens.get(commit.partition) != commit.token:
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
