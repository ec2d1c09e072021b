"""POST /v1/predictions: an image, or lines of images, → Predictions."""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from hemascope.inference.explain import offset_of, resize_map
from hemascope.predictions import Prediction
from hemascope.preprocess import View
from hemascope.records import RESEARCH_USE_ONLY
from hemascope.serve.app.batching import DrainingError, QueueFullError
from hemascope.serve.app.bodies import kind_of, read_body
from hemascope.serve.app.pictures import to_png
from hemascope.serve.app.problems import ProblemError
from hemascope.serve.app.queries import check_names, check_width, read_flag, read_width
from hemascope.serve.app.service import Service, service_of

LINES = ("application/x-ndjson", "application/jsonl")
RETRY = {"Retry-After": "1"}


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """One line of a request: an image in base 64, what it is called, and its scale."""

    image: str
    id: str | None = None
    um_per_pixel: float | None = None


async def post_predictions(request: Request) -> Response:
    """One Prediction as JSON, or one per line for lines of images."""
    service, kind = service_of(request), kind_of(request)
    check_names(request, "um_per_pixel", "class_map")
    class_map, width = read_flag(request, "class_map"), read_width(request)
    limits = service.settings
    if kind.startswith("image/") or kind == "application/dicom":
        content = await read_body(request, limits.largest_image, limits.body_timeout)
        (made,) = await _predict(service, [View(content, width)], class_map)
        if made.label is None:
            raise ProblemError(422, f"the image cannot be used: {made.status}")
        return _json(_answer(service, made, None), "application/json")
    if kind in LINES:
        body = await read_body(request, limits.largest_lines, limits.body_timeout)
        lines = _read_lines(body, limits.lines)
        views = [View(_content(line, number), _width(line, width)) for number, line in lines]
        answers = await _predict(service, views, class_map)
        texts = [
            msgspec.json.encode(_answer(service, made, line.id)) + b"\n"
            for (_, line), made in zip(lines, answers, strict=True)
        ]
        return Response(b"".join(texts), media_type=LINES[0])
    raise ProblemError(415, f"the Content-Type must be image/*, or {LINES[0]} for lines of images")


async def _predict(service: Service, views: list[View], class_map: bool) -> list[Prediction]:
    try:
        return await service.batcher.predict(views, class_map)
    except QueueFullError:
        raise ProblemError(503, "too many images wait; try again later", RETRY) from None
    except DrainingError:
        raise ProblemError(503, "the service is about to stop", RETRY) from None
    except TimeoutError:
        limit = service.settings.timeout
        raise ProblemError(504, f"no answer within {limit:g} seconds", RETRY) from None


def _read_lines(body: bytes, most: int) -> list[tuple[int, Line]]:
    """The lines with their numbers. Raises a Problem for one that does not fit."""
    found: list[tuple[int, Line]] = []
    for number, text in enumerate(body.split(b"\n"), start=1):
        if not text.strip():
            continue
        if len(found) == most:
            raise ProblemError(413, f"at most {most} lines are taken at once")
        try:
            found.append((number, msgspec.json.decode(text, type=Line)))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProblemError(400, f"line {number}: {error}") from None
    if not found:
        raise ProblemError(400, "no line holds an image")
    return found


def _content(line: Line, number: int) -> bytes:
    try:
        return base64.b64decode(line.image, validate=True)
    except (binascii.Error, ValueError):
        raise ProblemError(400, f"line {number}: image is not in base 64") from None


def _width(line: Line, default: float | None) -> float | None:
    return default if line.um_per_pixel is None else check_width(line.um_per_pixel)


def _answer(service: Service, made: Prediction, name: str | None) -> dict[str, Any]:
    """A Prediction as the service gives it, with its class map as PNG if it was asked for."""
    found: dict[str, Any] = msgspec.to_builtins(replace(made, class_map=None))
    del found["class_map"]
    return found | {
        "image_id": name,
        "class_map_png": _draw_map(service, made),
        "research_use_only": RESEARCH_USE_ONLY,
    }


def _draw_map(service: Service, made: Prediction) -> str | None:
    """Where the image supports its label, as a grey PNG as large as the network's input."""
    if made.class_map is None or made.label is None:
        return None
    classifier = service.classifier.model_for(made)
    card = classifier.card
    chosen = made.class_map[card.classes.index(made.label)]
    heat = resize_map(chosen, card.input.size, offset_of(service.classifier, made))
    grey = Image.fromarray(np.rint(255 * heat).astype(np.uint8))
    return base64.b64encode(to_png(grey)).decode()


def _json(value: object, kind: str) -> Response:
    return Response(msgspec.json.encode(value), media_type=kind)
