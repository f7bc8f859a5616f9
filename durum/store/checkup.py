"""Looks a store over for people: what it can lose, how fast it answers, what in it is odd. Changes nothing.

Knows the store's promises and no provider; which silos answer, others find out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from durum import errors
from durum.clock import Clock
from durum.ids import Entropy, GrainId, address_of, generation_of
from durum.store.protocol import Commit, Genesis, Level, Owner, Store, TableRead
from durum.views import SiloRow, Status

_SAMPLES: Final = 100
_GRAIN: Final = GrainId("durum-doctor/latency")
_SKEW_S: Final = 2.0
_SLOW_S: Final = 0.1
_RENEW_WITHIN_S: Final = 2.5
_LOOKS: Final = 2
_ROUNDS: Final = 3
_PASSING_S: Final = 60.0
_PRUNED_S: Final = 2 * 3600.0


class Verdict(StrEnum):
    """What to make of a finding, worst last."""

    FINE = "fine"
    WARNING = "warning"
    UNSAFE = "unsafe"
    LOST = "lost"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Args:
        verdict: see Verdict.
        topic: what it is about, in one word.
        text: what was found, and what to do where that is not fine.
    """

    verdict: Verdict
    topic: str
    text: str


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long an operation takes, in seconds.

    Args:
        what: which operation.
        median_s: half of them were faster.
        p99_s: all but the slowest hundredth were faster.
    """

    what: str
    median_s: float
    p99_s: float


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found.

    Args:
        store: its URL, without secrets.
        cluster: the service's name.
        level: durability level, or "" where it is unknown.
        summary: what can be lost, in one sentence.
        facts: what was found, by name.
        latencies: one for each operation measured.
        findings: fine ones too.
        rows: the membership table's.
    """

    store: str
    cluster: str
    level: str
    summary: str
    facts: dict[str, str]
    latencies: tuple[Latency, ...]
    findings: tuple[Finding, ...]
    rows: tuple[SiloRow, ...]

    @property
    def worst(self) -> Verdict:
        """The worst verdict."""
        return max((one.verdict for one in self.findings), key=list(Verdict).index)


async def examine(store: Store, cluster: str, clock: Clock, entropy: Entropy) -> Checkup:
    """Look a store over.

    Raises:
        StoreUnavailable: it does not answer.
    """
    durability = await store.durability()
    findings = [Finding(Verdict.UNSAFE, "settings", text) for text in durability.unsafe]
    findings += [Finding(Verdict.WARNING, "settings", text) for text in durability.warnings]
    volatile = durability.level is Level.D0
    verdict = Verdict.UNSAFE if volatile else Verdict.FINE
    findings.append(
        Finding(verdict, "durability", f"{durability.level.name}: {durability.summary}")
    )
    latencies: list[Latency] = []
    rows: tuple[SiloRow, ...] = ()
    genesis = await store.genesis()
    if genesis is None:
        text = f"There is no service {cluster!r}. Create it with durum init, or restore it."
        findings.append(Finding(Verdict.WARNING, "service", text))
    else:
        service = _Service(store, genesis, clock, entropy)
        try:
            latencies, found = await service.look()
            rows = service.rows
        except errors.DataLoss as exc:
            found = [Finding(Verdict.LOST, "data", str(exc))]
        findings += found
    return Checkup(
        store=store.url,
        cluster=cluster,
        level=durability.level.name,
        summary=durability.summary,
        facts=dict(durability.facts),
        latencies=tuple(latencies),
        findings=tuple(sorted(findings, key=lambda one: -list(Verdict).index(one.verdict))),
        rows=rows,
    )


