"""What a person is refused, in the person's language: as a page, and to scripts as a problem."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import Response

from hemascope.serve.app.problems import ProblemError, problem_response
from hemascope.serve.pages.access import Endpoint, find_user, texts_for
from hemascope.serve.pages.render import render
from hemascope.serve.pages.station import Station

FAILED = "the station failed; its log says why"
logger = logging.getLogger("hemascope.serve")


def speaking(station: Station, endpoint: Endpoint) -> Endpoint:
    """An endpoint whose problems, and failures, are told in the language of its pages."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ProblemError as error:
            return await _tell(station, request, error)
        except Exception:
            logger.exception("%s %s failed", request.method, request.url.path)
            return await _tell(station, request, ProblemError(500, FAILED))

    return answer


async def _tell(station: Station, request: Request, problem: ProblemError) -> Response:
    texts = texts_for(station, request)
    detail = texts.say(problem.detail)
    if "text/html" not in request.headers.get("accept", ""):
        return problem_response(problem.status, detail, problem.headers)
    user = await find_user(station, request)
    page = render("problem.html.j2", texts, user=user, detail=detail)
    page.status_code = problem.status
    return page
