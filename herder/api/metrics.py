"""What Prometheus is told: requests and refusals as they happen, queues and workers at each scrape.

A registry of its own, so that two apps in one process do not collide. Knows no Redis: the gauges are given states.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from herder.records import ModelState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "herder_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "herder_request_seconds", "Time to answer (long polls included)", ["method", "route"],
            buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.refusals = Counter("herder_refusals", "Requests refused", ["code"], registry=self.registry)
        self.submitted = Counter(
            "herder_jobs_submitted", "Jobs accepted here", ["model"], registry=self.registry
        )
        self.waiting = Gauge("herder_long_polls", "Long polls waiting here", registry=self.registry)
        self.streams = Gauge("herder_streams", "Event streams open here", registry=self.registry)
        self.dropped = Counter(
            "herder_streams_dropped", "Event streams whose reader took nothing", registry=self.registry
        )
        self.redis_up = Gauge("herder_redis_up", "Whether Redis answered this scrape", registry=self.registry)
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._gauges = {
            name: Gauge(f"herder_{name}", text, ["model"], registry=self.registry)
            for name, text in (
                ("queue_length", "Jobs queued"),
                ("workers", "Live workers"),
                ("slots", "Slots of live workers"),
                ("slots_busy", "Slots in use"),
                ("tokens_per_second", "Tokens a second over the recent busy time"),
                ("last_multiplier", "The last accepted multiplier, decayed"),
            )
        }

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; the two series are looked up once, which takes longer than to count."""
        found = self._answered.get((method, route, status))
        if found is None:
            found = self.requests.labels(method, route, str(status)), self.seconds.labels(method, route)
            self._answered[method, route, status] = found
        found[0].inc()
        found[1].observe(seconds)

    def scrape(self, states: Sequence[ModelState]) -> bytes:
        """The text that Prometheus reads, with the gauges set from the models as they stand."""
        for gauge in self._gauges.values():
            gauge.clear()
        for state in states:
            for name, value in (
                ("queue_length", state.queue_length),
                ("workers", state.workers),
                ("slots", state.slots),
                ("slots_busy", state.busy),
                ("tokens_per_second", state.tokens_per_second),
                ("last_multiplier", state.last_multiplier_milli / 1000),
            ):
                self._gauges[name].labels(state.card.model).set(value)
        return generate_latest(self.registry)
