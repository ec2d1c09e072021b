"""create_app: settings, a classifier and a locator → the application, and its life."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from hemascope.serve.app import counts, plain, predictions
from hemascope.serve.app.batching import Batcher
from hemascope.serve.app.guard import Guard
from hemascope.serve.app.jobs import CountJobs
from hemascope.serve.app.metrics import Metrics
from hemascope.serve.app.problems import (
    ProblemError,
    answer_failure,
    answer_http_error,
    answer_problem,
)
from hemascope.serve.app.service import Service
from hemascope.serve.app.settings import Settings
from hemascope.serve.counting import Counting


def create_app(
    settings: Settings,
    counting: Counting,
    pages: Sequence[BaseRoute] = (),
    running: Callable[[], AbstractContextManager[None]] = nullcontext,
    counts: Path | None = None,
) -> Starlette:
    """The service for one classifier and one locator.

    `pages` guard themselves, by sessions. `running` is entered while the service runs.
    `counts` is a folder in which counts outlive the service.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def live(app: Starlette) -> AsyncIterator[None]:
        with running(), TemporaryDirectory(prefix="hemascope-serve-") as folder:
            batcher = Batcher(counting.classifier, settings, metrics)
            place = counts or Path(folder) / "counts"
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            jobs = CountJobs(counting, place, settings.jobs, settings.kept, counts is not None)
            app.state.service = Service(
                settings, counting.classifier, batcher, jobs, metrics, Path(folder)
            )
            await batcher.start()
            jobs.resume()
            yield
            await batcher.close()
            await jobs.close(settings.drain)

    return Starlette(
        routes=[*ROUTES, *pages],
        middleware=[Middleware(Guard, settings.token, metrics, needs_token)],
        exception_handlers={
            ProblemError: answer_problem,
            HTTPException: answer_http_error,
            Exception: answer_failure,
        },
        lifespan=live,
    )


def needs_token(path: str) -> bool:
    """Whether a path is for programs, which send a token."""
    return path.startswith("/v1") or path in ("/metrics", "/openapi.json")


ROUTES = (
    Route("/v1/predictions", predictions.post_predictions, methods=["POST"]),
    Route("/v1/models", plain.get_models, methods=["GET"]),
    Route("/v1/counts", counts.post_count, methods=["POST"]),
    Route("/v1/counts/{id}", counts.get_count, methods=["GET"]),
    Route("/v1/counts/{id}", counts.delete_count, methods=["DELETE"]),
    Route("/v1/counts/{id}/{name}", counts.get_file, methods=["GET"]),
    Route("/healthz", plain.get_health, methods=["GET"]),
    Route("/readyz", plain.get_ready, methods=["GET"]),
    Route("/metrics", plain.get_metrics, methods=["GET"]),
    Route("/openapi.json", plain.get_description, methods=["GET"]),
)
