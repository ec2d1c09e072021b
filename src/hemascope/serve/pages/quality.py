"""The quality page: agreement of machine and people, review times, proficiency tests, drift."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from sqlalchemy import select
from starlette.responses import Response

from hemascope.arrays import FloatArray, IntArray
from hemascope.preprocess import View
from hemascope.serve.pages.access import Call
from hemascope.serve.pages.render import render
from hemascope.serve.pages.station import Station, read_image
from hemascope.serve.store.proficiency import list_tests
from hemascope.serve.store.quality import (
    divide,
    latest_reviews,
    list_reviews,
    measure_agreement,
    pair_amended,
)
from hemascope.serve.store.samples import StoredSample, list_images, list_samples, read_fields
from hemascope.serve.store.schema import users
from hemascope.uncertainty.drift import Drift, detect_drift
from hemascope.uncertainty.image_style import MEASURES, measure_style

RECENT, EARLIER, PER_SAMPLE = 5, 20, 50  # samples, and cells of each, whose style is compared
SHOWN = 20  # reviews whose time is listed
LOCATED = ("new", "in review", "signed")


def show_quality(call: Call) -> Response:
    """The figures of all samples that were signed."""
    is_reviewer = call.user.may("reviewer")
    with call.station.store.reading() as connection:
        reviews = list_reviews(connection)
        tests = list_tests(connection, None if is_reviewer else call.user.id)
        people = connection.execute(select(users.c.name).where(~users.c.disabled)).scalars().all()
    latest = latest_reviews(reviews)
    return render(
        "quality.html.j2",
        call.texts,
        user=call.user,
        reviews=latest,
        before=measure_agreement([pair for review in latest for pair in review.pairs]),
        after=measure_agreement(pair_amended(reviews)),
        months=divide(latest, lambda review: review.signed[:7]),
        people=divide(latest, lambda review: review.name),
        times=list(reversed(reviews))[:SHOWN],
        tests=tests,
        names=sorted(people),
    )


def show_drift(call: Call) -> Response:
    """Whether the cells of the latest samples look like those of the samples before them."""
    with call.station.store.reading() as connection:
        found = [one for one in list_samples(connection) if one.state in LOCATED]
    recent, earlier = found[:RECENT], found[RECENT : RECENT + EARLIER]
    after, before = _join(call.station, recent), _join(call.station, earlier)
    drift: Drift | None = None
    if len(np.intersect1d(before[1], after[1])):
        drift = detect_drift(before[0], before[1], after[0], after[1])
    return render(
        "drift.html.j2",
        call.texts,
        user=call.user,
        drift=drift,
        measures=MEASURES,
        recent=recent,
        earlier=earlier,
        n=(len(after[1]), len(before[1])),
    )


def _join(station: Station, samples: list[StoredSample]) -> tuple[FloatArray, IntArray]:
    parts = [measure_sample(station, sample.id) for sample in samples]
    style = np.concatenate([np.empty((0, len(MEASURES))), *(part[0] for part in parts)])
    named = np.concatenate([np.empty(0, dtype=np.int64), *(part[1] for part in parts)])
    return style, named


@lru_cache(maxsize=500)
def measure_sample(station: Station, sample_id: str) -> tuple[FloatArray, IntArray]:
    """Style (N,5) and class indices (N,) of up to 50 cells that the machine named."""
    card = station.counting.classifier.card
    with station.store.reading() as connection:
        images = list_images(connection, sample_id)
        fields = read_fields(connection, sample_id)
    chosen = [
        (sha256, cell.located.centre, cell.prediction.label, field.um_per_pixel)
        for field, (_, sha256) in zip(fields, images, strict=True)
        for cell in field.cells
        if cell.prediction is not None and cell.prediction.label in card.classes.names
    ][:PER_SAMPLE]
    if not chosen:
        return np.empty((0, len(MEASURES))), np.empty(0, dtype=np.int64)
    pixels = []
    for sha256, centre, _, width in chosen:
        frame, _ = card.input.read(View(read_image(station.store, sha256), width, centre), None)
        pixels.append(frame)
    named = [card.classes.index(label or "") for _, _, label, _ in chosen]
    return measure_style(np.stack(pixels)), np.array(named, dtype=np.int64)
