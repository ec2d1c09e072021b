"""Metrics: what the service counts of itself, in the text format of Prometheus."""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass, field

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclass
class Histogram:
    """How many values were at most each limit, their number and their sum."""

    limits: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.limits) + 1)

    def observe(self, value: float) -> None:
        """Counts a value."""
        self.counts[bisect.bisect_left(self.limits, value)] += 1
        self.total += value

    def lines(self, name: str) -> list[str]:
        """The histogram as Prometheus reads it, with cumulative counts."""
        lines, below = [f"# TYPE {name} histogram"], 0
        for limit, count in zip((*self.limits, float("inf")), self.counts, strict=True):
            below += count
            bound = "+Inf" if limit == float("inf") else f"{limit:g}"
            lines.append(f'{name}_bucket{{le="{bound}"}} {below}')
        return [*lines, f"{name}_sum {self.total:g}", f"{name}_count {below}"]


@dataclass
class Metrics:
    """Counts since the service started. All are changed on the event loop only."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    in_progress: int = 0
    seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    batches: Histogram = field(default_factory=lambda: Histogram(SIZES))

    def observe_request(self, method: str, status: int, seconds: float) -> None:
        """Counts an answered request."""
        self.requests[method, status] += 1
        self.seconds.observe(seconds)

    def observe_batch(self, size: int) -> None:
        """Counts a batch of images."""
        self.batches.observe(size)

    def text(self, waiting: int, jobs: int) -> str:
        """All metrics, with how many images wait and how many counts are not finished."""
        lines = ["# TYPE hemascope_requests_total counter"]
        lines += [
            f'hemascope_requests_total{{method="{method}",code="{status}"}} {number}'
            for (method, status), number in sorted(self.requests.items())
        ]
        for name, value in (
            ("requests_in_progress", self.in_progress),
            ("queue_images", waiting),
            ("count_jobs", jobs),
        ):
            lines += [f"# TYPE hemascope_{name} gauge", f"hemascope_{name} {value}"]
        lines += self.seconds.lines("hemascope_request_seconds")
        lines += self.batches.lines("hemascope_batch_images")
        return "\n".join(lines) + "\n"
