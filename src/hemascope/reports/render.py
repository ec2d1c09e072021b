"""Templates → text: values, percentages and intervals are written the same on all pages."""

from __future__ import annotations

import base64
from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined

from hemascope.escaping import escape_controls
from hemascope.records import RESEARCH_USE_ONLY, Estimate, Proportion, Quartiles
from hemascope.wording import fill


def data_uri(data: bytes, kind: str) -> str:
    """An image's bytes as an address that holds them."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _percent(figure: Proportion | Estimate) -> str:
    """99.1 % (98.3 – 99.5), or a dash where there is nothing to measure."""
    return _format_interval(figure, lambda value: f"{100 * value:.1f}", " %")


def _number(figure: Estimate) -> str:
    """0.961 (0.949 – 0.973), or a dash where there is nothing to measure."""
    return _format_interval(figure, lambda value: f"{value:.3f}", "")


def _format_interval(
    figure: Proportion | Estimate, written: Callable[[float], str], unit: str
) -> str:
    if figure.value is None:
        return "–"
    text = written(figure.value) + unit
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ({written(figure.low)} – {written(figure.high)})"


def _quartiles(values: Quartiles | None, unit: str) -> str:
    """8.3 (7.9 – 8.8) µm, or a dash where no image has the statistic."""
    if values is None:
        return "–"
    return f"{values.median:.3g} ({values.low:.3g} – {values.high:.3g}) {unit}".rstrip()


def _escape_value(value: object) -> object:
    """A text that a page shows, with what is not visible written out; markup stays as it is."""
    return escape_controls(value) if type(value) is str else value


def make_environment(package: str, is_page: bool = True) -> Environment:
    """What reads the templates of a package; in a page, all text is escaped."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=is_page,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_escape_value if is_page else None,
    )


def render(template: str, **values: object) -> str:
    """A template of this folder with its values; of a page, all text is escaped."""
    environment = make_environment("hemascope.reports", template.endswith(".html.j2"))
    environment.filters |= {"percent": _percent, "number": _number, "quartiles": _quartiles}
    environment.filters["fill"] = fill
    return environment.get_template(template).render(**values, notice=RESEARCH_USE_ONLY)
