"""Makes Prometheus' metric families of the ranks of a node, at the moment at which they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from distprof.launcher.daemon.metrics.rank_metrics import GAUGES, Gauge, SeenRank, iteration_buckets, phase_seconds

LABELS = ("rank", "host", "place")
ITERATION, PHASE, INFO = "distprof_iteration_seconds", "distprof_phase_seconds", "distprof_rank"
TEXTS = {
    ITERATION: "Durations of iterations",
    PHASE: "Time in each phase of the last timed iteration",
    INFO: "What the rank is, for joins",
}
_NS = 1e9


class RankCollector(Collector):
    """Every metric has the labels rank, host, place, and the name of the run."""

    def __init__(self, run: str, ranks: Callable[[], Sequence[SeenRank]]) -> None:
        self._run = run
        self._ranks = ranks

    def collect(self) -> Iterator[Metric]:
        ranks = self._ranks()
        for gauge in GAUGES:
            yield self._gauge(gauge, ranks)
        yield self._phases(ranks)
        yield self._iterations(ranks)
        yield self._info(ranks)

    def _gauge(self, gauge: Gauge, ranks: Sequence[SeenRank]) -> Metric:
        family = GaugeMetricFamily(gauge.name, gauge.text, labels=("run", *LABELS))
        for rank in ranks:
            value = gauge.value(rank) if rank.is_alive or not gauge.of_living else None
            if value is not None:
                family.add_metric((self._run, *rank.labels), value)
        return family

    def _phases(self, ranks: Sequence[SeenRank]) -> Metric:
        family = GaugeMetricFamily(PHASE, TEXTS[PHASE], labels=("run", *LABELS, "phase"))
        for rank in ranks:
            for phase, seconds in phase_seconds(rank).items() if rank.is_alive else ():
                family.add_metric((self._run, *rank.labels, phase), seconds)
        return family

    def _iterations(self, ranks: Sequence[SeenRank]) -> Metric:
        family = HistogramMetricFamily(ITERATION, TEXTS[ITERATION], labels=("run", *LABELS))
        for rank in ranks:
            family.add_metric((self._run, *rank.labels), iteration_buckets(rank), rank.info.total_ns / _NS)
        return family

    def _info(self, ranks: Sequence[SeenRank]) -> Metric:
        family = InfoMetricFamily(INFO, TEXTS[INFO], labels=("run", *LABELS))
        for rank in ranks:
            found = rank.info
            about = {
                "world_size": str(found.world_size),
                "local_rank": str(found.local_rank),
                "pid": str(found.pid),
                "device": found.device,
                "gpu_uuid": found.gpu_uuid,
            }
            family.add_metric((self._run, *rank.labels), {name: value for name, value in about.items() if value})
        return family


def registry_of(collector: RankCollector) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return registry
