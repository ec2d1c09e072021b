"""What a person is refused, in the person's language: as a page, and to scripts as a problem."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hemascope.serve.app.problems import ProblemError, problem_response
from hemascope.serve.pages.access import Endpoint, find_user, texts_for
from hemascope.serve.pages.render import render
from hemascope.serve.pages.station import Station


def speaking(station: Station, endpoint: Endpoint) -> Endpoint:
    """An endpoint whose problems are told in the language of its pages."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ProblemError as error:
            texts = texts_for(station, request)
            detail = texts.say(error.detail)
            if "text/html" not in request.headers.get("accept", ""):
                return problem_response(error.status, detail, error.headers)
            user = await find_user(station, request)
            page = render("problem.html.j2", texts, user=user, detail=detail)
            page.status_code = error.status
            return page

    return answer
