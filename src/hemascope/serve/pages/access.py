"""Who may ask for what: sessions, roles, and the token that each change must carry."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from hemascope.serve.app.bodies import kind_of, read_body
from hemascope.serve.app.problems import ProblemError
from hemascope.serve.pages.station import Station
from hemascope.serve.pages.texts import Texts, choose_language, read_texts
from hemascope.serve.store.people import Role, User, find_session, is_csrf
from hemascope.serve.store.review import ConflictError

COOKIE = "hemascope_session"
LARGEST_FORM, SECONDS = 1024 * 1024, 20.0
FROM_HERE = ("same-origin", "none", "")


@dataclass(frozen=True)
class Call:
    """A request of somebody who has logged in, with what a form or a script sent."""

    request: Request
    station: Station
    user: User
    form: dict[str, Any] = field(default_factory=dict)

    @property
    def texts(self) -> Texts:
        """The texts in the language of this station, or else of the browser."""
        return texts_for(self.station, self.request)

    def text(self, name: str, longest: int = 2000) -> str:
        """A text of the form. Raises ProblemError for one that is missing or too long."""
        found = self.form.get(name)
        if not isinstance(found, str) or len(found) > longest:
            raise ProblemError(400, f"{name} must be a text of up to {longest} characters")
        return found


def texts_for(station: Station, request: Request) -> Texts:
    """The texts in the language of a station, or else of the browser."""
    accepted = request.headers.get("accept-language", "")
    return read_texts(station.language or choose_language(accepted))


Handler: TypeAlias = Callable[[Call], Response]
Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


def reading(station: Station, handler: Handler, role: Role = "viewer") -> Endpoint:
    """An endpoint for people who have this role; others are sent to log in, or refused."""

    async def answer(request: Request) -> Response:
        user = await find_user(station, request)
        if user is None:
            return RedirectResponse("/login", 303)
        _check_role(user, role)
        return await run_in_threadpool(handler, Call(request, station, user))

    return answer


def changing(station: Station, handler: Handler, role: Role = "technologist") -> Endpoint:
    """An endpoint that changes something: its form must carry the session's token."""

    async def answer(request: Request) -> Response:
        user = await check_change(station, request, role)
        form = await read_form(request)
        given = request.headers.get("x-csrf-token") or form.pop("csrf", "")
        if not isinstance(given, str) or not is_csrf(user, given):
            raise ProblemError(403, "the page is out of date; load it again")
        try:
            return await run_in_threadpool(handler, Call(request, station, user, form))
        except ConflictError as error:
            raise ProblemError(409, str(error)) from None
        except ValueError as error:
            raise ProblemError(400, str(error)) from None

    return answer


async def check_change(station: Station, request: Request, role: Role) -> User:
    """Who asks for a change. Raises ProblemError for one who may not, or from another site."""
    refuse_other_sites(request)
    user = await find_user(station, request)
    if user is None:
        raise ProblemError(401, "log in again; the session has ended")
    _check_role(user, role)
    return user


def refuse_other_sites(request: Request) -> None:
    """Raises ProblemError for a request that a browser says another site made."""
    if request.headers.get("sec-fetch-site", "") not in FROM_HERE:
        raise ProblemError(403, "a change must come from the station's own pages")


async def find_user(station: Station, request: Request) -> User | None:
    """Who holds the session that came with a request."""
    held = request.cookies.get(COOKIE)
    return None if not held else await run_in_threadpool(find_session, station.store, held)


async def read_form(request: Request) -> dict[str, Any]:
    """What a form or a script sent. Raises ProblemError for anything else."""
    body = await read_body(request, LARGEST_FORM, SECONDS)
    try:
        if kind_of(request) == "application/json":
            found = json.loads(body)
            if not isinstance(found, dict):
                raise ProblemError(400, "the body must be a JSON object")
            return found
        if kind_of(request) == "application/x-www-form-urlencoded":
            return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=100))
    except (ValueError, RecursionError):
        raise ProblemError(400, "the body cannot be read") from None
    raise ProblemError(415, "send a form or JSON")


def _check_role(user: User, role: Role) -> None:
    if not user.may(role):
        raise ProblemError(403, f"this needs the role {role}; yours is {user.role}")
