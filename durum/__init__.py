"""Durable virtual actors. Owns the names that users import; each is loaded when first asked for.

Inside Durum nothing imports from here: a module says where its names live. What is listed in
`__all__` is public, is written down in tests/shape/public_api.txt, and changes only on purpose.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

__version__ = "0.1.0"

# Type checkers read these lines, Python does not: `import durum` has to stay cheap, since the
# command line's --help, and whoever only wants an error class, would pay for the whole house.
if TYPE_CHECKING:
    from durum import sync as sync
    from durum.client.client import Cluster, connect
    from durum.config import Lease, Limits, Probing, SiloConfig, Tls
    from durum.errors import (
        ArgumentError,
        CallError,
        CallTimeout,
        ClusterError,
        CommitFailed,
        ConfigError,
        DataLoss,
        Deadlock,
        DeclaredDead,
        DidRun,
        DurumBug,
        DurumError,
        IncompatibleSilo,
        NoSilo,
        NoSuchKind,
        NoSuchMethod,
        NotAuthorized,
        NotServing,
        Overloaded,
        Quarantined,
        Rejected,
        RemoteError,
        ReplyForgotten,
        ShuttingDown,
        SiloLost,
        StoreError,
        StoreUnavailable,
        StreamMoved,
        Superseded,
    )
    from durum.grains.actor import Actor, one_way, read_only
    from durum.grains.carried import Trace, baggage, tracing
    from durum.grains.events import Gap
    from durum.grains.filters import Invocation, Proceed
    from durum.grains.following import follow
    from durum.grains.lists import List
    from durum.grains.maps import Map
    from durum.grains.placement import (
        LeastLoaded,
        OnSilos,
        PreferLocal,
        Random,
        StatelessWorker,
    )
    from durum.grains.publishing import Publishes
    from durum.grains.reference import options
    from durum.grains.reminders import Reminder, Reminders, Tick
    from durum.grains.state import field
    from durum.grains.timers import Timer
    from durum.grains.watching import Watch, watch
    from durum.silo.silo import Silo
    from durum.wire.opaque import Opaque

__all__ = [
    "Actor",
    "ArgumentError",
    "CallError",
    "CallTimeout",
    "Cluster",
    "ClusterError",
    "CommitFailed",
    "ConfigError",
    "DataLoss",
    "Deadlock",
    "DeclaredDead",
    "DidRun",
    "DurumBug",
    "DurumError",
    "Gap",
    "IncompatibleSilo",
    "Invocation",
    "Lease",
    "LeastLoaded",
    "Limits",
    "List",
    "Map",
    "NoSilo",
    "NoSuchKind",
    "NoSuchMethod",
    "NotAuthorized",
    "NotServing",
    "OnSilos",
    "Opaque",
    "Overloaded",
    "PreferLocal",
    "Probing",
    "Proceed",
    "Publishes",
    "Quarantined",
    "Random",
    "Rejected",
    "Reminder",
    "Reminders",
    "RemoteError",
    "ReplyForgotten",
    "ShuttingDown",
    "Silo",
    "SiloConfig",
    "SiloLost",
    "StatelessWorker",
    "StoreError",
    "StoreUnavailable",
    "StreamMoved",
    "Superseded",
    "Tick",
    "Timer",
    "Tls",
    "Trace",
    "Watch",
    "baggage",
    "connect",
    "field",
    "follow",
    "one_way",
    "options",
    "read_only",
    "tracing",
    "watch",
]

_ELSEWHERE: Final = {
    "Actor": "durum.grains.actor",
    "Cluster": "durum.client.client",
    "Gap": "durum.grains.events",
    "Invocation": "durum.grains.filters",
    "Lease": "durum.config",
    "LeastLoaded": "durum.grains.placement",
    "Limits": "durum.config",
    "List": "durum.grains.lists",
    "Map": "durum.grains.maps",
    "OnSilos": "durum.grains.placement",
    "Opaque": "durum.wire.opaque",
    "PreferLocal": "durum.grains.placement",
    "Probing": "durum.config",
    "Proceed": "durum.grains.filters",
    "Publishes": "durum.grains.publishing",
    "Random": "durum.grains.placement",
    "Silo": "durum.silo.silo",
    "SiloConfig": "durum.config",
    "StatelessWorker": "durum.grains.placement",
    "Reminder": "durum.grains.reminders",
    "Reminders": "durum.grains.reminders",
    "Tick": "durum.grains.reminders",
    "Timer": "durum.grains.timers",
    "Tls": "durum.config",
    "Trace": "durum.grains.carried",
    "Watch": "durum.grains.watching",
    "baggage": "durum.grains.carried",
    "connect": "durum.client.client",
    "field": "durum.grains.state",
    "follow": "durum.grains.following",
    "one_way": "durum.grains.actor",
    "options": "durum.grains.reference",
    "read_only": "durum.grains.actor",
    "tracing": "durum.grains.carried",
    "watch": "durum.grains.watching",
}
"""Where a public name lives; those not listed are in durum.errors."""
_MODULES: Final = frozenset({"sync", "testing"})
"""What `import durum` reaches by an attribute: durum.sync.connect, durum.testing.TestCluster."""

# Hidden from type checkers, who would otherwise accept any name at all.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return import_module(f"durum.{name}")
        if name not in __all__:
            raise AttributeError(f"module 'durum' has no attribute {name!r}")
        value = getattr(import_module(_ELSEWHERE.get(name, "durum.errors")), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_MODULES})
