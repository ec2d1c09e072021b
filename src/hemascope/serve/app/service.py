"""Service: what all endpoints share, made once when the service starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from hemascope.inference.classifier import Classifier
from hemascope.serve.app.batching import Batcher
from hemascope.serve.app.jobs import CountJobs
from hemascope.serve.app.metrics import Metrics
from hemascope.serve.app.settings import Settings


@dataclass(frozen=True)
class Service:
    """One classifier, its batches, the counts, and the metrics. `folder` is for large bodies."""

    settings: Settings
    classifier: Classifier
    batcher: Batcher
    jobs: CountJobs
    metrics: Metrics
    folder: Path


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    found = request.app.state.service
    assert isinstance(found, Service)
    return found
