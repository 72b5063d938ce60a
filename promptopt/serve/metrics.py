"""Figures for Prometheus: what was asked, how it ended, how full the batches are."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from promptopt.records import Usage

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """One server's figures, in a registry of their own: several servers in a process do not meet.

    Args:
        queue: says how many requests wait.
    """

    def __init__(self, queue: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("promptopt_requests", "HTTP requests.", ("route", "code"), registry=self._registry)
        self._seconds = Histogram(
            "promptopt_request_seconds",
            "Seconds from a request's headers to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._sizes = Histogram(
            "promptopt_batch_size",
            "Requests that the model answered together.",
            ("kind",),
            buckets=_SIZES,
            registry=self._registry,
        )
        self._batches = Histogram(
            "promptopt_batch_seconds",
            "Seconds that the model took for a batch.",
            ("kind",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "promptopt_tokens",
            "Tokens: prompt (read), cached (of those, read from a cache), completion (written).",
            ("kind",),
            registry=self._registry,
        )
        waiting = Gauge("promptopt_queue_length", "Requests that no model has begun.", registry=self._registry)
        waiting.set_function(queue)

    def request(self, route: str, code: int, seconds: float) -> None:
        """One HTTP request ended; code 499: the client left first."""
        self._requests.labels(route, str(code)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, kind: str, size: int, seconds: float) -> None:
        """One batch is done."""
        self._sizes.labels(kind).observe(size)
        self._batches.labels(kind).observe(seconds)

    def usage(self, usage: Usage) -> None:
        """Tokens of one answer."""
        self._tokens.labels("prompt").inc(usage.prompt_tokens)
        self._tokens.labels("cached").inc(usage.cached_tokens)
        self._tokens.labels("completion").inc(usage.completion_tokens)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)
