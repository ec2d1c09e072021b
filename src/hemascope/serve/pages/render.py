"""Templates of the review pages → responses; all text is escaped."""

from __future__ import annotations

from functools import cache

import msgspec
from jinja2 import Environment
from markupsafe import Markup
from starlette.responses import HTMLResponse

from hemascope.reports.render import make_environment
from hemascope.serve.pages.texts import Texts
from hemascope.serve.store import audit


@cache
def _environment() -> Environment:
    environment = make_environment("hemascope.serve.pages")
    environment.filters |= {"json_text": json_text, "moment": audit.shown}
    return environment


def render(template: str, texts: Texts, **values: object) -> HTMLResponse:
    """A page that no cache keeps."""
    text = render_text(template, texts, **values)
    headers = {"Cache-Control": "no-store", "Vary": "Accept-Language"}
    return HTMLResponse(text, headers=headers)


def render_text(template: str, texts: Texts, **values: object) -> str:
    """A page as text."""
    return _environment().get_template(template).render(**values, t=texts)


def json_text(value: object) -> Markup:
    """A value as JSON within a page, where nothing in it can end the element."""
    text = msgspec.json.encode(value).decode()
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
