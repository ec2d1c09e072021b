"""Templates of the review pages → responses; all text is escaped."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from hemascope.escaping import escape_controls
from hemascope.records import RESEARCH_USE_ONLY


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("hemascope.serve.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: escape_controls(value) if type(value) is str else value,
    )


def render(template: str, **values: object) -> HTMLResponse:
    """A page that no cache keeps."""
    text = _environment().get_template(template).render(**values, notice=RESEARCH_USE_ONLY)
    return HTMLResponse(text, headers={"Cache-Control": "no-store"})
