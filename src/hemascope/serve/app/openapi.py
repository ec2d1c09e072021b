"""describe_service: the OpenAPI 3.1 description of the service, with examples."""

from __future__ import annotations

from typing import Any

from hemascope import __version__
from hemascope.bundle.card import Card
from hemascope.preprocess import UM_PER_PIXEL
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.serve.app.jobs import KINDS
from hemascope.serve.app.problems import PROBLEM
from hemascope.serve.app.queries import LONGEST_NAME
from hemascope.serve.app.settings import Settings
from hemascope.smear.samples import MOST_WBC

TITLES = {
    400: "a parameter or the body is wrong",
    401: "the token is missing or wrong",
    404: "it is not there",
    408: "the body did not arrive in time",
    409: "it is not done",
    413: "the body is too large",
    415: "the body is of another kind",
    422: "the content cannot be used",
    503: "the service is busy or about to stop; Retry-After says when to try again",
    504: "no answer in time",
}
BINARY = {"schema": {"type": "string", "format": "binary"}}
STATES = ["waiting", "running", "done", "failed", "cancelled"]


def describe_service(card: Card, settings: Settings) -> dict[str, Any]:
    """The description of the service that serves this model."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hemascope",
            "version": __version__,
            "description": f"Classifies and counts single blood cells. {RESEARCH_USE_ONLY}",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": {
            "/v1/predictions": {"post": _predictions(card, settings)},
            "/v1/models": {"get": _get("The model that is served", _json({"type": "object"}))},
            "/v1/counts": {"post": _counts(settings)},
            "/v1/counts/{id}": {
                "parameters": [_ID],
                "get": _get("The state of a count", _json(_ref("Job")), 404),
                "delete": {
                    "summary": "Cancel a count, or remove one that is over",
                    "responses": {
                        "202": {"description": "it is cancelled", "content": _json(_ref("Job"))},
                        "204": {"description": "it is removed"},
                        **_problems(401, 404),
                    },
                },
            },
            "/v1/counts/{id}/{name}": {
                "parameters": [_ID, _parameter("name", {"enum": list(KINDS)}, "path")],
                "get": _get(
                    "A result file",
                    {kind.partition(";")[0]: BINARY for kind in KINDS.values()},
                    *(404, 409),
                ),
            },
            "/metrics": {"get": _get("Metrics for Prometheus", {"text/plain": {}})},
            "/healthz": {"get": _open("Whether the process answers")},
            "/readyz": {"get": _open("Whether requests are taken", 503)},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Prediction": _prediction(card), "Job": _JOB, "Problem": _PROBLEM},
        },
    }


def _predictions(card: Card, settings: Settings) -> dict[str, Any]:
    lines = {
        "schema": {"type": "string"},
        "example": '{"id": "cell 1", "image": "iVBORw0KGgo…", "um_per_pixel": 0.1}\n',
    }
    return {
        "summary": "Classify an image, or several",
        "description": (
            f"An image of up to {settings.largest_image} bytes, or up to {settings.lines} lines of "
            "JSON with an image in base 64 each. An image among lines that cannot be read has a "
            "status that says why."
        ),
        "parameters": [
            _WIDTH,
            _parameter("class_map", {"type": "boolean", "default": False}),
        ],
        "requestBody": {
            "required": True,
            "content": {"image/*": BINARY, "application/x-ndjson": lines},
        },
        "responses": {
            "200": {
                "description": "the prediction, or one per line",
                "content": {
                    "application/json": {
                        "schema": _ref("Prediction"),
                        "example": _example(card),
                    },
                    "application/x-ndjson": {"schema": {"type": "string"}},
                },
            },
            **_problems(400, 401, 408, 413, 415, 422, 503, 504),
        },
    }


def _counts(settings: Settings) -> dict[str, Any]:
    name = {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME, "pattern": r"\S"}
    total = {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_WBC}
    return {
        "summary": "Count the cells on the photographs of a smear",
        "description": (
            f"A field, or a zip of up to {settings.fields} fields of one sample. The same "
            "Idempotency-Key with the same request gives the same count."
        ),
        "parameters": [
            _parameter("sample", name),
            _parameter("wbc", total),
            _WIDTH,
            _parameter("Idempotency-Key", {"type": "string", "maxLength": 200}, "header"),
        ],
        "requestBody": {
            "required": True,
            "content": {"image/*": BINARY, "application/zip": BINARY},
        },
        "responses": {
            "202": {
                "description": "it is taken; follow Location",
                "headers": {"Location": {"schema": {"type": "string"}}},
                "content": _json(_ref("Job")),
            },
            **_problems(400, 401, 408, 413, 415, 422, 503),
        },
    }


def _example(card: Card) -> dict[str, Any]:
    names = card.classes.names
    rest = 0.04 / (len(names) - 1)
    return {
        "image_id": None,
        "label": names[0],
        "probability": 0.96,
        "probabilities": {name: 0.96 if name == names[0] else rest for name in names},
        "status": "ok",
        "model": card.name,
        "model_sha256": card.model_sha256,
        "research_use_only": RESEARCH_USE_ONLY,
    }


def _prediction(card: Card) -> dict[str, Any]:
    label = {"enum": [*card.classes.names, None]}
    properties = {
        "image_id": {"type": ["string", "null"]},
        "label": label,
        "probability": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        "status": {"type": "string"},
        "model": {"type": "string"},
        "model_sha256": {"type": "string"},
        "uncertainty": {"type": ["object", "null"]},
        "attributes": {"type": "array", "items": {"type": "object"}},
        "subtype": {"type": ["string", "null"]},
        "subtypes": {"type": "object", "additionalProperties": {"type": "number"}},
        "class_map_png": {"type": ["string", "null"], "contentEncoding": "base64"},
        "research_use_only": {"const": RESEARCH_USE_ONLY},
    }
    needed = ["label", "probability", "probabilities", "status", "model", "model_sha256"]
    return {"type": "object", "properties": properties, "required": needed}


def _parameter(name: str, schema: dict[str, Any], place: str = "query") -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _get(summary: str, content: dict[str, Any], *problems: int) -> dict[str, Any]:
    found = {"200": {"description": "it is found", "content": content}}
    return {"summary": summary, "responses": found | _problems(401, *problems)}


def _open(summary: str, *problems: int) -> dict[str, Any]:
    found = {"200": {"description": "yes", "content": {"text/plain": {}}}}
    return {"summary": summary, "security": [], "responses": found | _problems(*problems)}


def _problems(*statuses: int) -> dict[str, Any]:
    return {
        str(status): {
            "description": TITLES[status],
            "content": {PROBLEM: {"schema": _ref("Problem")}},
        }
        for status in statuses
    }


_ID = _parameter("id", {"type": "string"}, "path")
_WIDTH = _parameter(
    "um_per_pixel", {"type": "number", "minimum": UM_PER_PIXEL[0], "maximum": UM_PER_PIXEL[1]}
)
_JOB: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "sample": {"type": "string"},
        "state": {"enum": STATES},
        "created": {"type": "string", "format": "date-time"},
        "fields": {"type": "integer"},
        "fields_done": {"type": "integer"},
        "problem": {"type": "string"},
        "files": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["id", "sample", "state", "fields", "fields_done", "files"],
}
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "required": ["type", "title", "status", "detail"],
}
