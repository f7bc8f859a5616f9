"""What operators are shown of a cluster. Plain values; admin.py asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from durum.ids import Address, SiloId
from durum.wire import administration as wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Grain:
    """One grain, as its owner and the store have it.

    Args:
        kind: its kind.
        key: its key.
        partition: where it lies.
        silo: who owns that.
        epoch: how often the partition has changed hands.
        version: how many commits it has had; 0: nothing is kept of it.
        class_version: of the class that wrote its state; None without state.
        state: its durable fields, as JSON would show them; None without state.
        undecoded: the state's bytes, where they are not what a Durum wrote.
        replies: how many keyed calls it remembers.
        active: "", or the state of its activation: activating, valid, deactivating.
        running: turns under way.
        waiting: calls that wait for them.
    """

    kind: str
    key: str
    partition: int
    silo: SiloId
    epoch: int
    version: int
    class_version: int | None
    state: Mapping[str, object] | None
    undecoded: bytes | None
    replies: int
    active: str
    running: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some grains of one kind.

    Args:
        keys: in no order that means anything; each grain is on one page.
        after: hand it back for the next page; "" after the last.
    """

    keys: tuple[str, ...]
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Silo:
    """One silo.

    Args:
        silo: its id.
        address: where it is reached.
        status: joining, active, leaving or dead.
        since_s: how long it has had that.
        wanted: partitions that it should own.
        kinds: what it hosts, with class versions.
        roles, weight: see SiloConfig.
        web: where its pages are, or "".
        pid: its process, on its own host.
        suspected_by: who votes against it.
        reason: why it left.
        now: what it says of itself; None where it was not reached.
    """

    silo: SiloId
    address: Address
    status: str
    since_s: float
    wanted: int
    kinds: Mapping[str, int]
    roles: tuple[str, ...]
    weight: float
    web: str
    pid: int
    suspected_by: tuple[SiloId, ...]
    reason: str
    now: wire.Now | None