class _Service:
    """One service in a store."""

    def __init__(self, store: Store, genesis: Genesis, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._genesis = genesis
        self._clock = clock
        self._entropy = entropy
        self.rows: tuple[SiloRow, ...] = ()

    async def look(self) -> tuple[list[Latency], list[Finding]]:
        genesis, store = self._genesis, self._store
        findings = [
            Finding(
                Verdict.FINE,
                "service",
                f"{genesis.cluster}, genesis {genesis.mark}, {genesis.partitions} partitions",
            )
        ]
        asked_at = self._clock.wall()
        began = self._clock.boottime()
        before = await store.read_table(genesis.mark)
        took = self._clock.boottime() - began
        findings.append(skew(before.time - asked_at - took / 2, took / 2))
        self.rows = before.view.rows
        latencies = [
            await self._measure("read", lambda: store.read_table(genesis.mark)),
            await self._measure("fenced write", self._refused_write),
        ]
        findings += [_speed(one) for one in latencies]
        findings += suspicious_owners(await store.owners(genesis.mark), before)
        findings += suspicious_rows(before, *await self._renewed(before, began))
        return latencies, findings

    async def _renewed(self, before: TableRead, began: float) -> tuple[TableRead, float]:
        """The table once every silo has had the time to renew its lease, and how long that was."""
        after, waited_s = before, 0.0
        # A busy machine renews late: only what stands still at the last look as well has stopped.
        for look in range(1, _LOOKS + 1):
            if not any(_still(row, before, after) for row in before.view.live):
                break
            waited_s = look * _RENEW_WITHIN_S
            await self._clock.sleep(max(0.0, began + waited_s - self._clock.boottime()))
            after = await self._store.read_table(self._genesis.mark)
        return after, waited_s

    async def _measure(self, what: str, operation: Callable[[], Awaitable[object]]) -> Latency:
        """The best of several rounds: a moment in which this process did not run is not the store's."""
        found = await self._measure_once(what, operation)
        for _ in range(_ROUNDS - 1):
            if found.p99_s <= _SLOW_S:
                break
            found = min(found, await self._measure_once(what, operation), key=lambda one: one.p99_s)
        return found

    async def _measure_once(self, what: str, operation: Callable[[], Awaitable[object]]) -> Latency:
        taken = []
        for _ in range(_SAMPLES):
            began = self._clock.boottime()
            await operation()
            taken.append(self._clock.boottime() - began)
        taken.sort()
        return Latency(
            what=what, median_s=taken[len(taken) // 2], p99_s=taken[-1 - len(taken) // 100]
        )

    async def _refused_write(self) -> None:
        """A commit under a token that nobody has: it goes all the way, and writes nothing."""
        refused = Commit(
            partition=0,
            token=self._entropy.token(),
            grain=_GRAIN,
            id=self._entropy.token(),
            version=0,
            state=b"",
        )
        try:
            await self._store.commit(refused)
        except errors.Superseded:
            return
        raise errors.DurumBug("the store took a commit under a token that nobody holds.")


def skew(seconds: float, give_or_take_s: float) -> Finding:
    """Judge how far the store's clock is ahead of ours."""
    if abs(seconds) - give_or_take_s > _SKEW_S:
        return Finding(
            Verdict.WARNING,
            "clock",
            f"The store's clock and this host's differ by {abs(seconds):.1f} s: the store is "
            f"{'ahead' if seconds > 0 else 'behind'}. Due times follow the store. Synchronize both.",
        )
    return Finding(Verdict.FINE, "clock", f"The store's clock differs by {seconds * 1000:+.0f} ms.")


def _speed(one: Latency) -> Finding:
    slow = one.p99_s > _SLOW_S
    text = f"{one.what}: median {one.median_s * 1000:.2f} ms, p99 {one.p99_s * 1000:.2f} ms."
    if slow:
        text += " Renewals have 1.5 s. Look at the network, and at what else the server does."
    return Finding(Verdict.WARNING if slow else Verdict.FINE, "latency", text)


def suspicious_owners(owners: Sequence[Owner], table: TableRead) -> list[Finding]:
    """What is odd about who holds partitions."""
    found = []
    held = Counter(owner.silo for owner in owners)
    unheld = held.pop(None, 0)
    known = table.view.by_id
    if table.view.live and unheld:
        found.append(
            Finding(
                Verdict.WARNING,
                "partitions",
                f"{unheld} of {len(owners)} partitions are held by nobody, while silos run. If they "
                "have just started, look again.",
            )
        )
    for silo, count in sorted(held.items(), key=str):
        row = None if silo is None else known.get(silo)
        if row is not None and row.status is not Status.DEAD:
            continue
        if not table.view.live:
            continue  # all have stopped or been killed; the next one to start takes over
        what = "is dead" if row is not None else "is not in the table"
        found.append(
            Finding(
                Verdict.WARNING,
                "partitions",
                f"{silo} {what} and holds {count} partitions. Others take them within seconds; if this "
                "stays, look at the silos' logs.",
            )
        )
    if not found:
        text = f"{len(owners) - unheld} of {len(owners)} held by {len(held)} silos."
        found.append(Finding(Verdict.FINE, "partitions", text))
    return found


def suspicious_rows(before: TableRead, after: TableRead, waited_s: float) -> list[Finding]:
    """What is odd about rows, in two readings with so much time between them."""
    found = [
        Finding(Verdict.WARNING, "silos", text)
        for row in after.view.rows
        for text in _odd(row, before, after, waited_s)
    ]
    found += [Finding(Verdict.WARNING, "silos", text) for text in _at_odds(after)]
    if not found:
        text = f"{len(after.view.live)} silos live, view {after.view.version}."
        found.append(Finding(Verdict.FINE, "silos", text))
    return found


def _still(row: SiloRow, before: TableRead, after: TableRead) -> bool:
    """Whether a silo that lives, or should, has not renewed its lease."""
    known = row.silo in before.view.by_id
    return known and after.heartbeats.get(row.silo, 0) == before.heartbeats.get(row.silo, 0)


def _odd(row: SiloRow, before: TableRead, after: TableRead, waited_s: float) -> Iterator[str]:
    age_s = after.time - row.since
    if row.status is Status.DEAD:
        if age_s > _PRUNED_S:
            yield f"{row.silo} has been dead for {age_s / 3600:.0f} h and its row is still there."
        return
    if _still(row, before, after):
        yield (
            f"{row.silo} is {row.status} and has not renewed its lease for {waited_s:g} s. The "
            "others will declare it dead, if there are others."
        )
    if row.status is not Status.ACTIVE and age_s > _PASSING_S:
        yield f"{row.silo} has been {row.status} for {age_s:.0f} s. Look at its log."
    if row.suspicions:
        yield f"{row.silo} is suspected by {', '.join(one.by for one in row.suspicions)}."
    if age_s < -_SKEW_S:
        yield f"{row.silo} has changed its status in the future: the store's clock was set back."


def _at_odds(table: TableRead) -> Iterator[str]:
    """What rows say of each other."""
    by_address: dict[str, list[SiloRow]] = {}
    versions: dict[str, set[int]] = {}
    for row in table.view.live:
        by_address.setdefault(address_of(row.silo), []).append(row)
        for kind, version in row.kinds.items():
            versions.setdefault(kind, set()).add(version)
    for address, rows in by_address.items():
        if len(rows) > 1:
            newest = max(rows, key=lambda row: generation_of(row.silo))
            yield (
                f"{len(rows)} live silos say that they are at {address}; the newest is {newest.silo}. "
                "Give each its own address."
            )
    for kind, numbers in sorted(versions.items()):
        if len(numbers) > 1:
            many = ", ".join(str(number) for number in sorted(numbers))
            yield f"{kind} is hosted in versions {many}: a rolling upgrade, or one that stopped."
