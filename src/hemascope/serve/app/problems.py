"""Errors of the service as problem details, RFC 9457: type, title, status, detail."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from hemascope.escaping import escape_controls
from hemascope.records import RESEARCH_USE_ONLY

PROBLEM = "application/problem+json"


class ProblemError(Exception):
    """What is wrong with a request, in one sentence, and the status that says so."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


def problem_response(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """The answer that describes a problem. Types are about:blank: the status says which it is."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": escape_controls(detail),
        "notice": RESEARCH_USE_ONLY,
    }
    return Response(msgspec.json.encode(body), status, headers, PROBLEM)


async def answer_problem(request: Request, error: Exception) -> Response:
    """The answer to a request that raised a Problem."""
    assert isinstance(error, ProblemError)
    return problem_response(error.status, error.detail, error.headers)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """The answer where Starlette refuses: no such path, or no such method."""
    assert isinstance(error, HTTPException)
    return problem_response(error.status_code, str(error.detail), dict(error.headers or {}))


async def answer_failure(request: Request, error: Exception) -> Response:
    """The answer to a request that failed by our fault; what happened is in the log only."""
    return problem_response(500, "the service failed; its log says why")
