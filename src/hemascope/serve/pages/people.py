"""Log in and out."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from hemascope.serve.app.problems import ProblemError
from hemascope.serve.pages.access import (
    COOKIE,
    Call,
    Endpoint,
    read_form,
    refuse_other_sites,
    texts_for,
)
from hemascope.serve.pages.render import render
from hemascope.serve.pages.station import Station
from hemascope.serve.store.people import log_in, log_out


def make_show_log_in(station: Station) -> Endpoint:
    """The endpoint that shows the page to log in on."""

    async def answer(request: Request) -> Response:
        texts = texts_for(station, request)
        return render("login.html.j2", texts, refused=False, user=None)

    return answer


def make_log_in(station: Station) -> Endpoint:
    """The endpoint that begins a session, always a new one."""

    async def answer(request: Request) -> Response:
        refuse_other_sites(request)
        form = await read_form(request)
        name, password = form.get("name"), form.get("password")
        if not isinstance(name, str) or not isinstance(password, str):
            raise ProblemError(400, "give a name and a password")
        held = await run_in_threadpool(log_in, station.store, name, password)
        if held is None:
            texts = texts_for(station, request)
            page = render("login.html.j2", texts, refused=True, user=None)
            page.status_code = 403
            return page
        response = RedirectResponse("/", 303)
        response.set_cookie(
            COOKIE, held, httponly=True, samesite="strict", secure=station.secure, path="/"
        )
        return response

    return answer


def end_session(call: Call) -> Response:
    """Logs out."""
    log_out(call.station.store, call.request.cookies[COOKIE])
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, path="/")
    return response
