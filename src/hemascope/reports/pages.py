"""Pages: self-contained HTML of a classified folder, an evaluation, explanations; a model card."""

from __future__ import annotations

import heapq
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from PIL import Image

from hemascope.arrays import ImageArray, ProgressCallback
from hemascope.attributes import describe_cell
from hemascope.batch.tally import Tally
from hemascope.bundle.bundle import Bundle
from hemascope.data.manifest import Manifest
from hemascope.errors import ImageError
from hemascope.folders import NOTHING, PassedOver
from hemascope.inference.classifier import Classifier
from hemascope.inference.explain import average_map, offset_of, overlay, search_map
from hemascope.predictions import Prediction, Region
from hemascope.preprocess import View
from hemascope.records import Audit, Evaluation, LabelIssue
from hemascope.reports.render import data_uri, render

GALLERY = 400  # more would make the page too heavy to open
THUMBNAIL = 112
LARGE = 336


@dataclass(frozen=True)
class Tile:
    """One image of a gallery, as data URIs: the cell, and where it supports the two likeliest.

    `reasons` are those for which somebody should look at it; `looks` is what it looks like.
    """

    path: str
    title: str
    detail: str
    reasons: str
    colour: str
    cell: str
    heat: str
    second_heat: str
    looks: str = ""


@dataclass
class Gallery:
    """Keeps the least confident of any number of Predictions, and the files that failed."""

    size: int = GALLERY
    kept: list[tuple[float, int, Prediction]] = field(default_factory=list)
    failed: list[Prediction] = field(default_factory=list)
    seen: int = 0

    def add(self, prediction: Prediction) -> None:
        """Takes a prediction in, and drops the most confident where there are too many."""
        self.seen += 1
        if prediction.probability is None:
            if len(self.failed) < self.size:
                self.failed.append(prediction)
            return
        entry = (-prediction.probability, self.seen, prediction)
        if len(self.kept) < self.size:
            heapq.heappush(self.kept, entry)
        else:
            heapq.heappushpop(self.kept, entry)  # drops the most confident

    def predictions(self) -> list[Prediction]:
        """Those kept, least confident first."""
        return [entry[2] for entry in sorted(self.kept, key=lambda entry: (-entry[0], entry[1]))]


def classification_page(
    gallery: Gallery,
    tally: Tally,
    classifier: Classifier,
    passed_over: PassedOver = NOTHING,
    difference: str = "",
    scale: str = "",
) -> str:
    """Counts per class, a gallery with class activation maps, and the files that failed.

    `passed_over` is what was found beside the images, `difference` says how they differ from the
    training images, if they do, and `scale` what their scale rests on.
    """
    colours = {cell_class.name: cell_class.colour for cell_class in classifier.card.classes}
    most = max(tally.per_class.values(), default=0) or 1
    whole = max(sum(tally.sure.values()), 1)
    counts = [
        {
            "name": name,
            "sure": tally.sure[name],
            "share": 100 * tally.sure[name] / whole,
            "to_review": "–" if tally.to_review is None else tally.to_review[name],
            "colour": colours[name],
            "width": 100 * tally.sure[name] / most,
            "width_to_review": 100 * (count - tally.sure[name]) / most,
        }
        for name, count in tally.per_class.items()
    ]
    shown = [(_view_of(kept), kept) for kept in gallery.predictions()]
    return render(
        "classification.html.j2",
        tally=tally,
        difference=difference,
        scale=scale,
        counts=counts,
        tiles=list(_tiles(shown, classifier)),
        failed=gallery.failed,
        passed_over=passed_over,
        card=classifier.card,
    )


def evaluation_page(
    evaluation: Evaluation,
    classifier: Classifier,
    manifest: Manifest,
    figures: Sequence[bytes],
) -> str:
    """Every figure of an evaluation with its interval, the figures, and the worst mistakes."""
    worst = evaluation.mistakes[:60]
    views = dict(zip(manifest.names(), manifest.views(), strict=True))
    shown = [views[mistake.path] for mistake in worst]
    predictions = classifier.predict(shown, class_maps=True)
    pairs = list(zip(shown, predictions, strict=True))
    tiles = [
        replace(tile, path=mistake.path, title=f"{mistake.label} → {tile.title}")
        for mistake, tile in zip(worst, _tiles(pairs, classifier), strict=True)
    ]
    return render(
        "evaluation.html.j2",
        evaluation=evaluation,
        figures=[data_uri(png, "png") for png in figures],
        tiles=tiles,
        card=classifier.card,
    )


