"""Parameters of a request's address, checked."""

from __future__ import annotations

import math

from starlette.requests import Request

from hemascope.preprocess import UM_PER_PIXEL
from hemascope.serve.app.problems import ProblemError
from hemascope.smear.samples import MOST_WBC

LONGEST_NAME = 200  # characters
WIDTH = f"um_per_pixel must be a number from {UM_PER_PIXEL[0]:g} to {UM_PER_PIXEL[1]:g}"


def check_names(request: Request, *known: str) -> None:
    """Raises a Problem for a parameter that is unknown or given twice."""
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            raise ProblemError(400, f"unknown parameter '{name}'; known are: {', '.join(known)}")
        if name in seen:
            raise ProblemError(400, f"the parameter {name} is given twice")
        seen.add(name)


def read_flag(request: Request, name: str) -> bool:
    """A parameter that is true or false; false where it is not given."""
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise ProblemError(400, f"{name} must be true or false")
    return text == "true"


def read_width(request: Request) -> float | None:
    """The width of a pixel in micrometres; None where it is not given."""
    text = request.query_params.get("um_per_pixel")
    return None if text is None else check_width(_number(text))


def check_width(value: float) -> float:
    """A width of a pixel. Raises a Problem for one that cannot be."""
    low, high = UM_PER_PIXEL
    if not low <= value <= high:
        raise ProblemError(400, WIDTH)
    return value


def read_total(request: Request) -> float | None:
    """The white cell count in 10⁹/L; None where it is not given."""
    text = request.query_params.get("wbc")
    if text is None:
        return None
    value = _number(text)
    if not 0 < value <= MOST_WBC:
        raise ProblemError(400, f"wbc must be more than 0 and up to {MOST_WBC:g}, in 10⁹/L")
    return value


def read_name(request: Request, name: str, default: str) -> str:
    """A short text on one line."""
    text = request.query_params.get(name, default).strip()
    if not text or len(text) > LONGEST_NAME or not text.isprintable():
        raise ProblemError(
            400, f"{name} must be 1 to {LONGEST_NAME} characters, all of which can be printed"
        )
    return text


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value
