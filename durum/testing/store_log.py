"""What a simulated store has applied, in order. Owns the record that checkers read; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from durum.ids import GrainId, SiloId, Token
from durum.store.host_table import Host
from durum.store.protocol import Commit, Committed, Owner, Take


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A commit that changed the store.

    Args:
        number: its place among all changes.
        at: virtual time of the change.
        sent_at: virtual time at which it was asked for.
        host: who asked.
        commit: what was asked.
        result: the answer, whether it arrived or not.
    """

    number: int
    at: float
    sent_at: float
    host: str
    commit: Commit
    result: Committed


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A partition that changed hands.

    Args:
        number: its place among all changes.
        at: virtual time of the change.
        host: who asked.
        partition: which.
        token: the holding that began.
        silo: its holder, or None where it was released.
        epoch: how often it has changed hands.
    """

    number: int
    at: float
    host: str
    partition: int
    token: Token
    silo: SiloId | None
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A host record that changed.

    Args:
        number: its place among all changes.
        at: virtual time of the change.
        host: who asked.
        partition: the grain's.
        grain: which.
        record: what was set, or None where the record was removed.
    """

    number: int
    at: float
    host: str
    partition: int
    grain: GrainId
    record: Host | None


@dataclass(slots=True)
class StoreLog:
    """All of it. What a roll-back undid is in `lost` and no longer in the others."""

    commits: list[Applied] = field(default_factory=list)
    takes: list[Taken] = field(default_factory=list)
    places: list[Placed] = field(default_factory=list)
    lost: list[Applied] = field(default_factory=list)
    _seen: set[tuple[int, GrainId, bytes]] = field(default_factory=set)
    _tokens: dict[int, Token] = field(default_factory=dict)
    _hosts: dict[tuple[int, GrainId], Host | None] = field(default_factory=dict)
    _number: int = 0

    def next_number(self) -> int:
        """The place of the next change."""
        self._number += 1
        return self._number

    def committed(self, applied: Applied) -> None:
        """Note a commit, unless it is one sent again, which changed nothing."""
        key = _key(applied.commit)
        if key not in self._seen:
            self._seen.add(key)
            self.commits.append(applied)

    def taken(self, at: float, host: str, take: Take, owner: Owner) -> None:
        """Note a take, if it succeeded and was not noted before."""
        succeeded = owner.token == take.token and owner.silo == take.silo
        if succeeded and self._tokens.get(take.partition) != owner.token:
            self._tokens[take.partition] = owner.token
            self.takes.append(
                Taken(
                    number=self.next_number(),
                    at=at,
                    host=host,
                    partition=take.partition,
                    token=owner.token,
                    silo=owner.silo,
                    epoch=owner.epoch,
                )
            )

    def placed(
        self,
        at: float,
        host: str,
        where: tuple[int, GrainId],
        asked: Host | None,
        result: Host | None,
    ) -> None:
        """Note a placing, if it succeeded and was not noted before."""
        if asked == result and self._hosts.get(where) != result:
            self._hosts[where] = result
            self.places.append(
                Placed(
                    number=self.next_number(),
                    at=at,
                    host=host,
                    partition=where[0],
                    grain=where[1],
                    record=result,
                )
            )

    def mark(self) -> tuple[int, int, int]:
        """Where the record stands, for `cut`."""
        return len(self.commits), len(self.takes), len(self.places)

    def cut(self, mark: tuple[int, int, int]) -> None:
        """Forget what came after a mark: the store has."""
        commits, takes, places = mark
        self.lost.extend(self.commits[commits:])
        del self.commits[commits:]
        del self.takes[takes:]
        del self.places[places:]
        self._seen = {_key(applied.commit) for applied in self.commits}
        self._tokens = {taken.partition: taken.token for taken in self.takes}
        self._hosts = {(one.partition, one.grain): one.record for one in self.places}


def _key(commit: Commit) -> tuple[int, GrainId, bytes]:
    return commit.partition, commit.grain, commit.id