def explanation_page(
    predictions: Sequence[Prediction],
    classifier: Classifier,
    progress: ProgressCallback | None = None,
    search_mask: bool = False,
) -> str:
    """Each cell, large, with the maps of its predicted class and of the runner-up.

    The maps are those of `average_map`, or with `search_mask` those of `search_map`, which take
    seconds per image; `progress` is called after each. Files that could not be read are listed.
    """
    tiles: list[Tile] = []
    overlays = _search_overlays if search_mask else _average_overlays
    for index, prediction in enumerate(predictions, start=1):
        tiles += _tiles([(_view_of(prediction), prediction)], classifier, LARGE, overlays)
        if progress is not None:
            progress(index, len(predictions))
    return render(
        "explanation.html.j2",
        search_mask=search_mask,
        tiles=tiles,
        failed=[prediction for prediction in predictions if prediction.label is None],
        card=classifier.card,
    )


def _view_of(prediction: Prediction) -> View:
    """Where the model looked, as the prediction says."""
    region = prediction.region or Region()
    return View(prediction.image_id or "", region.um_per_pixel, region.centre)


ExplainedIssue: TypeAlias = tuple[LabelIssue, View, Prediction, Classifier]
"""A label issue, where it is seen, what is predicted with class maps, and by which classifier."""


def audit_page(audit: Audit, shown: Sequence[ExplainedIssue], classifier: Classifier) -> str:
    """The suspects of an audit, with what their classifiers say of them and look at."""
    tiles = [
        replace(tile, path=issue.path, title=f"{issue.label} → {tile.title}")
        for issue, view, prediction, model in shown
        for tile in _tiles([(view, prediction)], model)
    ]
    return render("audit.html.j2", audit=audit, tiles=tiles, card=classifier.card)


def model_card(bundle: Bundle) -> str:
    """A bundle's card, and that of its fallback model, as Markdown."""
    fallback = None if bundle.fallback is None else bundle.fallback.card
    return render("model_card.md.j2", card=bundle.card, fallback=fallback)


Overlays = Callable[[Classifier, ImageArray, Prediction], list[ImageArray]]
"""The maps of the predicted class and of the runner-up over a preprocessed image."""


def _overlays(
    classifier: Classifier, image: ImageArray, prediction: Prediction
) -> list[ImageArray]:
    """By the class maps that the prediction holds; raises ValueError where it holds none."""
    if prediction.class_map is None:
        raise ValueError("the predictions were made without class maps")
    indices = [classifier.card.classes.index(name) for name in prediction.two_likeliest]
    offset = offset_of(classifier, prediction)
    return [overlay(image, prediction.class_map[of], offset) for of in indices]


def _average_overlays(
    classifier: Classifier, image: ImageArray, prediction: Prediction
) -> list[ImageArray]:
    """By the mean class activation maps of the eight symmetries."""
    names = prediction.two_likeliest
    return [overlay(image, average_map(classifier, image, prediction, name)) for name in names]


def _search_overlays(
    classifier: Classifier, image: ImageArray, prediction: Prediction
) -> list[ImageArray]:
    """By the maps that a search finds."""
    names = prediction.two_likeliest
    return [overlay(image, search_map(classifier, image, prediction, name)) for name in names]


def _tiles(
    shown: Sequence[tuple[View, Prediction]],
    classifier: Classifier,
    side: int = THUMBNAIL,
    overlays: Overlays = _overlays,
) -> Iterator[Tile]:
    """A tile for each Prediction whose file could be read, and still can."""
    classes = classifier.card.classes
    for view, prediction in shown:
        if prediction.label is None or prediction.image_id is None:
            continue
        try:
            image = classifier.card.input.load(view)
        except ImageError:
            continue  # it went away since it was classified
        _, second = prediction.two_likeliest
        uncertainty = prediction.uncertainty
        heat, second_heat = overlays(classifier, image, prediction)
        yield Tile(
            path=prediction.image_id,
            title=f"{prediction.label} {100 * (prediction.probability or 0):.1f} %",
            detail=f"{second} {100 * prediction.probabilities[second]:.1f} %",
            reasons=", ".join(uncertainty.review_reasons if uncertainty else ()),
            colour=classes.classes[classes.index(prediction.label)].colour,
            cell=_thumbnail(image, side),
            heat=_thumbnail(heat, side),
            second_heat=_thumbnail(second_heat, side),
            looks=describe_cell(prediction),
        )


def _thumbnail(image: ImageArray, side: int) -> str:
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return data_uri(buffer.getvalue(), "jpeg")
