"""A silo's counters in Prometheus' form. Owns names, labels and help texts; counts nothing.

The names are what dashboards and alerts are built upon: one that changes breaks them. All are in
docs/operations.md.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import durum
from durum.silo.meters import BOUNDS_S
from durum.silo.statistics import (
    DurationStatistics,
    PostStatistics,
    SiloStatistics,
    WakeUpStatistics,
)
from durum.store.batches import BOUNDS

UNKNOWN: Final = "?"
"""Stands for a kind or method that the silo does not have; no real one is called so."""


class SiloCollector(Collector):
    """For a registry of your own: `REGISTRY.register(SiloCollector(silo.statistics))`.

    Args:
        look: gives the silo's counters.
    """

    def __init__(self, look: Callable[[], SiloStatistics]) -> None:
        self._look = look

    def describe(self) -> Iterable[Metric]:
        """Nothing: the silo may not have started when it is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        found = self._look()
        yield from _who(found)
        yield from _calls(found)
        yield from _turns(found)
        yield from _store(found)
        yield from _membership(found)


_process: Final = CollectorRegistry(auto_describe=False)
ProcessCollector(registry=_process)


def render(found: SiloStatistics, accept: str = "") -> tuple[bytes, str]:
    """A whole page, with its content type. Takes milliseconds: not for the loop.

    Args:
        found: the silo's counters.
        accept: what the scraper says that it understands.
    """
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SiloCollector(lambda: found))
    registry.register(_process)
    return encode(registry), content_type


def _who(found: SiloStatistics) -> Iterator[Metric]:
    build = InfoMetricFamily("durum_build", "This release and this silo.")
    about = {
        "version": durum.__version__,
        "python": platform.python_version(),
        "silo": found.silo,
        "cluster": found.cluster,
    }
    build.add_metric((), about)
    yield build
    yield _gauge("durum_alive", "1 while the lease holds: the silo may answer.", found.alive)
    yield _gauge(
        "durum_ready", "1 while it serves all partitions it should own, and stays.", found.ready
    )


def _calls(found: SiloStatistics) -> Iterator[Metric]:
    calls = CounterMetricFamily(
        "durum_calls",
        "Answered calls. outcome: ok, raised (by the method), or a Durum error's class.",
        labels=("kind", "method", "outcome"),
    )
    took = HistogramMetricFamily(
        "durum_call_duration_seconds",
        "From a call's arrival at its silo to its answer, waiting included.",
        labels=("kind", "method"),
    )
    for each in found.methods:
        labels = each.kind or UNKNOWN, each.method or UNKNOWN
        for outcome, count in each.outcomes.items():
            calls.add_metric((*labels, outcome), count)
        if each.method:
            _add(took, labels, each.took)
    yield calls
    yield took
    yield _gauge("durum_calls_in_progress", "Calls that wait or run.", found.calls)
    yield _gauge("durum_calls_bytes", "Bytes of their arguments.", found.bytes)
    waiting = GaugeMetricFamily(
        "durum_calls_waiting",
        "Calls that wait, for their grain (others run or it activates) or for its partition.",
        labels=("for",),
    )
    waiting.add_metric(("grain",), found.waiting)
    waiting.add_metric(("partition",), found.held_up)
    yield waiting


def _turns(found: SiloStatistics) -> Iterator[Metric]:
    turns = CounterMetricFamily(
        "durum_turns",
        "Turns that committed, were rolled back, or were refused by the fence.",
        labels=("end",),
    )
    turns.add_metric(("committed",), found.committed)
    turns.add_metric(("rolled_back",), found.rolled_back)
    turns.add_metric(("fenced",), found.fenced)
    yield turns
    yield _counter(
        "durum_one_way_dropped", "One-way calls that did not run, and told nobody.", found.dropped
    )
    luggage = CounterMetricFamily(
        "durum_luggage",
        "Values of on_dehydrate: sent to another silo, used by on_rehydrate, or dropped.",
        labels=("end",),
    )
    luggage.add_metric(("sent",), found.luggage.sent)
    luggage.add_metric(("used",), found.luggage.used)
    luggage.add_metric(("dropped",), found.luggage.dropped)
    yield luggage
    active = GaugeMetricFamily("durum_activations", "Grains in memory.", labels=("kind",))
    begun = CounterMetricFamily("durum_activations_begun", "Activations begun.", labels=("kind",))
    for kind in found.kinds:
        active.add_metric((kind.kind,), kind.active)
        begun.add_metric((kind.kind,), kind.begun)
    yield active
    yield begun
    watched = found.observers
    yield _gauge("durum_watches", "Watches of this silo's actors.", watched.watchers)
    yield _counter("durum_events", "Events that watched actors have published.", watched.published)
    yield _counter(
        "durum_events_missed", "Events that a watch lacks: it read too slowly.", watched.missed
    )
    yield from _messages(found.post)
    yield from _wake_ups(found.wake_ups)
    yield _counter(
        "durum_loop_blocked",
        "Times that code held the event loop beyond loop_blocked_s.",
        found.loop_blocked,
    )


