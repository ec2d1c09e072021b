"""What Hemascope hands back: frozen dataclasses that become JSON and come back from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RESEARCH_USE_ONLY = "For research use only. Not for use in diagnostic procedures."


@dataclass(frozen=True)
class Proportion:
    """`successes` of `n`, with its 95 % interval, Wilson's or the exact one; None where n is 0."""

    successes: int
    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Estimate:
    """A figure measured on n images, with its 95 % bootstrap interval; None where undefined."""

    value: float | None
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Interval:
    """A figure between the limits of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassMetrics:
    """One class's figures. `auroc` is one against the rest."""

    label: str
    precision: Proportion
    recall: Proportion
    f1: Estimate
    auroc: Estimate


@dataclass(frozen=True)
class SubtypeMetrics:
    """Recall among the images of one subtype, such as the band neutrophils."""

    label: str
    subtype: str
    recall: Proportion


@dataclass(frozen=True)
class Mistake:
    """An image whose predicted class is not its label."""

    path: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of like confidence: their mean confidence, and how many of them were right."""

    confidence: float
    accuracy: Proportion


@dataclass(frozen=True)
class Calibration:
    """Whether probabilities mean what they say; the bins hold equally many images."""

    expected_calibration_error: Estimate
    brier: Estimate
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class SetMetrics:
    """How often prediction sets held the label, over all and by class, and how large they were."""

    coverage: Proportion
    per_class: tuple[Proportion, ...]
    mean_size: Estimate
    empty: Proportion


@dataclass(frozen=True)
class UncertaintyMetrics:
    """How far a calibrated model's statements about its predictions held.

    `uncalibrated` is of the probabilities as the network gave them. `accuracy_of_rest` is of the
    images that were not sent to review. `risk_coverage` are points (share of the images that is
    predicted, most confident first; share of mistakes among them).
    """

    calibrated_on: str
    uncalibrated: Calibration
    calibrated: Calibration
    sets: SetMetrics
    class_conditional_sets: SetMetrics
    reviewed: Proportion
    review_reasons: dict[str, Proportion]
    accuracy_of_rest: Proportion
    in_distribution: Proportion
    accuracy_in_distribution: Proportion
    risk_coverage: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ChoiceMetrics:
    """How a bundle did on cells of the shared classes, when it chose among `classes`.

    `confusion` counts labels (rows, the shared classes) against predicted classes (columns).
    """

    classes: tuple[str, ...]
    accuracy: Proportion
    balanced_accuracy: Estimate
    mean_confidence: Estimate
    expected_calibration_error: Estimate
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Quartiles:
    """A statistic of n images: their median, between the lower and the upper quartile."""

    low: float
    median: float
    high: float
    n: int


@dataclass(frozen=True)
class Appearance:
    """One image statistic of a site, and of the reference laboratory's images if there are any.

    `effect` is the difference of the medians in units of the reference's interquartile range
    (of at least one grey level).
    """

    name: str
    unit: str
    site: Quartiles
    reference: Quartiles | None = None
    effect: float | None = None


@dataclass(frozen=True)
class SiteMetrics:
    """How a bundle did at a site, whose cells may be of some of its classes only.

    `shared` are the bundle's classes with enough cells there, and `n` counts the cells of these;
    `cells` counts all, by label. `um_per_pixel` is the median over the cells. `appearance` is
    compared with that of the `reference`, if there is one.
    """

    title: str
    address: str
    scale: str
    um_per_pixel: float
    cells: dict[str, int]
    shared: tuple[str, ...]
    n: int
    among_all: ChoiceMetrics
    among_shared: ChoiceMetrics
    appearance: tuple[Appearance, ...] = ()
    reference: str = ""


@dataclass(frozen=True)
class AgreementMetrics:
    """How often two say the same of one attribute, by their shares of values and beyond chance."""

    accuracy: Proportion
    macro_f1: Estimate
    kappa: Estimate


@dataclass(frozen=True)
class AttributeMetrics:
    """How a model does on one attribute, and how a second annotator does, who is its ceiling.

    `commonest` is how many cells have the commonest value; `annotator` is None without a second
    annotator.
    """

    name: str
    model: AgreementMetrics
    commonest: Proportion
    annotator: AgreementMetrics | None = None


@dataclass(frozen=True)
class MeanMetrics:
    """Means over all attributes."""

    accuracy: Estimate
    macro_f1: Estimate
    kappa: Estimate


@dataclass(frozen=True)
class MaturationMetrics:
    """Subtypes of the maturation line, in its order.

    `confusion` (S,S+1) counts cells by labelled and named stage; the last column is of those named
    as another class. `mean_distance` is in stages, of the cells that are named within the line.
    """

    stages: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    right: Proportion
    mean_distance: Estimate


@dataclass(frozen=True)
class ContradictionMetrics:
    """Cells whose attributes contradict their class: how many, and how many of the mistakes.

    `of_right` are those among the rightly named cells of described classes, `of_mistakes` among the
    wrongly named, and `alone` those wrongly named that nothing else sends to review.
    """

    of_right: Proportion
    of_mistakes: Proportion
    alone: Proportion


@dataclass(frozen=True)
class MorphologyMetrics:
    """How a model does on attributes and subtypes; a part is empty or None where nothing is known.

    The recall of a subtype counts a cell that is named as another class as missed.
    """

    fitted_on: str
    attributes: tuple[AttributeMetrics, ...]
    mean: MeanMetrics | None
    annotator_mean: MeanMetrics | None
    contradictions: ContradictionMetrics | None
    per_subtype: tuple[SubtypeMetrics, ...]
    maturation: MaturationMetrics | None


@dataclass(frozen=True)
class Evaluation:
    """How a bundle did on labelled images; every figure has its n and its 95 % interval.

    Parameters
    ----------
    name
        What the images are called.
    class_names
        The model's classes, in the order of `per_class` and `confusion`.
    n
        Number of images that could be read.
    accuracy, balanced_accuracy, macro_f1, macro_auroc, expected_calibration_error
        Figures over all images.
    per_class, per_subtype
        Figures for each class, and the recall of each subtype.
    confusion
        Counts (C,C): row = label, column = predicted class.
    mistakes
        Images whose predicted class is not their label, most confident first.
    unreadable
        "path: reason" of each image that is left out of every figure.
    provenance
        Versions, commit, device, and hashes of the images and the model.
    uncertainty
        How far a calibrated model's statements held; None for another.
    site
        The figures of another laboratory's cells; None for other images.
    among_present
        The figures when the model chooses among the classes that occur among the labels only; None
        where all of its classes occur, or one only.
    morphology
        The figures of attributes and subtypes; None where they were not measured.

    Examples
    --------
    >>> from hemascope import Classifier, Evaluation, evaluate, open_manifest
    >>> from hemascope.serialization import from_json, to_json
    >>> found = evaluate(Classifier(), open_manifest("cells"), "drawn cells")
    >>> from_json(to_json(found), Evaluation) == found
    True
    """

    name: str
    class_names: tuple[str, ...]
    n: int
    accuracy: Proportion
    balanced_accuracy: Estimate
    macro_f1: Estimate
    macro_auroc: Estimate
    expected_calibration_error: Estimate
    per_class: tuple[ClassMetrics, ...]
    per_subtype: tuple[SubtypeMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    mistakes: tuple[Mistake, ...]
    unreadable: tuple[str, ...]
    provenance: dict[str, Any]
    uncertainty: UncertaintyMetrics | None = None
    site: SiteMetrics | None = None
    among_present: ChoiceMetrics | None = None
    morphology: MorphologyMetrics | None = None

    @property
    def present(self) -> tuple[str, ...]:
        """The classes that occur among the labels."""
        return tuple(scores.label for scores in self.per_class if scores.recall.n)


@dataclass(frozen=True)
class LabelIssue:
    """An image whose label is probably wrong, and what a network that never saw it says."""

    path: str
    label: str
    suggested: str
    probability_of_label: float
    probability_of_suggested: float


@dataclass(frozen=True)
class Audit:
    """Labels of n images that are probably wrong, the likeliest first.

    `agreed` counts the images that are predicted as labelled. `pairs` counts the issues by
    "label → suggested". `unreadable` holds "path: reason".
    """

    name: str
    n: int
    agreed: int
    issues: tuple[LabelIssue, ...]
    pairs: dict[str, int]
    unreadable: tuple[str, ...]
    provenance: dict[str, str]
