"""Survey: what a model would do in a laboratory, from unlabelled images of cells."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hemascope.arrays import FloatArray, ImageArray, IntArray, ProgressCallback
from hemascope.batch.inputs import Inputs
from hemascope.bundle.bundle import Bundle
from hemascope.bundle.card import Card
from hemascope.bundle.tta import symmetries
from hemascope.data.masks import is_mask
from hemascope.errors import ImageError, ManifestError
from hemascope.evaluation.choose_cells import choose_cells
from hemascope.inference.batches import predict_loaded
from hemascope.inference.classifier import Classifier
from hemascope.metrics.intervals import wilson
from hemascope.predictions import Prediction
from hemascope.preprocess import decode
from hemascope.provenance import provenance
from hemascope.records import Interval, Proportion
from hemascope.uncertainty.drift import Drift, detect_drift
from hemascope.uncertainty.image_style import ImageStyle, measure_style, style_differences, style_of

SAMPLE = 400  # images that are looked at, drawn at random
TURNED = 150  # of these that are seen in all symmetries
BATCH = 8
LEAST_IMAGES = 20
FINE, POOR = 0.95, 0.5  # of the expected accuracy: fine as it is; hardly to be mended


@dataclass(frozen=True)
class ExpectedAccuracy:
    """What share of the cells the model would name rightly, estimated without labels.

    It is the share of cells that all eight symmetries of the image are named alike. The interval
    holds what comes of the number of cells, and what the estimate was off by in laboratories that
    were left out of training: `mean_error`, None where that is not known of the bundle.
    """

    value: float
    low: float
    high: float
    mean_error: float | None


@dataclass(frozen=True)
class Survey:
    """What was found in a folder of unlabelled images.

    `found` counts the images, of which `surveyed` were drawn and read; `unreadable` says why others
    were not, and `masks` are those that look like segmentation masks, which are left out. `kinds`
    counts them by format and size. `given` is the width of a pixel that the model was told, and
    `scale_note` says what that rests on; `cell_scale` is what the cells tell. `style` has the
    median and the interquartile range of light, tint, stain and sharpness, and `home` those of the
    laboratory that the bundle is for; `differences` puts in words how they differ. `laboratories`
    counts which one images are like. `per_class` counts the named classes, and `reasons` those for
    which cells are sent to review. `measures` (N,5) are those of style of each image, and `named`
    its class index, to compare later images with. `to_label` are the images that it helps most to
    label, with the class that each is named.
    """

    folder: str
    model: str
    found: int
    surveyed: int
    unreadable: tuple[str, ...]
    kinds: dict[str, int]
    given: float | None
    style: ImageStyle
    home: ImageStyle | None
    differences: str
    laboratories: dict[str, int]
    per_class: dict[str, int]
    to_review: Proportion
    reasons: dict[str, int]
    expected: ExpectedAccuracy
    advice: str
    to_label: tuple[tuple[str, str], ...]
    drift: Drift | None
    measures: FloatArray
    named: tuple[int, ...]
    provenance: dict[str, str]
    masks: tuple[str, ...] = ()
    scale_note: str = ""
    cell_scale: Interval | None = None


@dataclass(frozen=True)
class Reference:
    """Earlier images of a laboratory: their measures of style (N,5) and class indices (N,)."""

    style: FloatArray
    named: IntArray


def reference_of(earlier: Survey | Bundle, model: str) -> Reference:
    """The images of an earlier survey by the same model, or the cells a bundle was adapted to.

    Raises ManifestError where another model made the survey, or the bundle was not adapted.
    """
    if isinstance(earlier, Survey):
        if earlier.model != model:
            raise ManifestError(
                f"the earlier survey was made with '{earlier.model}' and not with '{model}'; give "
                "that as --bundle"
            )
        return Reference(earlier.measures, np.array(earlier.named, dtype=np.int64))
    adaptation = earlier.card.adaptation
    if adaptation is None:
        raise ManifestError(
            f"'{earlier.card.name}' was not adapted to a laboratory, so that there is nothing to "
            "compare with; give the bundle that 'hemascope adapt' wrote, or an earlier survey"
        )
    return Reference(adaptation.cells.style, np.array(adaptation.cells.targets, dtype=np.int64))


def survey(
    classifier: Classifier,
    inputs: Inputs,
    folder: str,
    um_per_pixel: float | None = None,
    label: int = 0,
    against: Reference | None = None,
    progress: ProgressCallback | None = None,
) -> Survey:
    """Looks at up to 400 unlabelled images, drawn at random.

    `label` is how many cells to choose for labelling, and `against` the earlier images to compare
    with. Raises ManifestError where fewer than 20 images can be read.
    """
    seen = _look(classifier, inputs.images, um_per_pixel, progress)
    if len(seen.paths) < LEAST_IMAGES:
        why = f" ({seen.unreadable[0]})" if seen.unreadable else ""
        why += f"; {len(seen.masks)} look like segmentation masks" if seen.masks else ""
        raise ManifestError(
            f"{folder}: {len(seen.paths)} images can be read{why}; a survey needs {LEAST_IMAGES}"
        )
    return _summarise(classifier, seen, len(inputs.images), folder, label, against)


def _summarise(
    classifier: Classifier,
    seen: _Seen,
    found: int,
    folder: str,
    label: int,
    against: Reference | None,
) -> Survey:
    """The survey of what was seen, of so many images that were found."""
    card, first = classifier.card, [views[0] for views in seen.views]
    named = np.array([card.classes.index(prediction.label or "") for prediction in first])
    home = None if card.uncertainty is None else card.uncertainty.style
    style, uncertain = seen.style, [p.uncertainty for p in first if p.uncertainty is not None]
    to_review = wilson(sum(one.review for one in uncertain), len(uncertain))
    expected = expect_accuracy(seen.views, classifier)
    drift = None if against is None else detect_drift(against.style, against.named, style, named)
    return Survey(
        folder=folder,
        model=card.name,
        found=found,
        surveyed=len(seen.paths),
        unreadable=tuple(seen.unreadable),
        kinds=_count(seen.kinds),
        given=float(np.median(seen.widths)) if seen.widths else None,
        style=style_of(style),
        home=home,
        differences="" if home is None else style_differences(style, home),
        laboratories=_count([str(one.laboratory) for one in uncertain if one.laboratory]),
        per_class={name: int((named == k).sum()) for k, name in enumerate(card.classes.names)},
        to_review=to_review,
        reasons=_count([reason for one in uncertain for reason in one.review_reasons]),
        expected=expected,
        advice=advise(expected, to_review, card, drift),
        to_label=_to_label(classifier, seen, named, label),
        drift=drift,
        measures=style,
        named=tuple(named.tolist()),
        provenance=provenance(),
        masks=tuple(seen.masks),
    )


def _count(words: Sequence[str]) -> dict[str, int]:
    """How often each word is there, the most frequent first."""
    return dict(Counter(words).most_common())


@dataclass
class _Seen:
    """What was read of the images, one after the other."""

    paths: list[str]
    images: list[ImageArray]
    views: list[list[Prediction]]
    kinds: list[str]
    widths: list[float]
    unreadable: list[str]
    masks: list[str]

    @property
    def style(self) -> FloatArray:
        return measure_style(np.stack(self.images))


def _look(
    classifier: Classifier,
    paths: Sequence[str],
    um_per_pixel: float | None,
    progress: ProgressCallback | None,
) -> _Seen:
    """Reads a random sample of the images and predicts each, some in all eight symmetries."""
    drawn = np.random.default_rng(0).permutation(len(paths))[:SAMPLE]
    chosen = [paths[index] for index in drawn]
    seen, spec = _Seen([], [], [], [], [], [], []), classifier.card.input
    for done, path in enumerate(chosen, 1):
        try:
            picture = decode(path)
            if is_mask(picture):
                seen.masks.append(path)
                continue
            seen.images.append(spec.apply(picture, um_per_pixel))
        except ImageError as error:
            seen.unreadable.append(f"{path}: {error}")
            continue
        seen.paths.append(path)
        suffix = path.rsplit(".", 1)[-1].lower()
        seen.kinds.append(f"{suffix}, {picture.width} × {picture.height} pixels")
        if spec.microns is not None:
            seen.widths.append(spec.microns / spec.side(picture, um_per_pixel))
        if len(seen.images) - len(seen.views) == BATCH or done == len(chosen):
            _predict(classifier, seen)
        if progress is not None:
            progress(done, len(chosen))
    _predict(classifier, seen)
    return seen


def _predict(classifier: Classifier, seen: _Seen) -> None:
    """Predicts the images that are read but not yet predicted."""
    batch = seen.images[len(seen.views) :]
    if batch:
        ways = symmetries(np.stack(batch)) if len(seen.views) < TURNED else [np.stack(batch)]
        looks = [predict_loaded(classifier, images, False) for images in ways]
        seen.views += [list(views) for views in zip(*looks, strict=True)]


def expect_accuracy(
    views: Sequence[Sequence[Prediction]], classifier: Classifier
) -> ExpectedAccuracy:
    """The share of cells whose views all have one label, with an interval."""
    turned = [each for each in views if len(each) > 1]
    alike = [len({prediction.label for prediction in each}) == 1 for each in turned]
    counted = wilson(sum(alike), len(alike))
    assert counted.value is not None
    assert counted.low is not None
    assert counted.high is not None
    fallback = classifier.bundle.fallback
    error = (classifier.card if fallback is None else fallback.card).agreement_error
    more = 0.0 if error is None else 2 * error
    return ExpectedAccuracy(
        counted.value,
        max(0.0, counted.value - math.hypot(counted.value - counted.low, more)),
        min(1.0, counted.value + math.hypot(counted.high - counted.value, more)),
        error,
    )


def advise(
    expected: ExpectedAccuracy, to_review: Proportion, card: Card, drift: Drift | None = None
) -> str:
    """What to do, in a sentence or two."""
    much = to_review.value is not None and to_review.value > 0.25
    if expected.value < POOR:
        return (
            "Hardly suitable as it is: fewer than half of the cells are named alike whichever way "
            "up they are seen. Check the scale and that each image shows one cell in its middle; "
            "then label cells and adapt, and measure the result with 'hemascope evaluate'."
        )
    if expected.value >= FINE and not much and drift is not None and drift.alarm:
        return (
            "Cells are named alike whichever way up they are seen, but the images have changed: "
            "find out why, and label some cells to be sure that the model still names them rightly."
        )
    if expected.value >= FINE and not much:
        return "Fine as it is, as far as can be told without labels. Label some cells to be sure."
    again = "Add cells and adapt again" if card.adaptation is not None else "Adapt first"
    return (
        f"{again}: label about ten cells of each class, such as those that --label 40 chooses, and "
        "run 'hemascope adapt'. Then survey again."
    )


def _to_label(
    classifier: Classifier, seen: _Seen, named: np.ndarray, k: int
) -> tuple[tuple[str, str], ...]:
    """The images to label and what each is named, by the network that `adapt` would fit."""
    if not k:
        return ()
    network = classifier.fallback or classifier
    batches = [seen.images[start : start + BATCH] for start in range(0, len(seen.images), BATCH)]
    features = np.concatenate([network.outputs(np.stack(batch)).features for batch in batches])
    chosen = choose_cells(features, named, k)
    names = classifier.card.classes.names
    return tuple((seen.paths[index], names[named[index]]) for index in chosen)
