"""Endpoints that tell about the service: its model, its health, its metrics, its description."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from hemascope import __version__
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.serve.app.openapi import describe_service
from hemascope.serve.app.problems import problem_response
from hemascope.serve.app.service import service_of

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


async def get_models(request: Request) -> Response:
    """The model that is served: its name, classes, what it was trained on, and its hashes."""
    service = service_of(request)
    card = service.classifier.card
    model = {
        "name": card.name,
        "model_sha256": card.model_sha256,
        "architecture": card.architecture,
        "parameters": card.parameters,
        "classes": list(card.classes.names),
        "training_data": card.training_data,
        "is_calibrated": card.uncertainty is not None,
        "input": card.input,
        "locator_sha256": service.jobs.counting.locator_sha256,
    }
    body = {"models": [model], "version": __version__, "research_use_only": RESEARCH_USE_ONLY}
    return Response(msgspec.json.encode(body), media_type="application/json")


async def get_health(request: Request) -> Response:
    """Whether the process answers at all."""
    return PlainTextResponse("ok\n")


async def get_ready(request: Request) -> Response:
    """Whether requests are taken: not while the service is about to stop."""
    if service_of(request).batcher.draining:
        return problem_response(503, "the service is about to stop")
    return PlainTextResponse("ready\n")


async def get_metrics(request: Request) -> Response:
    """What the service counted of itself, for Prometheus."""
    service = service_of(request)
    text = service.metrics.text(service.batcher.waiting, service.jobs.unfinished)
    return Response(text, media_type=PROMETHEUS)


async def get_description(request: Request) -> Response:
    """The OpenAPI description of the service."""
    service = service_of(request)
    body = describe_service(service.classifier.card, service.settings)
    return Response(msgspec.json.encode(body), media_type="application/json")
