"""What /metrics tells: counts and times, nothing of any request's content."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from imc_lite.server.pool import Pool

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one server."""

    def __init__(self, pool: Pool) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Line(pool))
        self.requests = self._counter("imc_requests", "Requests by route and status.", "route", "status")
        self.seconds = Histogram(
            "imc_request_seconds",
            "Seconds from the first byte in to the last one out.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.tokens = self._counter("imc_answer_tokens", "Tokens of answers.")
        self.noise = self._counter("imc_noise", "Verdicts on pictures by kind of noise.", "kind")

    def count(self, image: dict[str, Any]) -> None:
        """A verdict: the report on a picture, as JSON has it."""
        if image["noise"] is not None:
            self.noise.labels(image["noise"]["kind"]).inc()

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self._registry)

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)


class _Line(Collector):
    """Read when asked for, so that it is never stale."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def collect(self) -> Iterable[GaugeMetricFamily]:
        pool = self._pool
        yield GaugeMetricFamily("imc_running", "Requests being worked on.", value=pool.running)
        waiting = max(0, pool.inside - pool.running)
        yield GaugeMetricFamily("imc_waiting", "Requests in line.", value=waiting)
        yield GaugeMetricFamily("imc_workers", "Models that answer.", value=pool.workers)
