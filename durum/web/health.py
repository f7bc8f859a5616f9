"""What probes are told of a silo. Pure: from its statistics to one JSON object; knows no HTTP."""

from __future__ import annotations

from durum.silo.statistics import SiloStatistics


def report(found: SiloStatistics) -> dict[str, object]:
    """Everything that an operator asks first, as JSON."""
    owned = found.ownership
    return {
        "silo": found.silo,
        "cluster": found.cluster,
        "status": found.status,
        "alive": found.alive,
        "ready": found.ready,
        "lease_left_s": round(max(0.0, found.lease_left_s), 3),
        "view": found.view,
        "silos": dict(found.silos),
        "partitions": {"wanted": owned.wanted, "held": owned.held, "serving": owned.ready},
        "calls": found.calls,
        "store": {
            "url": found.store.url,
            "durability": found.store.durability.level.name,
            "summary": found.store.durability.summary,
            "unsafe": list(found.store.durability.unsafe),
            "trouble": found.store.trouble,
        },
    }
