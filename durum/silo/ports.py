"""What membership and ownership of one silo are built upon, handed over as one value. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from durum.clock import Clock
from durum.config import SiloConfig
from durum.ids import Entropy
from durum.silo.processes import Processes
from durum.store.protocol import MembershipTable, PartitionTable


class ClusterStore(MembershipTable, PartitionTable, Protocol):
    """The parts of a store that silos share: rows and owner records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """One silo's ports.

    Args:
        mark: the service's genesis.
        partitions: P.
        store: rows and owner records.
        clock: for leases, hold-offs and pauses.
        entropy: for tokens and jitter.
        config: see SiloConfig.
        processes: other processes of this host.
    """

    mark: str
    partitions: int
    store: ClusterStore
    clock: Clock
    entropy: Entropy
    config: SiloConfig
    processes: Processes