def _messages(found: PostStatistics) -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "durum_messages",
        "Messages that actors here have taken, or that were put aside as dead letters.",
        labels=("end",),
    )
    ended.add_metric(("taken",), found.told)
    ended.add_metric(("parked",), found.parked)
    yield ended
    yield _gauge("durum_outbox_messages", "Messages that wait to be delivered.", found.waiting)
    yield _gauge("durum_outbox_receivers", "For how many actors they are.", found.receivers)
    yield _gauge(
        "durum_outbox_failing", "Of those, how many did not take their last one.", found.failing
    )
    yield _gauge("durum_outbox_in_flight", "Batches of messages under way.", found.in_flight)


def _wake_ups(found: WakeUpStatistics) -> Iterator[Metric]:
    woken = CounterMetricFamily(
        "durum_wake_ups", "Times that a grain was woken, or could not be.", labels=("outcome",)
    )
    woken.add_metric(("ok",), found.woken)
    woken.add_metric(("failed",), found.failed)
    yield woken
    yield _gauge("durum_wake_ups_waiting", "Wake-ups that are due within seconds.", found.waiting)
    late = HistogramMetricFamily(
        "durum_reminder_lateness_seconds", "From a tick's due time to its beginning."
    )
    _add(late, (), found.late)
    yield late


def _store(found: SiloStatistics) -> Iterator[Metric]:
    store = found.store
    took = HistogramMetricFamily(
        "durum_store_duration_seconds",
        "The store's answers: a grain's load, a turn's commit.",
        labels=("operation",),
    )
    _add(took, ("load",), store.loads)
    _add(took, ("commit",), store.commits)
    yield took
    sizes = HistogramMetricFamily(
        "durum_store_batch_size", "Operations that went to the store together."
    )
    sizes.add_metric((), _cumulative(BOUNDS, store.batches), store.operations)
    yield sizes
    yield _gauge("durum_store_trouble", "1 while the last renewal has failed.", bool(store.trouble))
    yield _gauge(
        "durum_store_durability_level",
        "What the store keeps: 0 nothing, 1 all but the last second, 2 all, 3 on replicas too.",
        store.durability.level,
    )


def _membership(found: SiloStatistics) -> Iterator[Metric]:
    left_s = max(0.0, found.lease_left_s)
    yield _gauge(
        "durum_lease_left_seconds", "How long it may answer without another renewal.", left_s
    )
    yield _gauge(
        "durum_store_clock_ahead_seconds",
        "How far the store's clock was set ahead of the time that is still believed; 0: not at all.",
        found.store.clock_ahead_s,
    )
    yield _gauge("durum_view_version", "The membership table's version as seen here.", found.view)
    silos = GaugeMetricFamily(
        "durum_silos", "Silos of the cluster as seen here.", labels=("status",)
    )
    for status in ("joining", "active", "leaving", "dead"):
        silos.add_metric((status,), dict(found.silos).get(status, 0))  # type: ignore[call-overload] # a StrEnum
    yield silos
    suspicions = GaugeMetricFamily(
        "durum_suspicions", "Votes that a living silo is dead.", labels=("suspect",)
    )
    for silo, votes in found.suspected.items():
        suspicions.add_metric((silo,), votes)
    yield suspicions
    owned = found.ownership
    partitions = GaugeMetricFamily(
        "durum_partitions", "This silo's partitions, by what is true of them.", labels=("state",)
    )
    for state, count in (
        ("wanted", owned.wanted),
        ("held", owned.held),
        ("serving", owned.ready),
        ("draining", owned.draining),
    ):
        partitions.add_metric((state,), count)
    yield partitions
    connections = GaugeMetricFamily(
        "durum_connections", "Connections that others have made.", labels=("peer",)
    )
    connections.add_metric(("client",), found.clients)
    connections.add_metric(("silo",), found.peers)
    yield connections
    ended = CounterMetricFamily(
        "durum_connections_ended",
        "Connections that were let in and have ended, or were turned away at the door.",
        labels=("how",),
    )
    ended.add_metric(("closed",), found.server.accepted)
    ended.add_metric(("turned_away",), found.server.turned_away)
    yield ended


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _add(
    family: HistogramMetricFamily, labels: Sequence[str], durations: DurationStatistics
) -> None:
    family.add_metric(labels, _cumulative(BOUNDS_S, durations.buckets), durations.seconds)


def _cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Prometheus' buckets contain those before them."""
    total, found = 0, []
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        total += count
        found.append(("+Inf" if bound == float("inf") else f"{float(bound)!r}", float(total)))
    return found
