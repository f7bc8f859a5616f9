"""The numbered list of silos that all of them agree on. Pure values; knows no store and no network."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType

import msgspec

from durum.ids import Address, SiloId, address_of


class Status(StrEnum):
    """Where a silo's row stands. It moves down this list only; dead is final for that silo id."""

    JOINING = "joining"
    ACTIVE = "active"
    LEAVING = "leaving"
    DEAD = "dead"


class Suspicion(msgspec.Struct, frozen=True, kw_only=True):
    """One silo's vote that another is gone.

    Args:
        by: who votes.
        at: store time of the vote, seconds; it expires after the vote's life.
        refused: the voter's connections broke and the suspect's own address refuses new ones,
            which a live process does not do.
    """

    by: SiloId
    at: float
    refused: bool = False


class SiloRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the membership table says of one silo.

    Args:
        silo: its id, with its advertised address.
        status: see Status.
        weight: its share of partitions relative to the others; 0 gets none.
        roles: free names that placement may ask for.
        kinds: kind name to class version.
        placements: how grains are placed, for those of its kinds whose hash does not tell; see
            grains.placement.written.
        web: address of its metrics and health pages, or "".
        wire: lowest and highest protocol version it speaks.
        host: a mark equal for processes of one host and process namespace, or "".
        pid: its process there, with `pid_started` (the kernel's start ticks) against reuse.
        bound: whether it listens on the very address that it advertises.
        since: store time of the last change of status, seconds.
        suspicions: live and expired votes against it.
        gone: its process is known to have ended, so nobody waits out its lease.
        reason: why it left, for people.
    """

    silo: SiloId
    status: Status
    weight: float = 1.0
    roles: tuple[str, ...] = ()
    kinds: dict[str, int] = msgspec.field(default_factory=dict)
    placements: dict[str, str] = msgspec.field(default_factory=dict)
    web: str = ""
    wire: tuple[int, int] = (1, 1)
    host: str = ""
    pid: int = 0
    pid_started: int = 0
    bound: bool = True
    since: float = 0.0
    suspicions: tuple[Suspicion, ...] = ()
    gone: bool = False
    reason: str = ""

    @property
    def address(self) -> Address:
        return address_of(self.silo)


class View(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """All rows at one version of the membership table. Views are totally ordered by version."""

    version: int
    rows: tuple[SiloRow, ...] = ()

    @cached_property
    def by_id(self) -> Mapping[SiloId, SiloRow]:
        return MappingProxyType({row.silo: row for row in self.rows})

    @cached_property
    def active(self) -> tuple[SiloRow, ...]:
        """Silos that may own partitions, in the order of their ids."""
        return tuple(
            sorted(
                (row for row in self.rows if row.status is Status.ACTIVE), key=lambda row: row.silo
            )
        )

    @cached_property
    def live(self) -> tuple[SiloRow, ...]:
        """Silos that are joining, active or leaving, in the order of their ids."""
        return tuple(
            sorted(
                (row for row in self.rows if row.status is not Status.DEAD),
                key=lambda row: row.silo,
            )
        )

    def status_of(self, silo: SiloId) -> Status:
        """The silo's status. One that is not listed was pruned, and only the dead are."""
        row = self.by_id.get(silo)
        return Status.DEAD if row is None else row.status
