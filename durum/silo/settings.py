"""How one silo is set up, and what it stands on. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from durum.clock import Clock
from durum.config import SiloConfig, Tls
from durum.grains import placement
from durum.grains.filters import NO_FILTERS, Filters
from durum.grains.kind import GrainKind
from durum.ids import Address, Entropy, SiloId
from durum.silo.processes import Processes
from durum.views import SiloRow, Status
from durum.wire.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What a silo stands on, each part replaceable in tests."""

    network: Network
    clock: Clock
    entropy: Entropy
    processes: Processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one silo is set up.

    Args:
        listen: where to accept; port 0 takes a free one.
        advertise: where others reach it, or None for where it listens.
        cluster: the service's name.
        secrets: the cluster secrets, best first.
        tls: certificates, where links are TLS.
        insecure: serving beyond loopback without a secret is meant.
        kinds: what it hosts, by name.
        config: see SiloConfig.
        filters: around calls.
        web: where its pages are, or "".
    """

    listen: Address
    advertise: Address | None
    cluster: str
    secrets: tuple[bytes, ...] = field(repr=False)
    tls: Tls | None
    insecure: bool
    kinds: Mapping[str, GrainKind]
    config: SiloConfig
    filters: Filters = NO_FILTERS
    web: str = ""

    def versions(self) -> dict[str, int]:
        """The class version of each kind."""
        return {kind.name: kind.version for kind in self.kinds.values()}

    def placements(self) -> dict[str, str]:
        """How grains are placed, for those kinds whose hash does not tell."""
        written: dict[str, str] = {}
        for kind in self.kinds.values():
            if kind.stateless:
                written[kind.name] = placement.WORKER
            elif kind.options.placement is not None:
                written[kind.name] = placement.written(kind.options.placement)
        return written

    def row(self, silo: SiloId, processes: Processes, *, bound: bool) -> SiloRow:
        """What the membership table is to say of a silo that joins.

        Args:
            silo: its id.
            processes: where it runs.
            bound: it listens on the very address that it advertises.
        """
        return SiloRow(
            silo=silo,
            status=Status.JOINING,
            weight=self.config.weight,
            roles=self.config.roles,
            kinds=self.versions(),
            placements=self.placements(),
            web=self.web,
            host=processes.host,
            pid=processes.pid,
            pid_started=processes.started,
            bound=bound,
        )
